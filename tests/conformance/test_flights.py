"""Several scopes in one write, and names that go from one to the next: direct and through us.

What a scope of the flight makes or frees is believed behind it before anybody knows whether it has failed; nothing of that may show.
"""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import (
    bind,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    flush,
    parse,
    query,
    sync,
)
from hyperdrive.testing.script import Compare, Script, say, until

S = sync()
FAILS = parse("select 1/0") + bind() + execute()
WRITE = "insert into log values ('w', 1)"
LOOK = [say(query("select * from log order by 1, 2")), say(query("select * from t order by 1"))]
KNOWN = [
    say(parse(sql, f"k{i}") + close_statement(f"k{i}") + S)
    for i, sql in enumerate(("select 1", WRITE, "select v from t"))
]


BY_ZERO = parse("select 1/0", "by_zero") + S
"""A statement that can be run and fails without touching the unnamed one."""


def run(name: str = "") -> bytes:
    return bind(name) + execute()


FLIGHTS = [
    # --- a later scope waits for what an earlier one has made, and that is not flushed (W-09) ---
    Script(
        "bound behind its parse, in the next scope that is not ended",
        [
            *KNOWN,
            until(
                parse("select 1", "s1") + run("s1") + S + parse("select v from t", "s2") + run("s1") + flush(), "C", 2
            ),
            say(S),
        ],
    ),
    Script(
        "bound behind its parse, twice",
        [
            *KNOWN,
            say(parse("select 1", "s1") + run("s1") + S + parse("select v from t") + run("s1") + S, 2),
            say(close_statement("s1") + S),
            say(parse("select 1", "s1") + run("s1") + S + parse("select v from t", "s2") + run("s1") + S, 2),
        ],
    ),
    Script(
        "a wait in the middle of a scope that goes on",
        [
            *KNOWN,
            until(parse("select 1", "s1") + run("s1") + S + run() + flush(), "E"),
            say(S),
            say(close_statement("s1") + S),
            say(parse("select 2") + parse("select 1", "s1") + run("s1") + S + run() + run("s1") + S, 2),
            say(close_statement("s1") + S),
            say(parse("select 1", "s1") + run("s1") + S + describe_statement("s1") + run() + run("s1") + S, 2),
        ],
    ),
    Script(
        "described behind its parse",
        [
            *KNOWN,
            say(parse("select 1", "s1") + S + parse("select v from t", "s2") + describe_statement("s1") + S, 2),
            say(
                close_statement("s1")
                + S
                + parse("select 1", "s1")
                + S
                + bind("s1")
                + describe_portal()
                + execute()
                + S,
                3,
            ),
        ],
    ),
    Script(
        "parsed again under a name that is on its way",
        [
            *KNOWN,
            say(parse("select 1", "s1") + S + parse("select 2") + parse("select 3", "s1") + S + run("s1") + S, 3),
            say(query("begin")),
            say(parse("select 1", "s2") + S + parse("select 2") + parse("select 3", "s2") + S + run("s2") + S, 3),
            say(query("rollback")),
        ],
    ),
    Script(
        "a query between",
        [
            *KNOWN,
            say(parse("select 1", "s1") + S + query("select 2") + parse("select 3") + run("s1") + S, 3),
        ],
    ),
    Script(
        "a wait ahead of an error",
        [
            *KNOWN,
            say(parse("select 1", "s1") + S + parse("selec") + run("s1") + S + run("s1") + S, 3),
            say(parse("select 1", "s2") + run("s2") + S + FAILS + run("s2") + S + run("s2") + S, 3),
        ],
    ),
    Script(
        "currval waits behind what was parsed",
        [
            say(query("begin")),
            say(query("select nextval('log_n')")),
            say(parse("select currval('log_n')", "c") + S + parse("select 1") + run("c") + S, 2),
            say(query("commit")),
        ],
        setup="create sequence log_n;",
    ),
    # --- a scope that failed has made nothing, and the next one of the flight knows (W-11, W-21) ---
    Script(
        "a parse that was skipped, and its name run behind",
        [
            *KNOWN,
            say(FAILS + parse(WRITE, "s1") + S + run("s1") + S, 2),
            *LOOK,
            say(parse("select 1", "s1") + S),
            *LOOK,
        ],
    ),
    Script(
        "a parse that was skipped where the server has the text",
        [
            say(parse(WRITE, "a") + run("a") + S),
            say(FAILS + parse(WRITE, "b") + S + run("b") + S, 2),
            *LOOK,
            say(parse("select v from t") + run("b") + S),
            *LOOK,
        ],
    ),
    Script(
        "close and parse that were skipped",
        [
            *KNOWN,
            say(parse("select 1", "s1") + S),
            say(FAILS + close_statement("s1") + parse(WRITE, "s1") + S + run("s1") + S, 2),
            *LOOK,
            say(run("s1") + S),
            *LOOK,
        ],
    ),
    Script(
        "close and parse that were skipped, of the same text",
        [
            *KNOWN,
            say(parse(WRITE, "s1") + S),
            say(FAILS + close_statement("s1") + parse(WRITE, "s1") + S + run("s1") + S, 2),
            *LOOK,
        ],
    ),
    Script(
        "close and parse that were skipped, of a text that the server lacks",
        [
            say(parse("select 1", "s1") + S),
            say(
                FAILS + close_statement("s1") + parse("insert into log values ('lacked', 2)", "s1") + S + run("s1") + S,
                2,
            ),
            *LOOK,
        ],
    ),
    Script(
        "skipped in a transaction",
        [
            *KNOWN,
            say(query("begin")),
            say(parse(WRITE, "s1") + S),
            say(FAILS + parse(WRITE, "s2") + S + run("s2") + S + run("s1") + S, 3),
            say(query("rollback")),
            say(run("s2") + S),
            say(run("s1") + S),
            *LOOK,
        ],
    ),
    Script(
        "made by the second scope, after the first has failed",
        [
            *KNOWN,
            say(FAILS + parse(WRITE, "s1") + S + parse("select 1", "s1") + S + run("s1") + S, 3),
            *LOOK,
        ],
    ),
    Script(
        "three scopes, the one between fails",
        [
            *KNOWN,
            say(parse(WRITE, "s1") + S + FAILS + close_statement("s1") + S + run("s1") + S, 3),
            *LOOK,
            say(FAILS + close_statement("s1") + S + parse("select 1", "s1") + S + run("s1") + S, 3),
            *LOOK,
        ],
    ),
    # --- Close that was skipped has freed nothing ---
    Script(
        "a close that was skipped",
        [
            say(parse("select 'kept'", "s1") + S),
            say(FAILS + close_statement("s1") + S + run("s1") + S, 2),
            say(run("s1") + S),
            say(FAILS + close_statement("s1") + S + parse("select 'new'", "s1") + S + run("s1") + S, 3),
            say(run("s1") + S),
        ],
    ),
    Script(
        "a close that was skipped, described behind",
        [
            say(parse("select 'kept'", "s1") + S),
            say(
                FAILS + close_statement("s1") + S + describe_statement("s1") + S + query("select 1") + run("s1") + S, 4
            ),
        ],
    ),
    Script(
        "a close that was not skipped",
        [
            say(parse("select 'kept'", "s1") + S),
            say(parse("select 1") + run() + close_statement("s1") + S + run("s1") + S, 2),
            say(
                parse("select 'new'", "s1")
                + run("s1")
                + close_statement("s1")
                + S
                + parse("select 'newer'", "s1")
                + run("s1")
                + S,
                2,
            ),
        ],
    ),
    Script(
        "closes of the unnamed statement that were skipped",
        [
            say(parse("select 'kept'") + S),
            say(bind("gone") + close_statement() + S),
            say(run() + S),
            say(bind("gone") + close_statement() + S + run() + S, 2),
            say(bind("gone") + parse("select 'never'") + S + run() + S, 2),
            say(bind("gone") + close_statement() + parse("select 'never'") + S + run() + S, 2),
            say(run() + S),
        ],
    ),
    Script(
        "the unnamed statement behind somebody else's error",
        [
            say(parse("select 'kept'") + S),
            say(query("begin")),
            say(parse("select 'kept'") + S),
            say(bind("gone") + execute() + S),
            say(query("rollback")),
            say(run() + S),
            say(parse("select 'kept'") + S),
            say(bind("gone") + S),
            say(run() + S),
            say(describe_statement() + S),
            say(run() + S),
        ],
    ),
    Script(
        "the unnamed statement read again in a scope that fails",
        [
            say(parse("select 'kept'") + S),
            say(parse("select 1", "s") + S),
            say(bind("gone") + run() + S),
            say(run() + S),
            say(bind("s") + execute() + bind("gone") + run() + S),
            say(run() + S),
            say(run() + bind("gone") + S),
            say(run() + S),
        ],
    ),
    *[
        Script(
            f"the unnamed statement behind an error that only the origin knows of, {name}",
            [
                say(BY_ZERO),
                say(parse("select 'kept'") + S),
                say(run("by_zero") + parse("select 'never'") + S),
                say(run() + S),
                say(run("by_zero") + parse("select 'never'") + S + run() + S, 2),
                say(run() + S),
                say(run("by_zero") + run() + S + run() + S, 2),
                say(run() + S),
                say(run("by_zero") + close_statement() + S + run() + S, 2),
                say(run() + S),
                say(run("by_zero") + parse("select 'never'") + S + query("select 2") + run() + S, 3),
                say(parse("select 'first'") + S + run("by_zero") + parse("select 'second'") + S + run() + S, 3),
                say(
                    parse("select 'third'")
                    + S
                    + run("by_zero")
                    + close_statement()
                    + S
                    + run()
                    + S
                    + run("by_zero")
                    + run()
                    + S,
                    4,
                ),
                *end,
            ],
        )
        for name, end in {"alone": [], "then a query": [say(query("select 3")), say(run() + S)]}.items()
    ],
    Script(
        "SQL names what was parsed in an earlier scope",
        [
            *KNOWN,
            say(BY_ZERO),
            say(parse("select 'a'", "s1") + S + query("execute s1"), 2),
            say(FAILS + parse(WRITE, "s2") + S + query("execute s2"), 2),
            *LOOK,
            say(FAILS + parse(WRITE, "s2") + S + parse("execute s2") + run() + S, 2),
            *LOOK,
            say(run("by_zero") + close_statement("s1") + S + query("execute s1"), 2),
            say(run("by_zero") + close_statement("s1") + S + parse("execute s1") + run() + S, 2),
            say(close_statement("s1") + S + query("execute s1"), 2),
            say(FAILS + parse(WRITE, "s2") + S + parse("deallocate s2") + run() + S, 2),
            say(parse(WRITE, "s2") + S + parse("deallocate s2") + run() + S + run("s2") + S, 3),
            say(run("s2") + S),
            *LOOK,
        ],
        servers=2,
    ),
    Script(
        "SQL frees in one scope what is used in the next",
        [
            say(BY_ZERO),
            say(parse("select 'a'", "s1") + S),
            say(parse("deallocate s1") + run() + S + run("s1") + S, 2),
            say(parse("select 'a'", "s1") + S),
            say(query("execute s1")),
            say(parse("deallocate s1") + run() + S + run("s1") + S, 2),
            say(query("prepare p1 as select 'p'")),
            say(run("by_zero") + close_statement("p1") + S + run("p1") + S, 2),
            say(run("p1") + S),
            say(query("execute p1")),
            say(close_statement("p1") + S + run("p1") + S, 2),
            say(query("prepare p1 as select 'p'")),
            say(run("by_zero") + parse("deallocate p1") + run() + S + run("p1") + S, 2),
            say(parse("deallocate p1") + run() + S + run("p1") + S, 2),
            say(parse("select 'a'", "s1") + S),
            say(query("execute s1")),
            say(parse("deallocate s1") + run() + run("s1") + S, 1),
            say(run("s1") + S),
            say(parse("deallocate s1") + run() + parse("select 'b'", "s1") + run("s1") + S, 1),
            say(run("s1") + S),
        ],
        servers=2,
    ),
    Script(
        "a name freed and taken in one flight",
        [
            say(BY_ZERO),
            say(parse("select 'a'", "s1") + S),
            say(close_statement("s1") + S + parse("select 'b'", "s1") + S + run("s1") + S, 3),
            say(run("by_zero") + close_statement("s1") + S + parse("select 'c'", "s1") + S + run("s1") + S, 3),
            say(run("by_zero") + close_statement("s1") + parse("select 'd'", "s1") + S + run("s1") + S, 2),
            say(run("s1") + S),
            say(close_statement("s1") + parse("select 'e'", "s1") + run("s1") + S + run("s1") + S, 2),
            say(
                close_statement("s1")
                + parse("select 'e'", "s1")
                + S
                + close_statement("s1")
                + parse("select 'f'", "s1")
                + S
                + run("s1")
                + S,
                3,
            ),
        ],
    ),
    Script(
        "SQL makes or frees names that nothing has been heard of",
        [
            say(
                parse("prepare s2 as select 'sql'")
                + run()
                + S
                + parse("deallocate all")
                + run()
                + S
                + parse("select 1", "s2")
                + S,
                3,
            ),
            say(query("deallocate all")),
            say(query("prepare s2 as select 'sql'") + close_statement("s2") + S + run("s2") + S, 3),
            say(parse("prepare s2 as select 'sql'") + run() + S + close_statement("s2") + S + run("s2") + S, 3),
            say(parse("select 'a'", "s1") + S),
            say(query("prepare s2 as select 'sql'")),
            say(parse("deallocate all") + run() + parse("select 'b'", "s1") + run("s1") + S),
            say(run("s1") + S),
            say(parse("deallocate all") + run() + execute() + S),
            say(query("begin")),
            say(parse("select 'a'", "s1") + parse("deallocate s1") + run() + execute() + S),
            say(query("rollback")),
            say(parse("selec", "s2") + S + query("prepare s2 as select 'sql'"), 2),
            say(query("deallocate all")),
            say(parse("select 'a'", "s1") + S),
            say(query("begin")),
            say(query("select 1/0")),
            say(query("prepare s1 as select 'sql'")),
            say(query("rollback")),
            say(parse("select 'u'") + S),
            say(query("prepare s1 as select 'sql'")),
            say(run() + S),
        ],
        servers=2,
    ),
    Script(
        "SQL names what did not exist when it was parsed",
        [
            say(parse("execute s1") + parse("execute s1", "e") + S),
            say(parse("select 'a'", "s1") + S),
            say(run() + S),
            say(run("e") + S),
            say(describe_statement("e") + S),
            say(close_statement("s1") + S),
            say(run("e") + S),
        ],
        servers=2,
    ),
    Script(
        "a wait behind what only the proxy sends",
        [
            say(parse("prepare s2 as select 'sql'") + run() + S + parse("execute s2") + run() + S, 2),
            say(
                execute() + parse("prepare s2 as select 'sql'") + flush() + run() + S + parse("execute s2") + run() + S,
                2,
            ),
            say(
                parse("select 1", "s1")
                + close_statement("s2")
                + S
                + run()
                + close_statement("s3")
                + run("s1")
                + S
                + query("deallocate s2"),
                3,
            ),
        ],
        servers=2,
    ),
    Script(
        "unnamed statements that fail and are skipped, one behind the other",
        [
            say(parse("select 'kept'") + S),
            say(
                bind("gone")
                + parse("select 1")
                + S
                + parse("selec")
                + bind()
                + S
                + execute()
                + parse("select 2")
                + parse("select 3")
                + S,
                3,
            ),
            say(run() + S),
            say(parse("select 'kept'") + S),
            say(parse("select 4") + S + parse("selec") + S + bind("gone") + close_statement() + S, 3),
            say(run() + S),
            say(parse("selec") + S + query("select 5") + parse("select 6") + S, 3),
            say(run() + S),
        ],
    ),
    *[
        Script(
            f"a transaction that is prepared behind {name}, where somebody has listened",
            [
                say(query("listen x"), client="b"),
                say(query("unlisten *"), client="b"),
                say(parse("select 1", "s1") + S),
                say(run("s1") + S),
                *steps,
                say(query("prepare transaction 'flight'")),
                say(query("rollback prepared 'flight'")),
            ],
            servers=2,
        )
        for name, steps in {
            "a DEALLOCATE that was held": [
                say(parse("begin") + run() + S),
                say(parse("deallocate s1") + run() + S),
                say(parse("insert into t values (7, 'x')") + run() + S),
            ],
            "a DEALLOCATE": [
                say(query("begin")),
                say(query("insert into t values (7, 'x')")),
                say(parse("deallocate s1") + run() + S),
            ],
            "a SET": [
                say(query("begin")),
                say(parse("set local timezone = 'utc'") + run() + S),
                say(query("commit")),
                say(query("begin")),
                say(query("insert into t values (7, 'x')")),
                say(parse("set local timezone = 'utc'") + run() + S),
                say(describe_portal() + S),
            ],
        }.items()
    ],
    Script(
        "a query that was skipped in a scope that failed",
        [
            say(BY_ZERO),
            say(parse("select 'kept'") + S),
            say(run("by_zero") + query("select 2") + S),
            say(run() + S),
            say(run("by_zero") + query("select 2") + S + run() + S, 2),
        ],
    ),
    Script(
        "a query in a scope that is not ended",
        [
            say(parse("select 'a'", "s1") + S),
            say(parse("select 'b'", "s2") + query("deallocate s1") + S, 2),
            say(run("s1") + S),
            say(run("s2") + S),
            say(query("deallocate s2")),
            say(parse("select 'a'", "s1") + S),
            say(parse("select 'b'", "s2") + query("deallocate all") + S, 2),
            say(run("s1") + S),
            say(run("s2") + S),
        ],
        servers=2,
    ),
    # --- local answers inside a transaction, and the unnamed portal ---
    *[
        Script(
            f"a cursor of a whole scope behind {name}",
            [
                say(query("begin")),
                say(query("select count(*) from t")),
                *shows,
                say(parse("select i from generate_series(1, 5) i") + bind() + describe_portal() + execute("", 2) + S),
                say(execute("", 2) + S),
                say(execute("", 2) + S),
                say(query("rollback")),
            ],
        )
        for name, shows in {
            "SHOW by Query": [say(query("show timezone"))],
            "SHOW by scope": [say(parse("show timezone") + bind() + describe_portal() + execute() + S)],
            "SET by Query": [say(query("set timezone = 'Asia/Tokyo'"))],
            "SET by scope": [say(parse("set timezone = 'Asia/Tokyo'") + bind() + execute() + S)],
            "SET known by Query": [
                say(query("set timezone = 'Asia/Tokyo'")),
                say(query("set timezone = 'UTC'")),
                say(query("set timezone = 'Asia/Tokyo'")),
            ],
            "ours": [say(parse("select 5") + bind() + execute("", 1) + S)],
        }.items()
    ],
    Script(
        "a statement run once, though its portal is asked for again",
        [
            say(query("begin")),
            say(query("select count(*) from t")),
            say(parse("deallocate all") + run() + S),
            say(execute() + S),
            say(query("rollback")),
            say(query("begin")),
            say(query("select count(*) from t")),
            say(parse("show timezone") + run() + S),
            say(execute() + S),
            say(query("rollback")),
            say(query("begin")),
            say(query("select count(*) from t")),
            say(parse("set timezone = 'UTC'") + run() + S),
            say(execute() + S),
            say(query("rollback")),
            say(query("begin")),
            say(parse("show timezone") + run() + S),
            say(execute() + S),
            say(query("rollback")),
        ],
    ),
]


@pytest.mark.parametrize("script", FLIGHTS, ids=str)
async def test_a_flight_of_scopes(script: Script, compare: Compare) -> None:
    await compare(script)
