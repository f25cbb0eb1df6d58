"""SCRAM against the RFC's own conversation, against itself, and against hostile fields."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperdrive.errors import AuthenticationFailed, ClientError, FeatureNotSupported, OriginError, ProtocolViolation
from hyperdrive.pgwire import passwords, scram
from hyperdrive.pgwire.passwords import Md5Secret, PlainPassword, parse_secret
from hyperdrive.pgwire.scram import MECHANISM, MECHANISM_PLUS, ScramClient, ScramKeys, ScramServer

# RFC 7677 section 3: user "user", password "pencil".
RFC_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
RFC_CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
RFC_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
RFC_SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
RFC_KEYS = scram.derive_keys(b"pencil", RFC_SALT, 4096)
FAST = scram.derive_keys(b"secret", b"0123456789abcdef", 1)
HASH = b"h" * 32


def test_w06_the_rfc_conversation_as_server() -> None:
    server = ScramServer(RFC_KEYS.secret(), nonce=RFC_SERVER_NONCE)
    assert [MECHANISM] == server.mechanisms
    assert RFC_CHALLENGE == server.first(MECHANISM, RFC_FIRST)
    assert RFC_SIGNATURE == server.final(RFC_FINAL)
    assert RFC_KEYS == server.keys


def test_w06_the_rfc_conversation_as_client() -> None:
    client = ScramClient(nonce=RFC_CLIENT_NONCE)
    assert RFC_FIRST == client.first(b"user")
    assert (RFC_SALT, 4096) == client.challenge(RFC_CHALLENGE)
    assert RFC_FINAL == client.final(RFC_KEYS)
    client.verify(RFC_SIGNATURE)


def converse(client: ScramClient, server: ScramServer, keys: ScramKeys = FAST) -> None:
    client.challenge(server.first(client.mechanism, client.first()))
    client.verify(server.final(client.final(keys)))


@pytest.mark.parametrize(
    ("client_hash", "server_hash", "plus_is_offered", "mechanism"),
    [
        (None, None, False, MECHANISM),
        (None, HASH, True, MECHANISM),
        (HASH, HASH, True, MECHANISM_PLUS),
        (HASH, None, False, MECHANISM),
    ],
)
def test_w06_both_roles_agree(
    client_hash: bytes | None, server_hash: bytes | None, plus_is_offered: bool, mechanism: bytes
) -> None:
    client = ScramClient(certificate_hash=client_hash, plus_is_offered=plus_is_offered)
    server = ScramServer(FAST.secret(), certificate_hash=server_hash)
    converse(client, server)
    assert mechanism == client.mechanism
    assert FAST == server.keys


def test_w06_what_was_learned_from_a_client_logs_in_elsewhere() -> None:
    """The ClientKey of a client's exchange opens any server that has the same secret: the origin."""
    at_us = ScramServer(FAST.secret())
    converse(ScramClient(), at_us)
    assert at_us.keys is not None
    converse(ScramClient(), ScramServer(FAST.secret()), at_us.keys)


def test_w06_a_certificate_in_between_is_noticed() -> None:
    client = ScramClient(certificate_hash=b"x" * 32, plus_is_offered=True)
    with pytest.raises(AuthenticationFailed, match="channel binding check failed") as caught:
        converse(client, ScramServer(FAST.secret(), certificate_hash=HASH))
    assert "28000" == caught.value.code


def test_w06_a_stripped_offer_of_channel_binding_is_noticed() -> None:
    """Flag y says: I could, but you do not offer it. We do, so somebody cut the offer."""
    client = ScramClient(certificate_hash=HASH, plus_is_offered=False)
    with pytest.raises(AuthenticationFailed, match="negotiation error"):
        converse(client, ScramServer(FAST.secret(), certificate_hash=HASH))


def test_w06_a_wrong_password_and_an_unknown_user_fail_alike() -> None:
    wrong = scram.derive_keys(b"wrong", FAST.salt, FAST.iterations)
    with pytest.raises(AuthenticationFailed) as known:
        converse(ScramClient(), ScramServer(FAST.secret()), wrong)
    mock = scram.mock_secret(b"nobody", b"process secret", 1)
    with pytest.raises(AuthenticationFailed) as unknown:
        converse(ScramClient(), ScramServer(mock, is_doomed=True), wrong)
    assert (known.value.code, known.value.client_text) == (unknown.value.code, unknown.value.client_text)


def test_w06_a_doomed_exchange_fails_even_with_the_right_proof() -> None:
    with pytest.raises(AuthenticationFailed):
        converse(ScramClient(), ScramServer(FAST.secret(), is_doomed=True))


def test_w06_the_mock_salt_is_stable_per_user_and_looks_like_others() -> None:
    first, again = (scram.mock_secret(b"nobody", b"process secret") for _ in range(2))
    assert first == again
    assert scram.SALT_BYTES == len(first.salt)
    assert 3 == len({scram.salt_for(user, key) for user, key in [(b"a", b"k"), (b"b", b"k"), (b"a", b"l")]})


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"", ProtocolViolation),
        (b"x,,n=,r=abc", ProtocolViolation),
        (b"n", ProtocolViolation),
        (b"n,n=,r=abc", ProtocolViolation),
        (b"n,,n=,r=", ProtocolViolation),
        (b"n,,n=", ProtocolViolation),
        (b"n,,r=abc", ProtocolViolation),
        (b"n,,n=,r=a\x7f", ProtocolViolation),
        (b"n,,n=,r=abc\0", ProtocolViolation),
        (b"n,,n=,r=abc,junk", ProtocolViolation),
        (b"n,,n=,r=" + b"a" * 2000, ProtocolViolation),
        (b"n,,n=," + b"a" * 100_000, ProtocolViolation),
        (b"p=tls-unique,,n=,r=abc", ProtocolViolation),
        (b"n,a=admin,n=,r=abc", FeatureNotSupported),
        (b"n,,m=ext,n=,r=abc", FeatureNotSupported),
    ],
)
def test_w06_hostile_client_first_messages(message: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        ScramServer(FAST.secret()).first(MECHANISM, message)


def test_w06_binding_data_and_mechanism_must_agree() -> None:
    for mechanism, flag in [(MECHANISM_PLUS, b"n"), (MECHANISM_PLUS, b"y"), (MECHANISM, b"p=tls-server-end-point")]:
        with pytest.raises(ProtocolViolation):
            ScramServer(FAST.secret(), certificate_hash=HASH).first(mechanism, flag + b",,n=,r=abc")
    with pytest.raises(ProtocolViolation, match="invalid SASL authentication mechanism"):
        ScramServer(FAST.secret()).first(MECHANISM_PLUS, b"p=tls-server-end-point,,n=,r=abc")


def test_extensions_that_are_not_mandatory_are_ignored() -> None:
    server = ScramServer(FAST.secret(), nonce=b"srv")
    assert server.first(MECHANISM, b"n,,n=*,r=cli,x=1").startswith(b"r=clisrv,")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"c=biws,r=clisrv", "malformed"),
        (b"r=clisrv,p=AAAA", "malformed"),
        (b"c=biws,r=clisrv,p=AAAA", "malformed"),
        (b"c=biws,r=clisrv,p=" + b"!" * 44, "malformed"),
        (b"c=biws,r=clisrv,p=" + base64.b64encode(b"p" * 31), "malformed"),
        (b"c=biws,r=clisrv,junk,p=" + base64.b64encode(b"p" * 32), "malformed"),
        (b"c=biws,r=cli,p=" + base64.b64encode(b"p" * 32), "invalid SCRAM response"),
        (b"c=biws,r=clisrvv,p=" + base64.b64encode(b"p" * 32), "invalid SCRAM response"),
        (b"c=eSws,r=clisrv,p=" + base64.b64encode(b"p" * 32), "unexpected SCRAM channel-binding attribute"),
    ],
)
def test_w06_hostile_client_final_messages(message: bytes, text: str) -> None:
    server = ScramServer(FAST.secret(), nonce=b"srv")
    server.first(MECHANISM, b"n,,n=,r=cli")
    with pytest.raises(ProtocolViolation, match=text):
        server.final(message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"r=clisrv,s=AAAA",
        b"r=cli,s=AAAA,i=1",
        b"r=other,s=AAAA,i=1",
        b"r=clisrv,s=,i=1",
        b"r=clisrv,s=A,i=1",
        b"r=clisrv,s=AAAA,i=0",
        b"r=clisrv,s=AAAA,i=-1",
        b"r=clisrv,s=AAAA,i=1e3",
        b"r=clisrv,s=AAAA,i=99999999",
        b"r=clisrv,s=AAAA,i=" + b"9" * 5000,
        b"r=clisrv,s=" + base64.b64encode(b"s" * 1025) + b",i=1",
        b"m=x,r=clisrv,s=AAAA,i=1",
    ],
)
def test_w06_hostile_challenges(message: bytes) -> None:
    client = ScramClient(nonce=b"cli")
    client.first()
    with pytest.raises(OriginError):
        client.challenge(message)


@pytest.mark.parametrize("message", [b"", b"v=", b"v=AAAA", b"e=other-error", b"v=" + base64.b64encode(b"v" * 32)])
def test_w06_an_origin_that_cannot_sign_is_refused(message: bytes) -> None:
    client = ScramClient()
    client.challenge(ScramServer(FAST.secret()).first(MECHANISM, client.first()))
    client.final(FAST)
    with pytest.raises(OriginError):
        client.verify(message)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_only_documented_errors_escape_from_the_server_role(first: bytes, final: bytes) -> None:
    server = ScramServer(FAST.secret(), certificate_hash=HASH)
    try:
        server.first(MECHANISM, b"n,," + first)
    except ClientError:
        server.first(MECHANISM, b"n,,n=,r=abc")
    with pytest.raises(ClientError):
        server.final(b"c=biws," + final)


FIELD = st.one_of(
    st.binary(max_size=20), st.sampled_from([b"r=clisrv", b"s=AAAA", b"i=1", b"v=", b"c=biws", b"p=AAAA"])
)


@given(st.lists(FIELD, max_size=5), st.lists(FIELD, max_size=3))
def test_only_documented_errors_escape_from_the_client_role(challenge: list[bytes], final: list[bytes]) -> None:
    client = ScramClient(nonce=b"cli")
    client.first()
    try:
        client.challenge(b",".join(challenge))
        client.final(FAST)
    except OriginError:
        pass
    with pytest.raises(OriginError):
        client.verify(b",".join(final))


@settings(deadline=None)
@given(st.binary(max_size=30))
def test_any_password_logs_in(password: bytes) -> None:
    keys = scram.derive_keys(password, b"salt", 1)
    converse(ScramClient(), ScramServer(keys.secret()), keys)
    assert scram.password_matches(password, keys.secret())
    assert not scram.password_matches(password + b"x", keys.secret())


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        pytest.param("I\u00adX", "IX", id="soft hyphen mapped to nothing"),
        pytest.param("user", "user", id="ASCII"),
        pytest.param("\u00aa", "a", id="NFKC"),
        pytest.param("\u2168", "IX", id="compatibility"),
        pytest.param("a\u00a0b", "a b", id="blank"),
        pytest.param("\u0007é", "\u0007é", id="prohibited: raw"),
        pytest.param("\u0627\u0031", "\u0627\u0031", id="bidi broken: raw"),
        pytest.param("\u0627\u0031\u0628", "\u0627\u0031\u0628", id="bidi sound"),
        pytest.param("\u00ad", "\u00ad", id="nothing left: raw"),
        pytest.param("tab\t", "tab\t", id="ASCII control is untouched"),
    ],
)
def test_w06_saslprep_with_the_servers_fallback(password: str, expected: str) -> None:
    assert expected.encode() == scram.saslprep(password.encode())


def test_w06_bytes_that_are_not_utf8_are_used_as_they_are() -> None:
    assert b"\xff\xfe" == scram.saslprep(b"\xff\xfe")


def test_secrets_are_read_and_written_as_in_pg_authid() -> None:
    text = RFC_KEYS.secret().text()
    assert text.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    assert RFC_KEYS.secret() == parse_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "md5",
        "md5" + "0" * 31,
        "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$0:AAAA$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-256$99999999:AAAA$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-256$²:AAAA$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-256$1:$" + "A" * 43 + "=:" + "A" * 43 + "=",
    ],
)
def test_what_looks_like_no_hash_is_a_password(text: str) -> None:
    assert PlainPassword(text.encode()) == parse_secret(text)


@given(st.text(max_size=40), st.text(max_size=20))
def test_parsing_a_secret_never_fails(head: str, tail: str) -> None:
    parse_secret(head)
    parse_secret(f"SCRAM-SHA-256${head}${tail}")


def test_md5_as_in_the_manual() -> None:
    """concat('md5', md5(concat(md5(concat(password, username)), random-salt)))"""
    secret = passwords.md5_secret(b"pencil", b"user")
    assert secret == parse_secret(secret.hash.decode())
    assert isinstance(secret, Md5Secret)
    answer = passwords.md5_response(secret, b"\1\2\3\4")
    assert b"md5" == answer[:3]
    assert 35 == len(answer)
    assert passwords.md5_matches(answer, secret, b"\1\2\3\4")
    assert not passwords.md5_matches(answer, secret, b"\1\2\3\5")


def test_iterations_are_capped() -> None:
    for iterations in (0, scram.MAX_ITERATIONS + 1):
        with pytest.raises(ValueError, match="iterations"):
            scram.derive_keys(b"x", b"salt", iterations)


def test_nothing_secret_shows_in_a_repr() -> None:
    shown = repr([PlainPassword(b"hunter2", FAST), FAST, FAST.secret(), passwords.md5_secret(b"hunter2", b"u")])
    for secret in (b"hunter2", FAST.client_key, FAST.server_key):
        assert repr(secret) not in shown
