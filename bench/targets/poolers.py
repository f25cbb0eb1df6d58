"""PgBouncer and Pgpool-II, as their distributions configure them but for limits, authentication and the origin.

Clients log in as they do at the origin: with a password by SCRAM-SHA-256, without one by trust.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.targets.base import (
    HOST,
    MAX_CLIENTS,
    POOL_SIZE,
    Address,
    Missing,
    Running,
    Target,
    daemon,
    directory,
    find,
    free_port,
    own,
)


class PgBouncer(Target):
    """PgBouncer in transaction mode; prepared statements where its version has them."""

    name = "PgBouncer"

    def __init__(self) -> None:
        self.program = find("pgbouncer")

    def version(self) -> str:
        if self.program is None:
            raise Missing("PgBouncer: not installed; apt-get install pgbouncer, brew install pgbouncer")
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True)
        return done.stdout.split()[1]

    @property
    def keeps_statements(self) -> bool:
        """Named prepared statements work in transaction mode: since 1.21."""
        return tuple(int(part) for part in self.version().split(".")[:2]) >= (1, 21)

    @contextmanager
    def start(self, origin: Address, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        self.version()
        assert self.program is not None
        port = free_port()
        with directory() as place:
            users = place / "users.txt"
            users.write_text(f'"{origin.user}" "{origin.password or ""}"\n')
            lines = ["[databases]", f"* = host={origin.host} port={origin.port}", "[pgbouncer]"]
            lines += _lines(self._settings(origin, port, users, pool_size))
            path = place / "pgbouncer.ini"
            path.write_text("\n".join(lines) + "\n")
            traits = {"statements": "yes" if self.keeps_statements else "no"}
            with daemon([self.program, "-q", str(path)], port, place) as pid:
                yield Running(
                    self.name,
                    port,
                    (pid,),
                    traits,
                    user=origin.user,
                    password=origin.password,
                    database=origin.database,
                )

    def _settings(self, origin: Address, port: int, users: Path, pool_size: int) -> Mapping[str, object]:
        settings: dict[str, object] = {
            "listen_addr": HOST,
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256" if origin.password else "trust",
            "auth_file": users,
            "pool_mode": "transaction",
            "default_pool_size": pool_size,
            "max_client_conn": MAX_CLIENTS,
            "listen_backlog": 4096,
            "ignore_startup_parameters": "extra_float_digits,options",
            "log_connections": 0,
            "log_disconnections": 0,
            "server_tls_sslmode": "require" if origin.tls else "disable",
        }
        if self.keeps_statements:
            settings["max_prepared_statements"] = 200
        return settings


class Pgpool(Target):
    """Pgpool-II in raw mode with its query cache in shared memory; each of its processes serves one client at a time."""

    name = "Pgpool-II"
    CHILDREN = 80
    MAX_AGE = 60

    def __init__(self) -> None:
        self.program = find("pgpool")

    def version(self) -> str:
        if self.program is None:
            raise Missing("Pgpool-II: not installed; apt-get install pgpool2")
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True)
        return (done.stdout + done.stderr).split()[2]

    @contextmanager
    def start(self, origin: Address, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        self.version()
        assert self.program is not None
        if origin.tls or origin.password:
            raise Missing("Pgpool-II: with TLS and passwords it wants keys of its own; measured without")
        port = free_port()
        with directory() as place:
            own(place)
            path = place / "pgpool.conf"
            path.write_text("\n".join(_lines(self._settings(origin, port, place))) + "\n")
            (place / "pcp.conf").touch()
            (place / "oids").mkdir()
            own(place / "oids")
            command = [self.program, "-n", "-f", str(path), "-F", str(place / "pcp.conf"), "-D"]
            with daemon(command, port, place) as pid:
                traits = {"clients": f"{self.CHILDREN - 4}"}
                yield Running(self.name, port, (pid,), traits, user=origin.user, database=origin.database)

    def _settings(self, origin: Address, port: int, place: Path) -> Mapping[str, object]:
        return {
            "backend_clustering_mode": "'raw'",
            "backend_hostname0": f"'{origin.host}'",
            "backend_port0": origin.port,
            "backend_flag0": "'DISALLOW_TO_FAILOVER'",
            "listen_addresses": f"'{HOST}'",
            "port": port,
            "socket_dir": f"'{place}'",
            "pcp_listen_addresses": "''",
            "pcp_port": free_port(),
            "pcp_socket_dir": f"'{place}'",
            "wd_ipc_socket_dir": f"'{place}'",
            "pid_file_name": f"'{place}/pid'",
            "logdir": f"'{place}'",
            "num_init_children": self.CHILDREN,
            "max_pool": 1,
            "sr_check_period": 0,
            "memory_cache_enabled": "on",
            "memqcache_method": "'shmem'",
            "memqcache_total_size": "256MB",
            "memqcache_max_num_cache": 1_000_000,
            "memqcache_expire": self.MAX_AGE,
            "memqcache_auto_cache_invalidation": "on",
            "memqcache_oiddir": f"'{place}/oids'",
        }


def _lines(settings: Mapping[str, object]) -> list[str]:
    return [f"{key} = {value}" for key, value in settings.items()]
