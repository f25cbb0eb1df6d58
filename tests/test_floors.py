"""The plan of the house, enforced: imports point down only (DESIGN.md, "The plan of the house").

Read with ``ast``, so that imports inside functions and for types count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("hyperdrive", "kvstore", "d1store", "vectorstore")

# The most exact entry counts: `hyperdrive.replication.postgres` before `hyperdrive.replication`.
FLOORS = {
    "hyperdrive.errors": 0,
    "hyperdrive.clock": 0,
    "hyperdrive.metrics": 0,
    "hyperdrive.pgwire": 1,
    "hyperdrive.sql": 1,
    "hyperdrive.dsn": 1,
    "hyperdrive.tasks": 1,
    "hyperdrive.logs": 1,
    "hyperdrive.localinstall": 1,
    "hyperdrive.session": 2,
    "hyperdrive.cache": 2,
    "hyperdrive.net": 2,
    "hyperdrive.localserver": 2,
    "hyperdrive.pool": 3,
    "hyperdrive.replication": 3,
    "hyperdrive.proxy": 4,
    "hyperdrive.replication.postgres": 4,
    "kvstore": 4,
    "d1store": 4,
    "vectorstore": 4,
    "hyperdrive.config": 5,
    "hyperdrive.admin": 5,
    "hyperdrive.control": 5.5,
    "hyperdrive.wiring": 5.5,
    "hyperdrive.app": 6,
    "hyperdrive.embed": 7,
    "hyperdrive.workers": 7,
    "hyperdrive.testing": 8,  # helpers that may run a whole proxy; the demo shares its simulated distance
    "hyperdrive.demo": 9,
    "hyperdrive.cli": 10,
    "hyperdrive.__main__": 11,
}
STORES = ("kvstore", "d1store", "vectorstore")
WITHOUT_ASYNCIO = ("hyperdrive.pgwire", "hyperdrive.sql", "hyperdrive.session")
SHOWS = ("testing", "demo")
LOOPS = ("asyncio", "uvloop", "socket", "ssl", "selectors")


def modules() -> Iterator[tuple[str, Path]]:
    """Each module of the house with its file."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(module: str, source: str) -> Iterator[str]:
    """The absolute names of everything that *source* imports; for ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relative to itself in line {node.lineno}: write the whole name"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(name: str) -> tuple[str, float] | None:
    """The entry of ``FLOORS`` that *name* falls under, with its floor."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in FLOORS:
            return prefix, FLOORS[prefix]
    return None


def is_ours(name: str) -> bool:
    return name.split(".")[0] in PACKAGES


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def offences(module: str, source: str) -> list[str]:
    """What *module* imports against the plan."""
    found = []
    names = set(imports(module, source))
    here = place(module)
    for name in sorted(names):
        there = place(name)
        if is_ours(name) and here is not None and there is not None and here[0] != there[0] and there[1] >= here[1]:
            found.append(f"{module} (floor {here[1]}) imports {name} (floor {there[1]})")
        if any(is_within(module, pure) for pure in WITHOUT_ASYNCIO) and name.split(".")[0] in LOOPS:
            found.append(f"{module} imports {name}, but knows no sockets and no loop")
        if is_within(module, "hyperdrive.cache") and (
            any(is_within(name, f"hyperdrive.{other}") for other in ("sql", "pgwire"))
            or name.split(".")[0] in ("pglast", "sqlglot", "asyncpg")
        ):
            found.append(f"{module} imports {name}, but the cache knows neither SQL nor Postgres")
        if (store := module.split(".")[0]) in STORES and (
            is_within(name, "hyperdrive.proxy") or (name.split(".")[0] in STORES and not is_within(name, store))
        ):
            found.append(f"{module} imports {name}, but stores never meet the proxy or each other")
        if is_within(name, "hyperdrive.testing") and module.removeprefix("hyperdrive.").split(".")[0] not in SHOWS:
            found.append(f"{module} imports {name}, which is for tests")
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(name, path, id=name) for name, path in modules()])
def test_imports_point_down(module: str, path: Path) -> None:
    """No module imports from its own floor (outside its package) or from one above."""
    assert [] == offences(module, path.read_text())


@pytest.mark.parametrize("module", [name for name, _ in modules() if name not in PACKAGES])
def test_every_module_has_a_floor(module: str) -> None:
    """A new package is given its place in the plan before anything is built on it."""
    assert place(module) is not None, f"{module} has no floor: add it to DESIGN.md and to FLOORS"


OFFENCES = [
    pytest.param("hyperdrive.pool.assign", "from hyperdrive.proxy import client", "floor 4", id="up"),
    pytest.param("hyperdrive.sql.classify", "from hyperdrive import pgwire", "floor 1", id="sideways"),
    pytest.param("hyperdrive.session.client", "def f():\n    import asyncio", "no loop", id="asyncio in a function"),
    pytest.param("hyperdrive.cache.store", "import pglast", "neither SQL", id="cache and SQL"),
    pytest.param("kvstore.api", "import hyperdrive.proxy", "never meet", id="store and proxy"),
    pytest.param("kvstore.api", "from d1store import api", "each other", id="store and store"),
    pytest.param("hyperdrive.app", "import hyperdrive.testing.wire", "for tests", id="tests' helpers"),
]


@pytest.mark.parametrize(("module", "source", "reason"), OFFENCES)
def test_the_check_sees_an_offence(module: str, source: str, reason: str) -> None:
    assert any(reason in offence for offence in offences(module, source))


def test_a_package_may_import_itself_and_what_is_below() -> None:
    source = "import asyncio\nfrom hyperdrive.pool.limits import Limits\nfrom hyperdrive.errors import PoolTimeout"
    assert [] == offences("hyperdrive.pool.pool", source)
