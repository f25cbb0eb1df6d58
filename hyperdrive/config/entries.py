"""What may differ for one database, one user or some tables: the tables ``[databases]``, ``[users]`` and ``[tables]``."""

from __future__ import annotations

from dataclasses import dataclass, field

from hyperdrive.config.kinds import POOL_MODE
from hyperdrive.config.meaning import Meaning, meanings, setting
from hyperdrive.config.units import DURATION, FLAG, TEXT, whole


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """``[databases.NAME]``: what differs for clients that ask for database NAME; ``None`` means as for all."""

    dbname: str = setting(TEXT, "", "The database at the origin; the same name if left out.")
    pool_mode: str | None = setting(POOL_MODE, None, "When a client gives its server back.", live=True)
    pool_size: int | None = setting(whole(1, 10000), None, "Most server connections per user.", live=True)
    min_pool_size: int | None = setting(whole(0, 10000), None, "Server connections kept ready.", live=True)
    max_db_connections: int | None = setting(
        whole(0), None, "Most server connections of this database, for all its users; 0 is no limit.", live=True
    )
    cache: bool | None = setting(FLAG, None, "Whether the cache has a part in what clients ask here.", live=True)


@dataclass(frozen=True, slots=True)
class TableSettings:
    """``[tables."PATTERN"]``: what differs for reads of the relations whose ``schema.name`` matches; ``None`` means as for all."""

    max_age: float | None = setting(DURATION, None, "How old an answer may be.", live=True)
    stale_while_revalidate: float | None = setting(
        DURATION, None, "How much older while it is being asked for again.", live=True
    )
    stale_if_error: float | None = setting(
        DURATION, None, "How much older while the database cannot be reached.", live=True
    )
    cache: bool | None = setting(FLAG, None, "Whether reads of it are cached at all.", live=True)


@dataclass(frozen=True, slots=True)
class UserSettings:
    """``[users]``: who may log in besides the user of ``origin``; ``NAME = "…"`` is short for ``password``."""

    password: str = field(
        default="",
        repr=False,
        metadata={
            "meaning": Meaning(
                TEXT,
                "The password, or what PostgreSQL stores of it (`SCRAM-SHA-256$…`, `md5…`).",
                "",
                True,
            )
        },
    )
    pool_mode: str | None = setting(POOL_MODE, None, "When a client of this user gives its server back.", live=True)
    max_user_connections: int | None = setting(
        whole(0), None, "Most server connections of this user, in all databases; 0 is no limit.", live=True
    )
    cache: bool | None = setting(FLAG, None, "Whether the cache has a part in what this user asks.", live=True)


DATABASE_MEANINGS = meanings(DatabaseSettings)
USER_MEANINGS = meanings(UserSettings)
TABLE_MEANINGS = meanings(TableSettings)
