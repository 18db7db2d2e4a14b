"""Errors say what, with which value, and what to do, wherever they end up."""

from __future__ import annotations

import pickle

from dpdau_assets.core.errors import BudgetRefused, DpdauError, Refused


def test_an_error_crosses_from_one_process_to_another_whole() -> None:
    error = pickle.loads(pickle.dumps(BudgetRefused("The cap is reached.", "Wait.", cap=3.0)))
    assert (type(error), error.reason, error.remedy, error.fields) == (
        BudgetRefused,
        "The cap is reached.",
        "Wait.",
        {"cap": 3.0},
    )
    assert str(error) == "The cap is reached. Wait."


def test_the_kinds_of_error_have_the_exit_codes_of_the_command_line() -> None:
    ours = [kind for kind in DpdauError.__subclasses__() if kind.__module__ == DpdauError.__module__]
    assert {kind.__name__: kind.exit_code for kind in (DpdauError, *ours, BudgetRefused)} == {
        "DpdauError": 1,
        "BadSetting": 2,
        "NotPublished": 3,
        "Refused": 4,
        "BudgetRefused": 4,
        "BadInput": 5,
    }
    assert issubclass(BudgetRefused, Refused)
