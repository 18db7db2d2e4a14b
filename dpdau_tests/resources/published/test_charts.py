"""Charts as SVG: every number where it belongs, gaps as gaps, and the same bytes for the same numbers."""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from dpdau_assets.core.reporting.report_model import Day, Number, Series
from resources.published.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    chart_of,
    drawing,
    drawing_in_markdown,
    sparkline_in_markdown,
)

FIRST = date(2025, 1, 1)
SVG = "{http://www.w3.org/2000/svg}"


def number(estimate: float, revision: int = 0, upper: float | None = 13.5) -> Number:
    bound = None if upper is None else estimate + upper
    return Number(revision, estimate, estimate, max(0.0, estimate - 13.5), bound, due_on=FIRST)


def series(metric: str, days: int, *, without: frozenset[int] = frozenset(), restated: int = 0) -> Series:
    """A number a day, of which the first so many were restated to ten less."""
    numbered = [
        Day(FIRST + timedelta(days=n), (number(100 + n), *([number(90 + n, 1)] if n < restated else [])))
        for n in range(days)
        if n not in without
    ]
    return Series(metric, 1 if metric == "dau" else 30, tuple(numbered))


def points(text: str) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in text.split()]  # type: ignore[misc]


def test_a_day_stands_at_its_date_and_a_number_at_its_height_inside_of_its_interval() -> None:
    chart = chart_of(series("dau", 41))
    assert chart is not None
    (line,), (band,) = map(points, chart.latest), map(points, chart.bands)
    assert [x for x, _ in line] == pytest.approx([LEFT + n * (WIDTH - LEFT - RIGHT) / 40 for n in range(41)], abs=0.05)
    rises = {round(before - after, 1) for (_, before), (_, after) in pairwise(line)}
    assert max(rises) - min(rises) <= 0.1, "a user more is as high everywhere"
    upper, lower = band[:41], band[41:][::-1]
    assert all(up[1] < mid[1] < low[1] for up, mid, low in zip(upper, line, lower, strict=True))
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in [*line, *band])


def test_days_without_a_number_are_a_gap_and_not_a_line() -> None:
    chart = chart_of(series("dau", 30, without=frozenset({9, 10, 20})))
    assert chart is not None
    assert [len(points(line)) for line in chart.latest] == [9, 9, 9] and len(chart.bands) == 3


def test_what_was_published_first_is_dashed_beside_what_holds_where_a_day_was_restated() -> None:
    chart = chart_of(series("dau", 30, restated=10))
    assert chart is not None
    (first,), (latest,) = map(points, chart.as_published), map(points, chart.latest)
    assert len(first) == 10 and all(old[1] < new[1] for old, new in zip(first, latest[:10], strict=True))
    said = "dashed: as published at first"
    assert said in drawing([series("dau", 30, restated=10)]) and said not in drawing([series("dau", 30)])


def test_the_file_is_an_svg_with_a_titled_panel_a_series_and_the_same_bytes_for_the_same_numbers() -> None:
    both = [series("dau", 40), series("mau", 40)]
    svg = drawing(both)
    root = ElementTree.fromstring(svg)
    panels = root.findall(f"{SVG}g")
    titles = [panel.findtext(f"{SVG}text") for panel in panels]
    assert titles == [
        "Daily active users, 95 % interval ±13.5",
        "Monthly active users, 30-day window, 95 % interval ±13.5",
    ]
    assert [panel.find(f"{SVG}polyline").get("class") for panel in panels] == ["dau line", "mau line"]  # type: ignore[union-attr]
    assert drawing(both) == svg and drawing([series("dau", 41), both[1]]) != svg
    assert "script" not in svg and re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]


def test_a_number_without_an_upper_bound_is_said_to_have_none() -> None:
    full = series("dau", 3)
    last = Day(full.days[-1].day, (number(100, upper=None),))
    assert "no upper bound: the sketch is full" in drawing([replace(full, days=(*full.days[:-1], last))])


@pytest.mark.parametrize("days", [0, 1])
def test_before_the_second_day_the_file_says_that_there_is_nothing_to_draw(days: int) -> None:
    root = ElementTree.fromstring(drawing([series("dau", days)] if days else []))
    assert "Fewer than two days are published." in "".join(root.itertext()) and not root.findall(f"{SVG}g")
    assert "polyline" not in unquote(sparkline_in_markdown([series("dau", days)]))


def test_what_dagster_keeps_of_a_long_series_is_its_last_400_days() -> None:
    """Ten years would be half a megabyte beside each materialization."""
    markdown = drawing_in_markdown([series("dau", 3650), series("mau", 3650)])
    svg = b64decode(markdown.rpartition("base64,")[2].rstrip(")")).decode()
    assert svg == drawing([replace(one, days=one.days[-400:]) for one in (series("dau", 3650), series("mau", 3650))])
    assert len(markdown) < 64_000


@pytest.mark.parametrize("days", [2, 49, 50, 51, 3650])
def test_a_sparkline_is_short_enough_to_be_shown_in_place(days: int) -> None:
    markdown = sparkline_in_markdown([series("dau", days), series("mau", days)])
    assert markdown.startswith("![DAU above, MAU below](data:image/svg+xml,") and len(markdown) < 1000
    assert unquote(markdown).count("<polyline") == 2
    assert sparkline_in_markdown([series("dau", days)]).startswith("![DAU by day](")
