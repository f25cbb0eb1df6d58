"""Hyperdrive: a PostgreSQL proxy that makes a distant database feel local."""

__version__ = "0.1.0"
