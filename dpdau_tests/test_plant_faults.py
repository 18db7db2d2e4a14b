"""The list of faults in `tools/faults.py` does not rot: each can still be planted, leaves a program that runs, and the
tests it names are there.
"""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from dpdau_tests.support.project import PROJECT

FAULTS = runpy.run_path(str(PROJECT / "tools" / "faults.py"))["FAULTS"]
CORE = PROJECT / "dpdau_assets" / "core"


@cache
def text_of(file: str) -> str:
    return (PROJECT / file).read_text(encoding="utf-8")


def planted(fault: Any) -> str:
    return text_of(fault.file).replace(fault.old, fault.new)


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) > 0


def test_every_fault_can_be_planted_in_one_place_and_leaves_a_program() -> None:
    places = {fault.name: text_of(fault.file).count(fault.old) for fault in FAULTS}
    assert {name: count for name, count in places.items() if count != 1} == {}
    for fault in FAULTS:
        assert fault.new != fault.old, fault.name
        ast.parse(planted(fault), fault.name)


def test_the_tests_that_a_fault_names_are_there() -> None:
    named = [(fault.name, *test.partition("::")[::2]) for fault in FAULTS for test in fault.tests]
    assert {name for name, _, _ in named} == {fault.name for fault in FAULTS}
    gone = [
        (name, test or file)
        for name, file, test in named
        if f"def {f'{test}(' if test else 'test_'}" not in text_of(f"dpdau_tests/{file}")
    ]
    assert gone == []


def test_no_fault_names_what_its_file_does_not_have(tmp_path: Path) -> None:
    for fault in FAULTS:
        (tmp_path / f"{fault.name}.py").write_text(planted(fault), encoding="utf-8")
    left_unused = "F401,F841"  # by a fault that takes something out
    options = ["--isolated", "--no-cache", "--select=F", f"--ignore={left_unused}", "--output-format=concise"]
    command = [sys.executable, "-m", "ruff", "check", *options, "--target-version=py311", "."]
    ruff = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ruff.returncode, ruff.stderr) == (0, ""), ruff.stdout


def test_no_fault_asks_a_part_of_the_store_for_what_it_does_not_have() -> None:
    found = {fault.name: misuses(ast.parse(planted(fault)), lines_of(fault)) for fault in FAULTS}
    assert {name: rot for name, rot in found.items() if rot} == {}


def lines_of(fault: Any) -> range:
    """The lines that the fault has changed."""
    first = text_of(fault.file)[: text_of(fault.file).index(fault.old)].count("\n") + 1
    return range(first, first + fault.new.count("\n") + 1)


@pytest.mark.parametrize(
    ("body", "rot"),
    [
        ("store.events.inbox.batches()", []),
        ("store.inbox.batches()", ["Store has no inbox"]),
        ("store.erasures.applied()", ["Erasures has no applied"]),
        ("settings = store.settings; settings.grace_day", ["Settings has no grace_day"]),
        ("is_declared(store.events, store.accountant)", []),
        ("is_declared(store, store.accountant)", ["is_declared takes Events, not Store"]),
        ("is_declared(store.events, accountant=store.state)", ["is_declared takes LedgerView, not State"]),
        ("[one.anything for one in store.unknown()]", ["Store has no unknown"]),
    ],
)
def test_what_a_part_of_the_store_does_not_have_is_found(body: str, rot: list[str]) -> None:
    imports = "from dpdau_assets.core.ports.store import Store\n"
    imports += "from dpdau_assets.core.publication.completeness import is_declared\n"
    assert misuses(ast.parse(f"{imports}def it(store: Store) -> None:\n    {body}\n"), range(4, 5)) == rot


# --- What a type checker would say of the parts of a store, in a small part of its time ----------------------------


@cache
def parts() -> dict[str, dict[str, str]]:
    """What core is handed, by the name of its class: each member, and the class of one that is annotated with it."""
    files = [*sorted((CORE / "ports").glob("*.py")), CORE / "settings.py", CORE / "facts.py"]
    nodes = [node for file in files for node in ast.parse(file.read_text(encoding="utf-8")).body]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}

    def members(name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for base in classes[name].bases:
            found |= members(ast.unparse(base)) if ast.unparse(base) in classes else {}
        for node in classes[name].body:
            if isinstance(node, ast.AnnAssign):
                found[ast.unparse(node.target)] = said(node.annotation)
            elif isinstance(node, ast.FunctionDef):
                found[node.name] = said(node.returns) if node.decorator_list else ""
        return found

    inherited = {name: {ast.unparse(base) for base in node.bases} for name, node in classes.items()}
    return {name: members(name) for name, bases in inherited.items() if bases <= {"Protocol", *classes}}


def said(annotation: ast.expr | None) -> str:
    """The class that an annotation names, if it is just one."""
    return "" if annotation is None else ast.unparse(annotation).strip("'\"")


@cache
def functions_of(module: str) -> dict[str, ast.FunctionDef]:
    """The functions of a module of this project, by name."""
    file = f"{module.replace('.', '/')}.py"
    return functions_in(ast.parse(text_of(file))) if (PROJECT / file).is_file() else {}


def functions_in(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def misuses(tree: ast.Module, lines: range) -> list[str]:
    """In whichever function or class has one of these lines."""
    visitor = Misuses(tree)
    for node in tree.body:
        if node.lineno < lines.stop and (node.end_lineno or node.lineno) >= lines.start:
            visitor.visit(node)
    return visitor.found


class Misuses(ast.NodeVisitor):
    """What is asked of a part that does not have it, and parts that are handed where another one is taken.

    Only of names that are annotated with a part's class, and of names that such a part's member was given.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[str] = []
        self._classes: dict[str, str] = {}  # by name, as far as the visit has come
        self._functions = functions_in(tree)
        self._parts: set[str] = set()  # others have an Engine too
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                names, there = {one.name for one in node.names}, functions_of(node.module)
                self._functions |= {name: there[name] for name in names & there.keys()}
                self._parts |= names & parts().keys() if node.module.startswith("dpdau_assets.core.") else set()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.Lambda) -> None:
        outer, taken = self._classes, (one for one in ast.walk(node.args) if isinstance(one, ast.arg))
        self._classes = outer | {one.arg: self._part(one.annotation) for one in taken}
        self.generic_visit(node)
        self._classes = outer

    visit_Lambda = visit_FunctionDef

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._classes[node.id] = ""

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        if isinstance(node.targets[0], ast.Name):
            self._classes[node.targets[0].id] = self._class_of(node.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self._class_of(node.value)
        if owner in parts() and node.attr not in parts()[owner]:
            self.found.append(f"{owner} has no {node.attr}")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self._functions.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if called is None:
            return
        in_order = takewhile(lambda given: not isinstance(given, ast.Starred), node.args)
        wanted = {one.arg: one for one in [*called.args.posonlyargs, *called.args.args, *called.args.kwonlyargs]}
        handed = list(zip(in_order, wanted.values(), strict=False))
        handed += [(one.value, wanted[one.arg]) for one in node.keywords if one.arg in wanted]
        for given, taken in ((self._class_of(given), said(taken.annotation)) for given, taken in handed):
            if given in parts() and not parts().get(taken, {}).keys() <= parts()[given].keys():
                self.found.append(f"{called.name} takes {taken}, not {given}")

    def _part(self, annotation: ast.expr | None) -> str:
        return said(annotation) if said(annotation) in self._parts else ""

    def _class_of(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self._classes.get(node.id, "")
        return parts().get(self._class_of(node.value), {}).get(node.attr, "") if isinstance(node, ast.Attribute) else ""
