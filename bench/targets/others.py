"""Odyssey, PgCat and PgDog, where they are installed: no distribution has them, so most machines leave them out.

Their configurations were written from their manuals and have not met every version; what does not start is left out with what it
said, and costs nobody else's figures.
"""

from __future__ import annotations

from pathlib import Path

from bench.targets.base import HOST, MAX_CLIENTS, Address
from bench.targets.foreign import Foreign


class Odyssey(Foreign):
    """Yandex's Odyssey in transaction mode."""

    name = "Odyssey"
    program_name = "odyssey"
    how = "build it from github.com/yandex/odyssey"

    def command(self, origin: Address, port: int, place: Path, pool_size: int) -> list[str]:
        secret = f'\n        storage_user "{origin.user}"\n        storage_password "{origin.password}"'
        login = f'authentication "scram-sha-256"\n        password "{origin.password}"{secret}'
        path = place / "odyssey.conf"
        path.write_text(
            f"""daemonize no
workers 1
client_max {MAX_CLIENTS}
log_session no
storage "origin" {{
    type "remote"
    host "{origin.host}"
    port {origin.port}
    tls "{"require" if origin.tls else "disable"}"
}}
database "{origin.database}" {{
    user "{origin.user}" {{
        {login if origin.password else 'authentication "none"'}
        storage "origin"
        pool "transaction"
        pool_size {pool_size}
        pool_reserve_prepared_statement yes
    }}
}}
listen {{
    host "{HOST}"
    port {port}
    backlog 4096
}}
"""
        )
        return [self.program or "", str(path)]


class PgCat(Foreign):
    """PgCat in transaction mode."""

    name = "PgCat"
    program_name = "pgcat"
    how = "build it from github.com/postgresml/pgcat"

    def command(self, origin: Address, port: int, place: Path, pool_size: int) -> list[str]:
        path = place / "pgcat.toml"
        path.write_text(
            f"""[general]
host = "{HOST}"
port = {port}
worker_threads = 1
admin_username = "admin"
admin_password = "admin"
server_tls = {str(origin.tls).lower()}
[pools.{origin.database}]
pool_mode = "transaction"
prepared_statements_cache_size = 200
[pools.{origin.database}.users.0]
username = "{origin.user}"
password = "{origin.password or ""}"
pool_size = {pool_size}
[pools.{origin.database}.shards.0]
database = "{origin.database}"
servers = [["{origin.host}", {origin.port}, "primary"]]
"""
        )
        return [self.program or "", str(path)]


class PgDog(Foreign):
    """PgDog in transaction mode."""

    name = "PgDog"
    program_name = "pgdog"
    how = "build it from github.com/pgdogdev/pgdog"

    def command(self, origin: Address, port: int, place: Path, pool_size: int) -> list[str]:
        (place / "pgdog.toml").write_text(
            f"""[general]
host = "{HOST}"
port = {port}
workers = 1
default_pool_size = {pool_size}
pooler_mode = "transaction"
auth_type = "{"scram" if origin.password else "trust"}"
tls_verify = "{"prefer" if origin.tls else "disabled"}"
[[databases]]
name = "{origin.database}"
host = "{origin.host}"
port = {origin.port}
"""
        )
        (place / "users.toml").write_text(
            f'[[users]]\nname = "{origin.user}"\ndatabase = "{origin.database}"\npassword = "{origin.password or ""}"\n'
        )
        return [
            self.program or "",
            "--config",
            str(place / "pgdog.toml"),
            "--users",
            str(place / "users.toml"),
            "run",
        ]
