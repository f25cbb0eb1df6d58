"""Random talks: phrases of a few statements that have to do with each other, sent in the ways of drivers.

Hypothesis chooses numbers, and each stands for a phrase: so talks are varied inside, and shrink by whole phrases. Drawing every
statement by itself gives talks that are short and repeat themselves; a SET, a savepoint, an error and the SHOW that would tell
hardly ever meet there.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import strategies as st

from hyperdrive.testing.frontend import (
    bind,
    close_portal,
    describe_portal,
    describe_statement,
    execute,
    parse,
    sync,
)
from tests.conformance import vocabulary as v
from tests.conformance.vocabulary import Disturb, Leave, Move, Outside, Said, Stretch, Talk, Write

HOWS = ("terminate", "close", "reset")
NAMES = ("", "s1", "s2")
LEVELS = ("isolation", "serializable", "repeatable", "snapshot", "deferrable", "read write")

VALUES = {
    "timezone": ("'Asia/Tokyo'", "'UTC'", "'EST'", "default"),
    "work_mem": ("'3MB'", "4096", "'5MB'", "default"),
    "search_path": ("pg_catalog", "one, public", "public", "default"),
    "application_name": ("'app'", "'other'", "default"),
    "datestyle": ("'German'", "iso, mdy", "default"),
    "intervalstyle": ("iso_8601", "postgres", "default"),
    "default_transaction_isolation": ("'serializable'", "'repeatable read'", "default"),
    "default_transaction_read_only": ("on", "off", "default"),
    "client_min_messages": ("error", "notice", "default"),
    "statement_timeout": ("'9s'", "default"),
}


class Phrase:
    """Moves made from one number.

    *resets_simply*: what goes back to a start-up value is only said in a Query of its own. *isolates*: levels of isolation are
    chosen.
    """

    def __init__(self, seed: str, *, resets_simply: bool, isolates: bool) -> None:
        self.random = Random(seed)
        self.isolates = isolates
        self.resets_simply = resets_simply
        self.moves: Talk = []
        self.pipeline = self.random.random() < 0.2
        self.waiting: list[Said] = []
        self.style = self.random.choice(("simple", "simple", "any", "any", "any", "whole", "named"))

    def make(self) -> Talk:
        themes: tuple[tuple[int, Callable[[], None]], ...] = (
            (6, self.transaction),
            (4, self.settings),
            (3, self.statements),
            (2, self.portals),
            (2, self.snapshot),
            (2, self.anything),
            (1, self.two_phase),
            (1, self.pins),
            (1, self.schema),
            (1, self.stretch),
            (1, self.meanwhile),
        )
        self.random.choices([theme for _, theme in themes], [weight for weight, _ in themes])[0]()
        self._write()
        return self.moves

    # --- sending ---

    def say(self, *scopes: Said) -> None:
        """Scopes, each in a write of its own unless this phrase pipelines."""
        for scope in scopes:
            self.waiting.append(scope)
            if not self.pipeline or self.random.random() < 0.3:
                self._write()

    def _write(self) -> None:
        if self.waiting:
            cuts = (self.random.randint(1, 60),) if self.random.random() < 0.15 else ()
            self.moves.append(Write(tuple(self.waiting), cuts))
            self.waiting = []
        if self.random.random() < 0.08:
            self.moves.append(self.random.choice((Disturb(), Disturb(), Outside(self.random.choice(v.OUTSIDE)))))

    def move(self, move: Move) -> None:
        self._write()
        self.moves.append(move)

    def sql(self, sql: str) -> None:
        """One statement, carried in one of the ways in which drivers do it."""
        way = (
            self.random.choice(("simple", "simple", "whole", "bare", "named", "split"))
            if self.style == "any"
            else self.style
        )
        name = self.random.choice(NAMES)
        if self.avoids(sql):
            way = "simple"
        if way == "simple":
            self.say(v.simple(sql))
        elif way == "whole":
            self.say(v.whole(sql))
        elif way == "bare":
            self.say(v.bare(sql))
        elif way == "named":
            self.say(v.named(sql, name))
        else:
            self.say(v.prepare(sql, name), v.reuse(name))

    def avoids(self, sql: str) -> bool:
        return self.resets_simply and any(word in sql.lower() for word in ("reset", "default", "discard"))

    def says(self, sql: str) -> bool:
        """Whether *sql* is among what this talk may say."""
        return self.isolates or not any(word in sql.lower() for word in LEVELS)

    def one(self, *texts: tuple[str, ...]) -> None:
        usable = [text for text in self.random.choice(texts) if self.says(text)]
        if usable:
            self.sql(self.random.choice(usable))

    # --- themes ---

    def transaction(self) -> None:
        """As programs write it; sometimes something is wrong with it, sometimes its end is forgotten."""
        pick = self.random.random
        self.one(v.BEGINS if pick() < 0.92 else v.RARE_BEGINS)
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 3, 4, 6))):
            if pick() < 0.15:
                self.savepoint()
            elif pick() < 0.15:
                self.parameters()
            elif pick() < 0.1:
                self.oddity()
            else:
                self.one(
                    v.READS,
                    v.READS,
                    v.WRITES,
                    v.WRITES,
                    v.SETTINGS,
                    v.MODES,
                    v.SAVEPOINTS,
                    v.WRONG,
                    v.OTHERS,
                    v.EMPTY,
                    v.NAMES_GONE,
                )
        end = pick()
        if end < 0.05:
            self.move(Leave(self.random.choice(HOWS)))
        elif end < 0.9:
            self.one(v.ENDS if pick() < 0.85 else v.RARE_ENDS)

    def savepoint(self) -> None:
        name = self.random.choice(("a", "b", '"A"'))
        self.sql(f"savepoint {name}")
        for _ in range(self.random.randint(0, 2)):
            self.one(v.WRITES, v.READS, v.SETTINGS, v.WRONG)
        self.sql(
            self.random.choice(
                (f"rollback to {name}", f"rollback to savepoint {name}", f"release {name}", f"release savepoint {name}")
            )
        )

    def settings(self) -> None:
        """Settings that are set, reverted, and looked at."""
        names = self.random.sample([name for name in VALUES if self.says(name)], self.random.choice((1, 1, 2)))
        inside = self.random.random() < 0.6
        if inside:
            self.one(v.BEGINS[:6])
        for _ in range(self.random.randint(1, 5)):
            step = self.random.random()
            name = self.random.choice(names)
            if step < 0.5:
                self.set(name)
            elif step < 0.6:
                self.sql(self.random.choice((f"reset {name}", "reset all", "RESET ALL")))
            elif step < 0.75 and inside:
                self.sql(self.random.choice(("savepoint a", "savepoint a", "rollback to a", "release a")))
            elif step < 0.82:
                self.one(v.WRONG, v.READS)
            elif step < 0.88:
                self.one(v.RARE_SETTINGS)
            else:
                self.show(name)
        if inside and self.random.random() < 0.6:
            self.sql("rollback to a")
            self.show(names[0])
        if inside:
            self.one(v.ENDS)
        if self.random.random() < 0.5:
            self.move(Disturb())
        for name in names:
            self.show(name)

    def set(self, name: str) -> None:
        value = self.random.choice(VALUES[name])
        scope = self.random.choice(("", "", "", "local ", "session "))
        form = self.random.random()
        if form < 0.12 and value.startswith("'"):
            self.sql(f"select set_config('{name}', {value}, {self.random.choice(('false', 'true'))})")
        else:
            self.sql(f"set {scope}{name} {self.random.choice(('=', 'to'))} {value}")

    def show(self, name: str) -> None:
        self.sql(self.random.choice((f"show {name}", f"select current_setting('{name}', true)", v.SETTINGS_SEEN)))

    def statements(self) -> None:
        """A prepared statement, what makes it go away, and its use afterwards."""
        sql, values = self.random.choice(
            v.PARAMETERS + tuple((text, ()) for text in v.READS[:16] + v.WRITES[:6] + v.BEGINS[:4] + v.ENDS[:4])
        )
        name = self.random.choice(NAMES)
        if self.random.random() < 0.4:
            self.one(v.BEGINS[:8])
        self.say(v.prepare(sql, name))
        for _ in range(self.random.randint(1, 5)):
            step = self.random.random()
            if step < 0.5:
                self.say(v.reuse(name, values, described=self.random.random() < 0.5))
            elif step < 0.65:
                self.one(v.NAMES_GONE, (f"deallocate {name or 's1'}", "deallocate all", "discard all"))
            elif step < 0.75:
                self.one(v.SETTINGS, v.ENDS, v.READS)
            elif step < 0.82:
                self.say(v.close(name))
            elif step < 0.9:
                self.say(v.prepare(self.random.choice(v.READS), name))
            else:
                self.move(Disturb())
        self.say(v.reuse(name, values))
        if self.random.random() < 0.7:
            self.one(v.ENDS)

    def parameters(self) -> None:
        sql, values = self.random.choice(v.PARAMETERS)
        name = self.random.choice(NAMES)
        if self.random.random() < 0.5:
            self.say(v.prepare(sql, name), v.reuse(name, values, described=False))
        else:
            self.say(Said(f"P({name})BDES {sql}", parse(sql, name) + v.reuse(name, values).data))

    def portals(self) -> None:
        """Portals that are left suspended; what becomes of them shows later."""
        if self.random.random() < 0.7:
            self.one(v.BEGINS[:8])
        portal = self.random.choice(("", "p"))
        self.say(v.limited(self.random.choice(v.READS + v.WRITES), self.random.choice((1, 2, 3)), portal))
        for _ in range(self.random.randint(1, 3)):
            step = self.random.random()
            if step < 0.6:
                self.say(v.resume(portal, self.random.choice((0, 1))))
            elif step < 0.8:
                self.one(v.SETTINGS, v.SAVEPOINTS, v.READS, v.EMPTY)
            else:
                self.say(Said(f"C(portal {portal}) S", close_portal(portal) + sync()))
        self.one(v.ENDS)

    def snapshot(self) -> None:
        """When the snapshot is taken, another session's work tells (E-0.4)."""
        self.one(
            ("begin isolation level repeatable read", "begin isolation level serializable", "begin", "begin; select 1")
        )
        for _ in range(self.random.randint(0, 2)):
            self.one(
                v.READS,
                v.SETTINGS,
                v.MODES,
                v.EMPTY,
                ("savepoint a", "select 1", "show work_mem", "set local work_mem = '1MB'"),
            )
        self.move(Outside(v.OUTSIDE[0]))
        self.sql("select n from other")
        if self.random.random() < 0.4:
            self.one(v.WRITES)
        self.move(Outside(v.OUTSIDE[0]))
        self.sql(self.random.choice(("select n from other", "update other set n = n + 100")))
        self.one(v.ENDS)

    def anything(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            if self.random.random() < 0.3:
                self.oddity()
            else:
                self.one(v.BEGINS, v.ENDS, v.LISTS, v.SETTINGS, v.RARE_SETTINGS, v.NAMES_GONE, v.READS, v.WRITES, v.WRONG, v.OTHERS, v.EMPTY,
                         v.MODES, v.SAVEPOINTS, v.RARE_BEGINS, v.RARE_ENDS)  # fmt: skip

    def oddity(self) -> None:
        """Scopes that drivers send seldom."""
        kind = self.random.randrange(7)
        name = self.random.choice(NAMES)
        if kind == 0:
            self.say(v.reuse(name, described=self.random.random() < 0.5))
        elif kind == 1:
            self.say(v.close(name))
        elif kind == 2:
            self.say(Said(f"D({name}) S", describe_statement(name) + sync()))
        elif kind == 3:
            self.say(Said("S", sync()))
        elif kind == 4:
            rows = self.random.choice(("30\tthirty\n", "1\ttwice\n", "bad\n"))
            self.say(*v.copy_in(rows, is_simple=self.random.random() < 0.5))
        else:
            first, second = (self.random.choice(self.extended()) for _ in range(2))
            data = parse(first) + bind() + execute() + parse(second) + bind() + describe_portal() + execute() + sync()
            self.say(Said(f"PBE PBDE S {first} | {second}", data))

    def extended(self) -> list[str]:
        """Texts for scopes that are not of the usual shapes."""
        texts = v.READS + v.WRITES + v.SETTINGS + v.WRONG + v.BEGINS + v.ENDS + v.MODES + v.SAVEPOINTS
        return [text for text in texts if self.says(text) and not self.avoids(text)]

    def two_phase(self) -> None:
        """Nothing may be left prepared: it would hold its locks for ever."""
        self.one(v.BEGINS[:12])
        if self.random.random() < 0.8:
            self.one(v.WRITES, v.WRITES, v.WRONG)
        self.say(
            v.simple("prepare transaction 'tt'"),
            v.simple(self.random.choice(("commit prepared 'tt'", "rollback prepared 'tt'"))),
        )
        self.say(v.simple("rollback prepared 'tt'"))

    def pins(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            self.one(v.PINS, v.PINS, v.PINS, v.NAMES_GONE, v.BEGINS, v.ENDS)

    def schema(self) -> None:
        """A prepared statement whose tables change."""
        name = self.random.choice(NAMES)
        self.say(
            v.prepare(
                self.random.choice(("select * from u", "select x from u", "insert into u values (9) returning *")), name
            )
        )
        for _ in range(self.random.randint(1, 4)):
            self.one(v.SCHEMA, v.SCHEMA, v.BEGINS, v.ENDS)
            if self.random.random() < 0.5:
                self.say(v.reuse(name, described=self.random.random() < 0.5))
        self.say(v.reuse(name))

    def stretch(self) -> None:
        """asyncpg's way, and JDBC's cursors: Parse and Describe, wait, Bind and Execute; perhaps more behind it."""
        if self.random.random() < 0.5:
            self.one(v.BEGINS)
        pool = v.PARAMETERS + tuple((text, ()) for text in self.extended())
        sql, values = self.random.choice(pool)
        name = self.random.choice(NAMES)
        pieces = [
            Said(f"P({name})D H {sql}", parse(sql, name) + describe_statement(name)),
            Said(f"B({name})E H {values}", bind(name, values) + execute()),
        ]
        if self.random.random() < 0.4:
            more, _ = self.random.choice(pool)
            pieces.append(Said(f"PBDE H {more}", parse(more) + bind() + describe_portal() + execute()))
        self.move(Stretch(tuple(pieces), self.random.random() < 0.8, self.random.choice(HOWS)))
        if self.random.random() < 0.5:
            self.one(v.ENDS)

    def meanwhile(self) -> None:
        self.move(
            self.random.choice((Leave(self.random.choice(HOWS)), Outside(self.random.choice(v.OUTSIDE)), Disturb()))
        )


def talk_of(number: int, phrases: list[int], *, resets_simply: bool = False, isolates: bool = True) -> Talk:
    """The talk of these *phrases* out of the many that *number* stands for."""
    found: Talk = []
    for one in phrases:
        found += Phrase(f"{number}/{one}", resets_simply=resets_simply, isolates=isolates).make()
    return found


# Two draws, as hypothesis repeats numbers it has drawn: with either alone, one phrase in five was new.
NUMBERS = st.integers(0, 2**32 - 1)
PHRASES = st.lists(st.integers(0, 9999), min_size=1, max_size=12, unique=True)
