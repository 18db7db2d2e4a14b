"""The budget as CI keeps it: what a month of numbers has cost, and what a year of the configuration will."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from dpdau_assets.core.budget.forecast import forecast
from dpdau_assets.core.privacy.compositions import joint_epsilon
from dpdau_assets.core.reporting.answers import budget_rows
from dpdau_assets.core.reporting.as_json import as_json
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import copied
from dpdau_tests.support.prepared import Prepared
from dpdau_tests.support.project import PROJECT
from dpdau_tests.support.stores import a_month_restated
from resources.ledger_sql.database import Database
from resources.ledger_sql.ledger import SqlLedger

SNAPSHOT = PROJECT / ".artifacts" / "budget-snapshot.json"
MONTHS = 12


def test_the_budget_snapshot_that_ci_keeps_shows_a_month_spent_to_its_cap_and_a_year_that_fits(
    tmp_path: Path, prepared: Prepared
) -> None:
    """Under the default configuration. It holds no number and no noise, so the same code writes the same file."""
    store = copied(prepared, a_month_restated, tmp_path / "store", date(2025, 2, 9))
    year = forecast(SqlLedger(Database("sqlite://")), Settings(), MONTHS)
    snapshot = {
        "both_metrics_epsilon": joint_epsilon(Settings()),
        "months": as_json(budget_rows(store.settings, store.accountant)),
        "plan": as_json(year),
    }
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(json.dumps(snapshot, indent=1, sort_keys=True) + "\n")

    kept = json.loads(SNAPSHOT.read_text())
    january = next(row for row in kept["months"] if (row["metric"], row["month"]) == ("dau", "2025-01"))
    assert january["epsilon_spent"] == pytest.approx(3.0, abs=0.005) and january["epsilon_spent"] <= 3.0
    assert (january["releases_made"], january["releases_planned"]) == (62, 62)
    for row in kept["months"]:
        assert row["charged"]["epsilon"] <= row["epsilon_cap"] == {"dau": 3.0, "mau": 3.5}[row["metric"]]
    assert kept["plan"]["fits"] and len(kept["plan"]["months"]) == 2 * MONTHS
    assert kept["both_metrics_epsilon"] == pytest.approx(4.811, abs=5e-4)
