"""Certificates for tests: an authority, and what a good or bad peer would show.

Made with ``trustme`` (the extra ``test``). Files are written below a directory of the caller, keys with mode 0600.
"""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files of one certificate: the chain, its private key, and where the first certificate's DER can be had."""

    cert: str
    key: str

    @property
    def der(self) -> bytes:
        """The certificate's own DER bytes."""
        text = Path(self.cert).read_text(encoding="ascii")
        end = "-----END CERTIFICATE-----"
        return ssl.PEM_cert_to_DER_cert(text[: text.index(end) + len(end)])


class Authority:
    """A certificate authority whose root is in the file ``root``."""

    def __init__(self, directory: Path, *, name: str = "ca") -> None:
        self._directory = directory
        self._name = name
        self._issued = 0
        self.authority = trustme.CA(organization_name=f"Hyperdrive tests: {name}")
        self.root = str(directory / f"{name}.root.crt")
        self.authority.cert_pem.write_to_path(self.root)

    def server(self, *names: str) -> CertificateFiles:
        """A server's certificate for DNS names and IP addresses; ``localhost`` and the loopback addresses by default."""
        return self._write(self.authority.issue_cert(*(names or ("localhost", "127.0.0.1", "::1"))))

    def client(self, user: str) -> CertificateFiles:
        """A client's certificate, its common name the user's, as the ``cert`` method wants it."""
        return self._write(self.authority.issue_cert(common_name=user))

    def expired(self, *names: str) -> CertificateFiles:
        """A server's certificate that was good until yesterday."""
        now = datetime.datetime.now(datetime.UTC)
        return self._write(
            self.authority.issue_cert(
                *(names or ("localhost", "127.0.0.1", "::1")),
                not_before=now - datetime.timedelta(days=2),
                not_after=now - datetime.timedelta(days=1),
            )
        )

    def for_another_host(self) -> CertificateFiles:
        """A server's certificate for a name that no test connects to."""
        return self.server("elsewhere.example")

    def _write(self, leaf: trustme.LeafCert) -> CertificateFiles:
        self._issued += 1
        stem = str(self._directory / f"{self._name}.{self._issued}")
        cert, key = Path(stem + ".crt"), Path(stem + ".key")
        for index, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(cert, append=index > 0)
        key.touch(mode=0o600)
        leaf.private_key_pem.write_to_path(key)
        return CertificateFiles(str(cert), str(key))
