"""libpq as the peer of our handshake: the client that most drivers are made of, over real sockets and real TLS."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hyperdrive.net.certificates import server_end_point
from hyperdrive.pgwire import scram
from hyperdrive.pgwire.passwords import PlainPassword, Secret, TrustedUser, md5_secret
from hyperdrive.session.handshake import (
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
from hyperdrive.testing.certs import Authority

psycopg = pytest.importorskip("psycopg")
pq = psycopg.pq

KEYS = scram.derive_keys(b"pencil", b"0123456789abcdef", 16)
SECRET = KEYS.secret()
WELCOME_3_0 = b"S\0\0\0\x19server_encoding\0UTF8\0" + b"K\0\0\0\x0c\0\0\0\x07abcd" + b"Z\0\0\0\x05I"
WELCOME_3_2 = b"K\0\0\0\x28\0\0\0\x07" + b"k" * 32 + b"Z\0\0\0\x05I"


class FrontDoor:
    """Our handshake behind a listening socket: one thread, one client at a time, until ``close``."""

    def __init__(self, policy: HandshakePolicy, secret: Secret | None, tls: ssl.SSLContext | None, hash_: bytes | None):
        self._policy, self._secret, self._tls, self._hash = policy, secret, tls, hash_
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.ends: list[Admit | Cancel | Close] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            client.settimeout(10)
            with ExitStack() as stack:
                self._greet(stack.enter_context(client), stack)

    def _greet(self, client: socket.socket, stack: ExitStack) -> None:
        shake = ClientHandshake(self._policy)
        # One byte is looked at and not taken: a ClientHello belongs to the TLS library as a whole.
        actions = shake.receive(b"\x16") if client.recv(1, socket.MSG_PEEK) == b"\x16" else []
        while True:
            while actions:
                action = actions.pop(0)
                match action:
                    case Send(data):
                        client.sendall(data)
                    case StartTls(reply):
                        client.sendall(reply)
                        assert self._tls is not None
                        client = stack.enter_context(self._tls.wrap_socket(client, server_side=True))
                        alpn, names = client.selected_alpn_protocol(), common_names(client.getpeercert())
                        actions += shake.tls_established(alpn, self._hash, names)
                    case LookUpUser():
                        actions += shake.user_found(self._secret)
                    case CheckPassword():
                        actions += shake.password_checked(action.matches())
                    case Admit():
                        self.ends.append(action)
                        client.sendall(WELCOME_3_2 if action.protocol_minor == 2 else WELCOME_3_0)
                        client.recv(100)  # Terminate
                        return
                    case Cancel():
                        self.ends.append(action)
                        return
                    case Close(data):
                        self.ends.append(action)
                        client.sendall(data)
                        return
            data = client.recv(65_536)
            if not data:
                return
            actions = shake.receive(data)


def common_names(certificate: dict[str, Any] | None) -> list[str]:
    subject = (certificate or {}).get("subject", ())
    return [value for part in subject for key, value in part if key == "commonName"]


Open = Callable[..., FrontDoor]


@pytest.fixture
def open_door() -> Iterator[Open]:
    doors: list[FrontDoor] = []

    def make(
        method: Method = Method.SCRAM,
        secret: Secret | None = SECRET,
        tls: ssl.SSLContext | None = None,
        hash_: bytes | None = None,
        **more: bool,
    ) -> FrontDoor:
        policy = HandshakePolicy(b"mock", method, tls_available=tls is not None, **more)
        doors.append(FrontDoor(policy, secret, tls, hash_))
        return doors[-1]

    yield make
    for door in doors:
        door.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> tuple[ssl.SSLContext, bytes | None]:
    """A server's context and its certificate's hash for channel binding."""
    certificate = authority.server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.root)
    context.load_cert_chain(certificate.cert, certificate.key)
    context.set_alpn_protocols(["postgresql"])
    context.verify_mode = ssl.CERT_OPTIONAL
    return context, server_end_point(certificate.der)


def connect(door: FrontDoor, **conninfo: str) -> str:
    """Log in with libpq; return its error message, empty when it succeeded."""
    given = {"host": "127.0.0.1", "port": str(door.port), "user": "ann", "password": "pencil", "sslmode": "disable"}
    text = psycopg.conninfo.make_conninfo("", **{"gssencmode": "disable", **given, **conninfo})
    conn = pq.PGconn.connect_start(text.encode())
    try:
        while (state := conn.connect_poll()) not in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
            reading = state == pq.PollingStatus.READING
            ready = select.select([conn.socket] if reading else [], [] if reading else [conn.socket], [], 10)
            assert any(ready), "no answer in time"
        return str(conn.error_message.decode()) if state == pq.PollingStatus.FAILED else ""
    finally:
        conn.finish()


@pytest.mark.parametrize(
    ("method", "secret"),
    [
        (Method.SCRAM, KEYS.secret()),
        (Method.SCRAM, PlainPassword(b"pencil", KEYS)),
        (Method.MD5, md5_secret(b"pencil", b"ann")),
        (Method.MD5, KEYS.secret()),
        (Method.PASSWORD, KEYS.secret()),
        (Method.TRUST, None),
        (Method.SCRAM, TrustedUser()),
    ],
)
def test_w06_libpq_logs_in(open_door: Open, method: Method, secret: Secret | None) -> None:
    door = open_door(method, secret, is_local=True, allow_cleartext_password=True)
    assert "" == connect(door, dbname="shop", options="-c search_path=a -c geqo=off", application_name="app")
    [admit] = door.ends
    assert isinstance(admit, Admit)
    assert ("ann", "shop") == (admit.user, admit.database)
    settings = dict(admit.settings)
    assert (b"a", b"off", b"app") == (settings[b"search_path"], settings[b"geqo"], settings[b"application_name"])


@pytest.mark.parametrize("secret", [KEYS.secret(), None], ids=["known", "unknown"])
@pytest.mark.parametrize("method", [Method.SCRAM, Method.MD5, Method.PASSWORD])
def test_w06_libpq_hears_what_postgres_would_say(open_door: Open, method: Method, secret: Secret | None) -> None:
    door = open_door(method, secret, allow_cleartext_password=True)
    assert 'FATAL:  password authentication failed for user "ann"' in connect(door, password="wrong")


@pytest.mark.parametrize("password", ["пароль", "a\u00a0b", "\u00ad", "\u2168\u00aa", "x" * 500, "\x07é"])
def test_w06_libpq_prepares_passwords_as_we_do(open_door: Open, password: str) -> None:
    keys = scram.derive_keys(password.encode(), b"salt of some kind", 1)
    assert "" == connect(open_door(secret=keys.secret()), password=password)


def test_w01_libpq_asks_for_gss_and_tls_and_goes_on_without(open_door: Open) -> None:
    assert "" == connect(open_door(), sslmode="prefer", gssencmode="prefer")


@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_w06_libpq_over_tls_with_channel_binding(
    open_door: Open, authority: Authority, tls: tuple[ssl.SSLContext, bytes | None], binding: str, negotiation: str
) -> None:
    if negotiation == "direct" and pq.version() < 170000:
        pytest.skip("direct TLS needs libpq 17")
    door = open_door(Method.SCRAM, KEYS.secret(), *tls, require_tls=True)
    more = {"sslnegotiation": "direct"} if negotiation == "direct" else {}
    error = connect(door, sslmode="verify-full", sslrootcert=authority.root, channel_binding=binding, **more)
    assert "" == error
    assert isinstance(door.ends[0], Admit)
    assert door.ends[0].is_tls


def test_w06_a_false_certificate_hash_ends_the_exchange(
    open_door: Open, authority: Authority, tls: tuple[ssl.SSLContext, bytes | None]
) -> None:
    """What a man in the middle with a certificate of his own looks like to us."""
    door = open_door(Method.SCRAM, KEYS.secret(), tls[0], b"x" * 32)
    error = connect(door, sslmode="verify-full", sslrootcert=authority.root)
    assert "SCRAM channel binding check failed" in error


def test_required_tls_is_named(open_door: Open, tls: tuple[ssl.SSLContext, bytes | None]) -> None:
    door = open_door(Method.SCRAM, KEYS.secret(), *tls, require_tls=True)
    assert "this server accepts encrypted connections only" in connect(door)


@pytest.mark.parametrize("name", ["ann", "bob", None])
def test_certificates(
    open_door: Open, authority: Authority, tls: tuple[ssl.SSLContext, bytes | None], name: str | None
) -> None:
    door = open_door(Method.CERT, None, *tls)
    more = {}
    if name is not None:
        files = authority.client(name)
        more = {"sslcert": files.cert, "sslkey": files.key}
    error = connect(door, sslmode="verify-full", sslrootcert=authority.root, **more)
    expected = {
        "ann": "",
        "bob": 'certificate authentication failed for user "ann"',
        None: "connection requires a valid client certificate",
    }
    assert (expected[name] in error) if name != "ann" else error == ""


@pytest.mark.parametrize("version", ["3.0", "3.2", "latest"])
def test_w03_libpq_chooses_its_protocol(open_door: Open, version: str) -> None:
    if pq.version() < 180000:
        pytest.skip("protocol 3.2 needs libpq 18")
    door = open_door()
    assert "" == connect(door, max_protocol_version=version)
    assert isinstance(door.ends[0], Admit)
    assert (0 if version == "3.0" else 2) == door.ends[0].protocol_minor
