"""What is asked of the origin's catalogs: texts of SQL, and the shapes of their rows.

They are asked as one statement (``gathered``), with an empty search_path so that ``pg_get_viewdef`` qualifies whatever is not pg_catalog's
(caching rules §5.1), and come as lines of a COPY, which takes one round trip however much there is. Relations of temporary schemas and TOAST are left out: other sessions' are nobody's business. Rows are plain values:
int, str, bool, None and lists of int, which is what JSON keeps apart. They are the constructor of ``catalog.Catalog``; who sends them is ``proxy/catalog.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

_PERMANENT: Final = "n.nspname !~ '^pg_(toast|temp_)'"

_IDENTITY: Final = """
select s.system_identifier::text, c.timeline_id::int8, d.oid::int8, current_setting('server_version_num')::int4, pg_is_in_recovery()
from pg_database d, pg_control_system() s, pg_control_checkpoint() c where d.datname = current_database()"""
"""One row; a provider may have closed the functions of the control file."""

QUERIES: Final[dict[str, str]] = {
    # oid, name, owner
    "schemas": """
select n.oid::int8, n.nspname::text, n.nspowner::int8 from pg_namespace n where n.nspname !~ '^pg_(toast|temp_)'""",
    # schema, grantee (0: PUBLIC); USAGE only
    "usages": """
select n.oid::int8, a.grantee::int8 from pg_namespace n cross join lateral aclexplode(n.nspacl) a
where a.privilege_type = 'USAGE' and n.nspname !~ '^pg_(toast|temp_)'""",
    # oid, name, is_superuser, bypasses_row_security
    "roles": "select oid::int8, rolname::text, rolsuper, rolbypassrls from pg_roles",
    # relation, schema, name, kind, persistence, has_row_security, is_partition
    "relations": f"""
select c.oid::int8, c.relnamespace::int8, c.relname::text, c.relkind::text, c.relpersistence::text, c.relrowsecurity,
       c.relispartition
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind not in ('i', 'I', 't') and {_PERMANENT}""",
    # relation, number, name, type
    "columns": f"""
select a.attrelid::int8, a.attnum::int4, a.attname::text, a.atttypid::int8
from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'v', 'm', 'f', 'p', 'c') and {_PERMANENT}
  and n.nspname not in ('pg_catalog', 'information_schema') order by a.attrelid, a.attnum""",
    # child, parent
    "inherits": "select inhrelid::int8, inhparent::int8 from pg_inherits",
    # view, body
    "views": f"""
select c.oid::int8, pg_get_viewdef(c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'v' and {_PERMANENT} and n.nspname not in ('pg_catalog', 'information_schema')""",
    # oid, schema, name, kind, arguments, defaults, is_variadic, volatility, is_security_definer, returns_set, result, argument types,
    # volatilities of an aggregate's support functions, OUT columns
    "functions": """
select p.oid::int8, p.pronamespace::int8, p.proname::text, p.prokind::text, p.pronargs::int4, p.pronargdefaults::int4,
       p.provariadic <> 0, p.provolatile::text, p.prosecdef, p.proretset, p.prorettype::int8, p.proargtypes::oid[]::int8[],
       (select string_agg(s.provolatile::text || case when s.prosecdef then 'd' else '' end, '') from pg_proc s
        where s.oid in (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
                        a.aggminvtransfn, a.aggmfinalfn)),
       p.proargmodes is not null and p.proargmodes && '{o,b,t}'::"char"[]
from pg_proc p left join pg_aggregate a on a.aggfnoid = p.oid
where p.prokind in ('f', 'a', 'w', 'p')""",
    # schema, name, left, right, result, function
    "operators": """
select o.oprnamespace::int8, o.oprname::text, o.oprleft::int8, o.oprright::int8, o.oprresult::int8, o.oprcode::oid::int8
from pg_operator o""",
    # oid, source, target, function, context, method
    "casts": """
select oid::int8, castsource::int8, casttarget::int8, castfunc::int8, castcontext::text, castmethod::text from pg_cast""",
    # oid, schema, name, kind, category, element, array, base, relation
    "types": f"""
select t.oid::int8, t.typnamespace::int8, t.typname::text, t.typtype::text, t.typcategory::text,
       case when t.typsubscript = 'array_subscript_handler'::regproc then t.typelem else 0 end::int8, t.typarray::int8,
       t.typbasetype::int8, t.typrelid::int8
from pg_type t join pg_namespace n on n.oid = t.typnamespace where {_PERMANENT}""",
    # range, multirange, subtype, canonical function
    "ranges": "select rngtypid::int8, rngmultitypid::int8, rngsubtype::int8, rngcanonical::oid::int8 from pg_range",
    # domain, expression
    "domain_checks": """
select c.contypid::int8, pg_get_constraintdef(c.oid) from pg_constraint c where c.contypid <> 0 and c.contype = 'c'""",
    # type: it has a default operator class that PostgreSQL does not bring
    "operator_classes": "select opcintype::int8 from pg_opclass where oid >= 16384 and opcdefault",
    # referencing relation, referenced relation, on update, on delete
    "foreign_keys": """
select conrelid::int8, confrelid::int8, confupdtype::text, confdeltype::text from pg_constraint where contype = 'f'""",
    # relation, function; up to 14 those that a partition has from its parent are internal
    "triggers": """
select tgrelid::int8, tgfoid::int8 from pg_trigger where (not tgisinternal or tgfoid >= 16384) and tgenabled <> 'D'""",
    # relation, event (2 UPDATE, 3 INSERT, 4 DELETE), is_instead
    "rules": "select ev_class::int8, ev_type::text, is_instead from pg_rewrite where ev_type <> '1'",
    # kind, oid, kind, oid: which functions and types the stored expressions of a relation, a domain or a function depend on, an operator
    # being its function. Of a relation defaults, checks, index expressions, policies, a materialized view's query; of a domain its default
    # and its checks; of a function the types of its arguments and result, its arguments' defaults, and a body that was parsed (BEGIN
    # ATOMIC), but not its support function, which only the planner calls. PostgreSQL's own are pinned, and so left out.
    "hidden": """
with behind(class, id, kind, oid) as (
  select p.classid, p.objid, case p.refclassid when 'pg_type'::regclass then 'type' else 'function' end,
         coalesce(o.oprcode::oid, p.refobjid)::int8
  from pg_depend p left join pg_operator o on p.refclassid = 'pg_operator'::regclass and o.oid = p.refobjid
  where p.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
)
select 'relation', d.adrelid::int8, b.kind, b.oid from behind b join pg_attrdef d on b.class = 'pg_attrdef'::regclass and d.oid = b.id
union select case c.conrelid when 0 then 'type' else 'relation' end, (c.conrelid::int8 + c.contypid::int8), b.kind, b.oid
  from behind b join pg_constraint c on b.class = 'pg_constraint'::regclass and c.oid = b.id
union select 'relation', i.indrelid::int8, b.kind, b.oid from behind b join pg_index i on b.class = 'pg_class'::regclass
  and i.indexrelid = b.id
union select 'relation', o.polrelid::int8, b.kind, b.oid from behind b join pg_policy o on b.class = 'pg_policy'::regclass
  and o.oid = b.id
union select 'relation', r.ev_class::int8, b.kind, b.oid from behind b join pg_rewrite r on b.class = 'pg_rewrite'::regclass
  and r.oid = b.id join pg_class c on c.oid = r.ev_class and c.relkind = 'm'
union select 'type', t.oid::int8, b.kind, b.oid from behind b join pg_type t on b.class = 'pg_type'::regclass and t.oid = b.id
  and t.typtype = 'd'
union select 'function', f.oid::int8, b.kind, b.oid from behind b join pg_proc f on b.class = 'pg_proc'::regclass and f.oid = b.id
  where b.kind = 'type' or b.oid <> f.prosupport::oid::int8""",
    # member, role, inherits: membership's own option from 16 on, before it the member's
    "memberships": """
select m.member::int8, m.roleid::int8, r.rolinherit from pg_auth_members m join pg_roles r on r.oid = m.member""",
}

_MEMBERSHIPS_16: Final = "select member::int8, roleid::int8, inherit_option from pg_auth_members"
"""Replaces ``memberships`` from 16 on."""

_COLUMNS: Final[dict[str, int]] = {
    "identity": 5, "fingerprint": 1, "schemas": 3, "usages": 2, "roles": 4, "relations": 7, "columns": 4, "inherits": 2, "views": 2,
    "functions": 14, "operators": 6, "casts": 6, "types": 9, "ranges": 4, "domain_checks": 2, "operator_classes": 1,
    "foreign_keys": 4, "triggers": 2, "rules": 3, "hidden": 4, "memberships": 3,
}  # fmt: skip
"""How many columns each has."""

_TRACKED: Final = (
    "pg_attribute pg_inherits pg_rewrite pg_proc pg_enum pg_policy pg_auth_members pg_db_role_setting pg_publication "
    "pg_publication_rel pg_trigger pg_event_trigger pg_namespace pg_operator pg_cast pg_aggregate pg_opclass pg_constraint "
    "pg_collation pg_range pg_ts_config pg_ts_config_map pg_ts_dict pg_attrdef pg_amop pg_amproc pg_conversion"
).split()
# Which rows of a catalog belong to temporary objects: others' temporary tables must not flush the cache.
_FILTERS: Final = {
    "pg_attribute": "x.attrelid in (select oid from kept)",
    "pg_attrdef": "x.adrelid in (select oid from kept)",
    "pg_constraint": "(x.conrelid = 0 or x.conrelid in (select oid from kept))",
    "pg_inherits": "x.inhparent in (select oid from kept)",
    "pg_trigger": "x.tgrelid in (select oid from kept)",
    "pg_rewrite": "x.ev_class in (select oid from kept)",
    "pg_namespace": "x.nspname !~ '^pg_(toast|temp_)'",
}
_KEYS: Final = {
    "pg_attribute": "x.attrelid::int8 * 2048 + x.attnum",
    "pg_inherits": "x.inhrelid::int8 * 2048 + x.inhseqno",
    "pg_aggregate": "x.aggfnoid::oid::int8",
    "pg_range": "x.rngtypid::int8",
    "pg_ts_config_map": "x.mapcfg::int8 * 65536 + x.maptokentype * 256 + x.mapseqno",
    "pg_db_role_setting": "x.setdatabase::int8 * 4294967296 + x.setrole::int8",
    "pg_auth_members": "x.roleid::int8 * 4294967296 + x.member::int8",
}


def _digest(catalog: str) -> str:
    key = _KEYS.get(catalog, "x.oid::int8")
    where = _FILTERS.get(catalog)
    return (
        f"(select count(*) || ':' || coalesce(sum(hashint8extended({key}, x.xmin::text::int8)), 0) from {catalog} x"
        f"{f' where {where}' if where else ''})"
    )


FINGERPRINT: Final = (
    """
with kept as materialized (
  select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname !~ '^pg_(toast|temp_)' and c.relkind not in ('i', 'I', 't', 'S'))
select concat_ws(',',
  (select count(*) || ':' || coalesce(sum(hashint8extended(c.oid::int8, c.xmin::text::int8)), 0)
   from pg_class c where c.oid in (select oid from kept)),
  (select count(*) || ':' || coalesce(sum(hashint8extended(t.oid::int8, t.xmin::text::int8)), 0)
   from pg_type t join pg_namespace n on n.oid = t.typnamespace where n.nspname !~ '^pg_(toast|temp_)'),
  (select sum(hashtextextended(r::text, 0)) from pg_roles r),
  extract(epoch from pg_conf_load_time())::text, pg_is_in_recovery()::text,
  """
    + ",\n  ".join(_digest(catalog) for catalog in _TRACKED)
    + ")"
)
"""One text: it changes when anything changes that a verdict, a privilege or our sight depends on (caching rules §7.3)."""


def gathered(major: int) -> str:
    """All of it in one statement, for servers of that *major* version: rows of a name and a JSON array of values."""
    asked = {"identity": _IDENTITY, "fingerprint": FINGERPRINT, **QUERIES}
    if major >= 16:
        asked["memberships"] = _MEMBERSHIPS_16
    return "\nunion all ".join(_as_json(name, sql) for name, sql in asked.items())


def _as_json(name: str, sql: str) -> str:
    columns = ", ".join(f"c{number}" for number in range(_COLUMNS[name]))
    return f"select '{name}', json_build_array({columns})::text from ({sql}) x ({columns})"


def lines_of(copied: bytes) -> Mapping[str, list[tuple[Any, ...]]]:
    """The rows by name of what COPY in its text format made of ``gathered``.

    Raises:
        ValueError: not such a text, or names in no encoding.
    """
    found: dict[bytes, list[bytes]] = {}
    for line in copied.split(b"\n")[:-1]:
        name, _, values = line.partition(b"\t")
        found.setdefault(name, []).append(values)
    # COPY doubles each backslash, and JSON leaves nothing else that COPY would write otherwise.
    rows = {name: b"[" + b",".join(values).replace(b"\\\\", b"\\") + b"]" for name, values in found.items()}
    return {name: [] for name in QUERIES} | {
        name.decode(): [tuple(row) for row in json.loads(values)] for name, values in rows.items()
    }
