"""Charts of the published series: one to look at, and one small enough for Dagster to show in a metadata cell.

Matplotlib is loaded by the first picture: it would be a fifth of the time in which a run or a command starts.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from dpdau_assets.core.restored import MartRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {"dau": "Daily active users", "mau": "Monthly active users, rolling window"}
_COLOURS = {"dau": "#1b6ca8", "mau": "#b3541e"}
_FONT = "the DejaVu Sans of Matplotlib"
_INLINE_WIDTH, _INLINE_HEIGHT, _INLINE_POINTS = 240, 40, 50
_INLINE_LIMIT = 1000  # Dagster shows Markdown in place below this length, and behind a button from it on


def draw_series(rows: Sequence[MartRow], path: Path) -> None:
    """An SVG with one panel a metric: the latest number of each day in its 95 % interval.

    The same bytes for the same numbers, in whatever process and on whatever machine with this version of Matplotlib.
    """
    with _alike_everywhere():
        _figure(rows).savefig(path, format="svg", metadata={"Date": None})


def chart_in_markdown(rows: Sequence[MartRow]) -> str:
    """The chart as a Markdown image that carries itself."""
    picture = BytesIO()
    with _alike_everywhere():
        _figure(rows).savefig(picture, format="png", dpi=72)
    return f"![DAU and MAU with 95 % intervals](data:image/png;base64,{b64encode(picture.getvalue()).decode()})"


def sparkline_in_markdown(rows: Sequence[MartRow]) -> str:
    """DAU and MAU as tiny lines, each scaled to its own largest number; short enough to be shown in place."""
    lines = "".join(_line(_latest(rows, metric), top, _COLOURS[metric]) for top, metric in ((0, "dau"), (45, "mau")))
    size = f"viewBox='0,0,{_INLINE_WIDTH},90' width='480'"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' {size} fill='none'>{lines}</svg>"
    markdown = f"![DAU above, MAU below](data:image/svg+xml,{quote(svg, safe=_SAFE)})"
    return markdown if len(markdown) < _INLINE_LIMIT else "See chart."


_SAFE = "/:=',.-"


@contextmanager
def _alike_everywhere() -> Iterator[None]:
    """Nobody's matplotlibrc, ids that are no random ones, and the very font that Matplotlib brings.

    By its usual name that font may be another version of it, which the system has, or another one altogether: which is
    chosen depends on what was installed when Matplotlib last looked for fonts.
    """
    import matplotlib as mpl
    from matplotlib import font_manager

    if all(font.name != _FONT for font in font_manager.fontManager.ttflist):
        brought = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        font_manager.fontManager.ttflist.append(font_manager.FontEntry(fname=str(brought), name=_FONT))
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.hashsalt": "dpdau", "font.family": [_FONT]})
        yield


def _figure(rows: Sequence[MartRow]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    for panel, metric in zip(figure.subplots(2, 1, sharex=True), ("dau", "mau"), strict=True):
        _draw_panel(panel, metric, _latest(rows, metric))
    return figure


def _latest(rows: Sequence[MartRow], metric: str) -> list[MartRow]:
    by_day = {row.key.day: row for row in rows if row.key.metric == metric}  # rows come in order of revisions
    return [by_day[day] for day in sorted(by_day)]


def _draw_panel(panel: Axes, metric: str, rows: list[MartRow]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    days = np.array([row.key.day for row in rows], dtype="datetime64[D]")
    low = [row.lower_95 for row in rows]
    high = [np.nan if row.upper_95 is None else row.upper_95 for row in rows]  # no band where nothing bounds it
    panel.fill_between(days, low, high, color=_COLOURS[metric], alpha=0.3, linewidth=0, label="95 % interval")
    panel.plot(days, [row.estimate for row in rows], color=_COLOURS[metric], linewidth=1, label="published")
    panel.set_title(_TITLES[metric] + _interval_in_words(rows), loc="left")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    locator = AutoDateLocator()
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _interval_in_words(rows: list[MartRow]) -> str:
    """Said in the title too: on the scale of most series the band is thinner than the line."""
    if not rows:
        return ""
    last = rows[-1]
    if last.upper_95 is None:
        return ", no upper bound: the sketch is full"
    return f", 95 % interval ±{last.upper_95 - last.noisy_value:.1f}"


def _line(rows: list[MartRow], top: int, colour: str) -> str:
    values = [row.estimate for row in rows]
    if len(values) < 2:
        return ""
    step = max(1, -(-len(values) // _INLINE_POINTS))
    means = [sum(part) / len(part) for part in (values[n : n + step] for n in range(0, len(values), step))]
    scale = _INLINE_HEIGHT / (max(means) or 1)
    across = _INLINE_WIDTH / max(1, len(means) - 1)
    points = ",".join(f"{n * across:.0f},{top + _INLINE_HEIGHT - mean * scale:.0f}" for n, mean in enumerate(means))
    return f"<polyline points='{points}' stroke='{colour}'/>"
