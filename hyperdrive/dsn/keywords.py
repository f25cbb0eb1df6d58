"""The keywords of a connection string, what each may hold, and which of them we carry out (libpq-connect#LIBPQ-PARAMKEYWORDS)."""

from __future__ import annotations

DEFAULT_PORT = 5432
SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")  # where packages and PostgreSQL itself put it

SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
TLS_VERSIONS = ("TLSv1.2", "TLSv1.3")  # older ones are refused by both sides of ours

# Keyword → what it may be. Empty means "not given" for every keyword, as in libpq.
CHOICES: dict[str, tuple[str, ...]] = {
    "sslmode": SSLMODES,
    "sslnegotiation": ("postgres", "direct"),
    "channel_binding": ("disable", "prefer", "require"),
    "sslsni": ("0", "1"),
    "keepalives": ("0", "1"),
    "ssl_min_protocol_version": TLS_VERSIONS,
    "ssl_max_protocol_version": TLS_VERSIONS,
}
NUMBERS = ("connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
TEXTS = (
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

KEYWORDS = frozenset((*CHOICES, *NUMBERS, *TEXTS, *UNSUPPORTED, *IGNORED))

ENVIRONMENT = {
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


def shown(key: str) -> str:
    """A keyword for an error text. What is no keyword may be half a password: shortened, and never empty."""
    return key if key in KEYWORDS else repr(key[:24]) if key.isidentifier() else "connection string"
