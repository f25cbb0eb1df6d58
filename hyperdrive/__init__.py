"""Hyperdrive: a PostgreSQL proxy that makes a distant database feel local.

``hyperdrive.Pool`` is the proxy as a library; everything else is reached by the command line.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperdrive.embed import Pool

__version__ = "0.1.0"
__all__ = ["Pool", "__version__"]


def __getattr__(name: str) -> Any:
    # Lazily: the packages below must not be loaded, nor depend on what is above them, when only one of them is wanted.
    if name == "Pool":
        from hyperdrive.embed import Pool

        return Pool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
