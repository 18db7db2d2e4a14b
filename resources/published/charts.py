"""Charts of published series as SVG: those in the report, the mart's file, and a line that fits into a metadata cell.

A day is as wide as any other, and gaps stay gaps, but in the sparkline, whose points are means of equally many
published days. The bytes follow from the numbers alone.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import floor, log10
from urllib.parse import quote

from dpdau_assets.core.reporting.report_model import Day, Series
from resources.published.templates import template

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 8, 28
BOX = {"WIDTH": WIDTH, "HEIGHT": HEIGHT, "LEFT": LEFT, "RIGHT": RIGHT, "TOP": TOP, "BOTTOM": BOTTOM}
"""The size of a panel and its margins, in the units of its viewBox, as templates need them."""

TITLES = {"dau": "Daily active users", "mau": "Monthly active users"}
_TICKS, _MOST_LABELS = 4, 6
_STEPS = (1, 2, 5, 10)
_INLINE_DAYS = 400  # of a chart that Dagster keeps with each materialization
_SPARK_WIDTH, _SPARK_HEIGHT, _SPARK_POINTS = 240, 40, 50
_SPARK_COLOURS = {"dau": "#1b6ca8", "mau": "#a84a1a"}
_SPARK_LIMIT = 1000  # Dagster shows Markdown in place below this length, and behind a button from it on
_UNQUOTED = "/:=',.-"


@dataclass(frozen=True)
class Tick:
    """A line across the chart and what stands beside it; `at` is its place on its axis, in units of the viewBox."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Points in SVG's own notation: one line, or area, for each stretch of days without a gap.

    `as_published` has restated days alone; `across` are round values, `up` first days of months.
    """

    latest: tuple[str, ...]
    bands: tuple[str, ...]
    as_published: tuple[str, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def drawing(all_series: Sequence[Series]) -> str:
    """A whole SVG file with one panel a series that has two days at least: the latest number of each day in its 95 %
    interval, and dashed what was published first where a day was restated.
    """
    panels = [(series, _title(series), chart) for series in all_series if (chart := chart_of(series))]
    return template("chart.svg.j2").render(panels=panels, box=BOX)


def drawing_in_markdown(all_series: Sequence[Series]) -> str:
    """The last 400 published days of each series, as a Markdown image that carries itself."""
    recent = [replace(series, days=series.days[-_INLINE_DAYS:]) for series in all_series]
    svg = b64encode(drawing(recent).encode()).decode()
    return f"![DAU and MAU with 95 % intervals](data:image/svg+xml;base64,{svg})"


def sparkline_in_markdown(all_series: Sequence[Series]) -> str:
    """Each series as a tiny line, scaled to its own largest number; short enough to be shown in place.

    "See chart." where it would be too long.
    """
    height = _SPARK_HEIGHT + 5
    lines = "".join(_spark(series, height * number) for number, series in enumerate(all_series))
    size = f"viewBox='0,0,{_SPARK_WIDTH},{height * max(1, len(all_series))}' width='{2 * _SPARK_WIDTH}'"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' {size} fill='none'>{lines}</svg>"
    markdown = f"![{_in_words(all_series)}](data:image/svg+xml,{quote(svg, safe=_UNQUOTED)})"
    return markdown if len(markdown) < _SPARK_LIMIT else "See chart."


def chart_of(series: Series) -> Chart | None:
    """Nothing to draw before the second day."""
    if len(series.days) < 2:
        return None
    low, high = _range(series.days)
    first, last = series.days[0].day, series.days[-1].day

    def x(day: date) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (day - first) / (last - first)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(max(value, low), high)) / (high - low)

    stretches = list(_stretches(series.days))
    return Chart(
        latest=tuple(_points((x(day.day), y(day.latest.estimate)) for day in part) for part in stretches),
        bands=tuple(_band(part, high, x, y) for part in stretches),
        as_published=tuple(
            _points((x(day.day), y(day.as_published.estimate)) for day in part)
            for part in _stretches([day for day in series.days if day.is_restated])
        ),
        across=tuple(Tick(y(value), f"{value:,.0f}") for value in _round_values(low, high)),
        up=tuple(Tick(x(month), f"{month:%b %Y}") for month in _months(first, last)),
    )


def _title(series: Series) -> str:
    """With the interval: on the scale of most series the band is thinner than the line."""
    window = f", {series.window_days}-day window" if series.window_days > 1 else ""
    last = series.days[-1].latest
    if last.upper_95 is None:
        return f"{TITLES[series.metric]}{window}, no upper bound: the sketch is full"
    return f"{TITLES[series.metric]}{window}, 95 % interval ±{last.upper_95 - last.noisy_value:.1f}"


def _in_words(all_series: Sequence[Series]) -> str:
    names = [series.metric.upper() for series in all_series]
    return f"{' above, '.join(names)} below" if len(names) > 1 else f"{''.join(names)} by day"


def _spark(series: Series, top: int) -> str:
    values = [day.latest.estimate for day in series.days]
    if len(values) < 2:
        return ""
    step = max(1, -(-len(values) // _SPARK_POINTS))
    means = [sum(part) / len(part) for part in (values[n : n + step] for n in range(0, len(values), step))]
    scale = _SPARK_HEIGHT / (max(means) or 1)
    across = _SPARK_WIDTH / max(1, len(means) - 1)
    points = ",".join(f"{n * across:.0f},{top + _SPARK_HEIGHT - mean * scale:.0f}" for n, mean in enumerate(means))
    return f"<polyline points='{points}' stroke='{_SPARK_COLOURS[series.metric]}'/>"


def _range(days: Sequence[Day]) -> tuple[float, float]:
    """A little more than what the intervals take up; of one without an upper bound the number itself."""
    numbers = [number for day in days for number in day.numbers]
    low = min(number.lower_95 for number in numbers)
    high = max(number.estimate if number.upper_95 is None else number.upper_95 for number in numbers)
    margin = (high - low) * 0.05 or 1
    return max(0.0, low - margin), high + margin


def _stretches(days: Sequence[Day]) -> Iterator[list[Day]]:
    """Days that follow one another."""
    part: list[Day] = []
    for day in days:
        if part and day.day - part[-1].day > timedelta(days=1):
            yield part
            part = []
        part.append(day)
    if part:
        yield part


def _band(days: Sequence[Day], high: float, x: Callable[[date], float], y: Callable[[float], float]) -> str:
    upper = ((x(day.day), y(high if day.latest.upper_95 is None else day.latest.upper_95)) for day in days)
    lower = ((x(day.day), y(day.latest.lower_95)) for day in reversed(days))
    return f"{_points(upper)} {_points(lower)}"


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _round_values(low: float, high: float) -> Iterator[float]:
    """Round values in the range, about as many as there are to be."""
    rough = (high - low) / _TICKS
    power = 10 ** floor(log10(rough))
    step = max(1.0, next(power * digit for digit in _STEPS if power * digit >= rough))
    value = step * -(-low // step)
    while value <= high:
        yield value
        value += step


def _months(first: date, last: date) -> list[date]:
    """First days of months in the range, so few of them that their names have room."""
    months = [date(year, month, 1) for year in range(first.year, last.year + 1) for month in range(1, 13)]
    inside = [month for month in months if first <= month <= last]
    return inside[:: -(-len(inside) // _MOST_LABELS)] if inside else []
