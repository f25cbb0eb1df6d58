"""Another client of the pool that uses every name and setting a script may rely on, and checks that it hears its own."""

from __future__ import annotations

from itertools import count

from hyperdrive.testing.frontend import bind, close_statement, describe_statement, execute, parse, query, sync
from hyperdrive.testing.wire import WireConnection


class Disturber:
    """Call it wherever a server may change hands."""

    def __init__(self, conn: WireConnection) -> None:
        self.conn, self.turns = conn, count(1)

    async def __call__(self) -> None:
        turn = next(self.turns)
        mine = f"disturber {turn}"
        prepare = parse(f"select '{mine}'::text, 's1'", "s1") + describe_statement("s1") + bind("s1") + execute()
        replies = await self.conn.scope(
            prepare
            + close_statement("s1")
            + sync()
            + query(
                "set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set search_path = pg_catalog; set work_mem = '1MB'"
            )
            + parse(f"select '{mine}'::text")
            + sync()
            + query("begin; select 1 / 0")
            + query("rollback")
            + query(f"select '{mine}', current_setting('TimeZone')"),
            ready=6,
        )
        assert replies.rows == [(mine, "s1"), (mine, "Asia/Tokyo")], replies
        assert replies.errors == ["22012"], replies
