"""Commands of the console, their answers, and who may give them."""

from __future__ import annotations

import pytest
from fake_state import FakeState
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.admin.console import Console, Done, Right, Rows, split
from hyperdrive.admin.state import StatsRow
from hyperdrive.clock import ManualClock
from hyperdrive.errors import AuthenticationFailed, ClientError, ConfigError


@pytest.fixture
def state() -> FakeState:
    return FakeState()


@pytest.fixture
def console(state: FakeState) -> Console:
    return Console(state, ManualClock())


async def show(console: Console, what: str, user: str = "boss") -> list[dict[str, object]]:
    answer = await console.execute(f"SHOW {what}", user)
    assert isinstance(answer, Rows)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


# The names and their order are PgBouncer's: exporters and dashboards read them by name, people by place.
PGBOUNCER = {
    "POOLS": "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel"
    " sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
    "DATABASES": "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode"
    " load_balance_hosts max_connections current_connections max_client_connections current_client_connections paused"
    " disabled",
    "STATS_TOTALS": "database total_server_assignment_count total_xact_count total_query_count total_received total_sent"
    " total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count total_bind_count",
    "STATS_AVERAGES": "database avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time"
    " avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
    "CLIENTS": "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us"
    " close_needed ptr link remote_pid tls application_name prepared_statements id",
    "LISTS": "list items",
    "CONFIG": "key value default changeable",
    "MEM": "name size used free memtotal",
    "VERSION": "version",
}


@pytest.mark.parametrize("name", PGBOUNCER)
async def test_columns_are_pgbouncers_and_ours_come_last(console: Console, name: str) -> None:
    theirs = tuple(PGBOUNCER[name].split())
    assert console.views[name].columns[: len(theirs)] == theirs


async def test_every_show_has_a_value_for_each_column_of_its_type(console: Console) -> None:
    for name, view in console.views.items():
        rows = await show(console, name)
        assert rows, name
        for column, value in ((c, v) for row in rows for c, v in row.items()):
            assert isinstance(value, int if column in view.numbers else str) or value is None, (name, column, value)


async def test_show_pools(console: Console) -> None:
    (pool,) = await show(console, "POOLS")
    expected = {"database": "shop", "user": "app", "cl_waiting": 1, "sv_idle": 4, "maxwait": 1, "maxwait_us": 250_000}
    assert expected.items() <= pool.items()


async def test_clients_and_servers_point_to_each_other(console: Console) -> None:
    client, waiting = await show(console, "CLIENTS")
    (server,) = await show(console, "SERVERS")
    assert (client["ptr"], client["link"]) == (server["link"], server["ptr"]) == ("c17", "s3")
    assert (waiting["link"], waiting["wait"], waiting["wait_us"]) == ("", 2, 500_000)
    assert client["connect_time"] == "2023-11-14 22:13:20 UTC"


async def test_lists_have_all_of_pgbouncers_names_and_ours_behind(console: Console) -> None:
    found = {row["list"]: row["items"] for row in await show(console, "LISTS")}
    assert {"databases": 0, "used_clients": 2, "free_servers": 0, "workers": 1}.items() <= found.items()


async def test_averages_are_over_the_last_whole_period() -> None:
    state, clock = FakeState(), ManualClock()
    console = Console(state, clock)

    async def averages() -> tuple[object, object, object]:
        (row,) = await show(console, "STATS")
        return row["avg_xact_count"], row["avg_query_count"], row["avg_query_time"]

    clock.advance(2)
    assert await averages() == (2, 5, 250_000)  # no period has ended: since the start
    clock.advance(8)
    console.period.tick(state)
    state.totals = [StatsRow("shop", transactions=24, queries=50, query_seconds=4.5)]
    clock.advance(10)
    assert await averages() == (0, 1, 250_000)
    console.period.tick(state)
    clock.advance(99)
    assert await averages() == (2, 4, 50_000)


COMMANDS = [
    ("PAUSE", ("pause", None)),
    ("pause shop;", ("pause", "shop")),
    ('PAUSE "My ""Shop"""', ("pause", 'My "Shop"')),
    ("RESUME shop", ("resume", "shop")),
    ("/* tool */ RECONNECT -- now", ("reconnect", None)),
    ("KILL shop", ("kill", "shop")),
    ("KILL_CLIENT 17", ("kill_client", 17)),
    ("KILL_CLIENT c17", ("kill_client", 17)),
    ("DISABLE shop", ("disable", "shop")),
    ("ENABLE shop", ("enable", "shop")),
    ("RELOAD", ("reload", None)),
    ("SHUTDOWN", ("shutdown", "")),
    ("shutdown wait_for_clients", ("shutdown", "clients")),
    ("SHUTDOWN WAIT_FOR_SERVERS", ("shutdown", "servers")),
]


@pytest.mark.parametrize(("sql", "expected"), COMMANDS)
async def test_commands_do_what_they_say(
    console: Console, state: FakeState, sql: str, expected: tuple[str, object]
) -> None:
    answer = await console.execute(sql, "boss")
    assert isinstance(answer, Done)
    assert state.done == [expected]


@pytest.mark.parametrize("sql", [sql for sql, _ in COMMANDS] + ["SHOW STATEMENTS"])
@pytest.mark.parametrize("user", ["watcher", "stranger"])
async def test_rights_are_asked_for_each_command(console: Console, state: FakeState, user: str, sql: str) -> None:
    """CVE-2026-6667: being inside is no right to command."""
    with pytest.raises(ClientError) as caught:
        await console.execute(sql, user)
    assert caught.value.code == "42501"
    assert state.done == []


async def test_every_command_needs_some_right(console: Console) -> None:
    for sql in [*(f"SHOW {name}" for name in console.views), "SHOW HELP", "SELECT 1", "BEGIN", "SET timezone = 'UTC'"]:
        assert console.understand(sql).right >= Right.LOOK
        with pytest.raises(ClientError) as caught:
            await console.execute(sql, "stranger")
        assert caught.value.code == "42501"


async def test_a_right_that_is_taken_away_is_gone_at_once(console: Console, state: FakeState) -> None:
    command = console.understand("PAUSE")
    await console.run(command, "boss")
    state.admins.clear()
    with pytest.raises(ClientError):
        await console.run(command, "boss")


def test_who_may_do_nothing_is_not_let_in(console: Console) -> None:
    console.check_login("boss")
    console.check_login("watcher")
    with pytest.raises(AuthenticationFailed) as caught:
        console.check_login("stranger")
    assert caught.value.code == "28000"


@pytest.mark.parametrize(
    "sql", ["SELECT 2", "SHOW", "SHOW ME", "PAUSE a b", "DISABLE", "KILL_CLIENT x", "SHUTDOWN NOW", "'"]
)
async def test_anything_else_is_refused_with_a_hint(console: Console, state: FakeState, sql: str) -> None:
    with pytest.raises(ClientError) as caught:
        await console.execute(sql, "boss")
    assert (caught.value.code, caught.value.hint is not None, state.done) == ("42601", True, [])


async def test_settings_are_not_set_here(console: Console) -> None:
    with pytest.raises(ClientError, match="cannot be set here"):
        await console.execute("SET pool_size = 5", "boss")


async def test_a_client_that_is_not_there_cannot_be_killed(console: Console) -> None:
    with pytest.raises(ClientError, match="no client 99"):
        await console.execute("KILL_CLIENT 99", "boss")


async def test_reload_tells_what_needs_a_restart_and_what_is_wrong(console: Console, state: FakeState) -> None:
    assert await console.execute("RELOAD", "boss") == Done("RELOAD", "workers needs a restart")
    state.config_error = "hyperdrive.toml:1: pool_size: …"
    with pytest.raises(ConfigError):
        await console.execute("RELOAD", "boss")


async def test_help_lists_every_command(console: Console) -> None:
    listed = {str(row["command"]).split()[0] for row in await show(console, "HELP")}
    assert {sql.replace(";", "").split()[0].upper() for sql, _ in COMMANDS if sql[0] != "/"} <= listed


def test_commands_are_split_outside_quotes_and_comments() -> None:
    assert split('SHOW POOLS; ;PAUSE "a;b" -- x;y\n; /* ; */') == ["SHOW POOLS", 'PAUSE "a;b" -- x;y\n']


@given(st.text())
def test_any_text_is_understood_or_refused(sql: str) -> None:
    console = Console(FakeState())
    for one in split(sql):
        try:
            console.understand(one)
        except ClientError:
            continue
