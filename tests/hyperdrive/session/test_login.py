"""We are the client: logins at an origin played by hand, at a hostile one, and at PostgreSQL itself."""

from __future__ import annotations

import base64
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.errors import ClientError, OriginLoginFailed, OriginRefused, ProtocolViolation
from hyperdrive.pgwire import scram, startup
from hyperdrive.pgwire.passwords import OriginCredentials, Secret, md5_response, md5_secret
from hyperdrive.pgwire.scram import MECHANISM, MECHANISM_PLUS, ScramServer
from hyperdrive.session.handshake import Admit, ClientHandshake, HandshakePolicy, LookUpUser, Method
from hyperdrive.session.handshake import Send as ServerSend
from hyperdrive.session.login import (
    MAX_LOGIN_BYTES,
    Action,
    ChannelBinding,
    DeriveKeys,
    LoggedIn,
    OriginLogin,
    Send,
)
from hyperdrive.testing.postgres import APP_DATABASE, APP_PASSWORD, APP_USER, Postgres

KEYS = scram.derive_keys(b"pencil", b"salt", 1)
ANN = OriginCredentials(b"ann", b"pencil", None, (KEYS,))
HASH = b"h" * 32
OK = startup.authentication(startup.AUTH_OK)
READY = b"Z\0\0\0\x05I"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", 4 + len(body)) + body


WELCOME = message(b"S", b"server_version\x0018.0\0") + message(b"K", b"\0\0\0\x07abcd") + READY
REFUSAL = message(b"E", b"SFATAL\0VFATAL\0C3D000\0Mdatabase \"x\" does not exist\0\0")  # fmt: skip


def started(credentials: OriginCredentials = ANN, **more: object) -> OriginLogin:
    login = OriginLogin(credentials, b"shop", **more)  # type: ignore[arg-type]
    login.start()
    return login


def only(actions: list[Action]) -> bytes:
    [action] = actions
    assert isinstance(action, Send)
    return action.data


def test_the_startup_message_has_user_database_and_parameters() -> None:
    login = OriginLogin(ANN, b"shop", parameters={b"application_name": b"app"}, protocol=startup.PROTOCOL_3_2)
    found = startup.read_first_packet(login.start())
    assert found is not None
    parameters = {b"user": b"ann", b"database": b"shop", b"application_name": b"app"}
    assert startup.StartupMessage(startup.PROTOCOL_3_2, parameters) == found[0]


def test_an_origin_that_trusts_us() -> None:
    expected = LoggedIn({b"server_version": b"18.0"}, 7, b"abcd", startup.PROTOCOL_3_0, (), b"rest")
    assert [expected] == started(OriginCredentials(b"ann")).receive(OK + WELCOME + b"rest")


@pytest.mark.parametrize("cut", range(1, len(OK + WELCOME)))
def test_cuts_do_not_matter(cut: int) -> None:
    wire = OK + WELCOME
    login = started()
    [logged_in] = login.receive(wire[:cut]) + login.receive(wire[cut:])
    assert LoggedIn({b"server_version": b"18.0"}, 7, b"abcd", startup.PROTOCOL_3_0) == logged_in


# ---- W-03, W-04


@pytest.mark.parametrize("answer", [0x30000, 0])
def test_w03_an_old_origin_lowers_the_version(answer: int) -> None:
    login = started(protocol=startup.PROTOCOL_3_2)
    [logged_in] = login.receive(startup.negotiate_protocol_version(answer, []) + OK + WELCOME)
    assert isinstance(logged_in, LoggedIn)
    assert startup.PROTOCOL_3_0 == logged_in.protocol_version


@pytest.mark.parametrize("versions", [[0x30002], [0x30001], [0x40000], [0x30000, 0x30000]])
def test_w03_a_version_that_was_not_offered_ends_it(versions: list[int]) -> None:
    with pytest.raises(OriginLoginFailed):
        started().receive(b"".join(startup.negotiate_protocol_version(version, []) for version in versions))


def test_w04_long_keys_are_for_3_2() -> None:
    wire = OK + message(b"K", b"\0\0\0\x07" + b"k" * 32) + READY
    [logged_in] = started(protocol=startup.PROTOCOL_3_2).receive(wire)
    assert isinstance(logged_in, LoggedIn)
    assert (7, b"k" * 32) == (logged_in.pid, logged_in.cancel_key)
    with pytest.raises(OriginLoginFailed):
        started().receive(wire)


def test_an_origin_without_a_cancel_key_is_accepted() -> None:
    [logged_in] = started().receive(OK + READY)
    assert isinstance(logged_in, LoggedIn)
    assert (0, b"") == (logged_in.pid, logged_in.cancel_key)


# ---- refusals


def test_an_origins_refusal_is_kept_whole() -> None:
    for before in (b"", OK):
        with pytest.raises(OriginRefused) as caught:
            started().receive(before + REFUSAL + b"rest")
        assert (REFUSAL, "3D000", 'database "x" does not exist') == (
            caught.value.response,
            caught.value.code,
            caught.value.client_text,
        )


@pytest.mark.parametrize("body", [b"\0", b"", b"C\0\0", b"Ctoolong\0\0", b"C\xff\xff\xff\xff\xff\0\0", b"Mno"])
def test_a_refusal_without_a_proper_sqlstate_is_still_one(body: bytes) -> None:
    with pytest.raises(OriginRefused) as caught:
        started().receive(message(b"E", body))
    assert "XX000" == caught.value.code


def test_notices_are_kept_within_a_bound() -> None:
    notice = message(b"N", b"SWARNING\0\0")
    [logged_in] = started().receive(notice + OK + notice * 100 + WELCOME)
    assert isinstance(logged_in, LoggedIn)
    assert (notice,) * 16 == logged_in.notices


# ---- W-06: what is given away, and to whom


def play(login: OriginLogin, server: ScramServer) -> list[Action]:
    """Play the origin's part of SCRAM up to ReadyForQuery."""
    initial = only(login.receive(startup.authentication_sasl(server.mechanisms)))
    mechanism, _, rest = initial[5:].partition(b"\0")
    challenge = server.first(mechanism, rest[4:])
    actions = login.receive(startup.authentication(startup.AUTH_SASL_CONTINUE, challenge))
    if isinstance(actions[0], DeriveKeys):
        actions = login.keys_derived(actions[0].compute())
    signature = server.final(only(actions)[5:])
    return login.receive(startup.authentication(startup.AUTH_SASL_FINAL, signature) + OK + WELCOME)


def test_w06_keys_at_hand_spare_the_computation() -> None:
    [logged_in] = play(started(OriginCredentials(b"ann", None, None, (KEYS,))), ScramServer(KEYS.secret()))
    assert isinstance(logged_in, LoggedIn)


def test_w06_keys_that_are_missing_are_asked_for() -> None:
    login = started(OriginCredentials(b"ann", b"pencil"))
    server = ScramServer(KEYS.secret())
    initial = only(login.receive(startup.authentication_sasl([MECHANISM])))
    challenge = server.first(MECHANISM, initial[5:].partition(b"\0")[2][4:])
    [derive] = login.receive(startup.authentication(startup.AUTH_SASL_CONTINUE, challenge))
    assert DeriveKeys(b"pencil", b"salt", 1) == derive
    assert [] == login.receive(b"")  # nothing happens before they are there
    assert b"p" == only(login.keys_derived(KEYS))[:1]


def test_w06_keys_for_another_salt_are_no_use() -> None:
    other = scram.derive_keys(b"pencil", b"another salt", 1)
    with pytest.raises(OriginLoginFailed, match="no password is known") as caught:
        play(started(OriginCredentials(b"ann", None, None, (KEYS,))), ScramServer(other.secret()))
    assert "28P01" == caught.value.code


@pytest.mark.parametrize(
    ("binding", "certificate", "offered", "mechanism"),
    [
        (ChannelBinding.PREFER, HASH, HASH, MECHANISM_PLUS),
        (ChannelBinding.REQUIRE, HASH, HASH, MECHANISM_PLUS),
        (ChannelBinding.PREFER, HASH, None, MECHANISM),
        (ChannelBinding.PREFER, None, HASH, MECHANISM),
        (ChannelBinding.DISABLE, HASH, HASH, MECHANISM),
    ],
)
def test_w06_channel_binding(
    binding: ChannelBinding, certificate: bytes | None, offered: bytes | None, mechanism: bytes
) -> None:
    login = started(channel_binding=binding, server_end_point=certificate)
    server = ScramServer(KEYS.secret(), certificate_hash=offered)
    initial = only(login.receive(startup.authentication_sasl(server.mechanisms)))
    assert mechanism == initial[5:].partition(b"\0")[0]
    again = started(channel_binding=binding, server_end_point=certificate)
    assert isinstance(play(again, ScramServer(KEYS.secret(), certificate_hash=offered))[0], LoggedIn)


@pytest.mark.parametrize(
    "wire",
    [
        OK,
        startup.authentication(startup.AUTH_CLEARTEXT),
        startup.authentication(startup.AUTH_MD5, b"salt"),
        startup.authentication_sasl([MECHANISM]),
    ],
)
def test_w06_required_channel_binding_accepts_nothing_else(wire: bytes) -> None:
    login = started(channel_binding=ChannelBinding.REQUIRE, server_end_point=HASH, allow_cleartext=True)
    with pytest.raises(OriginLoginFailed, match="channel binding is required"):
        login.receive(wire)
    with pytest.raises(OriginLoginFailed, match="channel binding is required"):
        started(channel_binding=ChannelBinding.REQUIRE).receive(startup.authentication_sasl([MECHANISM_PLUS]))


@pytest.mark.parametrize("signature", [b"v=" + base64.b64encode(b"x" * 32), b"e=other-error", b"", b"v=x"])
def test_w06_an_origin_that_does_not_know_the_password_is_refused(signature: bytes) -> None:
    login, server = started(), ScramServer(KEYS.secret())
    initial = only(login.receive(startup.authentication_sasl([MECHANISM])))
    challenge = server.first(MECHANISM, initial[5:].partition(b"\0")[2][4:])
    login.receive(startup.authentication(startup.AUTH_SASL_CONTINUE, challenge))
    with pytest.raises(OriginLoginFailed):
        login.receive(startup.authentication(startup.AUTH_SASL_FINAL, signature) + OK)


def test_w06_an_origin_that_skips_its_proof_is_refused() -> None:
    login, server = started(), ScramServer(KEYS.secret())
    initial = only(login.receive(startup.authentication_sasl([MECHANISM])))
    with pytest.raises(OriginLoginFailed, match="did not prove"):
        login.receive(OK)
    login = started()
    initial = only(login.receive(startup.authentication_sasl([MECHANISM])))
    challenge = server.first(MECHANISM, initial[5:].partition(b"\0")[2][4:])
    login.receive(startup.authentication(startup.AUTH_SASL_CONTINUE, challenge))
    with pytest.raises(OriginLoginFailed, match="did not prove"):
        login.receive(OK)


@pytest.mark.parametrize("wire", [startup.authentication(3), startup.authentication(5, b"salt")])
def test_w06_no_password_leaves_over_a_link_that_nobody_vouches_for(wire: bytes) -> None:
    with pytest.raises(OriginLoginFailed, match="not verified") as caught:
        started().receive(wire)
    assert "28000" == caught.value.code
    with pytest.raises(OriginLoginFailed, match="no password is known"):
        started(OriginCredentials(b"ann"), allow_cleartext=True).receive(wire)


def test_w06_cleartext_where_it_is_allowed() -> None:
    login = started(allow_cleartext=True)
    assert b"p\0\0\0\x0bpencil\0" == only(login.receive(startup.authentication(startup.AUTH_CLEARTEXT)))
    assert isinstance(login.receive(OK + WELCOME)[0], LoggedIn)


@pytest.mark.parametrize(
    "credentials",
    [OriginCredentials(b"ann", b"pencil"), OriginCredentials(b"ann", None, md5_secret(b"pencil", b"ann"))],
)
def test_w06_md5_where_it_is_allowed(credentials: OriginCredentials) -> None:
    login = started(credentials, allow_cleartext=True)
    answer = only(login.receive(startup.authentication(startup.AUTH_MD5, b"salt")))
    assert md5_response(md5_secret(b"pencil", b"ann"), b"salt") + b"\0" == answer[5:]


@pytest.mark.parametrize(("code", "name"), [(2, "Kerberos V5"), (7, "GSSAPI"), (8, "GSSAPI"), (9, "SSPI")])
def test_methods_that_are_not_supported_are_named(code: int, name: str) -> None:
    with pytest.raises(OriginLoginFailed, match=f"asks for {name} authentication, which is not supported"):
        started().receive(startup.authentication(code))


def test_unknown_sasl_mechanisms_are_refused() -> None:
    with pytest.raises(OriginLoginFailed, match="none of the SASL mechanisms"):
        started().receive(startup.authentication_sasl([b"OAUTHBEARER"]))


HOSTILE = [
    pytest.param(b"R\0\0\0\x03", id="length too small"),
    pytest.param(b"R\xff\xff\xff\xff", id="length negative"),
    pytest.param(b"R\x7f\xff\xff\xff", id="length too big"),
    pytest.param(b"R\0\0\0\x04", id="no code"),
    pytest.param(startup.authentication(99), id="unknown code"),
    pytest.param(startup.authentication(startup.AUTH_SASL), id="no list of mechanisms"),
    pytest.param(startup.authentication(startup.AUTH_SASL, b"\0"), id="no mechanisms"),
    pytest.param(startup.authentication(startup.AUTH_SASL_FINAL, b"v="), id="signature before anything"),
    pytest.param(startup.authentication(startup.AUTH_MD5, b"sal"), id="short salt"),
    pytest.param(READY, id="ready before authentication"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="another protocol"),
    pytest.param(OK + OK, id="twice"),
    pytest.param(OK + message(b"Z", b"T"), id="ready in a transaction"),
    pytest.param(OK + message(b"Z", b""), id="no status"),
    pytest.param(OK + message(b"S", b"name\0"), id="parameter without value"),
    pytest.param(OK + message(b"S", b"a\0b\0c"), id="parameter with a tail"),
    pytest.param(OK + message(b"K", b""), id="empty key"),
    pytest.param(OK + message(b"D", b"\0\0"), id="a row"),
]


@pytest.mark.parametrize("wire", HOSTILE)
def test_w06_hostile_origins(wire: bytes) -> None:
    with pytest.raises(OriginLoginFailed):
        started(allow_cleartext=True).receive(wire)


def test_an_origin_that_never_stops_talking_is_cut_off() -> None:
    status = message(b"S", b"name\0" + b"v" * 60_000 + b"\0")
    login = started()
    login.receive(OK)
    for _ in range(MAX_LOGIN_BYTES // len(status)):
        login.receive(status)
    with pytest.raises(OriginLoginFailed, match="broke the protocol"):
        login.receive(status)


PIECES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([OK, WELCOME, REFUSAL, startup.authentication_sasl([MECHANISM]), startup.authentication(3)]),
    st.tuples(st.sampled_from([b"R", b"S", b"K", b"v", b"N", b"E", b"Z"]), st.binary(max_size=20)).map(
        lambda pair: message(*pair)
    ),
    st.tuples(st.integers(0, 13), st.binary(max_size=20)).map(lambda pair: startup.authentication(*pair)),
)


@given(st.lists(PIECES, max_size=6), st.booleans())
def test_only_documented_errors_escape(pieces: list[bytes], allow_cleartext: bool) -> None:
    login = started(allow_cleartext=allow_cleartext, protocol=startup.PROTOCOL_3_2)
    try:
        for piece in pieces:
            for action in login.receive(piece):
                if isinstance(action, DeriveKeys):
                    login.keys_derived(KEYS)
    except (OriginLoginFailed, OriginRefused):
        pass


# ---- against ourselves: the two halves of the proxy understand each other


@pytest.mark.parametrize(
    ("method", "secret"),
    [
        (Method.SCRAM, KEYS.secret()),
        (Method.MD5, md5_secret(b"pencil", b"ann")),
        (Method.PASSWORD, md5_secret(b"pencil", b"ann")),
        (Method.TRUST, None),
    ],
)
def test_both_roles_understand_each_other(method: Method, secret: Secret | None) -> None:
    shake = ClientHandshake(HandshakePolicy(b"mock", method, is_unix=True))
    login = OriginLogin(ANN, b"shop", protocol=startup.PROTOCOL_3_2, allow_cleartext=True)
    to_server, admit = login.start(), None
    while to_server:
        to_client = b""
        for action in shake.receive(to_server):
            actions = shake.user_found(secret) if isinstance(action, LookUpUser) else [action]
            to_client += b"".join(one.data for one in actions if isinstance(one, ServerSend))
            admit = next((one for one in actions if isinstance(one, Admit)), None)
        to_server = b"".join(one.data for one in login.receive(to_client) if isinstance(one, Send))
    assert admit is not None
    assert ("ann", "shop", startup.PROTOCOL_3_2) == (admit.user, admit.database, admit.protocol)
    assert isinstance(login.receive(WELCOME)[0], LoggedIn)


# ---- PostgreSQL itself


def log_in(
    postgres: Postgres,
    credentials: OriginCredentials,
    database: str = APP_DATABASE,
    *,
    piece_bytes: int = 65_536,
    **more: object,
) -> LoggedIn:
    login = OriginLogin(credentials, database.encode(), **more)  # type: ignore[arg-type]
    with socket.create_connection((postgres.host, postgres.port), timeout=10) as sock:
        sock.sendall(login.start())
        while True:
            data = sock.recv(piece_bytes)
            assert data, f"closed while waiting for {login.waits_for}"
            actions = login.receive(data)
            for action in actions:
                match action:
                    case Send(answer):
                        sock.sendall(answer)
                    case DeriveKeys():
                        for one in login.keys_derived(action.compute()):
                            assert isinstance(one, Send)
                            sock.sendall(one.data)
                    case LoggedIn():
                        sock.sendall(b"X\0\0\0\x04")
                        return action


APP = OriginCredentials(APP_USER.encode(), APP_PASSWORD.encode())


@pytest.mark.parametrize("piece_bytes", [1, 65_536])
def test_login_with_scram_at_postgres(postgres: Postgres, piece_bytes: int) -> None:
    logged_in = log_in(postgres, APP, piece_bytes=piece_bytes)
    assert logged_in.parameters[b"server_version"].startswith(str(postgres.major).encode())
    assert logged_in.pid > 0
    assert (4, startup.PROTOCOL_3_0) == (len(logged_in.cancel_key), logged_in.protocol_version)


def test_w03_postgres_negotiates_3_2(postgres: Postgres) -> None:
    logged_in = log_in(postgres, APP, protocol=startup.PROTOCOL_3_2)
    expected = (startup.PROTOCOL_3_2, 32) if postgres.major >= 18 else (startup.PROTOCOL_3_0, 4)
    assert expected == (logged_in.protocol_version, len(logged_in.cancel_key))


def test_w06_keys_learned_from_a_client_log_in_at_postgres(postgres: Postgres) -> None:
    """The chain of a pool without passwords: the stored secret, a client's proof, its ClientKey at the origin."""
    stored = postgres.execute(f"select rolpassword from pg_authid where rolname = '{APP_USER}'").strip()
    secret = scram.maybe_parse_secret(stored)
    assert secret is not None
    at_us = ScramServer(secret)
    client = scram.ScramClient()
    salt, iterations = client.challenge(at_us.first(client.mechanism, client.first()))
    at_us.final(client.final(scram.derive_keys(APP_PASSWORD.encode(), salt, iterations)))
    assert at_us.keys is not None
    assert log_in(postgres, OriginCredentials(APP_USER.encode(), None, None, (at_us.keys,))).pid > 0


@pytest.mark.parametrize(
    ("credentials", "database", "sqlstate"),
    [
        (OriginCredentials(APP_USER.encode(), b"wrong"), APP_DATABASE, "28P01"),
        (OriginCredentials(b"nobody", b"pencil"), APP_DATABASE, "28P01"),
        (APP, "nowhere", "3D000"),
    ],
)
def test_refusals_of_postgres(postgres: Postgres, credentials: OriginCredentials, database: str, sqlstate: str) -> None:
    with pytest.raises(OriginRefused) as caught:
        log_in(postgres, credentials, database)
    assert sqlstate == caught.value.code
    assert b"E" == caught.value.response[:1]


@pytest.mark.parametrize("auth", ["md5", "password"])
def test_weak_methods_of_postgres(make_postgres: Callable[..., Postgres], auth: str) -> None:
    postgres = make_postgres(16, auth=auth, settings={"password_encryption": "md5"})
    postgres.execute("set password_encryption = 'md5'; alter role app password 'app-password'")
    with pytest.raises(OriginLoginFailed, match="not verified"):
        log_in(postgres, APP)
    assert log_in(postgres, APP, allow_cleartext=True).pid > 0


def test_a_name_with_a_zero_byte_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ProtocolViolation):
        OriginLogin(OriginCredentials(b"a\0b"), b"shop").start()


# ---- W-05: the options parameter, as PostgreSQL takes it apart


@pytest.mark.parametrize(
    "text",
    [
        b"-c geqo=off",
        b"-cgeqo=off --work-mem=64kB",
        rb"-c search_path=a,\ b\\c -c application_name=x\ y",
        b"  -c\tgeqo=off\n",
        b"-e -S 64 -fs",
        b"-sfi",
        b"-c TimeZone=",
        b"geqo=off",
        b"-c",
        b"-c geqo",
        b"--geqo",
        b"-z 1",
        b"-c geqo=off more",
    ],
)
def test_w05_options_mean_what_they_mean_to_postgres(pg18: Postgres, text: bytes) -> None:
    """The settings we read give the same session as the text itself; what we refuse, PostgreSQL refuses likewise."""
    try:
        ours = outcome(pg18, dict(startup.parse_options(text)))
    except ClientError as error:
        ours = (error.code, error.client_text)
    assert outcome(pg18, {b"options": text}) == ours


def outcome(postgres: Postgres, parameters: dict[bytes, bytes]) -> bytes | tuple[str, str]:
    try:
        return settings_after(postgres, parameters)
    except OriginRefused as refused:
        return refused.code, refused.client_text


def settings_after(postgres: Postgres, parameters: dict[bytes, bytes]) -> bytes:
    """What pg_settings says came from the client, in a session that was started with *parameters*."""
    superuser = OriginCredentials(b"postgres", b"postgres-password")
    login = OriginLogin(superuser, b"postgres", parameters=parameters)
    sql = b"select string_agg(name || '=' || setting, ';' order by name) from pg_settings where source = 'client'\0"
    with socket.create_connection((postgres.host, postgres.port), timeout=10) as sock:
        sock.sendall(login.start())
        while True:
            for action in login.receive(sock.recv(65_536)):
                match action:
                    case Send(answer):
                        sock.sendall(answer)
                    case DeriveKeys():
                        sock.sendall(only(login.keys_derived(action.compute())))
                    case LoggedIn():
                        sock.sendall(message(b"Q", sql) + b"X\0\0\0\x04")
                        reply = b""
                        while piece := sock.recv(65_536):
                            reply += piece
                        return reply
