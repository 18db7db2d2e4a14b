"""The public form of results: plain values, names that are documented, and nothing that is no result."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from fractions import Fraction

import pytest

from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.reporting.answer_model import CapOverride, PublishedRange, Status
from dpdau_assets.core.reporting.as_json import as_json, columns_of
from dpdau_assets.core.restored import MartRow

DAY = date(2025, 1, 31)
ROW = MartRow(
    key=ReleaseKey("dau", 1, DAY),
    noisy_value=8.0,
    estimate=8.0,
    lower_95=0.0,
    upper_95=None,
    noisy_statistic=4.0,
    half_width=13.5,
    mechanism="gaussian_shared",
    mechanism_run="a run",
    parameters={"sketch_impl": "theta", "theta0": "1/2"},
    published_at=datetime(2025, 2, 2, tzinfo=UTC),
    version="1",
)


def test_a_mart_row_has_the_marts_columns_with_days_as_text_and_parameters_as_numbers() -> None:
    shown = as_json(ROW)
    assert list(shown) == list(columns_of(ROW)) and json.loads(json.dumps(shown)) == shown
    assert (shown["day"], shown["published_at"]) == ("2025-01-31", "2025-02-02T00:00:00+00:00")
    assert (shown["sketch_parameters"], shown["upper_95"]) == ({"theta0": 0.5}, None)
    assert (columns_of(ROW)["day"], columns_of(ROW)["published_at"]) == (DAY, ROW.published_at)


def test_a_result_without_a_form_of_its_own_has_its_fields() -> None:
    shown = as_json({"overrides": (CapOverride(3.5, "An officer", "A reason.", DAY),)})
    assert shown == {
        "overrides": [{"epsilon_cap": 3.5, "who": "An officer", "why": "A reason.", "made_on": "2025-01-31"}]
    }


def test_a_range_says_how_many_of_each_metric_are_published() -> None:
    shown = as_json(PublishedRange(2, {"dau": 2, "mau": 1}, 0))
    assert list(shown.items()) == [("days", 2), ("dau_published", 2), ("mau_published", 1), ("restated", 0)]


def test_the_status_tells_many_days_by_their_first_and_last() -> None:
    days = (DAY, date(2025, 2, 1))
    status = Status(
        today=DAY,
        published=(),
        ready_days=days,
        ready_months=(date(2025, 1, 1),),
        unmarked=(),
        without_marker=days,
        refused="",
        behind=(),
        erasures=(),
        overdue=(),
        spent=(),
        purged_through=None,
        purge_due=DAY,
    )
    shown = as_json(status)
    assert shown["ready"] == {"days": 2, "first": "2025-01-31", "last": "2025-02-01"}
    assert shown["without_marker"] == shown["ready"]
    assert shown["unmarked"] == {"days": 0, "first": None, "last": None}
    assert (shown["months_to_restate"], shown["purged_through"]) == (["2025-01-01"], None)


def test_plain_values_stay_and_what_is_no_result_is_refused() -> None:
    assert as_json([1, 0.5, True, None, "text", Fraction(1, 4)]) == [1, 0.5, True, None, "text", 0.25]
    with pytest.raises(TypeError, match="bytes has no form in JSON"):
        as_json({"secret": b"key"})
