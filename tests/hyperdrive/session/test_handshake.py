"""We are the server: conversations without sockets, hostile bytes, and libpq as the peer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.errors import HyperdriveError, NotReady, OriginRefused, ShuttingDown
from hyperdrive.pgwire import scram, startup
from hyperdrive.pgwire.messages import error_message
from hyperdrive.pgwire.passwords import PlainPassword, Secret, TrustedUser, md5_response, md5_secret
from hyperdrive.pgwire.scram import MECHANISM, MECHANISM_PLUS, ScramClient
from hyperdrive.session.handshake import (
    MAX_AUTH_MESSAGE_BYTES,
    MAX_EARLY_BYTES,
    Action,
    Admit,
    Cancel,
    CheckPassword,
    ClientHandshake,
    Close,
    HandshakePolicy,
    LookUpUser,
    Method,
    Send,
    StartTls,
)

MOCK = b"process secret"
KEYS = scram.derive_keys(b"pencil", b"salt of ann", 1)
HASH = b"h" * 32
ANN = startup.startup_message({b"user": b"ann", b"database": b"shop"})
AUTH_OK = startup.authentication(startup.AUTH_OK)


def handshake(method: Method = Method.SCRAM, **more: object) -> ClientHandshake:
    return ClientHandshake(HandshakePolicy(MOCK, method, scram_iterations=1, **more))  # type: ignore[arg-type]


def tls(method: Method = Method.SCRAM, **more: object) -> ClientHandshake:
    """A handshake that has TLS already."""
    shake = handshake(method, tls_available=True, **more)
    assert [StartTls(b"S")] == shake.receive(startup.ssl_request())
    assert [] == shake.tls_established("postgresql", HASH)
    return shake


def closed(actions: list[Action]) -> tuple[str, str]:
    """SQLSTATE and text of the only action, a Close that carries a FATAL ErrorResponse."""
    [action] = actions
    assert isinstance(action, Close)
    fields = {piece[:1]: piece[1:].decode() for piece in action.data[5:].split(b"\0") if piece}
    assert b"E" == action.data[:1]
    assert "FATAL" == fields[b"S"] == fields[b"V"]
    assert action.error.code == fields[b"C"]
    return fields[b"C"], fields[b"M"]


def sasl_log_in(
    shake: ClientHandshake, client: ScramClient, secret: Secret | None, password: bytes = b"pencil"
) -> list[Action]:
    """From the secret's arrival to the last actions."""
    [offer] = shake.user_found(secret)
    assert isinstance(offer, Send)
    assert client.mechanism in startup.read_string_list(offer.data[9:])
    [challenge] = shake.receive(startup.sasl_initial_response(client.mechanism, client.first()))
    assert isinstance(challenge, Send)
    salt, iterations = client.challenge(challenge.data[9:])
    proof = client.final(scram.derive_keys(password, salt, iterations))
    actions = shake.receive(startup.password_message(proof))
    if isinstance(actions[0], Send):
        (length,) = struct.unpack_from("!i", actions[0].data, 1)
        client.verify(actions[0].data[9 : 1 + length])
    return actions


# ---- W-01: first bytes


def test_w01_gssenc_and_ssl_are_declined_and_start_up_goes_on() -> None:
    shake = handshake()
    assert [Send(b"N")] == shake.receive(startup.gssenc_request())
    assert [Send(b"N")] == shake.receive(startup.ssl_request())
    assert [LookUpUser("ann", "shop")] == shake.receive(ANN)


def test_w01_all_in_one_write() -> None:
    actions = handshake().receive(startup.ssl_request() + startup.gssenc_request() + ANN)
    assert [Send(b"N"), Send(b"N"), LookUpUser("ann", "shop")] == actions


@pytest.mark.parametrize(
    ("request_", "version"), [(startup.ssl_request(), "1234.5679"), (startup.gssenc_request(), "1234.5680")]
)
def test_w01_each_may_be_asked_once(request_: bytes, version: str) -> None:
    shake = handshake()
    shake.receive(request_)
    assert ("0A000", f"unsupported frontend protocol {version}: server supports 3.0 to 3.2") == closed(
        shake.receive(request_)
    )
    assert shake.is_over
    assert [] == shake.receive(ANN)


@pytest.mark.parametrize("request_", [startup.ssl_request(), startup.gssenc_request()])
def test_w01_encryption_is_not_negotiated_inside_tls(request_: bytes) -> None:
    assert "0A000" == closed(tls().receive(request_))[0]


def test_w01_ssl_inside_direct_tls_is_declined_once() -> None:
    shake = handshake(tls_available=True)
    shake.receive(b"\x16\x03\x01")
    shake.tls_established("postgresql", HASH)
    assert [Send(b"N")] == shake.receive(startup.ssl_request())
    assert "0A000" == closed(shake.receive(startup.ssl_request()))[0]


def test_w01_direct_tls_hands_over_what_has_arrived() -> None:
    shake = handshake(tls_available=True)
    assert [StartTls(b"", b"\x16\x03\x01hello")] == shake.receive(b"\x16\x03\x01hello")
    assert [] == shake.tls_established("postgresql", HASH)
    assert [LookUpUser("ann", "shop")] == shake.receive(ANN)


@pytest.mark.parametrize("alpn", [None, "h2"])
def test_w01_direct_tls_needs_its_alpn(alpn: str | None) -> None:
    shake = handshake(tls_available=True)
    shake.receive(b"\x16")
    assert "08P01" == closed(shake.tls_established(alpn))[0]


def test_w01_negotiated_tls_may_come_without_alpn() -> None:
    shake = handshake(tls_available=True)
    shake.receive(startup.ssl_request())
    assert [] == shake.tls_established(None, HASH)
    assert [LookUpUser("ann", "shop")] == shake.receive(ANN)


def test_w01_direct_tls_without_tls_is_hung_up() -> None:
    [action] = handshake().receive(b"\x16\x03\x01")
    assert isinstance(action, Close)
    assert b"" == action.data


def test_w01_tls_is_not_offered_on_unix_sockets() -> None:
    assert [Send(b"N")] == handshake(tls_available=True, is_unix=True).receive(startup.ssl_request())


@pytest.mark.parametrize("wire", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x04", b"\0\0\x27\x11", b"\xff\xff\xff\xff"])
def test_w01_other_protocols_are_hung_up_without_a_word(wire: bytes) -> None:
    [action] = handshake().receive(wire)
    assert isinstance(action, Close)
    assert (b"", "08P01") == (action.data, action.error.code)


@pytest.mark.parametrize("cut", range(1, len(startup.ssl_request() + ANN)))
def test_w01_cuts_do_not_matter(cut: int) -> None:
    wire = startup.ssl_request() + ANN
    shake = handshake()
    assert [Send(b"N"), LookUpUser("ann", "shop")] == shake.receive(wire[:cut]) + shake.receive(wire[cut:])


def test_w01_a_missing_user_is_28000() -> None:
    for parameters in ({b"database": b"x"}, {b"user": b""}):
        assert ("28000", "no PostgreSQL user name specified in startup packet") == closed(
            handshake().receive(startup.startup_message(parameters))
        )


@pytest.mark.parametrize(
    ("parameters", "database"), [({}, "ann"), ({b"database": b""}, "ann"), ({b"database": b"d"}, "d")]
)
def test_w01_the_database_is_the_users_by_default(parameters: dict[bytes, bytes], database: str) -> None:
    wire = startup.startup_message({b"user": b"ann", **parameters})
    assert [LookUpUser("ann", database)] == handshake().receive(wire)


def test_long_names_are_cut_as_in_the_server() -> None:
    wire = startup.startup_message({b"user": b"u" * 70, b"database": b"d" * 64})
    assert [LookUpUser("u" * 63, "d" * 63)] == handshake().receive(wire)


# ---- W-02: bytes before TLS


def test_w02_plaintext_behind_an_ssl_request_ends_it() -> None:
    """CVE-2021-23214: it may have been put there by somebody in between."""
    shake = handshake(tls_available=True)
    assert ("08P01", "received unencrypted data after SSL request") == closed(
        shake.receive(startup.ssl_request() + ANN)
    )


def test_w02_plaintext_that_the_shell_still_delivers_ends_it() -> None:
    shake = handshake(tls_available=True)
    shake.receive(startup.ssl_request())
    assert "08P01" == closed(shake.receive(b"\0"))[0]


# ---- W-03: versions


@pytest.mark.parametrize("version", [0x00020000, 0x00040000, 0x00010000, 0x7FFF0001, 0xFFFFFFFF])
def test_w03_other_major_versions_are_0a000(version: int) -> None:
    code, text = closed(handshake().receive(struct.pack("!iI", 8, version)))
    assert ("0A000", f"unsupported frontend protocol {version >> 16}.{version & 0xFFFF}") == (code, text.split(":")[0])


@pytest.mark.parametrize(
    ("version", "spoken", "options", "told"),
    [
        (0x30000, 0x30000, [], False),
        (0x30002, 0x30002, [], False),
        (0x30001, 0x30001, [], False),
        (0x30003, 0x30002, [], True),
        (0x3270F, 0x30002, [b"_pq_.test_protocol_negotiation"], True),
        (0x30000, 0x30000, [b"_pq_.a", b"_pq_.b"], True),
    ],
)
def test_w03_exactly_one_v_for_what_we_do_not_know(version: int, spoken: int, options: list[bytes], told: bool) -> None:
    shake = handshake(Method.TRUST, is_local=True)
    wire = startup.startup_message({b"user": b"ann", **dict.fromkeys(options, b"on")}, version)
    negotiation, admission = [], []
    for action in shake.receive(wire):
        (negotiation if isinstance(action, Send) and action.data[:1] == b"v" else admission).append(action)
    assert ([Send(startup.negotiate_protocol_version(spoken, options))] if told else []) == negotiation
    [ok, admit] = admission
    assert Send(AUTH_OK) == ok
    assert isinstance(admit, Admit)
    assert (spoken, spoken & 0xFFFF, ()) == (admit.protocol, admit.protocol_minor, admit.settings)


# ---- W-04: cancel


def test_w04_a_cancel_request_ends_the_handshake() -> None:
    for key in (b"1234", b"k" * 256):
        shake = handshake(require_tls=True)
        assert [Cancel(77, key)] == shake.receive(startup.cancel_request(77, key))
        assert shake.is_over
    assert [Cancel(-1, b"12345678")] == tls().receive(startup.cancel_request(-1, b"12345678"))


# ---- W-05: parameters


def test_w05_options_come_first_and_everything_else_is_a_setting() -> None:
    wire = startup.startup_message(
        {
            b"user": b"ann",
            b"application_name": b"app",
            b"options": rb"-c search_path=a,\ b --geqo=off",
            b"replication": b"database",
            b"TimeZone": b"",
        }
    )
    [_, admit] = handshake(Method.TRUST, is_unix=True).receive(wire + b"Q\0\0\0\x04")
    assert isinstance(admit, Admit)
    assert (
        (b"search_path", b"a, b"),
        (b"geqo", b"off"),
        (b"application_name", b"app"),
        (b"TimeZone", b""),
    ) == admit.settings
    assert (b"database", b"Q\0\0\0\x04") == (admit.replication, admit.leftover)


def test_w05_wrong_options_are_fatal_once_the_client_is_known() -> None:
    wire = startup.startup_message({b"user": b"ann", b"options": b"geqo=off"})
    [ok, *close] = handshake(Method.TRUST, is_unix=True).receive(wire)
    assert Send(AUTH_OK) == ok
    assert ("42601", "invalid command-line argument for server process: geqo=off") == closed(close)


# ---- W-06: authentication


@pytest.mark.parametrize(
    "secret", [KEYS.secret(), PlainPassword(b"pencil", KEYS), PlainPassword(b"pencil")], ids=["secret", "keys", "plain"]
)
def test_w06_scram(secret: Secret) -> None:
    shake = handshake()
    shake.receive(ANN)
    [send, admit] = sasl_log_in(shake, ScramClient(), secret)
    assert isinstance(send, Send)
    assert send.data.endswith(AUTH_OK)
    assert isinstance(admit, Admit)
    assert ("ann", "shop", False) == (admit.user, admit.database, admit.is_tls)
    # What was learned is of use only where the origin may have the same secret.
    assert (None if isinstance(secret, PlainPassword) else KEYS) == admit.learned


def test_w06_scram_plus_over_tls() -> None:
    shake = tls()
    shake.receive(ANN)
    client = ScramClient(certificate_hash=HASH, plus_is_offered=True)
    [_, admit] = sasl_log_in(shake, client, KEYS.secret())
    assert client.mechanism == MECHANISM_PLUS
    assert isinstance(admit, Admit)
    assert admit.is_tls


def test_w06_scram_without_an_initial_response() -> None:
    """Then an empty challenge asks for it."""
    shake = handshake()
    shake.receive(ANN)
    shake.user_found(KEYS.secret())
    empty = startup.authentication(startup.AUTH_SASL_CONTINUE)
    assert [Send(empty)] == shake.receive(startup.password_message(MECHANISM + b"\0\xff\xff\xff\xff"))
    [challenge] = shake.receive(startup.password_message(ScramClient().first()))
    assert isinstance(challenge, Send)
    assert challenge.data[9:].startswith(b"r=")


UNUSABLE = [None, TrustedUser(), md5_secret(b"pencil", b"ann")]


@pytest.mark.parametrize("secret", UNUSABLE, ids=["unknown", "trusted elsewhere", "md5 only"])
def test_w06_whoever_cannot_get_in_sees_an_ordinary_exchange(secret: Secret | None) -> None:
    shake = handshake()
    shake.receive(ANN)
    refusal = closed(sasl_log_in(shake, ScramClient(), secret))
    wrong = handshake()
    wrong.receive(ANN)
    assert refusal == closed(sasl_log_in(wrong, ScramClient(), KEYS.secret(), b"wrong"))
    assert ("28P01", 'password authentication failed for user "ann"') == refusal


def test_w06_an_unknown_user_has_the_same_salt_each_time() -> None:
    challenges = []
    for _ in range(2):
        shake = handshake()
        shake.receive(ANN)
        shake.user_found(None)
        [challenge] = shake.receive(startup.sasl_initial_response(MECHANISM, b"n,,n=,r=abc"))
        assert isinstance(challenge, Send)
        challenges.append(challenge.data.partition(b",")[2])
    assert challenges[0] == challenges[1]


@pytest.mark.parametrize("secret", [md5_secret(b"pencil", b"ann"), PlainPassword(b"pencil")], ids=["md5", "plain"])
@pytest.mark.parametrize("password", [b"pencil", b"wrong"])
def test_w06_md5(secret: Secret, password: bytes) -> None:
    shake = handshake(Method.MD5)
    shake.receive(ANN)
    [challenge] = shake.user_found(secret)
    assert isinstance(challenge, Send)
    answer = md5_response(md5_secret(password, b"ann"), challenge.data[9:])
    actions = shake.receive(startup.password_message(answer + b"\0"))
    if password == b"pencil":
        assert Send(AUTH_OK) == actions[0]
    else:
        assert ("28P01", 'password authentication failed for user "ann"') == closed(actions)


def test_w06_md5_asks_an_unknown_user_as_well() -> None:
    shake = handshake(Method.MD5)
    shake.receive(ANN)
    [challenge] = shake.user_found(None)
    assert isinstance(challenge, Send)
    answer = md5_response(md5_secret(MOCK, b"ann"), challenge.data[9:])
    assert "28P01" == closed(shake.receive(startup.password_message(answer + b"\0")))[0]


def test_w06_md5_becomes_scram_for_a_scram_secret() -> None:
    shake = handshake(Method.MD5)
    shake.receive(ANN)
    assert isinstance(sasl_log_in(shake, ScramClient(), KEYS.secret())[1], Admit)


def log_in_with(password: bytes, secret: Secret | None, shake: ClientHandshake | None = None) -> list[Action]:
    shake = shake or tls(Method.PASSWORD)
    shake.receive(ANN)
    assert [Send(startup.authentication(startup.AUTH_CLEARTEXT))] == shake.user_found(secret)
    actions = shake.receive(startup.password_message(password + b"\0"))
    if isinstance(actions[0], CheckPassword):
        return shake.password_checked(actions[0].matches())
    return actions


CLEARTEXT = [PlainPassword(b"pencil"), PlainPassword(b"pencil", KEYS), KEYS.secret(), md5_secret(b"pencil", b"ann")]


@pytest.mark.parametrize("secret", CLEARTEXT, ids=["plain", "keys", "secret", "md5"])
def test_w06_cleartext_password_over_tls(secret: Secret) -> None:
    [ok, admit] = log_in_with(b"pencil", secret)
    assert Send(AUTH_OK) == ok
    assert isinstance(admit, Admit)
    assert (None if isinstance(secret, PlainPassword) else PlainPassword(b"pencil")) == admit.learned
    assert ("28P01", 'password authentication failed for user "ann"') == closed(log_in_with(b"pencils", secret))


def test_w06_cleartext_of_an_unknown_user_costs_a_computation_too() -> None:
    assert "28P01" == closed(log_in_with(b"pencil", None))[0]
    assert "28P01" == closed(log_in_with(b"", None))[0]


def test_w06_cleartext_is_not_asked_for_in_the_open() -> None:
    shake = handshake(Method.PASSWORD)
    shake.receive(ANN)
    assert "28000" == closed(shake.user_found(KEYS.secret()))[0]
    for more in ({"is_unix": True}, {"allow_cleartext_password": True}):
        assert isinstance(log_in_with(b"pencil", KEYS.secret(), handshake(Method.PASSWORD, **more))[1], Admit)


@pytest.mark.parametrize("names", [(), ("bob",), ("bob", "ann")])
def test_w06_a_certificate_names_the_user(names: tuple[str, ...]) -> None:
    shake = handshake(Method.CERT, tls_available=True)
    shake.receive(startup.ssl_request())
    shake.tls_established(None, HASH, names)
    actions = shake.receive(ANN)
    if "ann" in names:
        assert Send(AUTH_OK) == actions[0]
    else:
        assert "28000" == closed(actions)[0]


@pytest.mark.parametrize("more", [{}, {"is_local": True}, {"is_unix": True}, {"trust_remote": True}])
def test_w06_trust_is_for_this_machine(more: dict[str, bool]) -> None:
    whole = handshake(Method.TRUST, **more).receive(ANN)
    by_user = handshake(**more)
    by_user.receive(ANN)
    if more:
        assert Send(AUTH_OK) == whole[0] == by_user.user_found(TrustedUser())[0]
    else:
        assert "28000" == closed(whole)[0]


def test_tls_can_be_required() -> None:
    assert ("28000", "this server accepts encrypted connections only") == closed(
        handshake(tls_available=True, require_tls=True).receive(ANN)
    )
    assert [LookUpUser("ann", "shop")] == tls(require_tls=True).receive(ANN)
    assert [LookUpUser("ann", "shop")] == handshake(require_tls=True, is_unix=True).receive(ANN)


def test_a_secret_may_come_late() -> None:
    """What the client sends in the meantime waits, within a bound."""
    shake = handshake(Method.MD5)
    assert [LookUpUser("ann", "shop")] == shake.receive(ANN)
    assert [] == shake.receive(startup.password_message(b"guess\0"))
    [challenge, *close] = shake.user_found(PlainPassword(b"pencil"))
    assert isinstance(challenge, Send)
    assert "28P01" == closed(close)[0]


def test_bytes_ahead_of_the_secret_are_bounded() -> None:
    shake = handshake()
    shake.receive(ANN)
    assert "08P01" == closed(shake.receive(b"p" * (MAX_EARLY_BYTES + 1)))[0]


@pytest.mark.parametrize("error", [NotReady("starting"), ShuttingDown("going")])
def test_the_shell_can_end_it(error: HyperdriveError) -> None:
    shake = handshake()
    shake.receive(ANN)
    assert (error.code, error.client_text) == closed(shake.refuse(error))
    assert [] == shake.user_found(KEYS.secret())


HOSTILE = [
    pytest.param(b"Q\0\0\0\x05\0", id="a query"),
    pytest.param(b"X\0\0\0\x04", id="Terminate"),
    pytest.param(b"p\0\0\0\x03", id="length too small"),
    pytest.param(b"p\xff\xff\xff\xff", id="length negative"),
    pytest.param(b"p" + struct.pack("!i", MAX_AUTH_MESSAGE_BYTES + 1), id="length too big"),
    pytest.param(startup.password_message(b""), id="empty"),
    pytest.param(startup.password_message(b"SCRAM-SHA-256"), id="no terminator"),
    pytest.param(startup.password_message(b"SCRAM-SHA-256\0\0\0\0"), id="length cut"),
    pytest.param(startup.password_message(b"SCRAM-SHA-256\0\0\0\0\x0an,,n=,r=a"), id="length too long by one"),
    pytest.param(startup.password_message(b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,n=,r=a"), id="length enormous"),
    pytest.param(startup.password_message(b"SCRAM-SHA-256\0\xff\xff\xff\xfen,,"), id="length -2"),
    pytest.param(startup.password_message(b"PLAIN\0\xff\xff\xff\xff"), id="another mechanism"),
    pytest.param(startup.password_message(b"SCRAM-SHA-256-PLUS\0\xff\xff\xff\xff"), id="PLUS without TLS"),
]


@pytest.mark.parametrize("wire", HOSTILE)
def test_w06_hostile_answers(wire: bytes) -> None:
    """PgBouncer's CVE-2026-6664 to 6667: lengths and fields come from a stranger."""
    shake = handshake()
    shake.receive(ANN)
    shake.user_found(KEYS.secret())
    assert "08P01" == closed(shake.receive(wire))[0]


METHODS = st.sampled_from(list(Method))
SECRETS = st.sampled_from([None, TrustedUser(), KEYS.secret(), PlainPassword(b"pencil", KEYS), md5_secret(b"x", b"y")])
PIECES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            ANN,
            startup.ssl_request(),
            startup.gssenc_request(),
            startup.password_message(b"pencil\0"),
            startup.sasl_initial_response(MECHANISM, b"n,,n=,r=abc"),
            startup.sasl_initial_response(MECHANISM_PLUS, b"p=tls-server-end-point,,n=,r=abc"),
            startup.startup_message({b"user": b"ann", b"options": b"-c"}, 0x3270F),
        ]
    ),
    st.binary(max_size=30).map(startup.password_message),
)


@given(METHODS, SECRETS, st.lists(PIECES, max_size=6), st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_nothing_a_client_sends_raises(
    method: Method, secret: Secret | None, pieces: list[bytes], cuts: list[int], tls_available: bool
) -> None:
    shake = handshake(method, tls_available=tls_available, is_local=True, allow_cleartext_password=True)
    wire = b"".join(pieces)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    waiting = [wire[start:end] for start, end in pairwise(edges)]
    answers: list[Callable[[], list[Action]]] = []
    ends = 0
    while waiting or answers:
        actions = answers.pop()() if answers else shake.receive(waiting.pop(0))
        for action in actions:
            assert 0 == ends, "an action after the end"
            match action:
                case LookUpUser():
                    answers.append(lambda: shake.user_found(secret))
                case StartTls():
                    answers.append(lambda: shake.tls_established("postgresql", HASH))
                case CheckPassword():
                    matches = action.matches()
                    answers.append(lambda matches=matches: shake.password_checked(matches))  # type: ignore[misc]
                case Admit() | Cancel() | Close():
                    ends += 1
                case Send(data):
                    assert data
    assert (ends == 1) == shake.is_over


def test_a_user_name_outside_utf8_comes_back_as_it_was() -> None:
    shake = handshake(Method.TRUST)
    [action] = shake.receive(startup.startup_message({b"user": b"\xff\xfe"}))
    assert isinstance(action, Close)
    assert b'user "\xff\xfe"' in action.data
    assert action.data == error_message(action.error, severity="FATAL")


def test_what_the_log_says_stays_there() -> None:
    shake = handshake()
    error = NotReady("not yet", log_text="secret host", hint="wait", detail="bad\0 news")
    [action] = shake.refuse(error)
    assert isinstance(action, Close)
    assert action.data[5:] == b"SFATAL\0VFATAL\0C57P03\0Mnot yet\0Dbad news\0Hwait\0\0"


def test_an_origins_refusal_goes_to_the_client_as_the_origin_wrote_it() -> None:
    response = b"E\0\0\0\x0bC3D000\0\0"
    [action] = handshake().refuse(OriginRefused("no", response=response, sqlstate="3D000"))
    assert isinstance(action, Close)
    assert action.data == response
