"""Connection strings: libpq is the oracle for what they say, our table for what we make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import OperationalError, pq

from hyperdrive.dsn import IGNORED, KEYWORDS, Dsn, Host, parse_dsn, parse_pairs, password_from_file
from hyperdrive.errors import ConfigError


def libpq(text: str) -> dict[str, str] | None:
    """What libpq reads, or ``None`` where it refuses."""
    try:
        options = pq.Conninfo.parse(text.encode())
    except OperationalError:
        return None
    return {o.keyword.decode(): o.val.decode("utf-8", "surrogateescape") for o in options if o.val is not None}


def ours(text: str) -> dict[str, str] | None:
    try:
        return parse_pairs(text)
    except ConfigError:
        return None


STRINGS = [
    "",
    "   ",
    "postgresql://",
    "postgres://",
    "postgresql:///",
    "postgresql://:5",
    "postgresql://h",
    "postgresql://h:5433/d",
    "postgresql://u@h/d",
    "postgresql://u:p@h/d",
    "postgresql://u:p:q@h/d",
    "postgresql://:p@h/d",
    "postgresql://u:@h/d",
    "postgresql://u@h@i/d",
    "postgresql://a@@b/",
    "postgresql://@h/d",
    "postgresql://u%40x:p%2F%3A%25@h/d%20e",
    "postgresql://%2Fvar%2Frun:5433/d",
    "postgresql://u@%2Ftmp/d",
    "postgresql:///d?host=/tmp&port=5433",
    "postgresql:///d?host=@abstract",
    "postgresql://a@b?host=x@y/z",
    "postgresql://[::1]/d",
    "postgresql://[::1]:5433/d",
    "postgresql://[fe80::1%25eth0]/d",
    "postgresql://[::1",
    "postgresql://[]/",
    "postgresql://[::1]x",
    "postgresql://[::1],h/d",
    "postgresql://a,b/",
    "postgresql://a:1,b:2/d",
    "postgresql://a:1,b/d",
    "postgresql://h:,i:/",
    "postgresql://a,,b",
    "postgresql://h?sslmode=require",
    "postgresql://h/?sslmode=require&application_name=a%20b",
    "postgresql://h/d?",
    "postgresql://h/d?port=1&",
    "postgresql://h/d?port=1&&",
    "postgresql://h/d?&",
    "postgresql://h/d?port",
    "postgresql://h/d?=1",
    "postgresql://h/d?port=1=2",
    "postgresql://h/d?nonsense=1",
    "postgresql://h/d?ssl=true",
    "postgresql://h/d?ssl=false",
    "postgresql://h/d?port=1&port=2",
    "postgresql://h/d?p%6Frt=1",
    "postgresql://h/d?options=-c%20a%3Db",
    "postgresql://h/d#f",
    "postgresql://h/%zz",
    "postgresql://h/%2",
    "postgresql://h/%00",
    "postgresql://a b/",
    "postgresql:// h / d ",
    "postgresql://h/d\n",
    "host=a",
    "host = a  port= 5 dbname =d",
    "host= port=1",
    "host=",
    "host=''",
    "host='a'port=1",
    "host='a b' port=1",
    "host='a\\'b' password='\\\\'",
    "host=a\\ b",
    "host=a'b",
    "host=\\",
    "host=a\\",
    "host=a\\ ",
    "host=\\'a",
    "host='a",
    "host='a\\'",
    "=x",
    "a b",
    "ho st=1",
    "host",
    "host = 'x' y",
    "nonsense=1",
    "requiressl=1",
    "host=a\tport=1\nuser=u",
    "host=/tmp,@x port=1,2",
    "password='p w' options='-c a=b -c c=d'",
    "user=ünïcode",
]


@pytest.mark.parametrize("text", STRINGS)
def test_strings_say_what_libpq_reads_in_them(text: str) -> None:
    assert libpq(text) == ours(text)


PIECES = st.sampled_from(
    [
        "postgresql://",
        "host",
        "port",
        "user",
        "sslmode",
        "=",
        " ",
        "'",
        "\\",
        "/",
        ":",
        "@",
        ",",
        "?",
        "&",
        "[",
        "]",
        "%",
        "%20",
        "%2F",
        "%00",
        "a",
        "1",
        "::1",
        "\t",
        "ü",
        "ssl",
        "true",
        "nonsense",
        "prefer",
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join))
@example("postgresql://a@b?host=x")
def test_any_string_is_read_as_libpq_reads_it(text: str) -> None:
    """Parsers agree on acceptance and on every value; ours differs only in refusing schemes it does not know."""
    if text.partition("://")[1] and not text.startswith(("postgresql://", "postgres://")):
        return
    assert libpq(text) == ours(text)


def test_every_keyword_of_libpq_is_known() -> None:
    """A keyword of a newer libpq has to be sorted into supported, unsupported or ignored."""
    assert {o.keyword.decode() for o in pq.Conninfo.get_defaults()} - KEYWORDS == set()


def parse(text: str, **env: str) -> Dsn:
    return parse_dsn(text, env=env or None, os_user=lambda: "me", exists=lambda path: False)


def test_defaults_are_libpqs() -> None:
    assert Dsn((Host("localhost", 5432),), "me", "me") == parse("")
    assert Dsn((Host("h", 5432),), "u", "u") == parse("postgresql://u@h")


def test_without_a_host_a_socket_that_exists_is_taken() -> None:
    dsn = parse_dsn("user=u port=5433", exists=lambda path: path == "/tmp/.s.PGSQL.5433")
    assert (Host("/tmp", 5433),) == dsn.hosts
    assert dsn.hosts[0].socket_path == "/tmp/.s.PGSQL.5433"
    assert dsn.hosts[0].is_unix


def test_the_environment_counts_only_where_asked() -> None:
    env = {"PGHOST": "e", "PGUSER": "eu", "PGPASSWORD": "ep", "PGPORT": "7", "PGSSLMODE": "require"}
    dsn = parse("postgresql://u@/d", **env)
    assert (Host("e", 7),) == dsn.hosts
    assert (dsn.user, dsn.password, dsn.database, dsn.sslmode) == ("u", "ep", "d", "require")
    assert parse("user=u").host == "localhost"


def test_several_hosts_pair_up_with_ports_and_addresses() -> None:
    assert (Host("a", 1), Host("b", 2)) == parse("host=a,b port=1,2").hosts
    assert (Host("a", 1), Host("b", 1)) == parse("host=a,b port=1").hosts
    assert (Host("a", 5432), Host("b", 2)) == parse("postgresql://a,b:2/").hosts
    assert (Host("a", 5432, "10.0.0.1"), Host("b", 5432, "::1")) == parse("host=a,b hostaddr=10.0.0.1,::1").hosts
    assert str(parse("host=a,b hostaddr=10.0.0.1,::1").hosts[1]) == "[::1]:5432"


WRONG = [
    ("sslmode=verify", "sslmode: 'verify' is not one of disable, allow, prefer, require, verify-ca, verify-full"),
    ("port=x", "port: 'x' is not a whole number"),
    ("port=70000", "port: 70000 is not between 1 and 65535"),
    ("host=a,b,c port=1,2", "port: 2 ports for 3 hosts; give one, or as many"),
    ("host=a hostaddr=1.1.1.1,2.2.2.2", "hostaddr: 2 addresses for 1 hosts; give as many of each"),
    ("connect_timeout=2s", "connect_timeout: '2s' is not a whole number"),
    ("sslmod=require", "'sslmod': no such connection parameter; did you mean sslmode?"),
    ("target_session_attrs=read-write", "target_session_attrs: not supported towards the origin; only any"),
    ("require_auth=scram-sha-256", "require_auth: not supported towards the origin; leave it out"),
    ("sslnegotiation=direct", "sslnegotiation: direct needs sslmode=require or stronger; sslmode is prefer"),
    ("sslrootcert=system sslmode=require", "sslrootcert: system needs sslmode=verify-full; sslmode is require"),
    ("sslkey=k", "sslkey: a key needs its certificate; give sslcert as well"),
    ("mysql://u@h/d", "connection string: unknown scheme 'mysql'; expected postgresql:// or postgres://"),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_a_wrong_value_names_its_keyword_and_what_would_be_right(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert expected == str(caught.value)


@pytest.mark.parametrize("text", ["postgresql://u:se%zzcret@h", "user=u password='secret", "postgresql://u:sec ret@h"])
def test_a_wrong_password_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert "sec" not in str(caught.value)
    assert "zz" not in str(caught.value)


def test_the_system_store_raises_the_default_sslmode() -> None:
    assert parse("sslrootcert=system").sslmode == "verify-full"


def test_ignored_keywords_are_accepted() -> None:
    for key in IGNORED:
        assert parse("user=u") == parse(f"user=u {key}=1")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
PLACES = st.lists(
    st.builds(Host, st.sampled_from(["a", "db.example", "::1", "/tmp", "@x", "/tmp/ü b"]), st.integers(1, 65535)),
    min_size=1,
    max_size=3,
).map(tuple)


@given(
    st.builds(
        Dsn,
        PLACES,
        TEXT,
        TEXT,
        password=st.none() | TEXT,
        options=st.just("") | TEXT,
        application_name=st.just("") | TEXT,
        sslmode=st.sampled_from(["prefer", "require", "verify-full"]),
        connect_timeout=st.none() | st.integers(1, 99).map(float),
        sslsni=st.booleans(),
        keepalives_idle=st.integers(0, 99),
    )
)
def test_a_dsn_survives_its_url(dsn: Dsn) -> None:
    """What ``url`` writes, we and libpq read back to the same values."""
    assert dsn == parse(dsn.url())
    read = libpq(dsn.url())
    assert read is not None
    assert (dsn.user, dsn.database, dsn.password) == (read["user"], read["dbname"], read.get("password"))
    assert [h.host for h in dsn.hosts] == read["host"].split(",")


def test_printing_a_dsn_leaves_the_password_out() -> None:
    dsn = parse("postgresql://u:secret@h/d?sslcert=c&sslkey=k&sslpassword=alsosecret")
    assert "secret" not in f"{dsn} {dsn!r}"
    assert str(dsn) == "postgresql://u@h:5432/d?sslcert=c&sslkey=k"


def test_a_password_file_is_read_as_libpq_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    file.write_text("# comment\nother:*:*:*:no\nh:5432:d:u:first\\:and\\\\last\n*:*:*:*:any\n")
    file.chmod(0o600)
    assert password_from_file(str(file), parse("postgresql://u@h/d")) == "first:and\\last"
    assert password_from_file(str(file), parse("postgresql://u@h/e")) == "any"
    file.write_text("localhost:*:*:u:socket\n")
    assert password_from_file(str(file), parse("host=/tmp user=u")) == "socket"
    assert None is password_from_file(str(file), parse("host=h user=u"))


def test_a_password_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    file.write_text("*:*:*:*:any\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="may be read by others"):
        password_from_file(str(file), parse("user=u"))
