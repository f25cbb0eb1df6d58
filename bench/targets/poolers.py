"""PgBouncer and Pgpool-II, as their distributions configure them but for limits, authentication and the origin.

Clients log in as they do at the origin: with a password by SCRAM-SHA-256, without one by trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.targets.base import HOST, MAX_CLIENTS, Address, free_port
from bench.targets.foreign import Foreign, lines
from hyperdrive.testing.certs import Authority


class PgBouncer(Foreign):
    """PgBouncer in transaction mode; prepared statements where its version has them."""

    name = "PgBouncer"
    program_name = "pgbouncer"
    how = "apt-get install pgbouncer, brew install pgbouncer"

    @property
    def keeps_statements(self) -> bool:
        """Named prepared statements work in transaction mode: since 1.21."""
        return tuple(int(part) for part in self.version().split(".")[:2]) >= (1, 21)

    @property
    def traits(self) -> Mapping[str, str]:
        return {"statements": "yes" if self.keeps_statements else "no"}

    def command(self, origin: Address, port: int, place: Path, pool_size: int) -> list[str]:
        users, path = place / "users.txt", place / "pgbouncer.ini"
        users.write_text(f'"{origin.user}" "{origin.password or ""}"\n')
        head = ["[databases]", f"* = host={origin.host} port={origin.port}", "[pgbouncer]"]
        path.write_text("\n".join(head + lines(self._settings(origin, port, users, pool_size))) + "\n")
        return [self.program or "", "-q", str(path)]

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


class Pgpool(Foreign):
    """Pgpool-II in raw mode with its query cache in shared memory; each of its processes serves one client at a time."""

    name = "Pgpool-II"
    program_name = "pgpool"
    how = "apt-get install pgpool2"
    CHILDREN = 80
    MAX_AGE = 60

    @property
    def traits(self) -> Mapping[str, str]:
        # Where it speaks TLS with the origin it offers TLS to clients as well, who shall not take it: the others do not.
        return {"clients": f"{self.CHILDREN - 4}", "asked": "?sslmode=disable"}

    def command(self, origin: Address, port: int, place: Path, pool_size: int) -> list[str]:
        (place / "oids").mkdir()
        (place / "pcp.conf").touch()
        settings = self._settings(origin, port, place) | self._login(origin, place) | self._tls(origin, place)
        path, hba = place / "pgpool.conf", place / "pool_hba.conf"
        path.write_text("\n".join(lines(settings)) + "\n")
        return [self.program or "", "-n", "-f", str(path), "-F", str(place / "pcp.conf"), "-a", str(hba), "-D"]

    def _login(self, origin: Address, place: Path) -> dict[str, object]:
        """With a password: SCRAM on both sides, for which it wants the password in a file of its own."""
        (place / "pool_hba.conf").write_text(f"host all all {HOST}/32 scram-sha-256\n")
        passwords = place / "pool_passwd"
        passwords.write_text(f"{origin.user}:TEXT{origin.password}\n" if origin.password else "")
        return {"enable_pool_hba": "on" if origin.password else "off", "pool_passwd": f"'{passwords}'"}

    def _tls(self, origin: Address, place: Path) -> dict[str, object]:
        """It asks the origin for TLS only where it could offer TLS itself."""
        if not origin.tls:
            return {}
        files = Authority(place).server()
        Path(files.key).chmod(0o600)
        return {"ssl": "on", "ssl_cert": f"'{files.cert}'", "ssl_key": f"'{files.key}'"}

    def _settings(self, origin: Address, port: int, place: Path) -> dict[str, object]:
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
