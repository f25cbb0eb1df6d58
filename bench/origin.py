"""The origin of a run: an embedded Postgres with pgbench's tables, our own, and a user with a password beside the one without."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import pgbench
from bench.live import Live
from bench.load.shop import TABLES as SHOP_TABLES
from bench.targets import HOST, Address
from hyperdrive.localserver import LocalServer

SETTINGS = {
    # The disk is not what is measured.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "256MB",
    "max_connections": "400",
    "autovacuum": "off",
    "jit": "off",
    # So that a proxy that follows changes can.
    "wal_level": "logical",
}
SCALE = 10
ITEMS = 10_000
FACTS = 20_000

APP = "bench_app"
APP_PASSWORD = "bench-password"

_TABLES = f"""
CREATE TABLE bench_items (id int PRIMARY KEY, name text NOT NULL, price numeric NOT NULL);
INSERT INTO bench_items SELECT n, 'item ' || n, n FROM generate_series(1, {ITEMS}) n;
CREATE TABLE bench_facts (id int PRIMARY KEY, kind int NOT NULL, amount numeric NOT NULL);
INSERT INTO bench_facts SELECT n, n % 10, n FROM generate_series(1, {FACTS}) n;
CREATE TABLE bench_versions (id int PRIMARY KEY, version bigint NOT NULL);
INSERT INTO bench_versions SELECT n, 0 FROM generate_series(1, 1000) n;
CREATE TABLE bench_counters (id int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO bench_counters SELECT n, 0 FROM generate_series(1, {ITEMS}) n;
CREATE TABLE bench_log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item int NOT NULL, at timestamptz DEFAULT now());
ANALYZE;
SET password_encryption = 'scram-sha-256';
CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}';
GRANT CREATE ON SCHEMA public TO {APP};
GRANT ALL ON ALL TABLES IN SCHEMA public TO {APP};
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {APP};
"""


@contextmanager
def origin(live: Live, scale: int = SCALE) -> Iterator[LocalServer]:
    """Start it, with everything that workloads read and write."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        live.now("starting an embedded Postgres")
        with LocalServer(directory / "data", auth="trust", settings=SETTINGS) as server:
            if scale:
                live.now(f"making pgbench's tables, scale {scale}")
                pgbench.initialize(server.port, scale)
            prepare(server)
            yield server


def prepare(server: LocalServer) -> None:
    """Make our own tables, and the user that has to show a password."""
    hba = Path(server.execute("SHOW hba_file"))
    line = f"host all {APP} 127.0.0.1/32 scram-sha-256\n"
    hba.write_text(line + hba.read_text())
    server.execute(_TABLES)
    server.execute(SHOP_TABLES)
    server.execute("SELECT pg_reload_conf()")


def trusting(server: LocalServer) -> Address:
    """How the superuser gets in without a password."""
    return Address(server.port, host=HOST)


def with_password(server: LocalServer) -> Address:
    """How the ordinary user gets in: by SCRAM-SHA-256."""
    return Address(server.port, user=APP, password=APP_PASSWORD, host=HOST)
