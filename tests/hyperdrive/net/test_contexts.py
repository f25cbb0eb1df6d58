"""``sslmode`` and the files it names."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyperdrive.errors import ConfigError
from hyperdrive.net.contexts import ClientCertificates, Negotiation, SslMode, TlsPolicy, server_context
from hyperdrive.testing.certs import Authority


@pytest.mark.parametrize(
    ("mode", "with_root", "expected"),
    [
        (SslMode.PREFER, False, (ssl.CERT_NONE, False)),
        (SslMode.REQUIRE, False, (ssl.CERT_NONE, False)),
        (SslMode.REQUIRE, True, (ssl.CERT_REQUIRED, False)),
        (SslMode.PREFER, True, (ssl.CERT_REQUIRED, False)),
        (SslMode.VERIFY_CA, True, (ssl.CERT_REQUIRED, False)),
        (SslMode.VERIFY_FULL, True, (ssl.CERT_REQUIRED, True)),
    ],
)
def test_what_is_checked(mode: SslMode, with_root: bool, expected: tuple[Any, bool], authority: Authority) -> None:
    """``require`` with a root certificate that exists is ``verify-ca`` (libpq-ssl); only ``verify-full`` checks names."""
    context = TlsPolicy(mode, root_cert=authority.root if with_root else None).context
    assert (context.verify_mode, context.check_hostname) == expected


def test_a_root_certificate_that_does_not_exist_matters_to_the_verifying_modes_only(tmp_path: Path) -> None:
    missing = str(tmp_path / "root.crt")
    assert TlsPolicy(SslMode.REQUIRE, root_cert=missing).context.verify_mode is ssl.CERT_NONE
    for mode in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL):
        with pytest.raises(ConfigError, match="sslrootcert"):
            _ = TlsPolicy(mode, root_cert=missing).context
        with pytest.raises(ConfigError, match="sslrootcert"):
            _ = TlsPolicy(mode).context


def test_the_systems_roots_need_verify_full() -> None:
    context = TlsPolicy(SslMode.VERIFY_FULL, root_cert="system").context
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    for mode in set(SslMode) - {SslMode.VERIFY_FULL}:
        with pytest.raises(ConfigError, match="verify-full"):
            TlsPolicy(mode, root_cert="system")


@pytest.mark.parametrize("mode", [SslMode.DISABLE, SslMode.ALLOW, SslMode.PREFER])
def test_direct_tls_needs_a_mode_without_a_way_back(mode: SslMode) -> None:
    with pytest.raises(ConfigError, match="sslnegotiation=direct"):
        TlsPolicy(mode, negotiation=Negotiation.DIRECT)


def test_unknown_versions_are_named() -> None:
    with pytest.raises(ConfigError, match=r"ssl_min_protocol_version .* not \"TLSv1\""):
        TlsPolicy(min_version="TLSv1")
    assert TlsPolicy(min_version="TLSv1.3").context.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("mode", "used_tls", "second"),
    [
        (SslMode.ALLOW, False, SslMode.REQUIRE),
        (SslMode.ALLOW, True, None),
        (SslMode.PREFER, True, SslMode.DISABLE),
        (SslMode.PREFER, False, None),
        (SslMode.DISABLE, False, None),
        (SslMode.REQUIRE, True, None),
        (SslMode.VERIFY_FULL, True, None),
    ],
)
def test_the_second_attempt_after_a_refused_login(mode: SslMode, used_tls: bool, second: SslMode | None) -> None:
    policy = TlsPolicy(mode).after_refusal(used_tls=used_tls)
    assert (policy.mode if policy else None) == second


def test_default_files_are_used_where_they_exist(tmp_path: Path) -> None:
    home = tmp_path / ".postgresql"
    home.mkdir()
    assert TlsPolicy().with_user_files(tmp_path) == TlsPolicy()
    for name in ("root.crt", "root.crl", "postgresql.crt", "postgresql.key"):
        (home / name).touch()
    found = TlsPolicy(root_cert="mine.crt").with_user_files(tmp_path)
    assert found == TlsPolicy(
        root_cert="mine.crt",
        crl=str(home / "root.crl"),
        cert=str(home / "postgresql.crt"),
        key=str(home / "postgresql.key"),
    )


def test_files_that_are_no_certificates_are_named(tmp_path: Path, authority: Authority) -> None:
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    files = authority.server()
    for wrong in (
        lambda: TlsPolicy(SslMode.VERIFY_CA, root_cert=str(rubbish)).context,
        lambda: TlsPolicy(cert=str(rubbish)).context,
        lambda: TlsPolicy(SslMode.VERIFY_CA, root_cert=authority.root, crl=str(rubbish)).context,
        lambda: server_context(files.cert, str(rubbish)),
        lambda: server_context(files.cert, files.key, client_ca=str(rubbish)),
        lambda: server_context(files.cert, authority.server().key),
    ):
        with pytest.raises(ConfigError, match=r"rubbish\.pem|ca\.\d+\.key"):
            wrong()
    with pytest.raises(ConfigError, match="no cipher"):
        server_context(files.cert, files.key, ciphers="none such")


def test_an_encrypted_key_without_its_password_is_an_error_and_no_question(
    tmp_path: Path, authority: Authority
) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    files = authority.client("alice")
    key = load_pem_private_key(Path(files.key).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame")))
    policy = TlsPolicy(cert=files.cert, key=str(locked))
    with pytest.raises(ConfigError, match=r"locked\.key"):
        _ = policy.context
    assert replace(policy, password="open sesame").context


def test_a_key_that_everyone_can_read_is_said(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    files = authority.server()
    server_context(files.cert, files.key)
    assert not caplog.records
    Path(files.key).chmod(0o644)
    server_context(files.cert, files.key)
    assert "chmod 600" in caplog.text


def test_revoked_certificates_are_refused(tmp_path: Path, authority: Authority) -> None:
    """``sslcrl``; shown by the flags here and by a handshake."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    files = authority.server()
    root = x509.load_pem_x509_certificate(Path(authority.root).read_bytes())
    key: Any = load_pem_private_key(authority.authority.private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    revoked = (
        x509.RevokedCertificateBuilder()
        .serial_number(x509.load_der_x509_certificate(files.der).serial_number)
        .revocation_date(now)
        .build()
    )
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(now - datetime.timedelta(hours=1))
        .next_update(now + datetime.timedelta(hours=1))
        .add_revoked_certificate(revoked)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "root.crl"
    path.write_bytes(crl.public_bytes(Encoding.PEM))
    policy = TlsPolicy(SslMode.VERIFY_CA, root_cert=authority.root, crl=str(path))
    other = authority.server()
    assert handshake(policy.context, server_context(other.cert, other.key)) is None
    refused = handshake(policy.context, server_context(files.cert, files.key))
    assert refused is not None
    assert "revoked" in refused.verify_message
    assert TlsPolicy(SslMode.VERIFY_CA, root_cert=authority.root, crl=str(tmp_path / "none.crl")).context


def test_client_certificates_without_an_authority_are_not_asked_for(authority: Authority) -> None:
    files = authority.server()
    context = server_context(files.cert, files.key, client_certificates=ClientCertificates.REQUIRED)
    assert context.verify_mode is ssl.CERT_NONE


def handshake(asking: ssl.SSLContext, serving: ssl.SSLContext) -> ssl.SSLCertVerificationError | None:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(back, there, server_side=False, server_hostname="localhost")
    server = serving.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as exc:
                return exc
    return None
