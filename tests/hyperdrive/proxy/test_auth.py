"""The user directory: where secrets come from, how long they are kept, and what they give towards the origin."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator

import pytest

from hyperdrive.clock import ManualClock
from hyperdrive.dsn import parse_dsn
from hyperdrive.errors import NotReady, OriginError, OriginUnreachable
from hyperdrive.net.contexts import SslMode, TlsPolicy
from hyperdrive.pgwire import scram, startup
from hyperdrive.pgwire.passwords import Md5Secret, OriginCredentials, PlainPassword, Secret, TrustedUser, md5_secret
from hyperdrive.proxy.auth import (
    AuthQuery,
    DirectorySettings,
    Pending,
    PostgresAuthQuery,
    StoredPassword,
    UserDirectory,
    auth_connector,
    configured_users,
)
from hyperdrive.session.handshake import Admit, ClientHandshake, HandshakePolicy, Send
from hyperdrive.tasks import spawn
from hyperdrive.testing.postgres import APP_PASSWORD, APP_USER, Postgres

KEYS = scram.derive_keys(b"pencil", b"salt", 1)
STORED = KEYS.secret().text()


class FakeAuthQuery:
    """Rows by user; answers once ``gate`` is open."""

    def __init__(self, rows: dict[str, StoredPassword | Exception]) -> None:
        self.rows = rows
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[str] = []
        self.is_closed = False

    async def fetch(self, user: str) -> StoredPassword | None:
        self.asked.append(user)
        await self.gate.wait()
        row = self.rows.get(user)
        if isinstance(row, Exception):
            raise row
        return row

    async def close(self) -> None:
        self.is_closed = True


def directory(
    users: dict[str, Secret] | None = None,
    auth_query: AuthQuery | None = None,
    clock: ManualClock | None = None,
    origin: OriginCredentials | None = None,
) -> UserDirectory:
    return UserDirectory(
        users or {}, process_secret=b"process", auth_query=auth_query, clock=clock or ManualClock(), origin=origin
    )


async def loop_turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ---- configured users


def test_the_origins_user_and_the_configured_ones() -> None:
    origin = parse_dsn("postgresql://ann:pencil@db/shop", env={})
    users = configured_users(origin, {"bob": STORED, "eve": "md5" + "0" * 32, "dan": "plain", "only_pooled": ""})
    assert {
        "ann": PlainPassword(b"pencil"),
        "bob": KEYS.secret(),
        "eve": Md5Secret(b"md5" + b"0" * 32),
        "dan": PlainPassword(b"plain"),
    } == users


def test_without_a_password_the_origins_user_is_trusted() -> None:
    assert {"ann": TrustedUser()} == configured_users(parse_dsn("postgresql://ann@db/shop", env={}), {})


async def test_a_plain_password_gets_its_keys_once_and_off_the_loop() -> None:
    users = directory({"ann": PlainPassword(b"pencil")})
    assert users.look_up_nowait("ann", "shop") is Pending.PENDING
    first, second = await asyncio.gather(users.look_up("ann", "shop"), users.look_up("ann", "other"))
    assert isinstance(first, PlainPassword)
    assert first is second
    assert scram.derive_keys(b"pencil", scram.salt_for(b"ann", b"process")) == first.keys
    assert first is users.look_up_nowait("ann", "shop")
    assert await users.look_up("nobody", "shop") is None
    await users.close()


async def test_iterations_are_those_of_the_setting_and_a_stored_secret_keeps_its_own() -> None:
    users: dict[str, Secret] = {"ann": PlainPassword(b"pencil"), "bob": KEYS.secret()}
    settings = DirectorySettings(scram_iterations=9)
    people = UserDirectory(users, process_secret=b"process", settings=settings, clock=ManualClock())
    ann, bob = await people.look_up("ann", "shop"), await people.look_up("bob", "shop")
    assert isinstance(ann, PlainPassword)
    assert scram.derive_keys(b"pencil", scram.salt_for(b"ann", b"process"), 9) == ann.keys
    assert KEYS.secret() == bob
    await people.close()


async def test_w06_a_stranger_is_offered_what_a_known_user_would_be() -> None:
    """Under any setting: the same mechanism, salt and count, whether the user exists or not."""
    settings = DirectorySettings(scram_iterations=9)
    known = UserDirectory(
        {"ann": PlainPassword(b"pencil")}, process_secret=b"process", settings=settings, clock=ManualClock()
    )
    offers = []
    for secret in (await known.look_up("ann", "shop"), None):
        shake = ClientHandshake(HandshakePolicy(b"process", scram_iterations=9))
        shake.receive(startup.startup_message({b"user": b"ann"}))
        offered = shake.user_found(secret)
        [challenge] = shake.receive(startup.sasl_initial_response(scram.MECHANISM, b"n,,n=,r=abc"))
        assert isinstance(challenge, Send)
        offers.append((offered, challenge.data.partition(b",")[2]))
    assert offers[0] == offers[1]
    assert offers[0][1].endswith(b",i=9")
    await known.close()


# ---- auth_query: cache and sharing


async def test_w07_answers_are_kept_for_seconds() -> None:
    clock = ManualClock()
    query = FakeAuthQuery({"ann": StoredPassword(STORED)})
    users = directory(auth_query=query, clock=clock)
    assert KEYS.secret() == await users.look_up("ann", "shop")
    assert await users.look_up("nobody", "shop") is None
    assert KEYS.secret() == users.look_up_nowait("ann", "shop")
    assert users.look_up_nowait("nobody", "shop") is None
    assert ["ann", "nobody"] == query.asked
    clock.advance(3.0)
    assert KEYS.secret() == users.look_up_nowait("ann", "shop")
    assert users.look_up_nowait("nobody", "shop") is Pending.PENDING
    clock.advance(8.0)
    assert users.look_up_nowait("ann", "shop") is Pending.PENDING
    await users.close()
    assert query.is_closed


async def test_w07_a_storm_of_logins_is_one_query() -> None:
    query = FakeAuthQuery({"ann": StoredPassword(STORED)})
    query.gate.clear()
    users = directory(auth_query=query)
    waiting = [spawn(users.look_up("ann", "shop"), name="look up") for _ in range(10)]
    await loop_turns(3)
    waiting[0].cancel()  # whoever asked first may leave
    await loop_turns(3)
    query.gate.set()
    assert [KEYS.secret()] * 9 == await asyncio.gather(*waiting[1:])
    assert (["ann"], 1) == (query.asked, users.queries)
    await users.close()


async def test_w07_a_failure_is_for_all_who_wait_and_is_not_kept() -> None:
    query = FakeAuthQuery({"ann": OriginUnreachable("down")})
    users = directory(auth_query=query)
    results = await asyncio.gather(*(users.look_up("ann", "shop") for _ in range(3)), return_exceptions=True)
    assert [OriginUnreachable] * 3 == [type(result) for result in results]
    query.rows["ann"] = StoredPassword(STORED)
    assert KEYS.secret() == await users.look_up("ann", "shop")
    await users.close()


async def test_w07_valid_until_is_honoured_also_in_kept_answers() -> None:
    """CVE-2025-2291 in PgBouncer: an expired password still let people in."""
    clock = ManualClock()
    soon = datetime.datetime.fromtimestamp(clock.wall() + 5.0, datetime.UTC)
    query = FakeAuthQuery(
        {
            "ann": StoredPassword(STORED, soon),
            "old": StoredPassword(STORED, datetime.datetime.min.replace(tzinfo=datetime.UTC)),
            "ever": StoredPassword(STORED, datetime.datetime.max.replace(tzinfo=datetime.UTC)),
        }
    )
    users = directory(auth_query=query, clock=clock)
    assert KEYS.secret() == await users.look_up("ann", "shop")
    assert await users.look_up("old", "shop") is None
    assert KEYS.secret() == await users.look_up("ever", "shop")
    clock.advance(5.5)
    assert users.look_up_nowait("ann", "shop") is None
    assert await users.look_up("ann", "shop") is None
    await users.close()


@pytest.mark.parametrize("stored", [None, ""])
async def test_a_role_without_password_is_as_good_as_none(stored: str | None) -> None:
    users = directory(auth_query=FakeAuthQuery({"ann": StoredPassword(stored)}))
    assert await users.look_up("ann", "shop") is None
    await users.close()


@pytest.mark.parametrize("user", ["\udcff", "a\0b"])
async def test_w07_names_that_no_role_can_have_are_not_asked_for(user: str) -> None:
    query = FakeAuthQuery({})
    users = directory(auth_query=query)
    assert await users.look_up(user, "shop") is None
    assert [] == query.asked
    await users.close()


async def test_w62_a_failed_login_reads_the_secret_anew_even_while_one_is_under_way() -> None:
    query = FakeAuthQuery({"ann": StoredPassword(STORED)})
    query.gate.clear()
    users = directory(auth_query=query)
    early = spawn(users.look_up("ann", "shop"), name="early")
    await loop_turns(3)
    users.forget("ann")
    changed = scram.derive_keys(b"changed", b"salt", 1).secret()
    late = spawn(users.look_up("ann", "shop"), name="late")
    await loop_turns(3)
    query.rows["ann"] = StoredPassword(changed.text())
    query.gate.set()
    await asyncio.gather(early, late)
    assert ["ann", "ann"] == query.asked
    assert changed == users.look_up_nowait("ann", "shop")
    await users.close()


async def test_closing_ends_look_ups_under_way() -> None:
    query = FakeAuthQuery({})
    query.gate.clear()
    users = directory(auth_query=query)
    waiting = spawn(users.look_up("ann", "shop"), name="look up")
    await loop_turns(3)
    await users.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_changed_configuration_counts_for_the_next_login() -> None:
    users = directory({"ann": KEYS.secret(), "bob": KEYS.secret()})
    users.learn("ann", KEYS)
    users.learn("bob", KEYS)
    changed = scram.derive_keys(b"changed", b"salt", 1).secret()
    users.replace_users({"ann": changed, "bob": KEYS.secret()})
    assert changed == users.look_up_nowait("ann", "shop")
    assert () == users.origin_credentials("ann").keys
    assert (KEYS,) == users.origin_credentials("bob").keys
    await users.close()


# ---- towards the origin


async def test_what_each_kind_of_secret_gives_at_the_origin() -> None:
    md5 = md5_secret(b"pencil", b"eve")
    users = directory({"ann": PlainPassword(b"pencil"), "bob": KEYS.secret(), "eve": md5, "tom": TrustedUser()})
    assert OriginCredentials(b"ann", b"pencil") == users.origin_credentials("ann")
    assert OriginCredentials(b"bob") == users.origin_credentials("bob")
    assert OriginCredentials(b"eve", None, md5) == users.origin_credentials("eve")
    assert OriginCredentials(b"tom") == users.origin_credentials("tom")
    users.learn("bob", KEYS)
    assert KEYS == users.origin_credentials("bob").maybe_keys(b"salt", 1)
    users.learn("bob", PlainPassword(b"pencil"))
    assert OriginCredentials(b"bob", b"pencil", None, (KEYS,)) == users.origin_credentials("bob")
    users.origin_refused("bob", "28000")  # no pg_hba.conf entry, perhaps: the password is not in question
    assert (KEYS,) == users.origin_credentials("bob").keys
    users.origin_refused("bob", "28P01")
    assert OriginCredentials(b"bob") == users.origin_credentials("bob")
    await users.close()


async def test_a_strangers_failure_does_not_lock_the_pool_out() -> None:
    users = directory({"bob": KEYS.secret()})
    users.learn("bob", KEYS)
    users.client_refused("bob")
    assert (KEYS,) == users.origin_credentials("bob").keys
    await users.close()


async def test_w62_who_guesses_passwords_does_not_cause_a_query_each() -> None:
    clock = ManualClock()
    query = FakeAuthQuery({"ann": StoredPassword(STORED)})
    users = directory(auth_query=query, clock=clock)
    for _ in range(5):
        await users.look_up("ann", "shop")
        users.client_refused("ann")
    assert ["ann"] == query.asked
    clock.advance(1.0)
    users.client_refused("ann")
    await users.look_up("ann", "shop")
    assert ["ann", "ann"] == query.asked
    await users.close()


async def test_clients_may_be_given_another_password_than_the_origins() -> None:
    origin = OriginCredentials(b"ann", b"at the origin")
    users = directory({"ann": PlainPassword(b"for clients")}, origin=origin)
    assert b"at the origin" == users.origin_credentials("ann").password
    await users.close()


async def test_keys_of_two_salts_are_kept_the_newest_first() -> None:
    users = directory({"bob": KEYS.secret()})
    keys = [scram.derive_keys(b"pencil", salt, 1) for salt in (b"a", b"b", b"c")]
    for one in [*keys, keys[1]]:
        users.learn("bob", one)
    assert (keys[1], keys[2]) == users.origin_credentials("bob").keys
    await users.close()


async def test_an_md5_hash_from_auth_query_serves_the_origin() -> None:
    md5 = md5_secret(b"pencil", b"eve")
    users = directory(auth_query=FakeAuthQuery({"eve": StoredPassword(md5.hash.decode())}))
    assert md5 == await users.look_up("eve", "shop")
    assert md5 == users.origin_credentials("eve").md5
    await users.close()


# ---- PostgreSQL itself

PLAIN = TlsPolicy(SslMode.DISABLE)


@pytest.fixture
async def real_query(pg18: Postgres) -> AsyncIterator[PostgresAuthQuery]:
    query = PostgresAuthQuery(auth_connector(parse_dsn(pg18.url, env={}), PLAIN))
    yield query
    await query.close()


async def test_w07_auth_query_reads_real_users(real_query: PostgresAuthQuery, pg18: Postgres) -> None:
    pg18.execute("create role w07_expired login password 'x' valid until '2001-01-01'")
    pg18.execute("create role w07_forever login password 'x' valid until 'infinity'")
    pg18.execute("create role w07_group password 'x'")
    users = directory(auth_query=real_query)
    try:
        secret = await users.look_up(APP_USER, "app")
        assert isinstance(secret, scram.ScramSecret)
        assert scram.password_matches(APP_PASSWORD.encode(), secret)
        assert isinstance(await users.look_up("w07_forever", "app"), scram.ScramSecret)
        for user in ("w07_expired", "w07_group", "nobody", "' or true --"):
            assert await users.look_up(user, "app") is None
    finally:
        await users.close()
        pg18.execute("drop role w07_expired, w07_forever, w07_group")


async def test_w07_search_path_is_pinned(pg18: Postgres) -> None:
    """CVE-2025-12819 in PgBouncer: whoever sets the search_path decides which objects the query finds."""
    pg18.execute("create role w07_auth superuser login password 'x'")
    pg18.execute("alter role w07_auth set search_path = public")
    origin = parse_dsn(pg18.url_for("w07_auth", "x"), env={})
    query = PostgresAuthQuery(
        auth_connector(origin, PLAIN), "select $1::text, current_setting('search_path') || ',' || current_schemas(true)::text"
    )  # fmt: skip
    try:
        assert StoredPassword("pg_catalog,{pg_catalog}") == await query.fetch("ann")
    finally:
        await query.close()
        pg18.execute("drop role w07_auth")


async def test_w07_a_cut_connection_is_made_anew(real_query: PostgresAuthQuery, pg18: Postgres) -> None:
    assert await real_query.fetch(APP_USER) is not None
    pg18.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'hyperdrive auth_query'"
    )
    assert await real_query.fetch(APP_USER) is not None


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("select rolname, rolpassword from pg_authid where $1::text is not null", "when asked for"),
        ("select $1::text", "must return the user's name and stored password"),
        ("select $1::text, 7", "must return a text"),
        ("select $1::text, '', 'tomorrow'::text", "must return a text"),
        ("select nothing from nowhere where a = $1", "42P01"),
    ],
)
async def test_w07_a_query_that_is_wrong_lets_nobody_in(pg18: Postgres, sql: str, reason: str) -> None:
    query = PostgresAuthQuery(auth_connector(parse_dsn(pg18.url, env={}), PLAIN), sql)
    with pytest.raises(OriginError) as caught:
        await query.fetch(APP_USER)
    assert reason in caught.value.log_text
    assert "users could not be looked up" == caught.value.client_text
    await query.close()


async def test_w07_without_the_right_the_log_says_so(pg18: Postgres) -> None:
    query = PostgresAuthQuery(auth_connector(parse_dsn(pg18.app_url, env={}), PLAIN))
    with pytest.raises(OriginError, match="could not be looked up") as caught:
        await query.fetch(APP_USER)
    assert "permission denied" in caught.value.log_text
    await query.close()


async def test_an_origin_that_cannot_be_reached(unused_tcp_port: int) -> None:
    origin = parse_dsn(f"postgresql://ann:x@127.0.0.1:{unused_tcp_port}/shop", env={})
    query = PostgresAuthQuery(auth_connector(origin, PLAIN))
    with pytest.raises(OriginUnreachable):
        await query.fetch("ann")
    await query.close()


async def test_w62_an_origin_that_is_full_is_temporary(pg18: Postgres) -> None:
    pg18.execute("create role w62_full login connection limit 0 password 'x'")
    query = PostgresAuthQuery(auth_connector(parse_dsn(pg18.url_for("w62_full", "x"), env={}), PLAIN))
    try:
        with pytest.raises(NotReady) as caught:
            await query.fetch("ann")
        assert caught.value.safe_to_retry
    finally:
        await query.close()
        pg18.execute("drop role w62_full")


async def test_from_auth_query_to_the_origin_without_any_password(real_query: PostgresAuthQuery) -> None:
    """The client's proof, checked against the origin's own secret, opens the origin for the client's pool."""
    users = directory(auth_query=real_query)
    shake = ClientHandshake(HandshakePolicy(b"process"))
    shake.receive(b"\0\0\0\x12\0\x03\0\0user\0app\0\0")
    shake.user_found(await users.look_up(APP_USER, APP_USER))
    client = scram.ScramClient()
    first = client.first()
    [challenge] = shake.receive(
        b"p" + (4 + 14 + 4 + len(first)).to_bytes(4, "big") + b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first
    )
    assert isinstance(challenge, Send)
    salt, iterations = client.challenge(challenge.data[9:])
    final = client.final(scram.derive_keys(APP_PASSWORD.encode(), salt, iterations))
    [_, admit] = shake.receive(b"p" + (4 + len(final)).to_bytes(4, "big") + final)
    assert isinstance(admit, Admit)
    users.learn(APP_USER, admit.learned)
    credentials = users.origin_credentials(APP_USER)
    assert credentials.password is None
    assert credentials.maybe_keys(salt, iterations) is not None
    await users.close()
