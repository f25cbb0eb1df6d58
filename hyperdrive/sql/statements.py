"""From one statement's tree to a ``Statement``: its kind, its tag, its details.

Tags are those of the wire reference §4 and PostgreSQL's ``cmdtaglist.h``. A node type that is not listed here is forwarded with
every doubt: UTILITY, suspect, ends the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hyperdrive.sql.text import strip_comments
from hyperdrive.sql.tree import Findings, Tree, constant, temp_object, walk
from hyperdrive.sql.verdict import (
    Command,
    Dropped,
    Effect,
    Form,
    Isolation,
    Kind,
    Mark,
    Modes,
    SetConfig,
    Setting,
    Statement,
    TempObject,
)


class Source:
    """The text that the parser saw: finds slices, and turns its words back into the client's bytes."""

    __slots__ = ("encoded", "encoding")

    def __init__(self, text: str, encoding: str) -> None:
        self.encoded = text.encode()  # the parser counts in bytes of UTF-8
        self.encoding = encoding

    def encode(self, word: str) -> bytes:
        return word.encode(self.encoding)

    def slice(self, location: int, length: int) -> tuple[int, bytes]:
        """Return where the slice begins and its bytes, white space around it left out. A *length* of 0 means: to the end."""
        piece = self.encoded[location : location + length if length else None]
        stripped = piece.lstrip()
        location += len(piece) - len(stripped)
        stripped = stripped.rstrip()
        if self.encoding == "utf-8":
            return location, stripped
        return len(self.encoded[:location].decode()), self.encode(stripped.decode())


class _Draft:
    """What is known of a statement before its details: handed to the functions below."""

    __slots__ = ("common", "found", "node", "source", "tree")

    def __init__(self, source: Source, node: str, tree: Tree, found: Findings, common: dict[str, Any]) -> None:
        self.source = source
        self.node = node
        self.tree = tree
        self.found = found
        self.common = common

    def word(self, field: str) -> bytes | None:
        value = self.tree.get(field)
        return None if value is None else self.source.encode(value)

    def make(self, kind: Kind, tag: bytes | None = None, *, effects: tuple[Effect, ...] = (), **more: Any) -> Statement:
        common = self.common
        if effects:
            common["effects"] += effects
        common.update(more)
        return Statement(kind=kind, tag=tag, **common)


def statement(source: Source, raw: Tree) -> Statement:
    """Return the statement of *raw*, an element of the parser's ``stmts``."""
    location, sql = source.slice(raw.get("stmt_location", 0), raw.get("stmt_len", 0))
    ((node, tree),) = raw["stmt"].items()
    found = walk(node, tree, source.encode)
    common = {
        "sql": sql,
        "location": location,
        "suspect": found.runs_unknown,
        "takes_locks": found.takes_locks,
        "reads_currval": found.reads_currval and not found.calls_nextval,
        "effects": tuple([effect for _, effect in found.effects]),
        "relations": tuple(found.relations),
        "unknown_functions": tuple(found.unknown_functions),
    }
    return _MAKERS.get(node, _other)(_Draft(source, node, tree, found, common))


# --- Plain statements ---


def _select(draft: _Draft) -> Statement:
    found = draft.found
    if found.has_into:
        return draft.make(Kind.DDL, ends_epoch=True)
    name, setting = _set_by_query(draft) or (None, None)
    return draft.make(
        Kind.PLAIN,
        command=Command.SELECT,
        is_read=found.is_pure,
        may_write=not found.is_pure,
        name=name,
        setting=setting,
    )


def _set_by_query(draft: _Draft) -> tuple[bytes, Setting] | None:
    """The column and the setting of a query that does what SET does: ``SELECT set_config(…, …, false)`` with constants."""
    effects = draft.common["effects"]
    if len(effects) != 1 or not isinstance(effects[0], SetConfig) or draft.common["suspect"]:
        return None
    (effect,) = effects
    targets = draft.tree.get("targetList", ())
    target = targets[0].get("ResTarget", {}) if len(targets) == 1 else {}
    is_whole = effect.is_exact and effect.is_local is False and "FuncCall" in target.get("val", {})
    if not is_whole or not isinstance(effect.name, bytes) or not isinstance(effect.value, bytes):
        return None
    column = draft.source.encode(target.get("name", "set_config"))
    return column, Setting(effect.name, Form.VALUE, draft.common["sql"], (effect.value,))


def _plain(command: Command) -> Callable[[_Draft], Statement]:
    return lambda draft: draft.make(Kind.PLAIN, command=command)


# --- Transactions ---

_TRANSACTION: Final = {
    "TRANS_STMT_BEGIN": (Kind.BEGIN, b"BEGIN"),
    "TRANS_STMT_START": (Kind.BEGIN, b"START TRANSACTION"),
    "TRANS_STMT_COMMIT": (Kind.COMMIT, b"COMMIT"),
    "TRANS_STMT_ROLLBACK": (Kind.ROLLBACK, b"ROLLBACK"),
    "TRANS_STMT_SAVEPOINT": (Kind.SAVEPOINT, b"SAVEPOINT"),
    "TRANS_STMT_RELEASE": (Kind.RELEASE, b"RELEASE"),
    "TRANS_STMT_ROLLBACK_TO": (Kind.ROLLBACK_TO, b"ROLLBACK"),
    "TRANS_STMT_PREPARE": (Kind.PREPARE_TRANSACTION, b"PREPARE TRANSACTION"),
    "TRANS_STMT_COMMIT_PREPARED": (Kind.COMMIT_PREPARED, b"COMMIT PREPARED"),
    "TRANS_STMT_ROLLBACK_PREPARED": (Kind.ROLLBACK_PREPARED, b"ROLLBACK PREPARED"),
}
_TWO_PHASE: Final = frozenset((Kind.PREPARE_TRANSACTION, Kind.COMMIT_PREPARED, Kind.ROLLBACK_PREPARED))


def _transaction(draft: _Draft) -> Statement:
    kind, tag = _TRANSACTION[draft.tree["kind"]]
    return draft.make(
        kind,
        tag,
        name=draft.word("gid") if kind in _TWO_PHASE else draft.word("savepoint_name"),
        modes=_modes(draft.tree.get("options", [])) if kind is Kind.BEGIN else None,
        chain=bool(draft.tree.get("chain")),
        may_write=kind in _TWO_PHASE,
    )


def _modes(options: list[Tree]) -> Modes:
    """The last of each mode counts, as the origin executes them in order."""
    isolation: Isolation | None = None
    flags: dict[str, bool] = {}
    for option in options:
        element = option["DefElem"]
        value = element["arg"]["A_Const"]
        if element["defname"] == "transaction_isolation":
            isolation = Isolation(value["sval"]["sval"].encode())
        else:
            flags[element["defname"]] = bool(value.get("ival", {}).get("ival", 0))
    return Modes(isolation, flags.get("transaction_read_only"), flags.get("transaction_deferrable"))


# --- Settings ---

_OLD_NAMES: Final = {b"sort_mem": b"work_mem", b"vacuum_mem": b"maintenance_work_mem"}


def _setting_name(draft: _Draft) -> bytes:
    # Names of settings do not mind case, not even in quotes; the lexer has folded only those without.
    name = (draft.word("name") or b"").lower()
    return _OLD_NAMES.get(name, name)


_FORMS: Final = {
    "VAR_SET_VALUE": Form.VALUE,
    "VAR_SET_DEFAULT": Form.DEFAULT,
    "VAR_SET_CURRENT": Form.CURRENT,
    "VAR_RESET": Form.RESET,
}


def _set(draft: _Draft) -> Statement:
    tree = draft.tree
    if tree["kind"] == "VAR_RESET_ALL":
        return draft.make(Kind.RESET_ALL, b"RESET", may_write=False)
    is_local = bool(tree.get("is_local"))
    if tree["kind"] == "VAR_SET_MULTI":
        return _set_multi(draft, is_local)
    form = _FORMS[tree["kind"]]
    name = _setting_name(draft)
    values = [constant(argument, draft.source.encode) for argument in tree.get("args", ())]
    is_simple = form is Form.VALUE and not any("TypeCast" in argument for argument in tree.get("args", ()))
    constants = tuple(value for value in values if isinstance(value, bytes))
    setting = Setting(
        name=name,
        form=form,
        sql=strip_comments(draft.common["sql"]).strip(),
        values=constants if is_simple and len(constants) == len(values) else None,
        is_local=is_local,
    )
    effects: list[Effect] = []
    if name == b"seed":
        effects.append(Mark.SETSEED)
    if name == b"search_path" and any(b"pg_temp" in value.lower() for value in constants):
        effects.append(TempObject(None))  # first in the path it takes whatever is created, unqualified as it is
    kind = Kind.RESET if form is Form.RESET else Kind.SET_LOCAL if is_local else Kind.SET
    tag = b"RESET" if form is Form.RESET else b"SET"
    return draft.make(kind, tag, setting=setting, may_write=False, effects=tuple(effects))


def _set_multi(draft: _Draft, is_local: bool) -> Statement:
    tree = draft.tree
    if tree["name"] == "TRANSACTION SNAPSHOT":
        snapshot = constant(tree["args"][0], draft.source.encode)
        modes = Modes(snapshot=snapshot if isinstance(snapshot, bytes) else b"")
        return draft.make(Kind.SET_TRANSACTION, b"SET", modes=modes, may_write=False)
    modes = _modes(tree.get("args", []))
    if tree["name"] == "TRANSACTION":
        return draft.make(Kind.SET_TRANSACTION, b"SET", modes=modes, may_write=False)
    if tree["name"] == "SESSION CHARACTERISTICS" and not is_local:
        return draft.make(Kind.SET_SESSION_CHARACTERISTICS, b"SET", modes=modes, may_write=False)
    return draft.make(
        Kind.UTILITY, suspect=True
    )  # SET LOCAL SESSION CHARACTERISTICS: the grammar has it, nobody means it


def _show(draft: _Draft) -> Statement:
    return draft.make(Kind.SHOW, b"SHOW", name=_setting_name(draft), is_read=True, may_write=False)


# --- Session objects ---

_DISCARD: Final = {
    "DISCARD_ALL": (Kind.DISCARD_ALL, b"DISCARD ALL"),
    "DISCARD_PLANS": (Kind.DISCARD_PLANS, b"DISCARD PLANS"),
    "DISCARD_SEQUENCES": (Kind.DISCARD_SEQUENCES, b"DISCARD SEQUENCES"),
    "DISCARD_TEMP": (Kind.DISCARD_TEMP, b"DISCARD TEMP"),
}


def _discard(draft: _Draft) -> Statement:
    kind, tag = _DISCARD[draft.tree["target"]]
    return draft.make(kind, tag, may_write=False)


def _deallocate(draft: _Draft) -> Statement:
    if "name" in draft.tree:
        return draft.make(Kind.DEALLOCATE, b"DEALLOCATE", name=draft.word("name"), may_write=False)
    return draft.make(Kind.DEALLOCATE_ALL, b"DEALLOCATE ALL", may_write=False)


def _prepare(draft: _Draft) -> Statement:
    return draft.make(Kind.PREPARE, b"PREPARE", name=draft.word("name"), may_write=False, effects=(Mark.PREPARE,))


def _execute(draft: _Draft) -> Statement:
    return draft.make(Kind.EXECUTE, name=draft.word("name"), suspect=True, takes_locks=True)


def _explain(draft: _Draft) -> Statement:
    executed = _executed_name(draft)
    if executed is None:
        return draft.make(Kind.EXPLAIN, b"EXPLAIN", ends_epoch="CreateTableAsStmt" in draft.tree.get("query", {}))
    return draft.make(Kind.EXPLAIN, b"EXPLAIN", name=executed, suspect=True, takes_locks=True)


def _create_as(draft: _Draft) -> Statement:
    executed = _executed_name(draft)
    if executed is None:
        return _ddl(draft)
    draft.common.update(suspect=True, takes_locks=True, name=executed)
    return _ddl(draft)


def _executed_name(draft: _Draft) -> bytes | None:
    """The prepared statement that EXPLAIN or CREATE TABLE AS executes."""
    tree: Tree = draft.tree
    while "query" in tree:
        ((node, tree),) = tree["query"].items()
        if node == "ExecuteStmt":
            return draft.source.encode(tree["name"])
    return None


def _listen(draft: _Draft) -> Statement:
    return draft.make(Kind.LISTEN, b"LISTEN", name=draft.word("conditionname"), may_write=False, effects=(Mark.LISTEN,))


def _unlisten(draft: _Draft) -> Statement:
    if "conditionname" in draft.tree:
        return draft.make(Kind.UNLISTEN, b"UNLISTEN", name=draft.word("conditionname"), may_write=False)
    return draft.make(Kind.UNLISTEN_ALL, b"UNLISTEN", may_write=False)


def _notify(draft: _Draft) -> Statement:
    return draft.make(Kind.NOTIFY, b"NOTIFY", name=draft.word("conditionname"))


_CURSOR_OPT_HOLD: Final = 0x0020  # parsenodes.h


def _declare(draft: _Draft) -> Statement:
    hold = bool(draft.tree.get("options", 0) & _CURSOR_OPT_HOLD)
    return draft.make(
        Kind.DECLARE,
        b"DECLARE CURSOR",
        name=draft.word("portalname"),
        hold=hold,
        may_write=not draft.found.is_pure,
        effects=(Mark.HOLD_CURSOR,) if hold else (),
    )


def _close(draft: _Draft) -> Statement:
    if "portalname" in draft.tree:
        return draft.make(Kind.CLOSE, b"CLOSE CURSOR", name=draft.word("portalname"), may_write=False)
    return draft.make(Kind.CLOSE_ALL, b"CLOSE CURSOR ALL", may_write=False)


def _fetch(draft: _Draft) -> Statement:
    return draft.make(Kind.FETCH, name=draft.word("portalname"))


# --- Everything else ---


def _lock(draft: _Draft) -> Statement:
    return draft.make(Kind.LOCK, b"LOCK TABLE", takes_locks=True, may_write=False)


def _load(draft: _Draft) -> Statement:
    return draft.make(Kind.LOAD, b"LOAD", may_write=False, suspect=True, effects=(Mark.LOAD,))


def _call(draft: _Draft) -> Statement:
    return draft.make(Kind.CALL, b"CALL", suspect=True, takes_locks=True)


def _do(draft: _Draft) -> Statement:
    return draft.make(Kind.DO, b"DO", suspect=True, takes_locks=True)


def _drop(draft: _Draft) -> Statement:
    names = []
    for item in draft.tree.get("objects", ()):
        path = [part.get("String", {}).get("sval", "") for part in item.get("List", {}).get("items", ())]
        if len(path) == 1 or (len(path) == 2 and path[0].startswith("pg_temp")):
            names.append(draft.source.encode(path[-1]))
    is_relation = draft.tree.get("removeType") in ("OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_SEQUENCE")
    effects: tuple[Effect, ...] = (Dropped(tuple(names)),) if names and is_relation else ()
    return draft.make(Kind.DDL, ends_epoch=True, effects=effects)


_CREATED: Final = {"CreateStmt": "relation", "ViewStmt": "view", "CreateSeqStmt": "sequence"}


def _ddl(draft: _Draft) -> Statement:
    effects: list[Effect] = []
    if draft.node in _CREATED:
        temp = temp_object(draft.tree.get(_CREATED[draft.node], {}), draft.source.encode, draft.tree.get("oncommit"))
        if temp is not None:
            effects.append(temp)
    if not effects and not draft.found.effects and _names_pg_temp(draft.tree):
        effects.append(TempObject(None))
    return draft.make(
        Kind.DDL,
        ends_epoch=True,
        alters_defaults=draft.node in _ALTERS_DEFAULTS,
        # DEFAULT currval(…) is only stored here.
        reads_currval=draft.common["reads_currval"] and draft.node == "CreateTableAsStmt",
        effects=tuple(effects),
    )


_ALTERS_DEFAULTS: Final = frozenset(("AlterRoleSetStmt", "AlterDatabaseSetStmt", "AlterSystemStmt"))


def _names_pg_temp(tree: Tree) -> bool:
    """True if a word of the tree is or could be the temporary schema: ``pg_temp``, ``pg_temp_3``."""
    stack: list[Any] = [tree]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, str) and value.startswith("pg_temp"):
            return True
    return False


def _utility(draft: _Draft) -> Statement:
    return draft.make(Kind.UTILITY, _UTILITY_TAGS[draft.node], ends_epoch=draft.node in ("ReindexStmt", "ClusterStmt"))


_UTILITY_TAGS: Final[dict[str, bytes | None]] = {
    "CheckPointStmt": b"CHECKPOINT",
    "ClusterStmt": b"CLUSTER",
    "RefreshMatViewStmt": b"REFRESH MATERIALIZED VIEW",
    "ReindexStmt": b"REINDEX",
    "TruncateStmt": b"TRUNCATE TABLE",
    "VacuumStmt": None,  # VACUUM or ANALYZE
}
_DDL_PREFIXES: Final = (
    *("Alter", "Comment", "Composite", "Create", "Define", "Drop", "Grant", "Import", "Index", "Reassign", "Rename"),
    *("Rule", "SecLabel", "View"),
)


def _other(draft: _Draft) -> Statement:
    if draft.node.startswith(_DDL_PREFIXES):
        return _ddl(draft)
    return draft.make(Kind.UTILITY, suspect=True, takes_locks=True, ends_epoch=True)


_MAKERS: Final[dict[str, Callable[[_Draft], Statement]]] = {
    "SelectStmt": _select,
    "InsertStmt": _plain(Command.INSERT),
    "UpdateStmt": _plain(Command.UPDATE),
    "DeleteStmt": _plain(Command.DELETE),
    "MergeStmt": _plain(Command.MERGE),
    "TransactionStmt": _transaction,
    "VariableSetStmt": _set,
    "VariableShowStmt": _show,
    "ConstraintsSetStmt": lambda draft: draft.make(Kind.SET_CONSTRAINTS, b"SET CONSTRAINTS"),
    "DiscardStmt": _discard,
    "DeallocateStmt": _deallocate,
    "PrepareStmt": _prepare,
    "ExecuteStmt": _execute,
    "ListenStmt": _listen,
    "UnlistenStmt": _unlisten,
    "NotifyStmt": _notify,
    "DeclareCursorStmt": _declare,
    "ClosePortalStmt": _close,
    "FetchStmt": _fetch,
    "CopyStmt": lambda draft: draft.make(Kind.COPY),
    "LockStmt": _lock,
    "LoadStmt": _load,
    "CallStmt": _call,
    "DoStmt": _do,
    "ExplainStmt": _explain,
    "CreateTableAsStmt": _create_as,
    "DropStmt": _drop,
    **dict.fromkeys(_UTILITY_TAGS, _utility),
}
