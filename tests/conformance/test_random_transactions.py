"""Random transaction scripts: through us a client hears, sees and leaves behind exactly what it does on a direct connection.

Each talk is made by two sessions one after the other, direct, and through a proxy that has never seen it: in the second one
statements, settings and answers may be known by then, perhaps from a session with other start-up parameters. The pool has one to three servers, and another client uses them whenever there is one
for it. Compared are every message (types, fields, tags, ParameterStatus, notices, statuses, order), what ``pg_settings`` shows
the client, and the tables.

What may differ is masked, and nothing else:

- what ``transcript`` masks: process ids, keys, object ids of the test's own tables, an error's place in the C source;
- ``pg_settings.source`` of a session with start-up parameters: ``client`` there, ``session`` here, or the default where it is equal;
- ``pg_settings.source`` of what has its default's value: SET LOCAL with SET or RESET in one transaction leaves ``session`` at the server
  that ran them;
- ``pg_settings.source`` of ``transaction_*``, where a server remembers whether anybody has ever set them;
- RESET in a transaction of a list that was given at start-up as SET would not write it (``public,one``): until it ends that reads back as
  SET would have made it;
- in a session with start-up parameters, RESET (SET … TO DEFAULT) by extended protocol or in a text with other statements, and DISCARD ALL
  that ends a pin, go to the server's own value until the next batch;
- and what the vocabulary leaves out: ``now()`` (in a held transaction: of its first statement), ``currval``, process ids, and whether a
  custom setting that nobody has set is unknown or empty, which hangs on what its server has seen.

``HYPERDRIVE_SOAK=1`` runs thousands.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from difflib import unified_diff

import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, note, settings
from hypothesis import strategies as st

from hyperdrive.testing.databases import database_of
from hyperdrive.testing.wire import ConnectionClosed, LoginFailed, connect
from tests.conformance.disturbing import Disturber
from tests.conformance.phrases import NUMBERS, PHRASES, talk_of
from tests.conformance.talking import Speaker, Witness, witness_of
from tests.conformance.vocabulary import STARTUPS, Talk, listing, pins, resets_out_of_sight, resets_path

SOAK = bool(os.environ.get("HYPERDRIVE_SOAK"))
EXAMPLES = 3000 if SOAK else 100
SERVERS = ("pg18", "pg16") if SOAK else ("pg18",)


SOURCE = re.compile(
    r"^(D DataRow 3 .*?)(?: \d+ '(default|configuration file|command line|client|session|override)'| -1)$"
)


FORWARDED: dict[str, object] = {
    "hold_begin": False,
    "eager_rollback": "off",
    "eager_commit": False,
    "local_settings": False,
    "known_statements": False,
}
"""Every round trip is made: what differs then is the pooling's fault."""

MODES: dict[str, dict[str, object]] = {"forwarded": FORWARDED, "saved": {}}
ENOUGH = EXAMPLES if SOAK else 40
"""Talks that are made with every round trip in the usual run: others look at the pooling as well."""


@dataclass
class Stage:
    """The origin, who looks after its tables, and how the proxy is set."""

    origin_url: str
    witness: Witness
    options: dict[str, object]
    stack: AsyncExitStack
    talks: int = 0


CASES = [pytest.param((server, mode), id=f"{server}-{mode}") for server in SERVERS for mode in MODES]


@pytest.fixture(params=CASES)
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    server, mode = request.param
    url = await database_of(request.getfixturevalue(server).url, "random_transactions")
    async with AsyncExitStack() as stack:
        yield Stage(url, await witness_of(url, stack), MODES[mode], stack)


async def through_us(stage: Stage, talk: Talk, logins: list[dict[str, str]], servers: int) -> list[list[str]]:
    """The transcripts of sessions with these start-up parameters, one after the other through one proxy."""
    from hyperdrive.testing.proxy import running_proxy

    found: list[list[str]] = []
    async with running_proxy(stage.origin_url, pool_size=servers, min_pool_size=0, **stage.options) as proxy:
        async with await connect(proxy.url) as conn:
            disturber = Disturber(conn)

            async def between(at_rest: bool) -> None:
                if at_rest or sum(pool.in_use for pool in proxy.pools) < servers:
                    await disturber()

            for parameters in logins:
                await stage.witness.reset()
                # That was past us: what we know of the schema ends with the next catalog poll, or with DDL that we see.
                replies = await conn.query("create schema seen; drop schema seen")
                assert not replies.errors, replies
                found.append(await Speaker(proxy.url, parameters, stage.witness, between).speak(talk))
        assert proxy.metrics.ledger_mismatches == 0
    return found


async def directly(stage: Stage, talk: Talk, parameters: dict[str, str]) -> list[str]:
    """The transcript of a session of its own."""
    await stage.witness.reset()
    return await Speaker(stage.origin_url, parameters, stage.witness, None).speak(talk)


def masked(lines: list[str], parameters: dict[str, str]) -> list[str]:
    return [SOURCE.sub(r"\1", line) for line in lines] if parameters else lines


@example(
    number=4294967295, phrases=[2207, 8551, 285], logins=[{}, {"timezone": "Asia/Tokyo"}], servers=1, isolates=False
)
@example(number=1167, phrases=[2], logins=[{}, {}], servers=1, isolates=False)
@example(number=14096, phrases=[511, 4083], logins=[{}, {}], servers=1, isolates=False)
@example(number=240420, phrases=[641], logins=[{}, {}], servers=1, isolates=False)
@example(number=395, phrases=[58], logins=[{}, {}], servers=1, isolates=False)
@example(number=20407, phrases=[107], logins=[{}, STARTUPS[2]], servers=1, isolates=False)
@example(number=14759, phrases=[103], logins=[{}, {}], servers=1, isolates=False)
@example(number=41759283, phrases=[2486], logins=[{}, {}], servers=1, isolates=False)
@example(number=21537, phrases=[74, 627], logins=[{}, {}], servers=1, isolates=False)
@example(number=233, phrases=[254, 146], logins=[{}, {}], servers=1, isolates=False)
@example(number=18847543, phrases=[69, 3268], logins=[{}, {}], servers=1, isolates=False)
@example(number=11003, phrases=[620], logins=[{}, {}], servers=1, isolates=False)
@example(number=265, phrases=[1720, 83], logins=[{}, {}], servers=1, isolates=False)
@example(number=3456, phrases=[1860, 228], logins=[{}, {}], servers=1, isolates=False)
@example(number=908, phrases=[669, 6005], logins=[{}, {}], servers=1, isolates=False)
@settings(
    max_examples=EXAMPLES,
    derandomize=not SOAK,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(
    number=NUMBERS,
    phrases=PHRASES,
    logins=st.lists(st.sampled_from(STARTUPS[:1] * 3 + STARTUPS[1:]), min_size=2, max_size=2),
    servers=st.sampled_from((1, 1, 2, 3)),
    isolates=st.booleans(),
)
@pytest.mark.timeout(36000 if SOAK else 300)
async def test_a_client_cannot_tell_us_from_its_server(
    stage: Stage, number: int, phrases: list[int], logins: list[dict[str, str]], servers: int, isolates: bool
) -> None:
    stage.talks += 1
    if stage.options is FORWARDED and stage.talks > ENOUGH:
        return
    talk = talk_of(number, phrases, resets_simply=any(logins), isolates=isolates)
    assume(isolates or "isolation" not in str(logins))
    note(listing(talk))
    assume(not any(logins) or not resets_out_of_sight(talk))
    assume(STARTUPS[-1] not in logins or not resets_path(talk))
    if pins(talk):
        servers = max(servers, 2)
    try:
        expected = [await directly(stage, talk, parameters) for parameters in logins]
    except (ConnectionClosed, LoginFailed, OSError):
        # One in some thousands takes PostgreSQL itself down; the next needs it again.
        await asyncio.sleep(3)
        stage.witness = await witness_of(stage.origin_url, stage.stack)
        assume(False)
        raise
    got = await through_us(stage, talk, logins, servers)
    for parameters, direct, ours, name in zip(logins, expected, got, ("through us", "through us again"), strict=True):
        lines = [masked(direct, parameters), masked(ours, parameters)]
        difference = "\n".join(unified_diff(*lines, "direct", name, lineterm="", n=6))
        assert not difference, difference[:6000]
