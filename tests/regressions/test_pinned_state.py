"""What a client keeps at its server stays there, whatever else it runs: nothing is reset under a pinned client."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import extended, query, sync
from hyperdrive.testing.scene import Scene
from hyperdrive.testing.transcript import transcript
from hyperdrive.testing.wire import WireConnection

S = sync()

FUNCTION = """create or replace function own_function() returns text language plpgsql as
$$ begin perform set_config('work_mem', '3MB', false); return 'called'; end $$"""

PINS = {
    "a temporary table": ["create temp table own (a int)", "select count(*) from own"],
    "listen": ["listen channel", "select pg_listening_channels()"],
    "a lock": [
        "select pg_advisory_lock(7)",
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    ],
    "prepare": ["prepare p as select 'p'", "execute p"],
    "a held cursor": ["declare c cursor with hold for select generate_series(1, 9)", "fetch 2 from c"],
}

UNSEEN = {
    "a function": [query("select own_function()")],
    "a function, extended": [extended("select own_function()") + S],
    "do": [query("do $$ begin perform set_config('work_mem', '3MB', false); end $$")],
    "in a transaction": [query("begin"), query("select own_function()"), query("commit")],
    "rolled back": [query("begin"), query("select own_function()"), query("rollback")],
}

BEHIND = [
    query("show work_mem"),
    query("set work_mem = '5MB'"),
    query("show work_mem"),
    query("select own_function()"),
    query("begin"),
    query("set work_mem = '6MB'"),
    query("show work_mem"),
    query("rollback"),
    query("show work_mem"),
    query("reset work_mem"),
    query("show work_mem"),
    query("set work_mem = '5MB'"),
    query("show work_mem"),
]


async def conversation(conn: WireConnection, pin: str, unseen: str) -> list[str]:
    begin, use = PINS[pin]
    lines = []
    for data in (query("set work_mem = '2MB'"), query(begin), *UNSEEN[unseen], query(use), *BEHIND, query(use)):
        lines += transcript(await conn.scope(data))
    return lines


@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize("pin", PINS)
async def test_settings_changed_unseen_cost_a_pinned_client_nothing(scene: Scene, pin: str, unseen: str) -> None:
    await scene.sql(FUNCTION)
    await scene.start(servers=1)
    direct = await scene.direct()
    expected = await conversation(direct, pin, unseen)
    await direct.close()
    a = await scene.client()
    await a.query("set work_mem = '5MB'")  # known to be accepted from here on
    await a.query("reset work_mem")
    assert expected == await conversation(a, pin, unseen)
    await a.query("discard all")
    other = await scene.client()
    assert await other.value("show work_mem") == "4MB"


@pytest.mark.parametrize("unseen", UNSEEN)
async def test_session_pooling_resets_nothing_under_its_client(scene: Scene, unseen: str) -> None:
    await scene.sql(FUNCTION)
    expected = await conversation(await scene.direct(), "a temporary table", unseen)
    await scene.start(servers=1, pool_mode="session")
    a = await scene.client()
    assert expected == await conversation(a, "a temporary table", unseen)
    await a.close()
    other = await scene.client()
    assert await other.value("show work_mem") == "4MB"
    assert (await other.query("select * from own")).errors == ["42P01"]
