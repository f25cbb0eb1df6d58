"""The channel binding of certificates, compared with what the ``cryptography`` package reads from them."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.net.certificates import server_end_point, signature_hash
from hyperdrive.testing.certs import Authority

NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server")])
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
DSA = dsa.generate_private_key(2048)

SIGNATURES = [
    pytest.param(RSA, hashes.SHA256(), None, id="rsa sha256"),
    pytest.param(RSA, hashes.SHA384(), None, id="rsa sha384"),
    pytest.param(RSA, hashes.SHA512(), None, id="rsa sha512"),
    pytest.param(RSA, hashes.SHA224(), None, id="rsa sha224"),
    pytest.param(RSA, hashes.SHA3_384(), None, id="rsa sha3-384"),
    pytest.param(RSA, hashes.SHA256(), padding.PSS(padding.MGF1(hashes.SHA256()), 32), id="rsa-pss sha256"),
    pytest.param(RSA, hashes.SHA512(), padding.PSS(padding.MGF1(hashes.SHA512()), 64), id="rsa-pss sha512"),
    pytest.param(EC, hashes.SHA224(), None, id="ecdsa sha224"),
    pytest.param(EC, hashes.SHA256(), None, id="ecdsa sha256"),
    pytest.param(EC, hashes.SHA384(), None, id="ecdsa sha384"),
    pytest.param(EC, hashes.SHA512(), None, id="ecdsa sha512"),
    pytest.param(EC, hashes.SHA3_256(), None, id="ecdsa sha3-256"),
    pytest.param(DSA, hashes.SHA256(), None, id="dsa sha256"),
]


def signed(key: Any, algorithm: Any, rsa_padding: Any = None) -> bytes:
    now = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    options = {"rsa_padding": rsa_padding} if rsa_padding else {}
    return builder.sign(key, algorithm, **options).public_bytes(Encoding.DER)


@pytest.mark.parametrize(("key", "algorithm", "rsa_padding"), SIGNATURES)
def test_the_hash_is_that_of_the_signature(key: Any, algorithm: Any, rsa_padding: Any) -> None:
    der = signed(key, algorithm, rsa_padding)
    oracle = x509.load_der_x509_certificate(der).signature_hash_algorithm
    assert oracle is not None
    name = oracle.name.replace("-", "_")
    assert signature_hash(der) == name
    assert server_end_point(der) == hashlib.new(name, der).digest()


@pytest.mark.parametrize(
    ("oid", "name"),
    [("1.2.840.113549.1.1.5", "sha1"), ("1.2.840.113549.1.1.4", "md5"), ("1.2.840.10045.4.1", "sha1")],
)
def test_weak_hashes_count_as_sha256(oid: str, name: str) -> None:
    """RFC 5929: MD5 and SHA-1 are replaced. No library signs with them any more, so the OID is put in by hand."""
    der = certificate_with_oid(oid)
    assert signature_hash(der) == name
    assert server_end_point(der) == hashlib.sha256(der).digest()


def certificate_with_oid(dotted: str) -> bytes:
    numbers = [int(part) for part in dotted.split(".")]
    body = bytearray([numbers[0] * 40 + numbers[1]])
    for number in numbers[2:]:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        body += bytes(reversed(groups))
    algorithm = sequence(bytes([6, len(body)]) + bytes(body) + b"\x05\x00")
    return sequence(sequence(b"\x02\x01\x01" * 60) + algorithm + b"\x03\x02\x00\x00")


def sequence(content: bytes) -> bytes:
    size = len(content)
    return (b"\x30" + bytes([size]) if size < 128 else b"\x30\x82" + size.to_bytes(2, "big")) + content


def test_a_signature_without_a_hash_has_no_channel_binding() -> None:
    """Ed25519: RFC 5929 says nothing, and PostgreSQL offers no SCRAM-SHA-256-PLUS then."""
    assert server_end_point(signed(ed25519.Ed25519PrivateKey.generate(), None)) is None


def test_a_pss_signature_without_parameters_is_sha1() -> None:
    oid = bytes.fromhex("06092a864886f70d01010a")
    der = sequence(sequence(b"") + sequence(oid + sequence(b"")) + b"\x03\x01\x00")
    assert signature_hash(der) == "sha1"
    assert signature_hash(sequence(sequence(b"") + sequence(oid) + b"\x03\x01\x00")) == "sha1"


def test_the_certificates_of_the_tests_have_one(authority: Authority) -> None:
    assert server_end_point(authority.server().der)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate_have_none(data: bytes) -> None:
    assert server_end_point(data) is None or data[:1] == b"\x30"


@given(cut=st.integers(0, 400), at=st.integers(0, 400), byte=st.integers(0, 255))
def test_damaged_certificates_raise_nothing(cut: int, at: int, byte: int) -> None:
    der = bytearray(DER)
    der[at % len(der)] = byte
    server_end_point(bytes(der[: len(der) - cut % len(der)]))


DER = signed(EC, hashes.SHA256())
