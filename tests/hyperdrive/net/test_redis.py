"""What a URL of a second level may be, and what is said when nothing can be done with it."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from hyperdrive.config.loader import loader_for
from hyperdrive.config.settings import shown
from hyperdrive.errors import ConfigError
from hyperdrive.net.redis import check_url, without_password


def test_a_missing_package_is_said_with_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def importing(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("redis"):
            raise ImportError(name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ConfigError, match=r"cache_redis: .*hyperdrive\[redis\]"):
        check_url("redis://localhost")


def test_an_argument_that_makes_no_sense_is_said_with_its_setting() -> None:
    with pytest.raises(ConfigError, match="cache_redis: "):
        check_url("redis://localhost?socket_timeout=soon")


@pytest.mark.parametrize("value", ["http://x", "localhost:6379", "redis"])
def test_what_is_no_such_url_is_not_loaded(value: str) -> None:
    with pytest.raises(ConfigError, match="cache_redis"):
        loader_for(None, {"cache_redis": value}, env={}).load()


def test_passwords_are_not_shown() -> None:
    assert "redis://me@host:1/2" == without_password("redis://me:secret@host:1/2?password=secret")
    settings = loader_for(None, {"cache_redis": "redis://:secret@host/0"}, env={}).load()
    found = {key: value for key, value, _, _ in shown(settings)}
    assert "redis://@host/0" == found["cache_redis"]
    assert "redis://:secret@host/0" == settings.cache_redis
