"""Errors and intervals of sketches of random keys, against theory: the cells of docs/sketches.md up to a million."""

from __future__ import annotations

import re

import pytest

from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.project import PROJECT
from eval.sketches import USERS, measure

PAGE = (PROJECT / "docs" / "sketches.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("users", USERS[: at_length(ci=1, soak=-1)])
def test_errors_are_those_of_theory_without_bias_and_95_percent_intervals_hold_in_94_to_96(users: int) -> None:
    """1,000 real sketches of each kind or more, always of the same keys: their std is known to 2.2 % at least."""
    cells = measure(users)
    assert {cell.estimator.kind for cell in cells} == {"theta", "kmv", "hllpp"}
    for cell in cells:
        assert cell.error == pytest.approx(cell.theory, rel=0.1, abs=1e-12), cell
        assert abs(cell.bias_in_standard_errors) < 4, cell
        assert 0.94 <= cell.coverage <= 0.96, cell


def test_the_page_has_every_cell_and_every_kind() -> None:
    cells = re.findall(r"^\| ([\d,]+) \| (theta|kmv|hllpp) \|", PAGE, re.MULTILINE)
    assert set(cells) == {(f"{users:,}", kind) for users in USERS for kind in ("theta", "kmv", "hllpp")}
