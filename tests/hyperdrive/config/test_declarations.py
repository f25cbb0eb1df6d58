"""What an operator vouches for reaches the cache's decision."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperdrive.config.loader import loader_for
from hyperdrive.errors import ConfigError
from hyperdrive.sql.catalog import Declarations
from hyperdrive.wiring import declarations_of


def test_declarations_come_from_the_settings() -> None:
    flags = {
        "cache_trust_immutable": "off",
        "cache_functions": "public.price=public.items+s.rates, public.norm",
        "cache_types": ["citext", "public.vector"],
        "cache_age_only": "public.remote_*",
        "cache_clean_dates": "on",
    }
    expected = Declarations(
        trust_immutable=False,
        types=frozenset(("citext", "public.vector")),
        functions={"public.price": ("public.items", "s.rates"), "public.norm": ()},
        no_clock_words_in_data=True,
        age_only=("public.remote_*",),
    )
    assert expected == declarations_of(loader_for(None, flags, env={}).load())
    assert Declarations() == declarations_of(loader_for(None, {}, env={}).load())


@pytest.mark.parametrize("wrong", ["price", "public.price=", "public.price=items", "a.b=c.d+", "a.b = c.d"])
def test_a_function_is_named_with_its_schema(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cache_functions"):
        loader_for(None, {"cache_functions": wrong}, env={}).load()
