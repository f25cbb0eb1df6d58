"""PostgreSQL's own grammar: a text becomes a tree of plain values. Knows pglast and its JSON; what a tree means is for who reads it.

orjson takes a third of what json takes for it, and this is the largest part of a first sight.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson
from pglast.parser import ParseError, parse_sql_json

__all__ = ["ParseError", "Tree", "parse_tree"]

Tree: TypeAlias = dict[str, Any]


def parse_tree(text: str) -> Tree:
    """The tree of *text*: ``stmts``, each with a ``stmt``.

    Raises:
        ParseError: it does not parse.
        RecursionError: it is nested too deeply to be read.
    """
    try:
        tree: Tree = orjson.loads(parse_sql_json(text))
    except orjson.JSONDecodeError as exc:  # nothing else can be wrong with what libpg_query writes
        raise RecursionError(exc.msg) from exc
    return tree
