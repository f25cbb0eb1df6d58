"""Random flights: several scopes in one write, over few names and few texts, so that what one scope makes, frees or fails meets the next.

Each is sent direct, and twice through one proxy, where names, texts and settings may be known the second time; between the writes another
client has the server whenever nobody needs it. Every message is compared, and the table that the writes leave. ``HYPERDRIVE_SOAK=1`` runs
thousands.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from difflib import unified_diff
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, note, settings
from hypothesis import strategies as st

from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import (
    bind,
    close_portal,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    flush,
    parse,
    query,
    sync,
)
from hyperdrive.testing.transcript import transcript
from hyperdrive.testing.wire import ConnectionClosed, LoginFailed, connect
from tests.conformance.disturbing import Disturber

SOAK = bool(os.environ.get("HYPERDRIVE_SOAK"))
EXAMPLES = 3000 if SOAK else 80

NAMES = ("", "", "", "s1", "s1", "s1", "s2", "s2", "s3")
"""Settings are named s3 only, which SQL does not name: what EXECUTE of such a statement sets lasts as long as its pin."""
PORTALS = ("", "", "", "p")
READS = ("select 1", "select n from t order by n", "select i from generate_series(1, 4) i", "select 'kept'")
WRITES = ("insert into t values (1)", "update t set n = n + 1", "insert into t values (7) returning n")
WRONG = ("select 1/0", "select 1/(n - n) from t, (values (1)) v", "selec", "select * from gone")
TRANSACTION = ("begin", "commit", "rollback", "savepoint a", "rollback to a", "release a")
SETTINGS = (
    "set timezone = 'Asia/Tokyo'",
    "set timezone = 'UTC'",
    "show timezone",
    "set local work_mem = '5MB'",
    "show work_mem",
    "reset timezone",
    "set datestyle = 'German'",
)
SQL_NAMES = (
    "deallocate s1",
    "deallocate s2",
    "deallocate all",
    "execute s1",
    "prepare s2 as select 'sql'",
    "execute s2",
)
WEIGHTS = ((READS, 5), (WRITES, 3), (WRONG, 3), (TRANSACTION, 4), (SETTINGS, 3), (SQL_NAMES, 2), (("",), 1))

SETUP = "set client_min_messages = error; create table if not exists t (n int); truncate t; insert into t values (10)"


class Flight:
    """Scopes made from one number; some of its messages are those that drivers send, some are odd."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self.data: list[bytes] = []
        self.said: list[str] = []
        self.waits = 0
        for _ in range(self.random.choice((1, 1, 2, 2, 3, 4))):
            self.scope()
        self.cuts = (self.random.randint(1, 90),) if self.random.random() < 0.2 else ()

    def text(self) -> str:
        return self.random.choice(self.random.choices([w for w, _ in WEIGHTS], [n for _, n in WEIGHTS])[0])

    def say(self, said: str, data: bytes) -> None:
        self.said.append(said)
        self.data.append(data)

    def scope(self) -> None:
        pick = self.random.random()
        if pick < 0.2:
            text = self.text()
            self.say(f"Q {text}", query(text))
        else:
            if pick < 0.45:
                self.whole()
            else:
                for _ in range(self.random.choice((1, 1, 2, 3, 4))):
                    self.part()
            self.say("S", sync())
        self.waits += 1

    def whole(self) -> None:
        """What libpq and JDBC send for one statement."""
        text, limit = self.text(), self.random.choice((0, 0, 0, 1, 2))
        described = self.random.random() < 0.7
        data = parse(text) + bind() + (describe_portal() if described else b"") + execute("", limit)
        self.say(f"PB{'D' if described else ''}E({limit}) {text}", data)

    def part(self) -> None:
        name, portal = self.random.choice(NAMES), self.random.choice(PORTALS)
        pick = self.random.random()
        limit = self.random.choice((0, 0, 0, 1, 2))
        if pick < 0.3:
            text = self.text()
            if text in SQL_NAMES:
                name = ""  # a statement that executes itself ends at the stack's depth
            elif text in SETTINGS and name:
                name = "s3"
            self.say(f"P({name}) {text}", parse(text, name))
        elif pick < 0.62:
            self.say(f"B({name},{portal})E({limit})", bind(name, portal=portal) + execute(portal, limit))
        elif pick < 0.7:
            self.say(f"D({name})", describe_statement(name))
        elif pick < 0.86:
            self.say(f"C({name})", close_statement(name))
        elif pick < 0.92:
            self.say(f"E({portal},{limit})", execute(portal, limit))
        elif pick < 0.95:
            self.say(f"D(portal {portal})", describe_portal(portal))
        elif pick < 0.97:
            self.say(f"C(portal {portal})", close_portal(portal))
        else:
            self.say("H", flush())


def flights_of(number: int, picks: list[int]) -> list[Flight]:
    """Those of the many that *number* stands for; what comes first gives them something to work with."""
    return [Flight(f"{number}/{pick}") for pick in picks]


@dataclass
class Stage:
    """The origin."""

    origin_url: str


@pytest.fixture(params=["pg18", "pg16"] if SOAK else ["pg18"])
async def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(await database_of(request.getfixturevalue(request.param).url, "random_flights"))


async def talk(
    url: str, origin_url: str, flights: list[Flight], between: Callable[[], Awaitable[None]] | None
) -> list[str]:
    """A transcript line per message, and what was said in front of it."""
    await run_sql(origin_url, SETUP)
    lines: list[str] = []
    conn = await connect(url)
    try:
        for flight in flights:
            lines.append("> " + " | ".join(flight.said))
            await conn.send_cut(b"".join(flight.data), flight.cuts)
            came = await conn.read_until("Z", flight.waits)
            lines += transcript(came)
            if between is not None and came[-1].body == b"I":
                await between()
        lines += transcript(await conn.query("rollback"))
        lines += transcript(await conn.query("select n from t order by n"))
    except (ConnectionClosed, TimeoutError) as failed:
        lines.append(f"!! {type(failed).__name__}")
    finally:
        await conn.close()
    return lines


@example(number=908211, picks=[334, 1778, 1700], limit=100, disturbs=False)
@settings(
    max_examples=EXAMPLES,
    derandomize=not SOAK,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(
    number=st.integers(0, 2**32 - 1),
    picks=st.lists(st.integers(0, 9999), min_size=1, max_size=8, unique=True),
    limit=st.sampled_from((100, 100, 2)),
    disturbs=st.booleans(),
)
@pytest.mark.timeout(36000 if SOAK else 300)
async def test_a_flight_is_answered_as_by_its_server(
    stage: Stage, number: int, picks: list[int], limit: int, disturbs: bool
) -> None:
    from hyperdrive.testing.proxy import running_proxy

    flights = flights_of(number, picks)
    note("\n".join(" | ".join(flight.said) for flight in flights))
    try:
        expected = await talk(stage.origin_url, stage.origin_url, flights, None)
    except LoginFailed:  # one in some thousands takes PostgreSQL itself down (57P03 while it recovers)
        expected = ["!!"]
        await asyncio.sleep(1)
    assume("!!" not in "".join(expected))  # two BEGIN in one scope, say, end PostgreSQL's own session (XX000)
    # A talk that pins its server leaves the disturber the other one.
    async with running_proxy(stage.origin_url, pool_size=2, min_pool_size=0, max_prepared_statements=limit) as proxy:
        async with await connect(proxy.url) as conn:
            disturber = Disturber(conn)
            for name in ("through us", "through us again"):
                got = await talk(proxy.url, stage.origin_url, flights, disturber if disturbs else None)
                difference = "\n".join(unified_diff(expected, got, "direct", name, lineterm="", n=6))
                assert not difference, difference[:5000]
        assert proxy.metrics.ledger_mismatches == 0
