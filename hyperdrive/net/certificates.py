"""What we read of a certificate ourselves: the hash that ``tls-server-end-point`` channel binding wants.

RFC 5929 section 4.1: the hash of the whole certificate by the hash function of its own signature, and SHA-256 where
that would be MD5 or SHA-1. Python's ``ssl`` gives the DER bytes and no signature algorithm, so a reader of the few DER
elements on the way to it is here (X.690; RFC 5280 section 4.1). Knows no sockets and no SCRAM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

# Signature algorithms by OID: RFC 4055, RFC 5758, RFC 8692 and NIST's register.
_RSA = "1.2.840.113549.1.1."
_ECDSA = "1.2.840.10045.4."
_NIST_SIGNATURES = "2.16.840.1.101.3.4.3."
_NIST_HASHES = "2.16.840.1.101.3.4.2."
_RSA_PSS = _RSA + "10"

_HASH_OF_SIGNATURE = {
    _RSA + "4": "md5",
    _RSA + "5": "sha1",
    _RSA + "11": "sha256",
    _RSA + "12": "sha384",
    _RSA + "13": "sha512",
    _RSA + "14": "sha224",
    "1.2.840.10040.4.3": "sha1",
    _ECDSA + "1": "sha1",
    _ECDSA + "3.1": "sha224",
    _ECDSA + "3.2": "sha256",
    _ECDSA + "3.3": "sha384",
    _ECDSA + "3.4": "sha512",
    _NIST_SIGNATURES + "1": "sha224",
    _NIST_SIGNATURES + "2": "sha256",
    _NIST_SIGNATURES + "3": "sha384",
    _NIST_SIGNATURES + "4": "sha512",
    **{
        f"{_NIST_SIGNATURES}{last}": f"sha3_{bits}"
        for first in (5, 9, 13)  # DSA, ECDSA, RSA
        for last, bits in zip(range(first, first + 4), (224, 256, 384, 512), strict=True)
    },
}
_HASH = {
    "1.3.14.3.2.26": "sha1",
    _NIST_HASHES + "1": "sha256",
    _NIST_HASHES + "2": "sha384",
    _NIST_HASHES + "3": "sha512",
    _NIST_HASHES + "4": "sha224",
    **{f"{_NIST_HASHES}{7 + n}": f"sha3_{bits}" for n, bits in enumerate((224, 256, 384, 512))},
}


def server_end_point(der: bytes) -> bytes | None:
    """The channel binding data of the server certificate *der*.

    ``None`` where RFC 5929 defines none: Ed25519 and others whose signature names no hash, and bytes that are no
    certificate. Then SCRAM goes without channel binding.
    """
    name = signature_hash(der)
    if name is None:
        return None
    return hashlib.new("sha256" if name in ("md5", "sha1") else name, der).digest()


def signature_hash(der: bytes) -> str | None:
    """The hashlib name of the hash function that the certificate *der* was signed with, or ``None``."""
    try:
        certificate = next(_elements(der))
        _, algorithm, _ = _elements(certificate)
        oid, *parameters = _elements(algorithm)
        dotted = _dotted(oid)
        if dotted != _RSA_PSS:
            return _HASH_OF_SIGNATURE.get(dotted)
        return _pss_hash(parameters[0]) if parameters else "sha1"
    except (ValueError, IndexError, StopIteration):
        return None


def _pss_hash(parameters: bytes) -> str | None:
    """RFC 4055 section 3.1: ``[0]`` holds the hash, and SHA-1 is the default."""
    for tag, content in _tagged(parameters):
        if tag == 0xA0:
            algorithm = next(_elements(content))
            return _HASH.get(_dotted(next(_elements(algorithm))))
    return "sha1"


def _elements(data: bytes) -> Iterator[bytes]:
    """The contents of the DER elements in *data*, one after the other."""
    return (content for _, content in _tagged(data))


def _tagged(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:  # the long form: so many bytes of length follow
            width = size & 0x7F
            if not 1 <= width <= 4:
                raise ValueError("a DER length that no certificate has")
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        if at + size > len(data):
            raise ValueError("a DER element is cut off")
        yield tag, data[at : at + size]
        at += size


def _dotted(oid: bytes) -> str:
    numbers: list[int] = []
    value = 0
    for byte in oid:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)  # the first two arcs share a number
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))
