"""Settings: what there are (``settings``), how they are written (``units``), where they come from (``loader``)."""

from hyperdrive.config.loader import Loader, Reload, loader_for
from hyperdrive.config.settings import DatabaseSettings, Settings, UserSettings
from hyperdrive.config.units import Address

__all__ = ["Address", "DatabaseSettings", "Loader", "Reload", "Settings", "UserSettings", "loader_for"]
