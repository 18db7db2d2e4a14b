"""The budget as lines of text, a bar a month and metric, short enough for Dagster to show in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from dpdau_assets.core.budget.forecast import MonthForecast, forecast
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.reporting.answer_model import MonthlyBudget
from dpdau_assets.core.reporting.answers import budget_rows
from dpdau_assets.core.settings import Metric, Settings

MONTHS_BACK, MONTHS_AHEAD = 3, 2
_WIDTH = 20
LEGEND = "█ spent by numbers that are out, ▒ charged or planned, · free"


@dataclass(frozen=True)
class Bar:
    """One month of one metric, in epsilon; `charged` holds what is planned too, and all of it is held to the cap."""

    month: date
    metric: Metric
    spent: float
    charged: float
    cap: float
    published: int
    planned: int

    def text(self) -> str:
        """A bar as long as the cap; one character of it at least for whatever is not nothing."""
        spent = _places(self.spent / self.cap)
        charged = max(0, _places(self.charged / self.cap) - spent)
        bar = "█" * spent + "▒" * charged + "·" * max(0, _WIDTH - spent - charged)
        numbers = f"{self.published} of {self.planned} numbers"
        return f"{self.month:%Y-%m} {self.metric} {bar} {self.spent:.2f} of {self.cap:.2f}, {numbers}"


def budget_bars(settings: Settings, accountant: LedgerView) -> list[Bar]:
    """The last months that were charged and the next that will be, in order of months."""
    with accountant.snapshot() as ledger:
        coming = {(row.metric, row.month): row for row in forecast(ledger, settings, MONTHS_AHEAD).months}
        begun = {(row.metric, row.month): row for row in budget_rows(settings, ledger)}
        newest = sorted({month for _, month in begun})[-MONTHS_BACK:]
        last = newest[-1] if newest else date.min
        months = [*newest, *sorted({month for _, month in coming if month > last})[:MONTHS_AHEAD]]
        return [
            _bar(month, metric, begun.get((metric, month)), coming.get((metric, month)))
            for month in months
            for metric in METRICS
            if (metric, month) in begun or (metric, month) in coming
        ]


def bars_in_markdown(bars: Iterable[Bar]) -> str:
    """In a block of letters of one width."""
    return "\n".join(["```", *(bar.text() for bar in bars), LEGEND, "```"])


def _bar(month: date, metric: Metric, begun: MonthlyBudget | None, coming: MonthForecast | None) -> Bar:
    spent = begun.summary.epsilon_spent if begun else 0.0
    published = begun.summary.releases_made if begun else 0
    charged = begun.report.charged.epsilon if begun else 0.0
    if coming is None:
        assert begun is not None
        summary = begun.summary
        return Bar(month, metric, spent, charged, summary.epsilon_cap, published, summary.releases_planned)
    planned = published + coming.first_numbers + coming.restatements
    return Bar(month, metric, spent, max(charged, coming.charged), coming.cap, published, planned)


def _places(share: float) -> int:
    return max(round(share * _WIDTH), 1 if share > 0 else 0)
