"""A data directory: made with ``initdb`` or from a template, owned by who runs the server, its password kept beside it."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from hyperdrive.errors import ConfigError
from hyperdrive.localinstall import Account, Installation, place_data
from hyperdrive.localserver.postmaster import environment, failed
from hyperdrive.localserver.signs import write_private

Auth = Literal["scram-sha-256", "md5", "password", "trust"]


class DataDirectory:
    """The directory at *path*, with *user* as the superuser. *password* ``None`` means one made with it and kept beside it.

    *template* is the directory of a stopped server, to be copied instead of running ``initdb``.
    """

    def __init__(self, path: Path, *, user: str, password: str | None, auth: Auth, template: Path | None) -> None:
        self.path = path
        self._user = user
        self._password = password
        self._auth = auth
        self._template = template

    @property
    def password(self) -> str:
        """The superuser's password.

        Raises:
            ConfigError: it was neither given nor made here.
        """
        if self._password is None:
            try:
                self._password = self._password_path.read_text().strip()
            except FileNotFoundError as exc:
                raise ConfigError(f"the password of {self.path} is not known: give it") from exc
        return self._password

    @property
    def _password_path(self) -> Path:
        return self.path.with_name(self.path.name + ".password")

    def prepare(self, installation: Installation, account: Account, *, is_forgetful: bool) -> Path:
        """See to it that there is a cluster of *installation*'s version for *account*; return where it really is.

        *is_forgetful* saves what makes the new files survive a crash of the machine.

        Raises:
            ConfigError: there is something else in it, or a cluster of another version.
            OriginUnreachable: ``initdb`` failed; the text has the end of what it said.
        """
        data = place_data(self.path, account)
        version = data / "PG_VERSION"
        if not version.exists():
            if any(data.iterdir()):
                raise ConfigError(f"{data} is neither empty nor a data directory of PostgreSQL")
            self._initialize(data, installation, account, is_forgetful=is_forgetful)
        elif (found := version.read_text().strip()) != str(installation.major):
            raise ConfigError(f"{data} is of PostgreSQL {found}, the programs are of {installation.major}")
        return data

    def _initialize(self, data: Path, installation: Installation, account: Account, *, is_forgetful: bool) -> None:
        if self._template is not None:
            subprocess.run(["/bin/cp", "-a", f"{self._template.resolve()}/.", data], check=True)
            return
        with tempfile.NamedTemporaryFile("w", dir=data.parent, prefix="hyperdrive-") as secret:
            secret.write(self._new_password() + "\n")
            secret.flush()
            account.own(Path(secret.name))
            command: list[str | Path] = [installation.program("initdb"), "-D", data, "--no-instructions"]
            command += [f"--username={self._user}", f"--pwfile={secret.name}"]
            command += [f"--auth-local={self._auth}", f"--auth-host={self._auth}", "--encoding=UTF8", "--locale=C"]
            if installation.major >= 17:  # Unicode's rules on every machine alike, whatever locales it has
                command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            if is_forgetful:
                command.append("--no-sync")
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                env=environment(),
                start_new_session=True,  # Ctrl-C is for us: it takes a second, and then we stop in order
                **account.spawn_args(),
            )
        if done.returncode != 0:
            raise failed("the embedded Postgres could not be initialized", done.stderr)

    def _new_password(self) -> str:
        """Return the password for a new directory; one that we make is kept where only we can read it."""
        if self._password is None:
            self._password = secrets.token_urlsafe(18)
            write_private(self._password_path, self._password.encode() + b"\n")
        return self._password


def place_tls(data: Path, cert: Path | None, key: Path | None, account: Account) -> None:
    """Copy certificate and key into *data*, because the key must belong to who runs the server (ssl-tcp)."""
    for source, name in ((cert, "server.crt"), (key, "server.key")):
        if source is not None:
            (data / name).unlink(missing_ok=True)
            write_private(data / name, source.read_bytes())
            account.own(data / name)
