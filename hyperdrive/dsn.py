"""Connection strings as libpq understands them.

Knows both forms, URI and keyword/value (libpq-connect#LIBPQ-CONNSTRING), what each keyword may hold, and which of them
we carry out. Opens no connection; the only file it ever reads is a password file that was named. The environment
(libpq-envars) is looked at only when the caller hands it in.

A keyword that libpq knows and we cannot carry out is an error rather than silently ignored, because some of them are
about security (``require_auth``, ``requirepeer``). Those that cannot matter to a proxy are in ``IGNORED``, with the reason.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from hyperdrive.errors import ConfigError

_BLANKS = " \t\n\r\v\f"  # isspace() of the C locale

URI_PREFIXES = ("postgresql://", "postgres://")
DEFAULT_PORT = 5432
SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")  # where packages and PostgreSQL itself put it

SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
TLS_VERSIONS = ("TLSv1.2", "TLSv1.3")  # older ones are refused by both sides of ours

# Keyword → what it may be. Empty means "not given" for every keyword, as in libpq.
_CHOICES: dict[str, tuple[str, ...]] = {
    "sslmode": SSLMODES,
    "sslnegotiation": ("postgres", "direct"),
    "channel_binding": ("disable", "prefer", "require"),
    "sslsni": ("0", "1"),
    "keepalives": ("0", "1"),
    "ssl_min_protocol_version": TLS_VERSIONS,
    "ssl_max_protocol_version": TLS_VERSIONS,
}
_NUMBERS = ("connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
_TEXTS = (
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "passfile",
    "dbname",
    "options",
    "application_name",
    "fallback_application_name",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslcrldir",
)

# Accepted only with the values that mean "as if it were not there".
UNSUPPORTED: dict[str, tuple[str, ...]] = {
    "target_session_attrs": ("any",),
    "load_balance_hosts": ("disable",),
    "gssencmode": ("disable", "prefer"),
    "replication": ("false", "off", "no", "0"),
    "require_auth": (),
    "requirepeer": (),
    "sslcertmode": ("allow",),
    "sslkeylogfile": (),
    "service": (),
    "servicefile": (),
    "scram_client_key": (),
    "scram_server_key": (),
    "oauth_issuer": (),
    "oauth_client_id": (),
    "oauth_client_secret": (),
    "oauth_scope": (),
    "min_protocol_version": ("3.0",),
}

IGNORED: dict[str, str] = {
    "client_encoding": "each client brings its own",
    "sslcompression": "TLS compression no longer exists",
    "krbsrvname": "GSSAPI is not used",
    "gsslib": "GSSAPI is not used",
    "gssdelegation": "GSSAPI is not used",
    "max_protocol_version": "each server is offered the newest protocol version we speak",
}

KEYWORDS = frozenset((*_CHOICES, *_NUMBERS, *_TEXTS, *UNSUPPORTED, *IGNORED))

_ENVIRONMENT = {
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGPASSFILE": "passfile",
    "PGOPTIONS": "options",
    "PGAPPNAME": "application_name",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLCERT": "sslcert",
    "PGSSLKEY": "sslkey",
    "PGSSLSNI": "sslsni",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGCHANNELBINDING": "channel_binding",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGREQUIREAUTH": "require_auth",
    "PGSERVICE": "service",
}


@dataclass(frozen=True, slots=True)
class Host:
    """One place to try. *host* is a name, an address or (with a leading ``/`` or ``@``) a socket directory."""

    host: str
    port: int = DEFAULT_PORT
    hostaddr: str = ""

    @property
    def is_unix(self) -> bool:
        """True for a unix-domain socket, also in the abstract namespace (``@``)."""
        return not self.hostaddr and self.host.startswith(("/", "@"))

    @property
    def socket_path(self) -> str:
        """The path to connect to; a leading ``@`` is the abstract namespace, as in libpq."""
        return f"{self.host}/.s.PGSQL.{self.port}"

    @property
    def address(self) -> str:
        """What to connect to: *hostaddr* spares the look-up; the name still counts for certificates."""
        return self.hostaddr or self.host

    def __str__(self) -> str:
        if self.is_unix:
            return self.socket_path
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Dsn:
    """A checked connection string. ``""`` and ``None`` mean "not given" where that is a state of its own."""

    hosts: tuple[Host, ...]
    user: str
    database: str
    password: str | None = field(default=None, repr=False)
    passfile: str = ""
    application_name: str = ""
    options: str = ""
    connect_timeout: float | None = None
    sslmode: str = "prefer"
    sslnegotiation: str = "postgres"
    sslrootcert: str = ""
    sslcert: str = ""
    sslkey: str = ""
    sslpassword: str = field(default="", repr=False)
    sslcrl: str = ""
    sslcrldir: str = ""
    sslsni: bool = True
    ssl_min_protocol_version: str = "TLSv1.2"
    ssl_max_protocol_version: str = ""
    channel_binding: str = "prefer"
    keepalives: bool = True
    keepalives_idle: int = 0
    keepalives_interval: int = 0
    keepalives_count: int = 0
    tcp_user_timeout: int = 0

    @property
    def host(self) -> str:
        """The first host."""
        return self.hosts[0].host

    @property
    def port(self) -> int:
        """The first host's port."""
        return self.hosts[0].port

    def with_database(self, database: str) -> Dsn:
        """The same origin, another database."""
        return replace(self, database=database)

    def with_user(self, user: str, password: str | None) -> Dsn:
        """The same origin, another user."""
        return replace(self, user=user, password=password)

    def url(self, *, with_password: bool = True) -> str:
        """A URI that ``parse_dsn`` and libpq read back to the same values."""
        credentials = quote(self.user, safe="")
        if with_password and self.password is not None:
            credentials += ":" + quote(self.password, safe="")
        places = ",".join(f"{_host_in_uri(h.host)}:{h.port}" for h in self.hosts)
        query = "&".join(f"{key}={quote(value, safe='/')}" for key, value in self._parameters(with_password))
        return f"postgresql://{credentials}@{places}/{quote(self.database, safe='')}" + (f"?{query}" if query else "")

    def __str__(self) -> str:
        return self.url(with_password=False)

    def _parameters(self, with_secrets: bool) -> list[tuple[str, str]]:
        """The keywords that the URI's own places cannot hold and that differ from their default."""
        found = []
        if any(h.hostaddr for h in self.hosts):
            found.append(("hostaddr", ",".join(h.hostaddr for h in self.hosts)))
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("hosts", "user", "database", "password") or value == one.default:
                continue
            if one.name == "sslpassword" and not with_secrets:
                continue
            if isinstance(value, bool):
                value = int(value)
            found.append((one.name, f"{value:g}" if isinstance(value, float) else str(value)))
        return found


def parse_dsn(
    text: str,
    *,
    env: Mapping[str, str] | None = None,
    os_user: Callable[[], str] = getpass.getuser,
    exists: Callable[[str], bool] = os.path.exists,
) -> Dsn:
    """Read a URI or keyword/value connection string.

    *env* is the environment whose ``PG*`` variables fill what *text* leaves out; by default none is looked at. Without
    a user the operating system's is taken, without a database the user's name, without a host the first usual directory
    in which a socket exists, otherwise ``localhost``: as in libpq, which fixes the directory when it is built.

    Raises:
        ConfigError: names the keyword at fault and what it may be.
    """
    return dsn_from_pairs(parse_pairs(text), env=env, os_user=os_user, exists=exists)


def parse_pairs(text: str) -> dict[str, str]:
    """The keywords and values of a connection string, known keywords only, nothing filled in."""
    if text.startswith(URI_PREFIXES):
        return _parse_uri(text)
    if scheme := re.match(r"(\w[\w+.-]*)://", text):
        raise ConfigError(f"connection string: unknown scheme {scheme[1]!r}; expected postgresql:// or postgres://")
    return _parse_keyword_value(text)


def dsn_from_pairs(
    pairs: Mapping[str, str],
    *,
    env: Mapping[str, str] | None = None,
    os_user: Callable[[], str] = getpass.getuser,
    exists: Callable[[str], bool] = os.path.exists,
) -> Dsn:
    """Check keywords and values and fill in defaults; see ``parse_dsn``."""
    given = {key: value for key, value in pairs.items() if value != ""}
    for variable, key in _ENVIRONMENT.items():
        if env is not None and key not in pairs and env.get(variable):
            given[key] = env[variable]
    _refuse_unsupported(given)
    for key, choices in _CHOICES.items():
        if key in given and given[key] not in choices:
            raise ConfigError(f"{key}: {given[key]!r} is not one of {', '.join(choices)}")
    numbers = {key: _number(key, given[key]) for key in _NUMBERS if key in given}
    hosts = _hosts(given, exists)
    user = given.get("user") or os_user()
    # libpq: zero, negative or absent means to wait for ever.
    timeout = numbers.pop("connect_timeout", 0)
    plain = (
        "passfile",
        "options",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslcrl",
        "sslcrldir",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "channel_binding",
    )
    dsn = Dsn(
        hosts=hosts,
        user=user,
        database=given.get("dbname") or user,
        password=given.get("password"),
        application_name=given.get("application_name") or given.get("fallback_application_name", ""),
        connect_timeout=float(timeout) if timeout > 0 else None,
        sslsni=given.get("sslsni", "1") == "1",
        keepalives=given.get("keepalives", "1") == "1",
        **{key: given[key] for key in plain if key in given},  # type: ignore[arg-type]
        **numbers,  # type: ignore[arg-type]
    )
    if dsn.sslrootcert == "system" and "sslmode" not in given:
        dsn = replace(dsn, sslmode="verify-full")  # libpq changes the default together with it
    _check_combinations(dsn)
    return dsn


def password_from_file(path: str, dsn: Dsn) -> str | None:
    """The password for *dsn* in the password file *path* (libpq-pgpass), or ``None``.

    The first line that matches host, port, database and user wins; ``*`` matches anything.

    Raises:
        ConfigError: the file cannot be read, or others may read it, in which case libpq ignores it too.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"passfile: cannot read {path!r}: {exc}") from exc
    if mode & 0o077:
        raise ConfigError(f"passfile: {path!r} may be read by others; it needs permissions u=rw (0600) or less")
    for place in dsn.hosts:
        host = "localhost" if place.is_unix and place.host in SOCKET_DIRECTORIES else place.host
        wanted = (host, str(place.port), dsn.database, dsn.user)
        for line in lines:
            if line and not line.startswith("#"):
                parts = _passfile_fields(line)
                if len(parts) == 5 and all(p in ("*", w) for p, w in zip(parts[:4], wanted, strict=True)):
                    return parts[4]
    return None


def _passfile_fields(line: str) -> list[str]:
    """Split at colons that no backslash protects."""
    return [re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:^|:)((?:[^:\\]|\\.)*)", line)]


# ── the two forms ──


def _parse_uri(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = text.split("://", 1)[1]
    # Credentials end at the first "@" ahead of any "/" (so that "?host=@abstract" is none).
    credentials = re.match(r"([^@/]*)@", rest)
    if credentials:
        rest = rest[credentials.end() :]
        user, _, password = credentials[1].partition(":")
        found |= {key: _decode(value, key) for key, value in (("user", user), ("password", password)) if value}
    hosts, ports, rest = _uri_hosts(rest)
    # Several hosts without any port leave only commas: libpq stores those, too.
    found |= {key: _decode(",".join(v), key) for key, v in (("host", hosts), ("port", ports)) if any(v) or len(v) > 1}
    if rest.startswith("/"):
        database, mark, parameters = rest[1:].partition("?")
        if database:
            found["dbname"] = _decode(database, "dbname")
    else:
        mark, parameters = rest[:1], rest[1:]
    if mark and parameters:
        _uri_parameters(parameters, found)
    return found


def _uri_hosts(rest: str) -> tuple[list[str], list[str], str]:
    """Read ``host[:port],…``; what follows is empty or starts with ``/`` or ``?``."""
    hosts: list[str] = []
    ports: list[str] = []
    while True:
        if rest.startswith("["):
            address = re.match(r"\[([^\]]*)\]", rest)
            if not address or not address[1]:
                raise ConfigError("host: an IPv6 address in a URI is written [address], and is not empty")
            host, rest = address[1], rest[address.end() :]
            if rest and rest[0] not in ":/?,":
                raise ConfigError(f"host: unexpected {rest[0]!r} after ']'; expected ':', ',', '/' or '?'")
        else:
            host = re.match(r"[^:/?,]*", rest)[0]  # type: ignore[index]  # it matches at least nothing
            rest = rest[len(host) :]
        port = ""
        if rest.startswith(":"):
            port = re.match(r"[^/?,]*", rest[1:])[0]  # type: ignore[index]
            rest = rest[1 + len(port) :]
        hosts.append(host)
        ports.append(port)
        if not rest.startswith(","):
            return hosts, ports, rest
        rest = rest[1:]


def _uri_parameters(text: str, found: dict[str, str]) -> None:
    for pair in text.removesuffix("&").split("&"):
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise ConfigError(f"{_shown(key)}: a URI parameter is written keyword=value, once each '='")
        key = _decode(key, "connection string")
        value = _decode(value, key)
        if (key, value) == ("ssl", "true"):  # JDBC's spelling, which libpq accepts
            key, value = "sslmode", "require"
        _store(found, key, value)


def _decode(text: str, key: str) -> str:
    """Percent-decode one part. Blanks around it do not count, blanks inside must be encoded (as libpq 17 and later)."""
    text = text.strip(" ")
    if " " in text:
        raise ConfigError(f"{key}: a space inside a URI is written %20")
    if wrong := re.search(r"%(?![0-9A-Fa-f]{2})", text):
        shown = "" if key in ("password", "sslpassword") else f" {text[wrong.start() : wrong.start() + 3]!r}"
        raise ConfigError(
            f"{key}: '%' is followed by two hexadecimal digits;{shown} is not (a plain '%' is written %25)"
        )
    if "%00" in text:
        raise ConfigError(f"{key}: %00 is not allowed")
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


_KEY = re.compile(r"\s*([^=\s]*)\s*(=?)\s*", re.ASCII)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_PLAIN = re.compile(r"((?:[^\s\\]|\\.)*)\\?", re.ASCII | re.DOTALL)  # libpq drops a backslash at the very end


def _parse_keyword_value(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while text[at:].strip(_BLANKS):
        head = _KEY.match(text, at)
        assert head is not None  # each of its parts may be empty
        key = head[1]
        if not head[2]:
            raise ConfigError(
                f"{_shown(key)}: '=' is missing after the keyword; expected keyword=value or a postgresql:// URI"
            )
        quoted = text.startswith("'", head.end())
        value = (_QUOTED if quoted else _PLAIN).match(text, head.end())
        if value is None:
            raise ConfigError(f"{key}: the quoted value does not end")
        if "\0" in value[0]:
            raise ConfigError(f"{key}: a zero byte is not allowed")
        _store(found, key, re.sub(r"\\(.)", r"\1", value[1], flags=re.DOTALL))
        at = value.end()
    return found


# ── checks ──


def _store(found: dict[str, str], key: str, value: str) -> None:
    if (key, value) == ("requiressl", "1"):  # the ancestor of sslmode, which libpq still reads
        key, value = "sslmode", "require"
    if key not in KEYWORDS:
        near = get_close_matches(key, KEYWORDS, 1)
        raise ConfigError(
            f"{_shown(key)}: no such connection parameter" + (f"; did you mean {near[0]}?" if near else "")
        )
    found[key] = value


def _shown(key: str) -> str:
    """A keyword for an error text. What is no keyword may be half a password: shortened, and never empty."""
    return key if key in KEYWORDS else repr(key[:24]) if key.isidentifier() else "connection string"


def _refuse_unsupported(given: Mapping[str, str]) -> None:
    for key, value in given.items():
        if key in UNSUPPORTED and value not in UNSUPPORTED[key]:
            allowed = UNSUPPORTED[key]
            right = f"only {' or '.join(allowed)}" if allowed else "leave it out"
            raise ConfigError(f"{key}: not supported towards the origin; {right}")


def _number(key: str, value: str) -> int:
    if not re.fullmatch(r"\s*[+-]?\d{1,9}\s*", value, re.ASCII):
        raise ConfigError(f"{key}: {value!r} is not a whole number")
    return int(value)


def _hosts(given: Mapping[str, str], exists: Callable[[str], bool]) -> tuple[Host, ...]:
    """Pair host, hostaddr and port up as libpq-connect#LIBPQ-MULTIPLE-HOSTS says."""
    addresses = given.get("hostaddr", "").split(",")
    names = given["host"].split(",") if "host" in given else [""] * len(addresses)
    if "hostaddr" not in given:
        addresses = [""] * len(names)
    if len(addresses) != len(names):
        raise ConfigError(f"hostaddr: {len(addresses)} addresses for {len(names)} hosts; give as many of each")
    ports = given.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise ConfigError(f"port: {len(ports)} ports for {len(names)} hosts; give one, or as many")
    return tuple(_place(n, a, p, exists) for n, a, p in zip(names, addresses, ports, strict=True))


def _place(name: str, address: str, port_text: str, exists: Callable[[str], bool]) -> Host:
    port = _number("port", port_text) if port_text else DEFAULT_PORT
    if not 0 < port < 65536:
        raise ConfigError(f"port: {port} is not between 1 and 65535")
    if not name and not address:
        usual = (d for d in SOCKET_DIRECTORIES if exists(f"{d}/.s.PGSQL.{port}"))
        name = next(usual, "localhost")
    return Host(name, port, address)


def _check_combinations(dsn: Dsn) -> None:
    def wrong(text: str) -> NoReturn:
        raise ConfigError(text)

    if dsn.sslnegotiation == "direct" and dsn.sslmode in ("disable", "allow", "prefer"):
        wrong(f"sslnegotiation: direct needs sslmode=require or stronger; sslmode is {dsn.sslmode}")
    if dsn.sslrootcert == "system" and dsn.sslmode != "verify-full":
        wrong(f"sslrootcert: system needs sslmode=verify-full; sslmode is {dsn.sslmode}")
    low, high = dsn.ssl_min_protocol_version, dsn.ssl_max_protocol_version
    if high and TLS_VERSIONS.index(low) > TLS_VERSIONS.index(high):
        wrong(f"ssl_min_protocol_version: {low} is above ssl_max_protocol_version {high}")
    if dsn.sslkey and not dsn.sslcert:
        wrong("sslkey: a key needs its certificate; give sslcert as well")


def _host_in_uri(host: str) -> str:
    return f"[{quote(host, safe=':')}]" if ":" in host and not host.startswith(("/", "@")) else quote(host, safe="")
