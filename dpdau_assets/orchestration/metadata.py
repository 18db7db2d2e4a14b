"""What may stand in Dagster's metadata, which is kept for ever and shown to operators.

Published numbers, budgets and public constants; never a user id, key, salt, exact count, row count or noise value.

Owns the rule: Dagster is told no user, key, count or noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from dpdau_assets.core.erasure.requests import WaitingDay

CODE_VERSION = "1"
"""The code version of every asset: Dagster compares each partition's event with it."""

NO_USER_DATA = {"dpdau/user-data": "none"}
"""The tag of an asset that holds nobody. The others are in `core.erasure.inspection.HOLDS_USER_DATA`."""

DOCS_URL = "{{DOCS_URL}}"
"""Where the folder docs/ is browsed; until it is filled in, pages are named by their path on this machine."""

DAILY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))
"""How fresh what follows each day's publication is held: a warning after a missed day, a failure after two."""

ALLOWED = frozenset(
    {
        "day",
        "estimate",
        "noisy_value",
        "lower_95",
        "upper_95",
        "epsilon_used",
        "budget_remaining",
        "mechanism",
        "days_published",
        "days_pending",
        "places",
        "chart",
        "chart_file",
        "sparkline",
        "table",
        "csv",
        "budget",
        "dagster/code_version",
        "budget_bars",
        "erasures_waiting",
        "oldest_erasure_days",
        "last_dau",
        "last_days",
        "last_mau",
        "readers_file",
        "operators_file",
        "month",
        "months_read",
        "epsilon_spent",
        "epsilon_charged",
        "epsilon_cap",
        "epsilon_left",
        "epsilon_asked",
        "reason",
        "remedy",
        "next_day",
    }
)


def reveal(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, when every key is on the list. Raises ValueError, naming the keys only, otherwise."""
    refused = sorted(values.keys() - ALLOWED)
    if refused:
        raise ValueError(
            f"Metadata keys {refused} are not on the allow-list in dpdau_assets/orchestration/metadata.py."
        )
    return dict(values)


def described(page: str, docs_url: str = DOCS_URL) -> dict[str, dg.MetadataValue]:
    """The metadata of an asset: the page of docs/ that says what is behind it."""
    if docs_url.startswith("{{"):
        return {"docs": dg.MetadataValue.path(str(Path(__file__).parents[2] / "docs" / page))}
    return {"docs": dg.MetadataValue.url(f"{docs_url.rstrip('/')}/{page}")}


def erasure_queue(waiting: Sequence[WaitingDay]) -> dict[str, Any]:
    """The days on which requests came in that are not verified yet, oldest first: not whose, nor how many."""
    rows = [
        (str(day.received_on), f"{day.age_days} day(s)", f"{day.deadline}{', overdue' if day.is_overdue else ''}")
        for day in waiting
    ]
    lines = [("received", "waits for", "deadline"), ("---",) * 3, *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else "Nothing waits."
    return {
        "erasures_waiting": dg.MetadataValue.md(table),
        "oldest_erasure_days": max((day.age_days for day in waiting), default=0),
    }
