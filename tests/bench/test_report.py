"""The page, its plots, the comparison of two runs, and tables."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import charts, compare, report, svg
from bench.live import table
from bench.results import Outcome, Run


def run(us: list[float], commit: str = "abc") -> Run:
    made = Outcome("select", "pgbench -S", "about <all>")
    for value in us:
        made.add("throughput, simple", "us", "1/s", value)
        made.add("throughput, simple", "PgBouncer", "1/s", 1000.0)
        made.add("p99, simple", "us", "ms", 2.0, latencies=[0.5, 1.0, 2.0])
    made.promise("throughput", "at least", 0.85, "× PgBouncer", made.ratio("throughput, simple", "us", "PgBouncer"))
    trips = Outcome("round-trips", "round trips", "about")
    trips.add("asyncpg: connect: elapsed", "us", "", 0.1)
    return Run("python -m bench", "2026-01-01T00:00:00+00:00", 1.0, {"cores": "2"}, {"commit": commit}, [made, trips])


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = report.page(run([900.0]))
    assert re.findall(r"""src=|href="[^#]|@import|url\(|<script|<link""", page) == []
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}


def test_every_plot_is_well_formed() -> None:
    plots = re.findall(r"<svg.*?</svg>", report.page(run([900.0, 950.0])), re.DOTALL)
    # The goal beside its value, throughput, latencies, round trips.
    assert len(plots) == 4
    for plot in plots:
        ElementTree.fromstring(plot)


def test_text_of_a_run_is_no_markup() -> None:
    assert "about &lt;all&gt;" in report.page(run([900.0]))


def test_goals_stand_with_what_came_out() -> None:
    page = report.page(run([900.0, 800.0]))
    assert "1 of 1 met" in page
    assert "met, uncertain" in page


def test_what_was_missed_says_what_is_known_about_it() -> None:
    made = run([900.0])
    made.outcomes[0].promise("missed", "at least", 7.0, "×", [6.5], "seven against one")
    made.outcomes[0].promise("met", "at least", 7.0, "×", [7.5], "nothing to explain")
    page = report.page(made)
    assert "<small>seven against one</small>" in page
    assert "nothing to explain" not in page


def test_the_headline_says_how_many_times_faster_over_all_drivers() -> None:
    made = Outcome("serverless", "a new connection per request", "about")
    for program, direct in (("psycopg 3", 560.0), ("asyncpg", 640.0)):
        for _ in range(3):
            made.add(f"{program}: read", "direct", "ms", direct)
            made.add(f"{program}: write", "direct", "ms", direct)
            made.add(f"{program}: read", "us", "ms", 80.0)
            made.add(f"{program}: write", "us", "ms", 100.0)
            made.add(f"{program}: cached read", "us, cached", "ms", 5.0)
    page = report.page(replace(run([900.0]), outcomes=[made], distance="80 ms there and back"))
    assert "<h1>5.6\u00a0–\u2060\u00a08.0× uncached, 112\u00a0–\u2060\u00a0128× from the cache</h1>" in page
    assert "each request on a new connection with TLS, over 80 ms there and back" in page
    assert "<b>5.6\u00a0–\u2060\u00a06.4×</b><span>faster: writes</span>" in page


def test_a_card_of_one_round_shows_no_interval() -> None:
    made = Outcome("serverless", "a new connection per request", "about")
    made.add("psycopg 3: read", "direct", "ms", 560.0)
    made.add("psycopg 3: read", "us", "ms", 80.0)
    assert "<small>psycopg 3 7.00</small>" in report.page(replace(run([900.0]), outcomes=[made]))


def test_without_new_connections_the_headline_promises_nothing() -> None:
    assert "<h1>Hyperdrive, measured</h1>" in report.page(run([900.0]))


def test_a_page_is_made_again_from_its_figures(tmp_path: Path) -> None:
    source = tmp_path / "run.json"
    run([900.0]).save(source)
    assert report.main([str(source)]) == 0
    assert (tmp_path / "run.html").read_text() == report.page(run([900.0]))


def test_bars_begin_at_zero_and_share_a_scale() -> None:
    groups = [svg.Group("a", [svg.Bar("us", 50.0, "50")]), svg.Group("b", [svg.Bar("us", 100.0, "100")])]
    widths = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', svg.bars(groups, title="t"))]
    assert widths[0] * 2 == pytest.approx(widths[1], abs=0.2)


def test_a_distribution_rises_from_left_to_right() -> None:
    plot = charts.curves([("us", [3.0, 1.0, 2.0])], title="t", unit="ms")
    found = re.search(r'<polyline[^>]* points="([^"]+)"', plot)
    assert found is not None
    points = [tuple(map(float, point.split(","))) for point in found[1].split()]
    assert points == sorted(points, key=lambda point: (point[0], -point[1]))


def test_every_link_of_the_page_leads_somewhere() -> None:
    page = report.page(run([900.0]))
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links
    assert links <= set(re.findall(r'id="?([\w-]+)', page))


def test_a_workload_that_no_chapter_knows_is_shown_all_the_same() -> None:
    made = run([900.0])
    made.outcomes.append(Outcome("new", "something new", "about"))
    assert "<h3>something new</h3>" in report.page(made)


def test_rows_of_a_pair_are_on_two_scales() -> None:
    rows = [charts.Pair("us", svg.Bar("us", 100.0, "100"), svg.Bar("us", 4.0, "4")), charts.Pair("direct", None, None)]
    plot = charts.pairs([charts.PairGroup("a", rows)], title="t", left="1/s", right="µs")
    widths = re.findall(r'<rect class="us"[^>]* width="([\d.]+)"', plot)
    assert len(widths) == 2
    assert widths[0] == widths[1]


def test_a_round_far_above_the_median_stays_on_its_side() -> None:
    """The dots are on the bars' scale, so the text behind the last one does not run into the other measure."""
    rows = [charts.Pair("us", svg.Bar("us", 100.0, "100", [90.0, 100.0, 400.0]), svg.Bar("us", 4.0, "4"))]
    plot = charts.pairs([charts.PairGroup("a", rows)], title="t", left="1/s", right="µs")
    dots = [float(x) for x in re.findall(r'<circle[^>]* cx="([\d.]+)"', plot)]
    right = float(re.findall(r'<rect class="us" x="([\d.]+)"', plot)[1])
    assert max(dots) < right - 26


def test_dots_of_equal_values_do_not_hide_each_other() -> None:
    row = charts.DotRow("connect", [("direct", 4.0), ("us", 1.0), ("PgBouncer", 1.0)], goal=1.0)
    plot = charts.dots([row], title="t", unit="round trips")
    places = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', plot)
    assert len(set(places)) == 3
    assert places[1][0] == places[2][0]


def test_lines_rise_with_their_values_and_stay_inside() -> None:
    plot = charts.lines([("us", [(1.0, 10.0), (16.0, 50.0), (256.0, 100.0)])], title="t", x_unit="clients", unit="1/s")
    found = re.search(r'<polyline[^>]* points="([^"]+)"', plot)
    assert found is not None
    points = [tuple(map(float, point.split(","))) for point in found[1].split()]
    assert points == sorted(points, key=lambda point: (point[0], -point[1]))
    assert all(0 <= x <= charts.PANEL and 0 <= y for x, y in points)


BULLETS = [(0.5, 1.0, 30.0), (1.0, 1.0, 60.0), (3.0, 1.0, 120.0)]


@pytest.mark.parametrize(("value", "limit", "width"), BULLETS)
def test_a_value_stands_beside_its_goal(value: float, limit: float, width: float) -> None:
    """The goal is in the middle; twice of it is the end."""
    plot = charts.bullet(value, limit, is_met=True)
    assert f'<rect class="met" x="0" y="4" width="{width:.1f}"' in plot
    assert 'x1="60.0"' in plot


@pytest.mark.parametrize(
    ("top", "ticks"), [(10.0, [0.0, 5.0, 10.0]), (16.0, [0.0, 5.0, 10.0, 15.0]), (0.8, [0.0, 0.2, 0.4, 0.6, 0.8])]
)
def test_ticks_are_round_numbers(top: float, ticks: list[float]) -> None:
    assert ticks == pytest.approx(svg.even_ticks(top))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("us", "us"),
        ("us, 2 workers", "us"),
        ("us, cached", "cached"),
        ("us, cached, behind", "cached"),
        ("us, cached, SCRAM 1", "short"),
        ("Odyssey", "other"),
    ],
)
def test_a_target_has_one_colour_everywhere(name: str, kind: str) -> None:
    assert svg.colour(name) == kind


def test_a_change_counts_when_rounds_do_not_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, made in (("a", run([900.0, 920.0], "old")), ("b", run([600.0, 650.0], "new"))):
        made.save(tmp_path / f"{name}.json")
    assert compare.main([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 1
    shown = capsys.readouterr().out
    assert "commit: old → new" in shown
    assert re.search(r"throughput, simple 1/s +us +910 +625 +-31% +worse", shown)
    assert "PgBouncer 1" not in shown


def test_rounds_that_overlap_are_no_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, made in (("a", run([900.0, 920.0])), ("b", run([700.0, 910.0]))):
        made.save(tmp_path / f"{name}.json")
    assert compare.main([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "no figure changed" in capsys.readouterr().out


def test_numbers_stand_right_and_have_digits_that_mean_something() -> None:
    assert table([["", "us"], ["a", 1234.5], ["bcd", 0.123]]) == "        us\na    1,234\nbcd   0.12"
