"""The list of faults in `tools/faults.py` does not rot: each can still be planted, and the tests it names are there."""

from __future__ import annotations

import ast
import runpy
from functools import cache

from dpdau_tests.support.project import PROJECT

FAULTS = runpy.run_path(str(PROJECT / "tools" / "faults.py"))["FAULTS"]


@cache
def text_of(file: str) -> str:
    return (PROJECT / file).read_text(encoding="utf-8")


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) > 0


def test_every_fault_can_be_planted_in_one_place_and_leaves_a_program() -> None:
    places = {fault.name: text_of(fault.file).count(fault.old) for fault in FAULTS}
    assert {name: count for name, count in places.items() if count != 1} == {}
    for fault in FAULTS:
        assert fault.new != fault.old, fault.name
        ast.parse(text_of(fault.file).replace(fault.old, fault.new), fault.name)


def test_the_tests_that_a_fault_names_are_there() -> None:
    named = [(fault.name, *test.partition("::")[::2]) for fault in FAULTS for test in fault.tests]
    assert {name for name, _, _ in named} == {fault.name for fault in FAULTS}
    gone = [
        (name, test or file)
        for name, file, test in named
        if f"def {f'{test}(' if test else 'test_'}" not in text_of(f"dpdau_tests/{file}")
    ]
    assert gone == []
