"""The second level without sockets: two processes, one store of bytes, and every order in which things can reach it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from hyperdrive.cache.entry import Entry
from hyperdrive.cache.fill import Fill
from hyperdrive.cache.metrics import SecondMetrics
from hyperdrive.cache.second import SecondLevel
from hyperdrive.cache.shared import MAGIC, Shared, name_of, read_value, write_value
from hyperdrive.clock import ManualClock
from hyperdrive.testing.caches import CacheBench

# --- a store that can be lost ----------------------------------------------------------------------------------------------------


class Server:
    """What all share. ``number`` is its incarnation."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.values: dict[bytes, bytes] = {}
        self.number = 1

    def restart(self) -> None:
        self.values.clear()
        self.number += 1


@dataclass(frozen=True)
class Answer:
    values: Sequence[bytes | None]
    now: float


class Connection:
    """A port to *server*: what it is told arrives in order, one with each ``deliver``, and so do answers, with each ``hear``."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.incarnation = b""
        self.second: SecondLevel
        self._sent: deque[tuple[Callable[[], Any], Callable[[Any], None] | None]] = deque()
        self._answers: deque[tuple[Callable[[Any], None], Any]] = deque()

    def up(self) -> None:
        self.incarnation = b"%d" % self.server.number
        self.second.up()

    def cut(self) -> None:
        """What has not arrived never does."""
        if not self.incarnation:
            return
        self.incarnation = b""
        self.second.down()
        lost = [then for _, then in self._sent if then is not None] + [then for then, _ in self._answers]
        self._sent.clear()
        self._answers.clear()
        for then in lost:
            then(None)

    def fetch(self, names: Sequence[bytes], made: Mapping[bytes, bytes], found: Callable[[Any], None]) -> None:
        def carried_out() -> Answer:
            for name, value in made.items():
                self.server.values.setdefault(name, value)
            return Answer([self.server.values.get(name) for name in names], self.server.clock.now())

        self._sent.append((carried_out, found))

    def store(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        kept = dict(values)
        self._sent.append((lambda: self.server.values.update(kept), None))

    def has_room(self, size: int) -> bool:
        return True

    def deliver(self) -> None:
        if self._sent:
            work, then = self._sent.popleft()
            answer = work()
            if then is not None:
                self._answers.append((then, answer))

    def hear(self) -> None:
        if self._answers:
            then, answer = self._answers.popleft()
            then(answer)

    def settle(self) -> None:
        while self._sent or self._answers:
            self.deliver()
            self.hear()


class Process(CacheBench):
    """A cache with a second level below it."""

    def __init__(self, server: Server, *, mark: bytes = b"") -> None:
        super().__init__()
        self.clock = server.clock
        self.store._now = self.clock.now
        self.connection = Connection(server)
        self.second = SecondLevel(self.connection, SecondMetrics(), self.clock.now, mark=mark)
        self.connection.second = self.second
        self.shelf = self.second.shelf(self.domain)
        self.shelf.label(b"origin", b"catalog")
        self.connection.up()
        self.connection.settle()
        self.look(b"first")  # a process that begins takes away what lay there, unless it was closed in order

    def look(self, key: bytes, *tags: int) -> tuple[Fill, Entry | None]:
        """Probe for *key*, and wait for the answer."""
        heard: list[Entry | None] = []
        fill = self.open(key, *tags)
        self.shelf.probe(fill, heard.append)
        self.connection.settle()
        return fill, heard[0]

    def ask(self, key: bytes, *tags: int, body: bytes = b"rows") -> bytes:
        """What a client gets: from the second level, or *body* from the origin, which is kept."""
        fill, entry = self.look(key, *tags)
        if entry is None:
            fill.send(self.clock.now())
            entry = self.finish(fill, body)
            assert entry is not None
            self.shelf.keep(fill, entry)
            self.connection.settle()
        return entry.body

    def end(self) -> None:
        """End in order, as heard by the store."""
        self.second.close()
        self.connection.settle()


@pytest.fixture
def server() -> Server:
    clock = ManualClock()
    clock.advance(1000.0)
    return Server(clock)


# --- what is found --------------------------------------------------------------------------------------------------------------


def test_what_one_process_asked_another_finds(server: Server) -> None:
    one, other = Process(server), Process(server)
    assert b"old" == one.ask(b"key", 1, body=b"old")
    assert b"old" == other.ask(b"key", 1, body=b"new")
    assert (1, 1) == (other.second.metrics.found, one.second.metrics.kept)


@pytest.mark.parametrize(
    ("label", "identity", "key", "tags"),
    [
        pytest.param((b"another", b"catalog"), b"identity", b"key", (1,), id="another origin"),
        pytest.param((b"origin", b"changed"), b"identity", b"key", (1,), id="another catalog"),
        pytest.param((b"origin", b"catalog"), b"somebody", b"key", (1,), id="another identity"),
        pytest.param((b"origin", b"catalog"), b"identity", b"kez", (1,), id="another key"),
        pytest.param((b"origin", b"catalog"), b"identity", b"key", (1, 2), id="more tags"),
        pytest.param((b"origin", b"catalog"), b"identity", b"key", (), id="fewer tags"),
    ],
)
def test_what_is_not_the_same_is_not_found(
    server: Server, label: tuple[bytes, bytes], identity: bytes, key: bytes, tags: tuple[int, ...]
) -> None:
    one, other = Process(server), Process(server)
    one.ask(b"key", 1)
    other.shelf.label(*label)
    other.space = other.domain.space(identity)
    assert other.look(key, *tags)[1] is None


def test_a_collision_of_names_is_a_miss(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash finds; whole keys decide."""
    monkeypatch.setattr("hyperdrive.cache.second.Shelf._entry_name", lambda self, shared: b"always the same")
    one, other = Process(server), Process(server)
    one.ask(b"key", 1)
    assert other.look(b"another", 1)[1] is None
    assert 1 == other.second.metrics.unfit


def test_age_counts_from_before_the_origin_was_asked(server: Server) -> None:
    """On the store's clock, and at most older than it is."""
    one, other = Process(server), Process(server)
    fill, _ = one.look(b"key", 1)
    server.clock.advance(5.0)  # the origin takes its time
    fill.send(server.clock.now())
    entry = one.finish(fill)
    assert entry is not None
    one.shelf.keep(fill, entry)
    one.connection.settle()
    server.clock.advance(20.0)
    found = other.look(b"key", 1)[1]
    assert found is not None
    assert (25.0, entry.cost_seconds) == (server.clock.now() - found.sent_at, found.cost_seconds)
    assert found.fresh_until <= entry.fresh_until
    server.clock.advance(40.0)
    assert other.look(b"key", 1)[1] is None, "older than the reader's policy allows"


def test_an_answer_from_the_future_is_none(server: Server) -> None:
    """The store's clock was set back: nobody knows how old anything is."""
    one, other = Process(server), Process(server)
    one.ask(b"key", 1)
    other.connection.server.clock = ManualClock()
    assert other.look(b"key", 1)[1] is None


# --- what is written down ----------------------------------------------------------------------------------------------------------


def shared_of(names: tuple[bytes, ...] = (b"*", b"7")) -> Shared:
    shared = Shared(b"the whole key", names)
    shared.generations = tuple(bytes([n]) * 16 for n in range(len(names)))
    shared.noted_at = 12.5
    return shared


def test_a_value_is_read_as_it_was_written() -> None:
    found = read_value(write_value(shared_of(), 0.25, b"body"), shared_of())
    assert found is not None
    assert (b"body", 12.5, 0.25) == (found.body, found.noted_at, found.cost_seconds)


def test_a_value_that_was_changed_anywhere_is_none() -> None:
    value = write_value(shared_of(), 0.25, b"body")
    for at in range(len(value)):
        for changed in (value[at] ^ 1, value[at] ^ 0x80):
            assert read_value(value[:at] + bytes([changed]) + value[at + 1 :], shared_of()) is None, at
        assert read_value(value[:at], shared_of()) is None, f"cut at {at}"
    assert read_value(value + b"x", shared_of()) is None
    for rubbish in (b"", MAGIC, b"WRONGTYPE", b"\0" * 500):
        assert read_value(rubbish, shared_of()) is None


def test_relations_and_the_catalog_are_seen_by_others_and_tags_of_hints_are_not() -> None:
    assert [b"*", b"7", b""] == [name_of("CATALOG"), name_of(7), name_of(("tag", "products"))]


# --- what an event takes away -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["touch", "touch_all", "end_epoch", "doom"])
def test_an_event_is_heard_by_the_next_question(server: Server, event: str) -> None:
    one, other = Process(server), Process(server)
    one.ask(b"key", 1)
    other.ask(b"far", 2)
    if event == "touch":
        one.domain.touch([1])
    else:
        getattr(one.domain, event)()
    one.space = one.domain.space(b"identity")
    assert one.look(b"key", 1)[1] is None
    assert (event == "touch") == (other.look(b"far", 2)[1] is not None)


def test_an_answer_that_raced_an_event_of_another_is_never_found(server: Server) -> None:
    """It was asked for before the event and kept after it, by a process that does not hear of events."""
    one, other = Process(server), Process(server)
    fill, _ = one.look(b"key", 1)
    fill.send(server.clock.now())
    other.domain.touch([1])
    other.connection.settle()
    entry = one.finish(fill, b"old")
    assert entry is not None
    one.shelf.keep(fill, entry)
    one.connection.settle()
    assert other.look(b"key", 1)[1] is None


def test_an_answer_under_way_when_something_happens_is_none(server: Server) -> None:
    one, other = Process(server), Process(server)
    other.ask(b"key", 1)
    heard: list[Entry | None] = []
    one.shelf.probe(one.open(b"key", 1), heard.append)
    one.connection.deliver()
    one.domain.touch([1])
    one.connection.settle()
    assert [None] == heard


def test_while_a_tag_is_on_hold_nothing_is_taken(server: Server) -> None:
    one, other = Process(server), Process(server)
    hold = one.domain.hold([1])
    other.ask(b"key", 1)
    assert one.look(b"key", 1)[1] is None
    hold.release()
    assert one.look(b"key", 1)[1] is None


def test_a_generation_that_was_forgotten_does_not_come_back(server: Server) -> None:
    one, other = Process(server), Process(server)
    one.ask(b"key", 1)
    for name in [name for name in server.values if b":g:" in name]:
        del server.values[name]
    for _ in range(3):
        assert other.look(b"key", 1)[1] is None
    assert b"new" == one.ask(b"key", 1, body=b"new"), "its generation was made again; the answer is of an earlier one"


def test_what_could_not_be_told_is_told_before_anything_is_asked(server: Server) -> None:
    one, other = Process(server), Process(server)
    other.ask(b"key", 1)
    one.connection.cut()
    one.domain.touch([1])
    assert not one.shelf.can_ask
    one.connection.up()
    assert one.look(b"key", 1)[1] is None


def test_what_was_told_and_not_carried_out_counts_as_untold(server: Server) -> None:
    one, other = Process(server), Process(server)
    other.ask(b"key", 1)
    one.domain.touch([1])
    one.connection.cut()
    one.connection.up()
    assert one.look(b"key", 1)[1] is None


def test_what_happened_before_the_database_had_a_name_is_told(server: Server) -> None:
    one = Process(server, mark=b"one")
    one.ask(b"key", 1)
    one.end()
    again = Process(server, mark=b"one")
    shelf = again.second.shelf(again.domain)
    again.domain.touch([1])
    shelf.label(b"origin", b"catalog")
    again.shelf = shelf
    assert again.look(b"key", 1)[1] is None


# --- beginnings and ends ------------------------------------------------------------------------------------------------------------


def test_a_process_that_was_closed_in_order_finds_its_answers_again(server: Server) -> None:
    one = Process(server, mark=b"one")
    one.ask(b"key", 1)
    one.end()
    assert Process(server, mark=b"one").look(b"key", 1)[1] is not None


@pytest.mark.parametrize("end", ["killed", "in doubt", "cut off", "was off", "another"])
def test_one_that_was_not_does_not(server: Server, end: str) -> None:
    """What it last changed it may not have told."""
    one = Process(server, mark=b"one")
    one.ask(b"key", 1)
    if end == "in doubt":
        one.domain.hold([1])
    elif end == "cut off":
        one.connection.cut()
    elif end == "was off":
        one.second.forget()
    if end != "killed":
        one.end()
    again = Process(server, mark=b"another" if end == "another" else b"one")
    assert again.look(b"key", 1)[1] is None


def test_a_restarted_store_is_another_even_if_it_remembers(server: Server) -> None:
    """A snapshot brings back what an event had taken away, and that the process was closed in order."""
    one = Process(server, mark=b"one")
    one.ask(b"key", 1)
    one.end()
    remembered = dict(server.values)
    again = Process(server, mark=b"one")
    again.domain.touch([1])
    again.connection.settle()
    server.restart()
    server.values |= remembered
    assert Process(server, mark=b"one").look(b"key", 1)[1] is None


# --- every order --------------------------------------------------------------------------------------------------------------------


class Run:
    """Two processes that read and write two rows, with everything that can go wrong, one step at a time.

    What is promised: whoever asks after a write through the same process was told of sees it.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        clock = ManualClock()
        clock.advance(1000.0)
        self.server = Server(clock)
        self.processes = [Process(self.server), Process(self.server)]
        self.rows = {1: 0, 2: 0}
        self.told: list[dict[int, int]] = [{1: 0, 2: 0}, {1: 0, 2: 0}]
        self.under_way: list[Callable[[], None]] = []
        self.from_below = 0

    def step(self) -> None:
        number = self.draw.randrange(2)
        process, row = self.processes[number], self.draw.choice([1, 2])
        match self.draw.choices(
            ["read", "write", "deliver", "hear", "go on", "cut", "up", "restart", "forget", "wait", "evict"],
            [20, 3, 40, 40, 40, 0.8, 8, 0.1, 0.3, 3, 8],
        )[0]:
            case "read":
                self.read(number, process, row)
            case "write":
                self.rows[row] += 1
                self.under_way.append(lambda value=self.rows[row]: self.commit(number, process, row, value))  # type: ignore[misc]
            case "deliver":
                process.connection.deliver()
            case "hear":
                process.connection.hear()
            case "go on" if self.under_way:
                self.under_way.pop(self.draw.randrange(len(self.under_way)))()
            case "cut":
                process.connection.cut()
            case "up" if not process.connection.incarnation:
                process.connection.up()
            case "restart":
                for one in self.processes:
                    one.connection.cut()
                self.server.restart()
            case "forget" if self.server.values:
                del self.server.values[self.draw.choice(sorted(self.server.values))]
            case "evict":
                process.store.purge(lambda entry: True)
            case "wait":
                self.server.clock.advance(self.draw.random() * 20)

    def commit(self, number: int, process: Process, row: int, value: int) -> None:
        """The origin has said that the write is done: applied here, and then its client is told."""
        process.domain.touch([row])
        self.told[number][row] = max(value, self.told[number][row])

    def read(self, number: int, process: Process, row: int) -> None:
        at_least = self.told[number][row]
        key = b"row %d" % row
        body = process.read(key)
        if body is not None:
            assert int(body) >= at_least, "from its own memory"
            return
        fill = process.open(key, row)

        def found(entry: Entry | None) -> None:
            if entry is not None:
                assert int(entry.body) >= at_least, "from the second level"
                self.from_below += 1
                process.store.put(entry)
                return
            fill.send(process.clock.now())
            self.under_way.append(lambda: self.seen(process, fill, self.rows[row], at_least))

        if process.shelf.can_ask:
            process.shelf.probe(fill, found)
        else:
            found(None)

    def seen(self, process: Process, fill: Fill, value: int, at_least: int) -> None:
        assert value >= at_least
        self.under_way.append(lambda: self.answered(process, fill, value))

    def answered(self, process: Process, fill: Fill, value: int) -> None:
        entry = process.finish(fill, b"%d" % value)
        if entry is not None:
            process.shelf.keep(fill, entry)


def test_no_order_of_things_shows_a_process_less_than_it_was_told() -> None:
    from_below = 0
    for seed in range(100):
        run = Run(seed)
        for _ in range(400):
            run.step()
        from_below += run.from_below
    assert from_below > 300, f"{from_below} answers came from the second level: nothing is proven"
