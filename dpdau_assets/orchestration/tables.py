"""Tables in Dagster's metadata, made from frames: published numbers and what months have cost, and nothing else.

Pandas is loaded by the first table: it would be a good part of the time in which a run starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from dpdau_assets.core.reporting.answer_model import MonthlyBudget
from dpdau_assets.core.reporting.as_json import columns_of
from dpdau_assets.core.restored import MartRow

if TYPE_CHECKING:
    import pandas as pd

_NUMBERS = ("metric", "day", "revision", "estimate", "lower_95", "upper_95")
_BUDGET = ("metric", "month", "epsilon_spent", "charged", "epsilon_cap", "overrides", "releases_made")
ALLOWED_COLUMNS = frozenset({*_NUMBERS, *_BUDGET, "releases_planned"})
_KINDS = {"i": "int", "f": "float"}


def last_days(rows: Sequence[MartRow], days: int = 7) -> dg.TableMetadataValue:
    """The latest numbers of each metric's last published days; `rows` come in the mart's order."""
    import pandas as pd

    numbers = pd.DataFrame([columns_of(row) for row in rows], columns=["window_days", *_NUMBERS])
    latest = numbers.drop_duplicates(["metric", "window_days", "day"], keep="last")
    return in_a_table(latest.groupby("metric", sort=False).tail(days).loc[:, list(_NUMBERS)])


def budget_table(rows: Sequence[MonthlyBudget]) -> dg.TableMetadataValue:
    """Every charged month of each metric, in epsilon: what is spent so far, all that is charged, and the cap."""
    import pandas as pd

    return in_a_table(pd.DataFrame(map(_columns, rows), columns=[*_BUDGET, "releases_planned"]).round(3))


def _columns(row: MonthlyBudget) -> dict[str, Any]:
    return {
        "metric": row.metric,
        "month": f"{row.month:%Y-%m}",
        "epsilon_spent": row.summary.epsilon_spent,
        "charged": row.report.charged.epsilon,
        "epsilon_cap": row.summary.epsilon_cap,
        "overrides": len(row.overrides),
        "releases_made": row.summary.releases_made,
        "releases_planned": row.summary.releases_planned,
    }


def in_a_table(frame: pd.DataFrame) -> dg.TableMetadataValue:
    """The frame's rows in order; days as text, and nothing where it has no value.

    Raises ValueError, naming the columns only, for one that is not on the allow-list.
    """
    refused = sorted(set(frame.columns) - ALLOWED_COLUMNS)
    if refused:
        raise ValueError(f"Columns {refused} are not on the allow-list in dpdau_assets/orchestration/tables.py.")
    plain = frame.astype(object).where(frame.notna(), None)
    records: list[dict[str, Any]] = plain.to_dict("records")  # type: ignore[assignment]
    columns = [dg.TableColumn(str(name), _KINDS.get(dtype.kind, "string")) for name, dtype in frame.dtypes.items()]
    return dg.MetadataValue.table(
        [dg.TableRecord({name: _cell(value) for name, value in record.items()}) for record in records],
        schema=dg.TableSchema(columns),
    )


def _cell(value: Any) -> str | int | float | None:
    return value if value is None or isinstance(value, int | float) else str(value)
