"""Settings: what there are (``settings``, and for single users, databases and tables ``entries``), how they are written (``units``,
``kinds``), where they come from (``loader``), how workers divide them (``shares``).
"""

from hyperdrive.config.entries import DatabaseSettings, UserSettings
from hyperdrive.config.loader import Loader, Reload, loader_for
from hyperdrive.config.settings import Settings
from hyperdrive.config.units import Address

__all__ = ["Address", "DatabaseSettings", "Loader", "Reload", "Settings", "UserSettings", "loader_for"]
