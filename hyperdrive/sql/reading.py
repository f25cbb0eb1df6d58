"""``Reading``: what a pure SELECT reads, as far as its text tells; the values that ``reads`` finds and ``resolve`` judges."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from hyperdrive.sql.sources import Definitions, Source

Names: TypeAlias = tuple[str, ...]
"""A qualified name as written: ``(name,)`` or ``(schema, name)``."""


class Call(NamedTuple):
    """A function as called. ``arguments`` is ``None`` where their number says nothing (VARIADIC, WITHIN GROUP)."""

    names: Names
    arguments: int | None


class Conversion(NamedTuple):
    """A value that becomes another type while the statement runs: ``c::date``, ``CAST(…)``, columns of JSON_TABLE, ``date(c)``."""

    names: Names
    is_array: bool
    source: Source
    is_call: bool = False
    """Written as a call: it is one only if there is a type of that name."""


class Reading(NamedTuple):
    """What a pure SELECT reads, as far as its text tells. Nothing in it stands twice.

    A tuple of tuples: a frozen dataclass takes five times as long to build, and thousands of these are kept, where sets are four times
    as large.
    """

    relations: tuple[Names, ...]
    """As named in FROM; names of CTEs among them, wherever they might be meant."""
    cte_names: tuple[str, ...]
    columns: tuple[str, ...]
    """Every word of a column reference, and the columns of USING."""
    has_star: bool
    """A star, a whole row or NATURAL: all columns of all relations are read."""
    attributes: tuple[tuple[str, str], ...]
    """Qualified references ``(qualifier, name)``, which call a function where there is no such column; of ``(x).name`` the
    qualifier is empty."""
    aliases: tuple[tuple[str, Names], ...]
    """What each name of FROM stands for: ``(alias, relation)``; of anything but a relation ``(alias, ())``."""
    calls: tuple[Call, ...]
    operators: tuple[Names, ...]
    conversions: tuple[Conversion, ...]
    sampling: tuple[Names, ...]
    definitions: Definitions
    """Names that the statement gives to columns; only if some conversion needs them."""
    parameters: int
    """The highest ``$n``."""
    size_bytes: int
    """Rough memory, for the bound of whoever remembers it."""
