"""The arithmetic of the workloads: whose turn it is, what is stale, what is promised, and that one failure costs no other figure."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from bench import pgbench, processes, round_trips, rounds
from bench.distance import Link
from bench.live import Live
from bench.load.watching import Watch
from bench.operations import OPERATIONS
from bench.registry import QUICK_ORDER, WORKLOADS, expected
from bench.report import _CHAPTERS
from bench.results import Outcome, Run
from bench.rounds import Load
from bench.run import _no_time_for, _pace
from bench.suite import FULL, QUICK, Plan, Suite
from bench.targets import CACHED, US, Address, Direct, Missing, PgBouncer, Running, Target, Us
from bench.workloads import freshness, hits, serverless, verdicts
from hyperdrive.localserver import LocalServer
from hyperdrive.sql.readers import ReadVerdicts
from hyperdrive.sql.resolve import Cacheable


class Fake(Target):
    """A target that is nothing but its name; it may refuse to start."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name = name
        self.error = error
        self.starts = 0

    @contextmanager
    def start(self, origin: Address, *, pool_size: int = 20, workers: int = 1) -> Iterator[Running]:
        if self.error is not None:
            raise self.error
        self.starts += 1
        yield Running(self.name, origin.port)


@pytest.fixture
def suite(bench_origin: LocalServer) -> Iterator[Suite]:
    with Suite(QUICK, Live(io.StringIO()), bench_origin, []) as made:
        yield made


def test_every_round_begins_with_another_target(suite: Suite) -> None:
    running = [Running(name, 1) for name in "abc"]
    order = [target.name for _, target in suite.interleaved(Outcome("k", "t", "a"), running, 3)]
    assert "".join(order) == "abcbcacab"


def test_a_busy_machine_gets_fewer_rounds_and_the_report_says_so(suite: Suite) -> None:
    """Late from the beginning: three rounds are made all the same, since fewer have no interval to speak of."""
    suite.late_after = 0.0
    outcome = Outcome("k", "t", "a")
    order = [number for number, _ in suite.interleaved(outcome, [Running("a", 1)], 5, ", simple")]
    assert order == [0, 1, 2]
    assert outcome.skipped == ["rounds beyond 3 of 5, simple: the machine is busy, time is over"]


def test_what_has_no_time_left_is_left_out_with_a_line() -> None:
    assert _no_time_for("hits", QUICK, 0.0) is None
    assert _no_time_for("hits", QUICK, 111.0) == "hits: the machine is busy, and 112 s were over"
    assert _no_time_for("hits", FULL, 9999.0) is None
    slow = Run("", "", 0.0, {}, {}, [Outcome("k", "t", "a", seconds=30.0, expected=10.0)])
    assert (_pace(slow), _pace(replace(slow, outcomes=[]))) == (3.0, 1.0)
    assert _no_time_for("hits", QUICK, 90.0) is None
    assert _no_time_for("hits", QUICK, 90.0, _pace(slow)) is not None


def test_a_target_is_started_once_for_all_workloads(suite: Suite) -> None:
    target = Fake("us")
    first, again = suite.running([target]), suite.running([target])
    assert first == again
    assert target.starts == 1
    suite.running([target], Address(1))
    assert target.starts == 2


def test_what_does_not_start_is_left_out_once_with_its_last_words(suite: Suite) -> None:
    broken, missing = Fake("a", RuntimeError("log\n\nfatal: no\n")), Fake("b", Missing("b: apt-get install b"))
    for _ in range(2):
        assert [running.name for running in suite.running([broken, Fake("us"), missing])] == ["us"]
    assert suite.skipped == ["a did not start: fatal: no", "b: apt-get install b"]
    odd = Fake("c", ValueError("what?"))
    assert [running.name for running in suite.running([odd, Fake("d")])] == ["d"]
    assert suite.skipped[-1] == "c did not start: ValueError: what?"


def test_a_target_that_cannot_do_it_costs_nobody_else_a_figure(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(target: Running, *_: object, **__: object) -> pgbench.Report:
        asked.append(target.name)
        if target.name == "broken":
            raise pgbench.PgbenchFailed("it said this\nand that")
        return pgbench.Report(tps=10.0, transactions=10, failed=0, latencies=(1.0, 2.0))

    monkeypatch.setattr(pgbench, "run", run)
    outcome = Outcome("k", "t", "a")
    running = [Running("broken", 1), Running("direct", 1), Running("small", 1, traits={"clients": "4"})]
    rounds.measure(suite, outcome, running, Load(["-S"], 8, ", simple", rounds=2))
    found = outcome.find("throughput, simple", "direct")
    assert found is not None
    assert found.samples == [10.0, 10.0]
    assert outcome.skipped == ["broken, simple: it said this"]
    assert asked == ["broken", "direct", "direct"]


def test_a_core_of_its_own_is_for_those_that_it_was_promised_for(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[tuple[int, ...]] = []

    @contextmanager
    def pinned(proxy: tuple[int, ...], _others: object) -> Iterator[None]:
        alone.append(proxy)
        yield

    monkeypatch.setattr(processes, "pinned", pinned)
    monkeypatch.setattr(pgbench, "run", lambda *_, **__: pgbench.Report(10.0, 10, 0, (1.0,)))
    running = [Running("direct", 1), Running("PgBouncer", 1, (10**8,)), Running(CACHED, 1, (10**8 + 1,))]
    rounds.measure(suite, Outcome("k", "t", "a"), running, Load(["-S"], 1, rounds=1, pinned_only=[CACHED]))
    assert alone == [(10**8 + 1,)]


def test_our_cache_is_warm_when_the_origin_is_no_longer_asked(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The origin's CPU seconds before and after each second of 1,000 statements: 100 µs each, 100 µs each, then 1 µs each."""
    asked: list[str] = []
    counted = iter([0.0, 0.1, 0.1, 0.2, 0.2, 0.201, 1.0, 2.0])

    def run(target: Running, *_: object, **__: object) -> pgbench.Report:
        asked.append(target.name)
        return pgbench.Report(1000.0, 1000, 0, (1.0,))

    monkeypatch.setattr(pgbench, "run", run)
    monkeypatch.setattr(processes, "cpu_seconds", lambda _pids: next(counted))
    rounds.warm(suite, [Running(CACHED, 1), Running("Pgpool-II", 1)], Load(["-S"], 16))
    assert asked == [CACHED, CACHED, CACHED, "Pgpool-II"]


JUDGED = [
    pytest.param(0, 5.0, False, id="nothing written"),
    pytest.param(0, 11.0, True, id="version 1 was committed a second before"),
    pytest.param(1, 11.0, False, id="that one was read"),
    pytest.param(0, 10.0, False, id="committed when it began: either may be read"),
    pytest.param(1, 21.0, True, id="the second was missed"),
    pytest.param(2, 21.0, False, id="the newest"),
]


@pytest.mark.parametrize(("version", "begun", "is_stale"), JUDGED)
def test_a_read_is_stale_when_a_later_version_was_committed_before_it_began(
    version: int, begun: float, is_stale: bool
) -> None:
    watch = Watch(1.0, committed={7: [10.0, 20.0]})
    watch.judge(7 if begun != 5.0 else 8, begun, version)
    assert (watch.reads, watch.stale) == (1, int(is_stale))
    assert (watch.worst_seconds > 0) == is_stale


def test_the_worst_staleness_is_since_the_first_version_that_was_missed() -> None:
    watch = Watch(1.0, committed={7: [10.0, 20.0]})
    watch.judge(7, 12.0, 0)
    watch.judge(7, 25.0, 0)
    assert watch.worst_seconds == 15.0


@pytest.mark.parametrize(("delay_ms", "promised"), [(40.0, 3), (10.0, 0)])
def test_ratios_are_promised_at_a_distance_only(delay_ms: float, promised: int) -> None:
    outcome = Outcome("serverless", "t", "a")
    for kind in ("read", "write"):
        outcome.add(f"psycopg 3: {kind}", "direct", "ms", 600.0)
        outcome.add(f"psycopg 3: {kind}", US, "ms", 80.0)
    outcome.add("psycopg 3: cached read", CACHED, "ms", 5.0)
    serverless._promise(Plan(link=Link(delay_ms)), outcome, serverless.PSYCOPG)
    assert [goal.value for goal in outcome.goals] == [7.5, 7.5, 120.0][:promised]
    assert all(goal.is_met for goal in outcome.goals)


def test_a_hit_is_held_against_direct_pgbouncer_and_the_forwarder() -> None:
    outcome = Outcome("hits", "t", "a")
    for target, tps, cpu in (
        ("direct", 10.0, 0.0),
        ("PgBouncer", 5.0, 20.0),
        ("floor", 9.0, 25.0),
        (CACHED, 26.0, 10.0),
    ):
        outcome.add("throughput, simple", target, "1/s", tps)
        outcome.add("CPU, simple", target, "µs", cpu)
    for target, late in (("direct", 7.0), (CACHED, 2.5)):
        outcome.add("p50, simple", target, "ms", 1.0)
        outcome.add("p99, simple", target, "ms", late)
    hits._tails(outcome, "simple")
    hits._promise(outcome, "simple", 2.5)
    assert outcome.goals[-1].note == "in the same rounds: direct 7.0"
    assert [(goal.value, goal.limit, goal.is_met) for goal in outcome.goals] == [
        (2.6, 2.5, True),
        (5.2, 4.0, True),
        (10.0, 12.0, True),
        (10.0, 12.0, True),
        (2.5, 2.0, False),
    ]


def test_every_workload_has_a_chapter_in_the_report_and_a_line_in_the_manual() -> None:
    from bench.machine import ROOT

    manual = (ROOT / "docs" / "benchmarks.md").read_text()
    chapters = {key for keys in _CHAPTERS.values() for key in keys}
    assert set(WORKLOADS) == chapters
    assert [name for name in WORKLOADS if f"| `{name}` |" not in manual] == []
    assert set(WORKLOADS) - set(QUICK_ORDER) == {"updates", "connects"}
    assert len(set(QUICK_ORDER)) == len(QUICK_ORDER)


def test_the_budget_is_ten_minutes_and_less_than_two_where_time_is_short() -> None:
    assert expected(WORKLOADS, FULL) <= 620
    # Less than the limit, and by so much that a machine that is a little busy still has a row of each.
    assert expected(QUICK_ORDER, QUICK) <= QUICK.limit_seconds - 5
    longer = replace(FULL, seconds=2 * FULL.seconds)
    assert expected(["select"], longer) > 1.8 * expected(["select"], FULL)


def test_the_quick_plan_is_shorter_in_everything() -> None:
    assert QUICK.rounds < FULL.rounds
    assert QUICK.requests < FULL.requests
    assert not QUICK.is_thorough
    assert QUICK.link.delay_ms < FULL.link.delay_ms


def test_targets_of_a_kind(suite: Suite) -> None:
    names = ["direct", US, CACHED, "PgBouncer", "Pgpool-II"]
    suite.targets = [Direct(), *map(Fake, names[1:])]
    assert ["direct", US, "PgBouncer"] == [target.name for target in suite.forwarders]
    assert names[:-1] == [target.name for target in suite.usual]
    assert names[1:] == [target.name for target in suite.proxies]
    assert PgBouncer.is_proxy


def test_what_one_thing_does_in_a_transaction_is_held_against_the_same_by_direct() -> None:
    """psycopg's `with connect()`: a read nine round trips against one; a write has no goal, since its COMMIT crosses too."""
    outcome = Outcome("serverless", "t", "a")
    for kind, direct, ours in (("read", 560.0, 88.0), ("read in a transaction", 720.0, 88.0)):
        outcome.add(f"psycopg 3: {kind}", "direct", "ms", direct)
        outcome.add(f"psycopg 3: {kind}", US, "ms", ours)
    outcome.add("psycopg 3: write in a transaction", "direct", "ms", 720.0)
    outcome.add("psycopg 3: write in a transaction", US, "ms", 168.0)
    serverless._promise(Plan(), outcome, serverless.PSYCOPG)
    assert [(goal.name, round(goal.value, 1), goal.is_met, goal.note) for goal in outcome.goals] == [
        ("psycopg 3: uncached read", 6.4, False, serverless.BOUND),
        ("psycopg 3: uncached read in a transaction", 8.2, True, ""),
    ]


def test_no_question_for_the_catalogs_counts_for_the_herd(suite: Suite) -> None:
    """It is asked every few seconds, and would be a second round trip in whichever round it falls into."""
    with (
        freshness._short_lived(Us(CACHED, cache=True)).start(suite.address) as running,
        psycopg.connect(running.dsn, autocommit=True, dbname="hyperdrive", prepare_threshold=None) as console,
    ):
        settings = {row[0]: row[1] for row in console.execute("SHOW CONFIG")}
    assert settings["catalog_poll"] in ("1h", "3600", "3600.0")


def test_operations_of_load_programs_have_a_lane_of_their_own() -> None:
    """So the table takes as long as the longer lane; every operation is in one."""
    lanes = round_trips._lanes(OPERATIONS)
    assert len(lanes) == 2
    assert sorted(o.name for lane in lanes for o in lane) == sorted(o.name for o in OPERATIONS)
    assert round_trips._lanes(lanes[0]) == lanes[:1]


async def test_verdicts_are_timed_on_what_they_are_called(bench_origin: LocalServer) -> None:
    """A first sight is parsed, another literal shares a shape, and what is known needs neither."""
    with Suite(QUICK, Live(io.StringIO()), bench_origin, []) as suite:
        catalog = await verdicts._catalog(suite)
    for text in verdicts.READS.values():
        acts = verdicts._acts(catalog, text)
        for act in acts.values():
            assert isinstance(act(), Cacheable)
        cache = acts["known"].__closure__
        assert cache is not None
        found = next(cell.cell_contents for cell in cache if isinstance(cell.cell_contents, ReadVerdicts))
        for name, (parsed, shared) in {"first sight": (1, 0), "another literal": (0, 1), "known": (0, 0)}.items():
            before = (found.parsed, found.shared)
            acts[name]()
            assert (name, (found.parsed - before[0], found.shared - before[1])) == (name, (parsed, shared))
