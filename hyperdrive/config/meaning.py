"""What is said of a setting besides its value: its kind, its text on the reference page, whether RELOAD may change it.

It is kept in the metadata of the dataclass's field, so a setting is declared in one place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from hyperdrive.config.units import Kind


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the table says of a setting besides its default."""

    kind: Kind
    text: str
    section: str
    live: bool


def setting(kind: Kind, default: Any, text: str, section: str = "", *, live: bool = False) -> Any:
    """A field with its meaning; *section* begins one on the reference page, *live* says that RELOAD may change it."""
    return field(default=default, metadata={"meaning": Meaning(kind, text, section, live)})


def meanings(cls: type[Any]) -> dict[str, Meaning]:
    """The settings of a class and what the table says of each, in order; tables within are left out."""
    return {f.name: f.metadata["meaning"] for f in dataclasses.fields(cls) if "meaning" in f.metadata}
