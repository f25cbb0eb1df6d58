"""No setting without its paragraph."""

from __future__ import annotations

from pathlib import Path

import hyperdrive
from hyperdrive.config import reference
from hyperdrive.config.entries import DATABASE_MEANINGS, USER_MEANINGS
from hyperdrive.config.settings import DEFAULTS, MEANINGS, Settings, shown
from hyperdrive.dsn import parse_dsn

PAGE = Path(hyperdrive.__file__).parent.parent / "docs" / "settings.md"


def test_the_reference_page_is_the_table() -> None:
    """If this fails: ``python -m hyperdrive.config.reference > docs/settings.md``."""
    assert PAGE.read_text(encoding="utf-8") == reference.render()


def test_every_setting_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [key for key in (*MEANINGS, *DATABASE_MEANINGS, *USER_MEANINGS) if f"`{key}`" not in page]
    assert missing == []


def test_every_default_is_a_value_that_may_be_written() -> None:
    for key, meaning in MEANINGS.items():
        default = getattr(DEFAULTS, key)
        assert meaning.kind.read(meaning.kind.show(default)) == default, key


def test_settings_are_shown_without_passwords() -> None:
    rows = shown(Settings(origin=parse_dsn("postgresql://u:secret@h/d"), pool_size=5))
    found = {key: (value, default) for key, value, default, _ in rows}
    assert found["pool_size"] == ("5", "20")
    assert found["origin"] == ("postgresql://u@h:5432/d", "")
    assert list(found) == list(MEANINGS)
