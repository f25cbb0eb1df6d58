"""How several workers divide the limits of a process between them, so that nothing has to be locked."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from hyperdrive.config.settings import Settings
from hyperdrive.errors import ConfigError


def share(settings: Settings, number: int, count: int) -> Settings:
    """The part of worker *number*: limits are divided so that all parts together are what was configured; 0 stays no limit.

    Raises:
        ConfigError: a limit is smaller than the number of workers.
    """

    def part(total: int, key: str, *, least: int = 1) -> int:
        if 0 < total < count and least:
            raise ConfigError(f"workers: {count} workers cannot share {key} = {total}; each needs at least 1")
        return total // count + (number < total % count)

    def maybe_part(total: int | None, key: str, *, least: int = 1) -> int | None:
        return None if total is None else part(total, key, least=least)

    databases = {
        name: replace(
            own,
            pool_size=maybe_part(own.pool_size, f"databases.{name}.pool_size"),
            min_pool_size=maybe_part(own.min_pool_size, f"databases.{name}.min_pool_size", least=0),
            max_db_connections=maybe_part(own.max_db_connections, f"databases.{name}.max_db_connections"),
        )
        for name, own in settings.databases.items()
    }
    users = {
        name: replace(
            own, max_user_connections=maybe_part(own.max_user_connections, f"users.{name}.max_user_connections")
        )
        for name, own in settings.users.items()
    }
    return replace(
        settings,
        pool_size=part(settings.pool_size, "pool_size"),
        min_pool_size=part(settings.min_pool_size, "min_pool_size", least=0),
        max_client_connections=part(settings.max_client_connections, "max_client_connections"),
        max_db_connections=part(settings.max_db_connections, "max_db_connections"),
        max_user_connections=part(settings.max_user_connections, "max_user_connections"),
        max_server_connections=part(settings.max_server_connections, "max_server_connections"),
        cache_size=part(settings.cache_size, "cache_size"),
        cache_entry_size=min(settings.cache_entry_size, settings.cache_size // count),
        databases=MappingProxyType(databases),
        users=MappingProxyType(users),
    )
