"""TLS contexts: libpq's ``sslmode`` towards the origin, certificates and keys towards clients.

The meanings are the manual's (libpq-ssl, libpq-connect#LIBPQ-CONNECT-SSLMODE, ssl-tcp). Contexts are shared by all
connections of a policy, which saves memory; new files are read by making a new policy. Knows files and ``ssl``; knows
no transport.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path

from hyperdrive.errors import ConfigError
from hyperdrive.net.certificates import server_end_point

log = logging.getLogger("hyperdrive.net")

ALPN = "postgresql"
SYSTEM_ROOTS = "system"

_VERSIONS = {
    "": ssl.TLSVersion.MAXIMUM_SUPPORTED,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


class SslMode(Enum):
    """libpq's ``sslmode``."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class Negotiation(Enum):
    """libpq's ``sslnegotiation``: ask in clear first, or begin with TLS."""

    POSTGRES = "postgres"
    DIRECT = "direct"


_STRONG = (SslMode.REQUIRE, SslMode.VERIFY_CA, SslMode.VERIFY_FULL)


@dataclass(frozen=True)
class TlsPolicy:
    """How a server connection uses TLS. Fields are libpq's parameters without their ``ssl``.

    Raises:
        ConfigError: values that contradict each other, at once; files that cannot be used, from ``context``.
    """

    mode: SslMode = SslMode.PREFER
    negotiation: Negotiation = Negotiation.POSTGRES
    root_cert: str | None = None
    cert: str | None = None
    key: str | None = None
    password: str | None = None
    crl: str | None = None
    crl_dir: str | None = None
    min_version: str = "TLSv1.2"
    max_version: str = ""
    sni: bool = True

    def __post_init__(self) -> None:
        if self.negotiation is Negotiation.DIRECT and self.mode not in _STRONG:
            raise ConfigError(
                f'sslmode "{self.mode.value}" is too weak for sslnegotiation=direct (use "require", "verify-ca" or '
                '"verify-full")'
            )
        if self.root_cert == SYSTEM_ROOTS and self.mode is not SslMode.VERIFY_FULL:
            # Anyone can get a certificate from a public authority; without the name it proves nothing.
            raise ConfigError(f'sslmode "{self.mode.value}" is too weak for sslrootcert=system (use "verify-full")')
        for key, value in (
            ("ssl_min_protocol_version", self.min_version),
            ("ssl_max_protocol_version", self.max_version),
        ):
            if value not in _VERSIONS:
                raise ConfigError(f'{key} must be "TLSv1.2" or "TLSv1.3", not "{value}"')

    @property
    def starts_with_tls(self) -> bool:
        """Whether the first attempt asks for TLS."""
        return self.mode not in (SslMode.DISABLE, SslMode.ALLOW)

    @property
    def requires_tls(self) -> bool:
        """Whether a connection without TLS is no connection."""
        return self.mode in _STRONG

    @property
    def checks_name(self) -> bool:
        """Whether the certificate must be for the host that was asked for."""
        return self.mode is SslMode.VERIFY_FULL

    def after_refusal(self, *, used_tls: bool) -> TlsPolicy | None:
        """The policy of the second attempt, after the origin refused a login that *used_tls*; or ``None``.

        ``allow`` tries TLS after a refusal in clear (``hostssl`` in pg_hba.conf), ``prefer`` the other way round.
        """
        if self.mode is SslMode.ALLOW and not used_tls:
            return replace(self, mode=SslMode.REQUIRE)
        if self.mode is SslMode.PREFER and used_tls:
            return replace(self, mode=SslMode.DISABLE)
        return None

    def with_user_files(self, home: Path) -> TlsPolicy:
        """This policy with libpq's default files under ``~/.postgresql`` where they exist and nothing else is named."""

        def default(given: str | None, name: str) -> str | None:
            path = home / ".postgresql" / name
            return given if given is not None or not path.exists() else str(path)

        cert = default(self.cert, "postgresql.crt")
        return replace(
            self,
            root_cert=default(self.root_cert, "root.crt"),
            crl=default(self.crl, "root.crl") if self.crl_dir is None else None,
            cert=cert,
            key=default(self.key, "postgresql.key") if cert else self.key,
        )

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The context of this policy, made at first use."""
        return _client_context(self)


def client_context(policy: TlsPolicy) -> ssl.SSLContext:
    """The context for connections under *policy*. Raises ConfigError where a file cannot be used."""
    return policy.context


def _client_context(policy: TlsPolicy) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _protect(context, policy.min_version, policy.max_version)
    context.set_alpn_protocols([ALPN])
    root = policy.root_cert
    if root == SYSTEM_ROOTS:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    elif root and (policy.mode in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL) or Path(root).exists()):
        # As in libpq, a root certificate that exists is used whatever the mode: "require" becomes "verify-ca".
        _load(context, "sslrootcert", root)
    elif policy.mode in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL):
        raise ConfigError(f'sslmode "{policy.mode.value}" needs sslrootcert: a file, or "system"')
    else:
        root = None
    context.check_hostname = policy.checks_name
    context.verify_mode = ssl.CERT_REQUIRED if root else ssl.CERT_NONE
    if root and (policy.crl or policy.crl_dir):
        _load_crl(context, policy.crl, policy.crl_dir)
    if policy.cert:
        _load_chain(context, "sslcert", policy.cert, policy.key, policy.password)
    return context


class ClientCertificates(Enum):
    """Whether a server asks its clients for certificates."""

    IGNORE = "ignore"
    OPTIONAL = "optional"
    REQUIRED = "required"


class ServerContext(ssl.SSLContext):
    """A context for the server's side that remembers its certificate's channel binding (``None``: has none)."""

    end_point: bytes | None = None


def server_context(
    cert: str,
    key: str | None = None,
    *,
    client_ca: str | None = None,
    client_certificates: ClientCertificates = ClientCertificates.OPTIONAL,
    crl: str | None = None,
    password: str | None = None,
    alpn: Sequence[str] = (ALPN,),
    min_version: str = "TLSv1.2",
    max_version: str = "",
    ciphers: str | None = None,
) -> ServerContext:
    """The context for connections of clients. *cert* is a PEM chain, our own certificate first.

    *client_certificates* counts only with *client_ca*: as in PostgreSQL, a certificate that a client does present
    must be good. Raises ConfigError where a file cannot be used.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    _protect(context, min_version, max_version)
    # A resumed session saves nothing to drivers, none of which resumes. Under TLS 1.2 tickets stay on: without them
    # OpenSSL keeps up to 20,480 sessions in memory, and Python has no switch for that.
    context.num_tickets = 0
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if ciphers:
        try:
            context.set_ciphers(ciphers)
        except ssl.SSLError as exc:
            raise ConfigError(f'no cipher matches "{ciphers}"') from exc
    _load_chain(context, "tls_cert", cert, key, password)
    context.end_point = _end_point_of_file(cert)
    if client_ca and client_certificates is not ClientCertificates.IGNORE:
        _load(context, "tls_client_ca", client_ca)
        required = client_certificates is ClientCertificates.REQUIRED
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        if crl:
            _load_crl(context, crl, None)
    return context


def _protect(context: ssl.SSLContext, min_version: str, max_version: str) -> None:
    for value in (min_version, max_version):
        if value not in _VERSIONS:
            raise ConfigError(f'a TLS version must be "TLSv1.2" or "TLSv1.3", not "{value}"')
    context.minimum_version = _VERSIONS[min_version or "TLSv1.2"]
    context.maximum_version = _VERSIONS[max_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load(context: ssl.SSLContext, key: str, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f'{key}: cannot use "{path}" as PEM certificates: {exc}') from exc


def _load_crl(context: ssl.SSLContext, path: str | None, directory: str | None) -> None:
    try:
        # A list that does not exist is passed over, as in libpq.
        if path and Path(path).exists():
            context.load_verify_locations(cafile=path)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        if directory:
            context.load_verify_locations(capath=directory)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"sslcrl: cannot use {path or directory!r}: {exc}") from exc


def _load_chain(context: ssl.SSLContext, name: str, cert: str, key: str | None, password: str | None) -> None:
    secret = key or cert
    try:
        if Path(secret).stat().st_mode & 0o007:
            log.warning('! private key file "%s" is open to everyone on this machine; chmod 600 it', secret)
        # Without a password function OpenSSL would ask at the terminal.
        context.load_cert_chain(cert, key, password=lambda: password or "")
    except (OSError, ssl.SSLError, ValueError) as exc:
        raise ConfigError(f'{name}: cannot use "{cert}" with key "{secret}": {exc}') from exc


def _end_point_of_file(path: str) -> bytes | None:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    text = Path(path).read_text(encoding="ascii", errors="replace")
    if begin not in text or end not in text:
        return None
    first = text[text.index(begin) : text.index(end) + len(end)]
    return server_end_point(ssl.PEM_cert_to_DER_cert(first))
