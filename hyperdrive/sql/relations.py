"""Rules 10, 12 and 13: relations whose rows may be cached, with everything that a change of them can come from.

Nothing here depends on who asks: the verdict on a relation holds for the catalog's lifetime, and is remembered. A view is judged by
its body, as if it stood in the text; how a body is judged is ``resolve``'s, which hands it in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from hyperdrive.sql.audit import TypeAudit
from hyperdrive.sql.catalog import Catalog, Relation
from hyperdrive.sql.reading import Reading
from hyperdrive.sql.rules import Refused, Rule

_CATALOG_SCHEMAS: Final = frozenset(("pg_catalog", "information_schema", "pg_toast"))
_KINDS: Final = {
    "S": "sequence",
    "f": "foreign table",
    "c": "composite type",
    "t": "TOAST table",
    "i": "index",
    "I": "partitioned index",
}
_MAX_DEPTH: Final = 30


class Dependence(NamedTuple):
    """What an answer depends on that holds rows of some relations."""

    tags: tuple[int, ...]
    """OIDs, sorted."""
    names: tuple[str, ...]
    """As users write them, sorted: those named, and those behind views."""
    age_only: bool = False
    has_harmless_columns: bool = False
    """Whatever column of the relation is read, its type passes the audit. False says nothing."""


JudgeBody = Callable[[Reading, int], Dependence | Refused]
"""What a view's body depends on; the number is how many views it stands behind."""


class Relations:
    """Verdicts on relations under one catalog, remembered."""

    __slots__ = ("_audit", "_catalog", "_judge_body", "_known")

    def __init__(self, catalog: Catalog, audit: TypeAudit, judge_body: JudgeBody) -> None:
        self._catalog = catalog
        self._audit = audit
        self._judge_body = judge_body
        self._known: dict[int, Dependence | Refused] = {}

    def judge(self, relation: Relation, depth: int = 0) -> Dependence | Refused:
        """Return what reading *relation* depends on, or why it cannot be cached. *depth* counts the views around it."""
        found = self._known.get(relation.oid)
        if found is None:
            found = self._judge(relation, depth)
            # Behind views a refusal may be one of depth, which another text need not meet.
            if depth == 0 or isinstance(found, Dependence):
                self._known[relation.oid] = found
        return found

    def _judge(self, relation: Relation, depth: int) -> Dependence | Refused:
        catalog = self._catalog
        name = catalog.qualified(relation)
        if catalog.schema_names.get(relation.schema) in _CATALOG_SCHEMAS:
            return Refused(Rule.RELATION, name, "catalogs change without an event")
        if relation.has_row_security:
            return Refused(Rule.ROW_SECURITY, name, "row security shows each role other rows")
        if relation.kind == "v":
            return self._view(relation, name, depth)
        family = catalog.descendants.get(relation.oid, frozenset((relation.oid,)))
        age_only = False
        for oid in sorted(family):
            member = catalog.relations.get(oid)
            if member is None:
                return Refused(Rule.RELATION, str(oid))
            stored = self._storage(member)
            if isinstance(stored, Refused):
                return stored
            age_only |= stored
        if relation.is_partition:
            family |= catalog.ancestors.get(relation.oid, frozenset())
        return Dependence(tuple(sorted(family)), (name,), age_only, self._is_harmless(relation))

    def _storage(self, relation: Relation) -> bool | Refused:
        """Rule 10: rows that the origin logs, in a table that it keeps itself. True if only their age vouches for them."""
        if relation.kind in ("r", "p", "m") and relation.persistence == "p" and not relation.has_row_security:
            return False
        name = self._catalog.qualified(relation)
        if relation.has_row_security:
            return Refused(Rule.ROW_SECURITY, name, "row security shows each role other rows")
        what = _KINDS.get(relation.kind, "unlogged table" if relation.persistence == "u" else "temporary table")
        if what in ("foreign table", "unlogged table"):
            if self._catalog.declarations.allows_age_only(name):
                return True
            return Refused(Rule.RELATION, f"{what} {name}", "it changes without an event; cache_age_only allows it")
        return Refused(Rule.RELATION, f"{what} {name}")

    def _view(self, view: Relation, name: str, depth: int) -> Dependence | Refused:
        """Rule 12: the body counts as if it stood in the text; its names are qualified, or pg_catalog's."""
        body = self._catalog.body(view.oid)
        if isinstance(body, Refused):
            return Refused(Rule.VIEW, name, body.hint, body)
        if depth > _MAX_DEPTH:
            return Refused(Rule.VIEW, name, "views are nested too deeply")
        found = self._judge_body(body, depth + 1)
        if isinstance(found, Dependence):
            tags = tuple(sorted({view.oid, *found.tags}))
            names = tuple(sorted({name, *found.names}))
            return Dependence(tags, names, found.age_only, self._is_harmless(view))
        if found.rule in (Rule.RELATION, Rule.ROW_SECURITY, Rule.VIEW):
            return found
        return Refused(Rule.VIEW, name, found.hint, found)

    def _is_harmless(self, relation: Relation) -> bool:
        columns = self._catalog.columns.get(relation.oid, {})
        return all(self._audit.refusal(oid) is None for oid in columns.values())
