"""The proxy as the console sees it: one process, or all workers together.

Rows of other workers are asked for in ``refresh`` and kept until the next one; commands go to all workers. What does not
answer is left out with a warning: it is about to be started anew. Knows rows and peers; knows no socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from hyperdrive.admin.state import (
    CacheRow,
    ConfigRow,
    ConnectionRow,
    DatabaseRow,
    MemoryRow,
    ShapeRow,
    StatementRow,
    StatsRow,
    TableRow,
    UserRow,
)
from hyperdrive.config.settings import Settings, shown
from hyperdrive.control.actions import LocalActions
from hyperdrive.control.peers import Peer
from hyperdrive.control.rows import LocalRows
from hyperdrive.errors import ClientError, ConfigError, NotReady
from hyperdrive.metrics import Family, add_up
from hyperdrive.pool.snapshot import PoolSnapshot
from hyperdrive.tasks import spawn

CANCEL_SECONDS = 30.0
"""How long a cancel request may take to the origin, by way of another worker."""

log = logging.getLogger("hyperdrive.control")

T = TypeVar("T")

ROWS: Mapping[str, type[Any]] = {
    "pools": PoolSnapshot,
    "clients": ConnectionRow,
    "servers": ConnectionRow,
    "stats": StatsRow,
    "databases": DatabaseRow,
    "users": UserRow,
    "statements": StatementRow,
    "memory": MemoryRow,
    "cache": CacheRow,
    "tables": TableRow,
    "shapes": ShapeRow,
}
# Limits in rows are those of the whole already.
_DATABASE_LIMITS = (
    "port",
    "pool_size",
    "min_pool_size",
    "server_lifetime",
    "max_connections",
    "is_paused",
    "is_disabled",
)
_LARGEST = frozenset({"hyperdrive_max_wait_seconds", "hyperdrive_ready", "hyperdrive_build_info"})
"""Gauges of which a sum over workers says nothing."""


@dataclass
class _Report:
    """What one other worker said."""

    worker: int
    missing: str = ""
    rows: dict[str, list[Any]] = field(default_factory=dict)
    login_clients: int = 0
    families: list[Family] = field(default_factory=list)


async def _nobody(worker: int) -> None:
    """There is no other worker."""


class Control:
    """Implements ``admin.state.ConsoleState``. *settings* are those of the whole, not this worker's share."""

    def __init__(
        self,
        rows: LocalRows,
        actions: LocalActions,
        settings: Callable[[], Settings],
        owner: str,
        peers: Sequence[Peer] = (),
    ) -> None:
        self.rows = rows
        self.actions = actions
        self._settings = settings
        self._owner = owner
        self._peers = peers
        self._others: list[_Report] = []
        self.link: Callable[[int], Awaitable[None]] = _nobody
        """``link(worker)`` connects to another worker to tell it what changes here."""

    # --- the others ---------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        if self._peers:
            found = await asyncio.gather(*(self._ask(peer) for peer in self._peers))
            self._others = [report for report in found if report is not None]

    async def _ask(self, peer: Peer) -> _Report | None:
        try:
            reply = await peer.call(do="report")
        except NotReady as error:
            log.warning("! %s", error.log_text)
            return None
        rows = {name: [row_type(**row) for row in reply[name]] for name, row_type in ROWS.items()}
        families = [
            Family(name, kind, doc, {tuple(map(tuple, labels)): value for labels, value in samples})
            for name, kind, doc, samples in reply["families"]
        ]
        return _Report(peer.worker, reply["missing"], rows, reply["login_clients"], families)

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """A request of another worker."""
        match request:
            case {"do": "report"}:
                return self._report()
            case {"do": "cancel", "pid": int(pid), "key": str(key)}:
                delivery = self.rows.proxy.cancel(pid, bytes.fromhex(key), forwarded=True)
                if delivery is not None:
                    await asyncio.wait([delivery])
            case {"do": "act", "action": str(action), "database": database}:
                await self.actions.do(action, database)
            case {"do": "purge", "what": str(what), "name": str(name)}:
                return {"count": self.actions.purge(what, name)}
            case {"do": "kill_client", "id": int(number)}:
                return {"found": self.actions.kill_client(number)}
            case {"do": "link", "worker": int(worker)}:
                await self.link(worker)
            case {"do": "reload"}:
                return {"notice": await self.actions.reload()}
            case {"do": "shutdown", "how": str(how)}:
                self.actions.shut_down(how)
            case {"do": "standing"}:
                return self.actions.standing()
        return {}

    def _report(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: [asdict(row) for row in getattr(self.rows, name)()] for name in ROWS}
        found["missing"] = self.rows.readiness()
        found["login_clients"] = len(self.rows.proxy.doors)
        found["families"] = [
            (family.name, family.kind, family.doc, list(family.samples.items())) for family in self.rows.families()
        ]
        return found

    def forward_cancel(self, worker: int, pid: int, key: bytes) -> asyncio.Future[None] | None:
        """A cancel request came here, but its client is another worker's."""
        for peer in self._peers:
            if peer.worker == worker:
                return spawn(self._forward_cancel(peer, pid, key), name="forward a cancel request")
        return None

    @staticmethod
    async def _forward_cancel(peer: Peer, pid: int, key: bytes) -> None:
        try:
            await peer.call(CANCEL_SECONDS, do="cancel", pid=pid, key=key.hex())
        except NotReady as error:
            log.warning("! a cancel request is lost: %s", error.log_text)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def readiness(self) -> str:
        return next((why for why in [self.rows.readiness(), *(report.missing for report in self._others)] if why), "")

    def is_admin(self, user: str) -> bool:
        return user == self._owner or user in self._settings().admin_users

    def may_look(self, user: str) -> bool:
        return user in self._settings().stats_users

    def _all(self, name: str) -> list[Any]:
        rows = list(getattr(self.rows, name)())
        for report in self._others:
            rows += report.rows[name]
        return rows

    def pools(self) -> Iterable[PoolSnapshot]:
        return _merge(self._all("pools"), ("database", "user"), largest=("maxwait", "last_error"))

    def clients(self) -> Iterable[ConnectionRow]:
        return self._all("clients")

    def servers(self) -> Iterable[ConnectionRow]:
        return self._all("servers")

    def stats(self) -> Iterable[StatsRow]:
        return _merge(self._all("stats"), ("database",))

    def databases(self) -> Iterable[DatabaseRow]:
        return _merge(self._all("databases"), ("name",), largest=_DATABASE_LIMITS)

    def users(self) -> Iterable[UserRow]:
        return _merge(self._all("users"), ("name",), largest=("max_connections",))

    def config(self) -> Iterable[ConfigRow]:
        return [ConfigRow(*row) for row in shown(self._settings())]

    def statements(self) -> Iterable[StatementRow]:
        return _merge(self._all("statements"), ("database", "user", "sql"))

    def memory(self) -> Iterable[MemoryRow]:
        return _merge(self._all("memory"), ("name",))

    def cache(self) -> Iterable[CacheRow]:
        return _merge(self._all("cache"), ("database",), largest=("epoch", "state"))

    def tables(self) -> Iterable[TableRow]:
        return _merge(self._all("tables"), ("database", "name"), largest=("rung", "bound_seconds", "is_cached"))

    def shapes(self) -> Iterable[ShapeRow]:
        return _merge(self._all("shapes"), ("database", "sql", "verdict", "rule", "object"))

    def lists(self) -> Mapping[str, int]:
        pools = list(self.pools())
        free = sum(p.sv_idle + p.sv_used + p.sv_tested for p in pools)
        return {
            "databases": len(list(self.databases())),
            "users": len(list(self.users())),
            "pools": len(pools),
            "used_clients": len(list(self.clients())),
            "login_clients": len(self.rows.proxy.doors) + sum(report.login_clients for report in self._others),
            "free_servers": free,
            "used_servers": sum(p.sv_active for p in pools),
            "workers": 1 + len(self._peers),
        }

    def families(self) -> list[Family]:
        """The metrics of all workers, added up; of one that was started anew they begin at 0."""
        parts = [self.rows.families(), *(report.families for report in self._others)]
        total = add_up(parts)
        for family in total:
            if family.name in _LARGEST:
                for labels in family.samples:
                    family.samples[labels] = max(
                        one.samples.get(labels, 0.0) for part in parts for one in part if one.name == family.name
                    )
        return total

    # --- commands -----------------------------------------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Hold to what was commanded before this worker began. To be awaited before clients are let in, and when others can reach it."""
        given = -1
        while given != self.actions.given:
            given = self.actions.given
            found = await asyncio.gather(*(peer.call(do="standing") for peer in self._peers), return_exceptions=True)
            for standing in found:
                # Who does not answer is not there, or begins as well.
                if not isinstance(standing, BaseException) and given == self.actions.given:
                    await self.actions.take_over(standing)

    async def _everywhere(self, action: str, database: str | None) -> None:
        if database is not None:
            await self.refresh()
            if not any(database in (row.name, row.origin_database) for row in self.databases()):
                raise ClientError(
                    f'no such database: "{database}"',
                    sqlstate="3D000",
                    hint="SHOW DATABASES lists those that are configured or in use.",
                )
        await asyncio.gather(
            self.actions.do(action, database),
            *(peer.call(None, do="act", action=action, database=database) for peer in self._peers),
        )

    async def pause(self, database: str | None) -> None:
        await self._everywhere("pause", database)

    async def resume(self, database: str | None) -> None:
        await self._everywhere("resume", database)

    async def reconnect(self, database: str | None) -> None:
        await self._everywhere("reconnect", database)

    async def kill(self, database: str | None) -> None:
        await self._everywhere("kill", database)

    async def disable(self, database: str) -> None:
        await self._everywhere("disable", database)

    async def enable(self, database: str) -> None:
        await self._everywhere("enable", database)

    async def purge(self, what: str, name: str) -> int:
        count = self.actions.purge(what, name)
        replies = await asyncio.gather(*(peer.call(do="purge", what=what, name=name) for peer in self._peers))
        return count + sum(int(reply["count"]) for reply in replies)

    async def kill_client(self, client_id: int) -> bool:
        if self.actions.kill_client(client_id):
            return True
        replies = await asyncio.gather(*(peer.call(do="kill_client", id=client_id) for peer in self._peers))
        return any(reply["found"] for reply in replies)

    async def reload(self) -> str:
        notice = await self.actions.reload()
        try:
            await asyncio.gather(*(peer.call(do="reload") for peer in self._peers))
        except NotReady as error:
            raise ConfigError(error.client_text) from error
        return notice

    async def shutdown(self, wait_for: str) -> None:
        await asyncio.gather(*(peer.call(do="shutdown", how=wait_for) for peer in self._peers), return_exceptions=True)
        self.actions.shut_down(wait_for)


def _merge(rows: list[T], key: tuple[str, ...], largest: tuple[str, ...] = ()) -> list[T]:
    """One row per *key*: numbers are added up, those in *largest* compared, and the rest is the first row's."""
    found: dict[tuple[Any, ...], T] = {}
    for row in rows:
        identity = tuple(getattr(row, name) for name in key)
        before = found.get(identity)
        if before is None:
            found[identity] = row
            continue
        changed: dict[str, Any] = {}
        for one in fields(row):  # type: ignore[arg-type]  # all rows are dataclasses
            old, new = getattr(before, one.name), getattr(row, one.name)
            if one.name in largest:
                changed[one.name] = max(old, new)
            elif one.name not in key and isinstance(new, (int, float)) and isinstance(old, (int, float)):
                changed[one.name] = old + new
        found[identity] = replace(before, **changed)  # type: ignore[type-var]
    return list(found.values())
