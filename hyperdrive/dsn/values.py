"""What a checked connection string comes to: places to try, who we are there, and how to talk to them. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from urllib.parse import quote

from hyperdrive.dsn.keywords import DEFAULT_PORT


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


def _host_in_uri(host: str) -> str:
    return f"[{quote(host, safe=':')}]" if ":" in host and not host.startswith(("/", "@")) else quote(host, safe="")
