"""A tiny Django application for the driver program."""
