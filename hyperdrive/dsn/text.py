"""The two forms of a connection string, URI and keyword/value (libpq-connect#LIBPQ-CONNSTRING), as keywords and values.

Knows which keywords there are; what they may hold is checked later. Of what is wrong no password is shown.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from hyperdrive.dsn.keywords import KEYWORDS, shown
from hyperdrive.errors import ConfigError

_BLANKS = " \t\n\r\v\f"  # isspace() of the C locale

URI_PREFIXES = ("postgresql://", "postgres://")


def parse_pairs(text: str) -> dict[str, str]:
    """The keywords and values of a connection string, known keywords only, nothing filled in."""
    if text.startswith(URI_PREFIXES):
        return _parse_uri(text)
    if scheme := re.match(r"(\w[\w+.-]*)://", text):
        raise ConfigError(f"connection string: unknown scheme {scheme[1]!r}; expected postgresql:// or postgres://")
    return _parse_keyword_value(text)


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
            raise ConfigError(f"{shown(key)}: a URI parameter is written keyword=value, once each '='")
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
                f"{shown(key)}: '=' is missing after the keyword; expected keyword=value or a postgresql:// URI"
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


def _store(found: dict[str, str], key: str, value: str) -> None:
    if (key, value) == ("requiressl", "1"):  # the ancestor of sslmode, which libpq still reads
        key, value = "sslmode", "require"
    if key not in KEYWORDS:
        near = get_close_matches(key, KEYWORDS, 1)
        raise ConfigError(
            f"{shown(key)}: no such connection parameter" + (f"; did you mean {near[0]}?" if near else "")
        )
    found[key] = value
