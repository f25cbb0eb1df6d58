"""Where settings come from, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.config import Address, Loader, Settings, loader_for
from hyperdrive.config.units import DURATION
from hyperdrive.errors import ConfigError
from hyperdrive.pool.settings import PoolMode, PoolSettings
from hyperdrive.wiring import pool_of


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "hyperdrive.toml"


def load(file: Path | None = None, flags: dict[str, object] | None = None, **env: str) -> Settings:
    return Loader(file=file, env=env, flags=flags or {}).load()


def mistakes(file: Path | None = None, flags: dict[str, object] | None = None, **env: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, flags, **env)
    return str(caught.value).splitlines()


def test_nothing_given_is_the_defaults() -> None:
    assert load() == Settings()
    assert Settings().listen == (Address("127.0.0.1", 6543),)
    assert pool_of(Settings(), "u", "d") == PoolSettings()


def test_later_places_win(config: Path) -> None:
    config.write_text('pool_size = 1\nquery_wait_timeout = "1s"\nserver_lifetime = 7\n')
    settings = load(config, {"pool_size": 3}, HYPERDRIVE_POOL_SIZE="2", HYPERDRIVE_QUERY_WAIT_TIMEOUT="500ms")
    assert (settings.pool_size, settings.query_wait_timeout, settings.server_lifetime) == (3, 0.5, 7.0)


def test_the_file_may_be_absent_unless_it_was_named(tmp_path: Path) -> None:
    assert loader_for(None, {}, env={}, directory=tmp_path).load() == Settings()
    for loader in (
        loader_for(str(tmp_path / "x.toml"), {}, env={}),
        loader_for(None, {}, env={"HYPERDRIVE_CONFIG": str(tmp_path / "x.toml")}),
    ):
        with pytest.raises(ConfigError, match=r"x\.toml does not exist"):
            loader.load()


def test_a_wrong_value_names_its_key_its_place_and_what_would_be_right(config: Path) -> None:
    config.write_text('# first\npool_size = "many"\n\n[databases.d]\npool_size = 0\n\n[users]\nu = 5\n')
    assert mistakes(config, {"admin_listen": "nowhere"}, HYPERDRIVE_SERVER_LIFETIME="long") == [
        f"{config}:2: pool_size: 'many' is wrong; expected a whole number, at least 1 and at most 10000",
        f"{config}:5: databases.d.pool_size: 0 is wrong; expected a whole number, at least 1 and at most 10000",
        f"{config}:8: users.u: expected a table with password, pool_mode, max_user_connections, cache",
        f"HYPERDRIVE_SERVER_LIFETIME: server_lifetime: 'long' is wrong; expected {DURATION.right}",
        "--admin: admin_listen: 'nowhere' is wrong; expected HOST:PORT, such as 127.0.0.1:6544, or off",
    ]


def test_an_unknown_key_suggests_the_nearest(config: Path) -> None:
    config.write_text('poolsize = 5\n[databases.d]\npool_mod = "session"\n[user]\na = "b"\n')
    assert mistakes(config, HYPERDRIVE_POOL_SZE="1", HYPERDRIVE_ZZZ="1") == [
        f"{config}:1: poolsize: no such setting; did you mean pool_size?",
        f"{config}:3: databases.d.pool_mod: no such setting; did you mean pool_mode?",
        f"{config}:4: user: no such setting; did you mean users?",
        "HYPERDRIVE_POOL_SZE: pool_sze: no such setting; did you mean HYPERDRIVE_POOL_SIZE?",
        "HYPERDRIVE_ZZZ: zzz: no such setting; docs/settings.md lists them",
    ]


def test_variables_that_kubernetes_makes_for_a_service_called_hyperdrive_are_no_settings() -> None:
    env = {
        "HYPERDRIVE_PORT": "tcp://10.0.0.1:6543",
        "HYPERDRIVE_SERVICE_HOST": "10.0.0.1",
        "HYPERDRIVE_SERVICE_PORT_PG": "6543",
        "HYPERDRIVE_PORT_6543_TCP_ADDR": "10.0.0.1",
    }
    assert load(**env) == Settings()


def test_a_file_that_is_no_toml_is_said_with_its_line(config: Path) -> None:
    config.write_text("pool_size = \n")
    assert "at line 1" in mistakes(config)[0]


CONFLICTS = [
    ({"min_pool_size": 30}, "--min-pool-size: min_pool_size: 30 is above pool_size, 20"),
    ({"listen": ""}, "--listen: listen: nowhere to listen; give an address or unix_socket_dir"),
    ({"tls_require": True}, "--tls-require: tls_require: needs tls_cert and tls_key"),
    ({"tls_key": "k"}, "--tls-key: tls_key: a key needs its certificate; give tls_cert as well"),
    ({"auth_method": "cert"}, "--auth: auth_method: cert needs tls_client_ca"),
    (
        {"auth_method": "trust", "listen": "*:6543"},
        "--auth: auth_method: trust is for this machine only; listen has *:6543. Use scram",
    ),
    (
        {"scram_iterations": 4095, "listen": "10.0.0.1:6543"},
        "--scram-iterations: scram_iterations: fewer than 4096 need tls_require; listen has 10.0.0.1:6543",
    ),
    ({"auth_query": "select 1"}, "--auth-query: auth_query: needs the user's name as parameter $1"),
    ({"auth_user": "x"}, "--auth-user: auth_user: 'x' is not in [users]"),
    ({"tls_cert": "/nowhere.pem"}, "--tls-cert: tls_cert: cannot read '/nowhere.pem'; expected a PEM file"),
    ({"origin": "postgresql://h?port=x"}, "ORIGIN_URL: origin: port: 'x' is not a whole number"),
    (
        {"origin": "postgresql://h?sslmode=verify-full&sslrootcert=/nowhere.pem"},
        "ORIGIN_URL: origin: sslrootcert: cannot read '/nowhere.pem'; expected a PEM file, or system",
    ),
]


@pytest.mark.parametrize(("flags", "expected"), CONFLICTS)
def test_values_that_cannot_hold_together_stop_the_start(flags: dict[str, object], expected: str) -> None:
    assert mistakes(flags=flags)[0].startswith(expected)


def test_a_root_certificate_that_nothing_is_checked_against_may_be_missing() -> None:
    """As in libpq: with ``require`` it counts where it is there."""
    origin = load(flags={"origin": "postgresql://h?sslmode=require&sslrootcert=/nowhere.pem"}).origin
    assert origin is not None
    assert origin.sslrootcert == "/nowhere.pem"


def test_few_iterations_are_for_where_nobody_can_listen() -> None:
    assert 1 == load(flags={"scram_iterations": 1}).scram_iterations
    assert 4096 == load(flags={"scram_iterations": 4096, "listen": "*:6543"}).scram_iterations


def test_a_secret_is_not_repeated(config: Path) -> None:
    config.write_text("origin = 5\n[users.u]\npassword = 12345\n")
    assert "12345" not in "".join(mistakes(config))


def test_databases_and_users_differ_where_they_say_so(config: Path) -> None:
    config.write_text(
        'pool_mode = "session"\n'
        '[databases.reports]\ndbname = "shop"\npool_size = 1\npool_mode = "statement"\nmax_db_connections = 4\n'
        '[users]\nplain = "secret"\nbatch = { password = "p", pool_mode = "transaction", max_user_connections = 0 }\n'
    )
    settings = load(config, {"max_user_connections": 9})
    assert settings.database("reports").dbname == "shop"
    assert settings.database("reports").max_db_connections == 4
    assert settings.database("other").dbname == "other"
    assert settings.users["plain"].password == "secret"
    assert pool_of(settings, "plain", "other").mode is PoolMode.SESSION
    assert pool_of(settings, "plain", "reports").mode is PoolMode.STATEMENT
    assert pool_of(settings, "batch", "reports").mode is PoolMode.TRANSACTION
    assert (pool_of(settings, "batch", "reports").pool_size, pool_of(settings, "batch", "other").pool_size) == (1, 20)
    assert [settings.max_connections_of(user) for user in ("plain", "batch", "nobody")] == [9, 0, 9]


def test_a_small_pool_lowers_the_warm_minimum(config: Path) -> None:
    """``min_pool_size`` for all does not make a smaller pool of one database an error."""
    config.write_text("min_pool_size = 10\n[databases.d]\npool_size = 3\n")
    assert pool_of(load(config), "u", "d").min_size == 3


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"), [("9s", "4", 4), ("2s", "4", 2), ("0", "4", 4), ("3s", "0", 3)]
)
def test_the_shorter_connect_timeout_counts(ours: str, theirs: str, expected: float) -> None:
    settings = load(flags={"connect_timeout": ours, "origin": f"postgresql://u@h/?connect_timeout={theirs}"})
    assert pool_of(settings, "u", "d").connect_timeout == expected


def test_reload_changes_what_may_change_and_says_what_may_not(config: Path) -> None:
    config.write_text("pool_size = 1\nworkers = 1\n")
    loader = Loader(file=config)
    before = loader.load()
    config.write_text('pool_size = 2\nworkers = 2\n[users]\nu = "p"\n')
    reload = loader.reload(before)
    assert (set(reload.changed), reload.needs_restart) == ({"pool_size", "users"}, ("workers",))
    assert (reload.settings.pool_size, reload.settings.workers) == (2, 1)


def test_a_reload_with_a_mistake_changes_nothing(config: Path) -> None:
    config.write_text("pool_size = 1\n")
    loader = Loader(file=config)
    before = loader.load()
    config.write_text("pool_size = 0\n")
    with pytest.raises(ConfigError):
        loader.reload(before)


def test_the_origins_password_may_be_in_a_named_file(tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    file.write_text("h:*:*:u:secret\n")
    file.chmod(0o600)
    origin = load(flags={"origin": f"host=h user=u passfile={file}"}).origin
    assert origin is not None
    assert origin.password == "secret"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["pool_size", "listen", "origin", "log_level", "tls_require", "zzz"]), JSON))
def test_any_value_is_taken_or_refused(flags: dict[str, object]) -> None:
    try:
        load(flags=flags)
    except ConfigError:
        return
