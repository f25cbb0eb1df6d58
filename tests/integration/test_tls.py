"""TLS towards the origin, through the whole proxy, with real certificates.

The embedded servers are built without TLS, so the origin is another proxy of ours in front of one; where the machine has
a PostgreSQL of its own that knows TLS, the same tests run against that as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from hyperdrive.errors import ConfigError
from hyperdrive.localinstall import find_installation
from hyperdrive.localserver import LocalServer
from hyperdrive.testing.certs import Authority, CertificateFiles
from hyperdrive.testing.postgres import APP_PASSWORD, APP_USER, SETTINGS, Postgres, PostgresFarm
from hyperdrive.testing.proxy import running_proxy

# A connect that fails may succeed later, so clients wait for it as long as they may.
QUERY_WAIT_SECONDS = 1.0
SYSTEM_MAJORS = (18, 17, 16, 15, 14, 13)


@dataclass(frozen=True, slots=True)
class Certificates:
    authority: Authority
    good: CertificateFiles
    stranger: Authority

    def root(self, whose: str) -> str:
        return {"authority": self.authority, "stranger": self.stranger}[whose].root


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority(directory)
    return Certificates(authority, authority.server(), Authority(directory, name="stranger"))


@pytest.fixture(scope="module")
def system_postgres(farm: PostgresFarm, certificates: Certificates) -> LocalServer:
    """A PostgreSQL with TLS that is installed on this machine, with the ordinary user ``app``."""
    server = LocalServer(
        farm.directory / "tls",
        major=_major_with_tls(),
        password="postgres-password",
        tls_cert=Path(certificates.good.cert),
        tls_key=Path(certificates.good.key),
        settings=SETTINGS,
    )
    return farm.keep(server).server


def _major_with_tls() -> int:
    for major in SYSTEM_MAJORS:
        try:
            if find_installation(major).has_tls():
                return major
        except ConfigError:
            continue
    pytest.skip("no PostgreSQL with TLS on this machine")


@pytest.fixture(params=["a proxy", "PostgreSQL"])
async def origin_port(request: pytest.FixtureRequest, certificates: Certificates, pg18: Postgres) -> AsyncIterator[int]:
    """The port of an origin that offers TLS and takes clear text as well."""
    if request.param == "PostgreSQL":
        yield request.getfixturevalue("system_postgres").port
        return
    files = certificates.good
    async with running_proxy(pg18.app_url, tls_cert=files.cert, tls_key=files.key) as proxy:
        yield proxy.port


def url(port: int, host: str = "127.0.0.1", **parameters: str) -> str:
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in parameters.items())
    return f"postgresql://{APP_USER}:{APP_PASSWORD}@{host}:{port}/app?{query}"


async def answer(origin_url: str, sql: str = "select 6 * 7") -> str:
    """What the origin answers through a proxy."""
    async with (
        running_proxy(origin_url, query_wait_timeout=QUERY_WAIT_SECONDS) as proxy,
        await psycopg.AsyncConnection.connect(proxy.url, sslmode="disable") as conn,
    ):
        row = await (await conn.execute(sql)).fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
async def test_modes_that_trust(mode: str, origin_port: int) -> None:
    assert await answer(url(origin_port, sslmode=mode)) == "42"


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
async def test_modes_that_verify(mode: str, binding: str, origin_port: int, certificates: Certificates) -> None:
    """With every setting of ``channel_binding``: the hash of the certificate is the one that PostgreSQL means."""
    root = certificates.authority.root
    assert await answer(url(origin_port, sslmode=mode, sslrootcert=root, channel_binding=binding)) == "42"


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_certificate_of_strangers_is_refused(
    mode: str, origin_port: int, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why and where; the client only that there is no connection."""
    with pytest.raises(psycopg.OperationalError) as caught:
        await answer(url(origin_port, sslmode=mode, sslrootcert=certificates.stranger.root))
    assert "certificate" not in str(caught.value)
    assert f"127.0.0.1:{origin_port}: TLS handshake: certificate verify failed" in caplog.text


async def test_only_verify_full_minds_the_name(origin_port: int, certificates: Certificates) -> None:
    root = certificates.authority.root
    assert (
        await answer(url(origin_port, "127.0.0.2", sslmode="verify-ca", sslrootcert=root, hostaddr="127.0.0.1")) == "42"
    )
    with pytest.raises(psycopg.OperationalError):
        await answer(url(origin_port, "127.0.0.2", sslmode="verify-full", sslrootcert=root, hostaddr="127.0.0.1"))


async def test_channel_binding_needs_tls(origin_port: int) -> None:
    with pytest.raises(psycopg.OperationalError):
        await answer(url(origin_port, sslmode="disable", channel_binding="require"))


async def test_postgres_sees_tls(system_postgres: LocalServer) -> None:
    sql = "select ssl || ' ' || version from pg_stat_ssl where pid = pg_backend_pid()"
    assert await answer(url(system_postgres.port, sslmode="require"), sql) == "true TLSv1.3"
    assert await answer(url(system_postgres.port, sslmode="allow"), sql.replace("|| version", "")) == "false "


@pytest.mark.parametrize(
    ("rule", "mode", "works"),
    [
        ("hostssl", "disable", False),
        ("hostssl", "allow", True),
        ("hostssl", "prefer", True),
        ("hostnossl", "prefer", True),
        ("hostnossl", "require", False),
    ],
)
async def test_the_second_attempt_of_allow_and_prefer(
    rule: str, mode: str, works: bool, system_postgres: LocalServer, restored: Callable[[str], None]
) -> None:
    """pg_hba.conf may want the other of TLS and clear text than what was tried first (libpq-connect)."""
    restored(f"{rule} app app all scram-sha-256\n{{}}")
    origin_url = url(system_postgres.port, sslmode=mode)
    if works:
        assert await answer(origin_url) == "42"
    else:
        with pytest.raises(psycopg.OperationalError, match="no pg_hba"):
            await answer(origin_url)


async def test_a_client_certificate_logs_in_to_the_origin(
    system_postgres: LocalServer, certificates: Certificates, restored: Callable[[str], None], tmp_path: Path
) -> None:
    data = system_postgres.data_dir
    (data / "root.crt").write_text(Path(certificates.authority.root).read_text())
    (data / "root.crt").chmod(0o644)
    system_postgres.execute("alter system set ssl_ca_file = 'root.crt'")
    try:
        restored("hostssl app app all cert\n{}")
        mine, other = certificates.authority.client(APP_USER), certificates.authority.client("somebody")
        given = {"sslmode": "verify-full", "sslrootcert": certificates.authority.root}
        assert await answer(url(system_postgres.port, sslcert=mine.cert, sslkey=mine.key, **given)) == "42"
        with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
            await answer(url(system_postgres.port, sslcert=other.cert, sslkey=other.key, **given))
    finally:
        system_postgres.execute("alter system reset ssl_ca_file")


@pytest.fixture
def restored(system_postgres: LocalServer) -> Iterator[Callable[[str], None]]:
    """Set pg_hba.conf from a template in which ``{}`` is what administrators need; undone afterwards."""
    path = system_postgres.data_dir / "pg_hba.conf"
    before = path.read_text()

    def use(text: str) -> None:
        path.write_text(text)
        sql = "select pg_conf_load_time()"
        loaded = system_postgres.execute(sql)
        system_postgres.reload()
        while system_postgres.execute(sql) == loaded:  # new sessions know when the postmaster read its files
            pass

    yield lambda template: use(template.format("host all postgres all scram-sha-256\n"))
    use(before)
