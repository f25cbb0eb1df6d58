"""W-01 … W-08: start-up and login, through real sockets (the pure part is tested beside ``session.handshake``)."""

from __future__ import annotations

import asyncio
import struct

import pytest

from hyperdrive.testing import backend
from hyperdrive.testing.fake_origin import FakeOrigin, FakeSession
from hyperdrive.testing.frontend import PROTOCOL_3_2, gssenc_request, query, ssl_request, startup, untyped
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.transcript import Replies
from hyperdrive.testing.wire import ConnectionClosed, LoginFailed


async def first_words(scene: Scene) -> Replies:
    """What a client hears who logs in and asks, however far it gets."""
    try:
        return await (await scene.client()).query("select 1")
    except LoginFailed as failed:
        return failed.replies


async def test_w01_gssenc_is_declined_and_the_login_goes_on(scene: Scene) -> None:
    conn = await scene.raw()
    conn.send(gssenc_request())
    assert await conn.reader.readexactly(1) == b"N"
    await conn.login()
    assert (await conn.query("select 1")).rows == [("1",)]


async def test_w01_ssl_is_declined_without_a_certificate_and_the_login_goes_on(scene: Scene) -> None:
    conn = await scene.raw()
    for request in (ssl_request(), gssenc_request()):
        conn.send(request)
        assert await conn.reader.readexactly(1) == b"N"
    await conn.login()


@pytest.mark.parametrize("request_", [ssl_request(), gssenc_request()], ids=["ssl", "gssenc"])
async def test_w01_a_second_request_of_the_same_kind_is_fatal(scene: Scene, request_: bytes) -> None:
    conn = await scene.raw()
    conn.send(request_)
    assert await conn.reader.readexactly(1) == b"N"
    conn.send(request_)
    assert (await conn.read_to_end()).errors == ["0A000"]


async def test_w01_start_up_byte_by_byte(scene: Scene) -> None:
    conn = await scene.raw()
    data = startup({"user": conn.address.user, "database": conn.address.database})
    await conn.send_cut(data, range(1, len(data)))
    got = await conn.receive()
    assert got.kind == "R", got


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!i", 7) + b"abc",
        struct.pack("!i", 4),
        struct.pack("!i", -1) + b"x" * 20,
        struct.pack("!i", 0),
        struct.pack("!ii", 20_000, 196608) + b"x" * 20,
        struct.pack("!ii", 0x7FFFFFFF, 196608),
        untyped(196608, b"user\0x\0"),
        untyped(196608, b"user"),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["short", "empty", "negative", "zero", "long", "huge", "no-end", "no-value", "http"],
)
async def test_w01_hostile_lengths_close_and_harm_nobody(scene: Scene, data: bytes) -> None:
    conn = await scene.raw()
    conn.send(data)
    replies = await conn.read_to_end()
    assert replies.letters in ("", "E"), replies
    assert (await (await scene.client()).query("select 1")).rows == [("1",)]


async def test_w01_half_a_start_up_is_ended_by_the_deadline(scene: Scene) -> None:
    await scene.start(client_login_timeout=0.2)
    conn = await scene.raw()
    conn.send(startup({"user": "x"})[:9])
    assert (await conn.read_to_end()).letters in ("", "E")


async def test_w02_plaintext_behind_the_ssl_request_is_never_read_as_tls(scene: Scene) -> None:
    """The StartupMessage came with the SSLRequest, before any answer: somebody is in the middle (CVE-2021-23214)."""
    conn = await scene.raw()
    conn.send(ssl_request() + startup({"user": conn.address.user, "database": conn.address.database}))
    replies = await conn.reader.read(1)
    # Without TLS to offer, N and an ordinary login would be harmless; the other safe answer is FATAL 08P01.
    assert replies in (b"N", b"E", b"S")
    if replies == b"S":
        assert await conn.reader.read() == b""


async def test_w02_junk_behind_the_origins_yes_is_refused(fake_scene: Scene, fake: FakeOrigin) -> None:
    """CVE-2021-23222: bytes that came in the clear must not count as said under TLS."""
    fake.ssl_answer = b"S" + backend.AUTH_OK + backend.ready()
    await fake_scene.start(
        origin_url=fake.url.replace("sslmode=disable", "sslmode=require"), query_wait_timeout=1.0, min_pool_size=0
    )
    assert (await first_words(fake_scene)).errors
    assert fake.sessions == []


async def test_w02_an_error_instead_of_the_origins_yes_is_not_shown(fake_scene: Scene, fake: FakeOrigin) -> None:
    """CVE-2024-10977: before TLS anybody can write that text."""
    fake.ssl_answer = backend.error("XX000", "send your password to evil.example", "FATAL")
    await fake_scene.start(
        origin_url=fake.url.replace("sslmode=disable", "sslmode=require"), query_wait_timeout=1.0, min_pool_size=0
    )
    replies = await first_words(fake_scene)
    assert replies.errors
    assert "evil" not in str(replies)


async def test_w03_protocol_3_2_is_spoken(scene: Scene) -> None:
    client = await scene.client(PROTOCOL_3_2)
    assert "v" not in client.welcome.letters
    assert len(client.secret) == 32
    assert (await client.query("select 1")).rows == [("1",)]


@pytest.mark.parametrize("minor", [3, 9999])
async def test_w03_an_unknown_minor_version_gets_one_negotiation(scene: Scene, minor: int) -> None:
    """PostgreSQL 19's libpq offers 3.9999 on purpose."""
    client = await scene.client(196608 + minor)
    [negotiation] = client.welcome.of("v")
    assert negotiation.body[:8] == struct.pack("!ii", PROTOCOL_3_2, 0)
    assert (await client.query("select 1")).rows == [("1",)]


async def test_w03_protocol_options_are_refused_by_name(scene: Scene) -> None:
    client = await scene.client(**{"_pq_.one": "1", "_pq_.two": "2"})
    [negotiation] = client.welcome.of("v")
    assert negotiation.body[4:8] == struct.pack("!i", 2)
    assert sorted(negotiation.body[8:].split(b"\0")[:2]) == [b"_pq_.one", b"_pq_.two"]


@pytest.mark.parametrize("version", [4 << 16, 99 << 16])
async def test_w03_another_major_version_is_fatal(scene: Scene, version: int) -> None:
    conn = await scene.raw()
    conn.send(startup({"user": "x"}, version))
    assert (await conn.read_to_end()).errors == ["0A000"]


async def test_w03_protocol_2_is_turned_away(scene: Scene) -> None:
    conn = await scene.raw()
    conn.send(startup({"user": "x"}, 2 << 16))
    async with asyncio.timeout(5):
        assert (await conn.reader.read())[:1] in (b"", b"E")


async def test_w04_cancel_keys_are_our_own(scene: Scene) -> None:
    await scene.start(servers=2)
    first, second = await scene.client(), await scene.client()
    assert first.secret != second.secret
    assert (first.pid, first.secret) != (second.pid, second.secret)
    third = await scene.client(PROTOCOL_3_2)
    servers = {await first.value("select pg_backend_pid()"), await third.value("select pg_backend_pid()")}
    # For 3.0 process id and secret are both random: the origin's own would let a client cancel the next user of that server.
    assert not servers & {str(first.pid), str(second.pid), str(third.pid)}


async def test_w04_a_wrong_key_cancels_nothing(scene: Scene) -> None:
    client = await scene.client()
    client.send(query("select pg_sleep(0.6), 'done'"))
    await eventually(lambda: scene.is_waiting("PgSleep"), "the query runs")
    right = client.secret
    for wrong in (bytes(4), right[:-1] + bytes([right[-1] ^ 1]), right + b"x", b""):
        client.secret = wrong
        assert await client.cancel() == b""
    assert (await client.read_until("Z")).tags == ["SELECT 1"]


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ("-c work_mem=7MB", "work_mem", "7MB"),
        ("-cwork_mem=7MB", "work_mem", "7MB"),
        ("--work-mem=7MB", "work_mem", "7MB"),
        (r"-c search_path=one,\ two -c work_mem=2MB", "search_path", "one, two"),
        (r"-c application_name=back\\slash", "application_name", "back\\slash"),
        ("-c work_mem=1MB -c work_mem=3MB", "work_mem", "3MB"),
    ],
)
async def test_w05_start_up_options(scene: Scene, options: str, name: str, expected: str) -> None:
    client, other = await scene.client(options=options), await scene.client()
    before = await other.value(f"show {name}")
    assert await client.value(f"show {name}") == expected
    assert (await client.query("reset all")).errors == []
    assert await client.value(f"show {name}") == expected
    assert await other.value(f"show {name}") == before


async def test_w05_a_local_default_is_that_of_start_up(scene: Scene) -> None:
    """Also in one write with BEGIN, when nobody here knows yet whether there is a transaction; outside it is a warning."""
    await scene.start(hold_begin=False, local_settings=False)
    pipelined = (
        query("begin")
        + query("set local application_name to default")
        + query("show application_name")
        + query("rollback")
    )
    named = await scene.client(application_name="talk")
    replies = await named.scope(pipelined, ready=4)
    assert replies.rows == [("talk",)]
    assert "S" not in replies.letters
    assert (await named.query("set local application_name to default")).notices == ["25P01"]


@pytest.mark.parametrize(
    ("parameters", "sqlstate"),
    [
        ({"no_such_thing": "1"}, "42704"),
        ({"work_mem": "lots"}, "22023"),
        ({"options": "-c work_mem=lots"}, "22023"),
        ({"TimeZone": ""}, "22023"),
        ({"database": "no_such_database"}, "3D000"),
    ],
    ids=str,
)
async def test_w05_wrong_start_up_values_are_fatal_at_login(
    scene: Scene, parameters: dict[str, str], sqlstate: str
) -> None:
    await scene.start()
    for _ in range(2):
        with pytest.raises(LoginFailed) as failed:
            await scene.client(**parameters)
        assert failed.value.replies.errors == [sqlstate]
    assert (await (await scene.client()).query("select 1")).rows == [("1",)]


async def test_w05_options_that_cannot_be_read_are_fatal(scene: Scene) -> None:
    with pytest.raises(LoginFailed) as failed:
        await scene.client(options="-c")
    assert failed.value.replies[-1].error["S"] == "FATAL"


async def test_w06_wrong_password_and_unknown_user_hear_the_same(scene: Scene) -> None:
    await scene.start()
    heard = []
    for user in ("postgres", "no_such_user"):
        conn = await scene.raw()
        conn.address = type(conn.address)(conn.address.host, conn.address.port, user, "wrong", conn.address.database)
        with pytest.raises(LoginFailed) as failed:
            await conn.login()
        heard.append([(m.kind, m.body[:4] if m.kind == "R" else m.error["C"]) for m in failed.value.replies])
    assert heard[0] == heard[1]
    assert heard[0][-1] == ("E", "28P01")


async def test_w07_a_clients_search_path_reaches_no_query_of_ours(scene: Scene) -> None:
    """CVE-2025-12819: an ``=`` of somebody's own, first in the path, must never run with another's rights."""
    await scene.sql(
        "create schema one; create table one.caught (who text);"
        " create function one.length(text) returns int language plpgsql as"
        " $$ begin insert into one.caught values (current_user); return 0; end $$"
    )
    client = await scene.client(options="-c search_path=one,pg_catalog")
    await client.query("select 1")
    await (await scene.client()).query("select 1")
    assert await scene.ask("select count(*) from one.caught") == "0"


async def test_w08_the_welcome_is_the_origins(scene: Scene) -> None:
    direct = await scene.direct()
    client = await scene.client(application_name="hazard-watcher")
    assert sorted(direct.welcome.settings) == sorted(client.welcome.settings)
    assert client.welcome.letters.endswith("KZ")
    assert client.welcome.statuses == "I"


async def test_w08_a_cold_pool_waits_for_its_first_server(fake_scene: Scene, fake: FakeOrigin) -> None:
    release = asyncio.Event()

    async def slow_login(session: FakeSession) -> None:
        await release.wait()
        await fake.welcome(session)

    fake.login = slow_login
    await fake_scene.start(min_pool_size=0)
    login = asyncio.ensure_future(fake_scene.client())
    await eventually(lambda: fake.sessions, "the origin is asked")
    assert not login.done()
    release.set()
    client = await login
    assert client.parameters["server_version"] == "16.9"


async def test_w08_the_welcome_says_this_clients_start_up_values(scene: Scene) -> None:
    client = await scene.client(TimeZone="Asia/Tokyo", application_name="mine", DateStyle="German")
    assert client.parameters["TimeZone"] == "Asia/Tokyo"
    assert client.parameters["application_name"] == "mine"
    assert client.parameters["DateStyle"] == "German, DMY"
    assert (await scene.client()).parameters["TimeZone"] != "Asia/Tokyo"


async def test_w08_an_origin_that_refuses_is_heard_in_its_own_words(fake_scene: Scene, fake: FakeOrigin) -> None:
    fake.refusal = backend.error("28000", "no entry in the list of friends", "FATAL")
    await fake_scene.start(min_pool_size=0, query_wait_timeout=2.0)
    with pytest.raises(LoginFailed) as failed:
        await fake_scene.client()
    assert failed.value.replies[-1].error["C"] == "28000"
    assert failed.value.replies[-1].error["M"] == "no entry in the list of friends"


async def test_w08_an_origin_that_is_not_there_ends_the_login_at_its_deadline(
    fake_scene: Scene, fake: FakeOrigin
) -> None:
    await fake.stop()
    await fake_scene.start(min_pool_size=0, query_wait_timeout=0.5)
    conn = await fake_scene.raw()
    with pytest.raises((LoginFailed, ConnectionClosed)) as failed:
        await conn.login()
    assert isinstance(failed.value, LoginFailed), "closed without a word"
    assert failed.value.replies.errors[0] in ("08006", "57P03", "53300")
