"""The report's charts, as plain coordinates for the template: a day is as wide as any other, and gaps stay gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import floor, log10

from dpdau_assets.core.reporting.report_model import Day, Series

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 8, 28
_TICKS, _MOST_LABELS = 4, 6
_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Tick:
    """A line across the chart and what stands beside it."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Points in SVG's own notation: one line, or area, for each stretch of days without a gap."""

    latest: tuple[str, ...]
    bands: tuple[str, ...]
    as_published: tuple[str, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


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
