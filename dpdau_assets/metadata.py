"""What may stand in Dagster's metadata, which is kept for ever and shown to operators.

Published numbers, budgets and public constants; never a user id, key, salt, exact count, row count or noise value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_USER_DATA = {"dpdau/user-data": "none"}
"""The tag of an asset that holds nobody. The others are in `core.inspection.HOLDS_USER_DATA`."""

ALLOWED = frozenset(
    {
        "day", "estimate", "noisy_value", "lower_95", "upper_95", "epsilon_used", "budget_remaining", "mechanism",
        "days_published", "days_pending", "places_left", "chart", "chart_file", "sparkline", "table", "csv", "budget",
        "dagster/code_version",
    }
)  # fmt: skip


def reveal(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, when every key is on the list. Raises ValueError, naming the keys only, otherwise."""
    refused = sorted(values.keys() - ALLOWED)
    if refused:
        raise ValueError(f"Metadata keys {refused} are not on the allow-list in dpdau_assets/metadata.py.")
    return dict(values)
