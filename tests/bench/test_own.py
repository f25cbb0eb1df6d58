"""One's own database: reads only, asks before any write, and says what it measured."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from bench import own
from bench.live import Live
from bench.origin import with_password
from bench.targets import CACHED, Direct, Us
from hyperdrive.localserver import LocalServer

SOURCE = """
SELECT name FROM bench_items WHERE id = 7; -- a comment; with a semicolon
UPDATE bench_items SET price = 0;
VALUES (1), (2);
WITH gone AS (DELETE FROM bench_items RETURNING id) SELECT count(*) FROM gone;
SELECT 1 FROM bench_items WHERE id = 7 FOR UPDATE;
SELECT 1 AS a INTO made;
DROP TABLE bench_items
"""


def test_a_read_is_what_neither_writes_nor_locks() -> None:
    queries = own.read_queries(SOURCE)
    assert [True, False, True, False, False, False, False] == [query.is_read for query in queries]
    assert own.read_queries("")[:] == []


def test_without_anybody_to_ask_only_reads_are_run() -> None:
    queries = own.read_queries(SOURCE)
    assert [1, 3] == [query.number for query in own.allowed(queries, None, 20)]


@pytest.mark.parametrize(("answer", "numbers"), [("y", [1, 2, 3, 4, 5, 6, 7]), ("", [1, 3]), ("no", [1, 3])])
def test_a_write_needs_a_yes(answer: str, numbers: list[int]) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return answer

    found = own.allowed(own.read_queries(SOURCE), ask, 20)
    assert numbers == [query.number for query in found]
    assert "5 of 7 statements are no plain reads" in asked[0]
    assert "2: UPDATE bench_items SET price = 0" in asked[0]


def test_nobody_is_asked_about_reads() -> None:
    def ask(_question: str) -> str:
        raise AssertionError("asked")

    queries = own.read_queries("SELECT 1; SELECT 2")
    assert queries == own.allowed(queries, ask, 20)


def test_both_ways_are_measured_and_told(bench_origin: LocalServer) -> None:
    queries = own.allowed(own.read_queries(SOURCE), None, 2)
    address = own.address_of(with_password(bench_origin).url)
    outcome = own.measure(Live(io.StringIO()), [Direct(), Us()], address, queries, 2)
    assert {"connect and SELECT 1", queries[0].name, queries[1].name} == {f.metric for f in outcome.figures}
    assert {"direct", "us"} == {figure.target for figure in outcome.figures}
    assert all(len(figure.samples) == 2 for figure in outcome.figures if figure.metric != "connect and SELECT 1")
    assert outcome.about.startswith("2 statements (2 reads, 0 others), 2 times each")


def test_what_writes_in_a_function_is_stopped_by_the_session(bench_origin: LocalServer) -> None:
    """The parser cannot see into functions; a read-only session can."""
    bench_origin.execute(
        "CREATE OR REPLACE FUNCTION sly() RETURNS int LANGUAGE sql AS 'UPDATE bench_items SET price = 0 RETURNING 1'; "
        "GRANT EXECUTE ON FUNCTION sly() TO PUBLIC"
    )
    queries = own.read_queries("SELECT sly()")
    for target in (Direct(), Us()):
        address = own.address_of(with_password(bench_origin).url)
        outcome = own.measure(Live(io.StringIO()), [target], address, queries, 1)
        assert outcome.skipped == [f"1: SELECT sly(), {target.name}: cannot execute UPDATE in a read-only transaction"]


def test_figures_and_page_are_written(bench_origin: LocalServer, tmp_path: Path) -> None:
    source, path = tmp_path / "q.sql", tmp_path / "own.json"
    source.write_text("SELECT 1")
    arguments = [
        "--origin",
        with_password(bench_origin).url,
        "--queries",
        str(source),
        "--json",
        str(path),
        "--repeats",
        "1",
    ]
    assert own.main(arguments) == 0
    assert "bench-password" not in path.read_text()
    assert "<svg" in path.with_suffix(".html").read_text()


def test_a_statement_that_fails_costs_the_others_nothing_and_one_past_the_cache_says_why(
    bench_origin: LocalServer,
) -> None:
    source = (
        "SELECT 1 FROM nowhere; SELECT name FROM bench_items WHERE id = 7; SELECT random() FROM bench_items LIMIT 1"
    )
    address = own.address_of(with_password(bench_origin).url)
    targets = [Direct(), Us(CACHED, cache=True)]
    outcome = own.measure(Live(io.StringIO()), targets, address, own.read_queries(source), 1)
    broken, random = outcome.skipped
    assert broken == '1: SELECT 1 FROM nowhere, direct: relation "nowhere" does not exist'
    assert random.startswith("3: SELECT random() FROM bench_items LIMIT 1: does not come from the cache, bypass")
    assert outcome.find("2: SELECT name FROM bench_items WHERE id = 7", CACHED) is not None
    assert outcome.about.startswith("2 statements")


MISTAKES = [
    pytest.param("postgresql://a@127.0.0.1:1/a", "SELECT 1", "onnection refused", id="nobody listens"),
    pytest.param("nonsense", "SELECT 1", "--origin: missing", id="no URL"),
    pytest.param("postgresql://a@127.0.0.1:1/a", "SELEC 1", 'syntax error at or near "SELEC"', id="no SQL"),
    pytest.param("postgresql://a@127.0.0.1:1/a", None, "No such file", id="no file"),
]


@pytest.mark.parametrize(("url", "sql", "said"), MISTAKES)
def test_a_mistake_is_a_line_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, sql: str | None, said: str
) -> None:
    source = tmp_path / "q.sql"
    if sql is not None:
        source.write_text(sql)
    assert own.main(["--origin", url, "--queries", str(source), "--json", str(tmp_path / "own.json")]) == 2
    found = capsys.readouterr().err
    assert found.startswith("bench: ")
    assert said in found
    assert not (tmp_path / "own.json").exists()


def test_a_file_without_statements_is_nothing_to_measure(
    bench_origin: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.sql").write_text("-- nothing")
    assert own.main(["--origin", with_password(bench_origin).url, "--queries", str(tmp_path / "q.sql")]) == 2
    assert "has no statements" in capsys.readouterr().err
