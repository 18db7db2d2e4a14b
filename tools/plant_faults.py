"""Plants faults in a throw-away copy of the project, one at a time, and tells which test catches each.

Usage: python tools/plant_faults.py [--tree DIR] [--only NAME...] [--list] [--jobs N] [--full] [--json FILE]

A fault is an edit of product code that `faults.py` lists with the tests that are named for the behaviour. Each
gets a fresh copy, in which these tests are run until one fails; what they miss is planted again with --full, for what
`make test` runs and then for the long tests. In the end the tests that failed are run in a copy without any fault,
where they must pass. The tree itself is only read, and its .venv used. What only keeps a file from being imported, or
asks for a name that is not there, is no fault: it is broken, as is one whose test fails anyway. Ends with 1 unless
every fault is caught.
"""

import argparse
import ast
import compileall
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from faults import FAULTS, Fault

PROJECT = Path(__file__).resolve().parent.parent
NAMED_SECONDS, FULL_SECONDS = 240, 7200
QUICK = "not slow and not weeks and not browser"  # what `make test` runs
LONG = "slow or also_long"  # what CI runs beside it
SUITES = {"make test": QUICK, "long tests": LONG}

_FAILED = re.compile(r"^(?:FAILED|ERROR) (?P<test>\S+?\.py(?:::\S.*?)?)(?: - (?P<why>.*))?$", re.MULTILINE)
_NOT_RUNNING = re.compile(
    r"(Syntax|Indentation|Import|ModuleNotFound|Name|UnboundLocal)Error\b"
    r"|AttributeError: '(Store|Events|State|Erasures|Settings)' object has no attribute"
    r"|TypeError: \S+\(\) (missing|takes|got an unexpected)"
)

# Hypothesis would look for the smallest example of what is wrong, for minutes.
_PLUGIN = "without_shrinking"
_PLUGIN_TEXT = """from hypothesis import Phase, settings
settings.register_profile("faults", phases=[Phase.explicit, Phase.generate], database=None, deadline=None)
settings.load_profile("faults")
"""

Outcome = Literal["caught", "timeout", "missed", "broken"]


@dataclass(frozen=True)
class Verdict:
    """What became of a planted fault: the first test that failed, with its error; `suite` is what was run."""

    fault: str
    outcome: Outcome
    suite: str
    test: str = ""
    why: str = ""
    seconds: float = 0.0

    @property
    def is_caught(self) -> bool:
        """By a test that failed, or that never ended."""
        return self.outcome in ("caught", "timeout")


def main(arguments: list[str]) -> int:
    """Print a line a fault as it is known, and a table in the end."""
    options = _options(arguments)
    chosen = [fault for fault in FAULTS if not options.only or fault.name in options.only]
    if options.list:
        print("\n".join(f"{fault.name}  {fault.file}\n    {' '.join(fault.tests)}" for fault in chosen))
        return 0
    tree = options.tree.resolve()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        (Path(scratch) / f"{_PLUGIN}.py").write_text(_PLUGIN_TEXT)
        bench = Bench(copy_of(tree, Path(scratch) / "clean"), tree / ".venv" / "bin" / "python", options.full)
        verdicts = bench.believed(bench.verdicts_of(chosen, options.jobs))
    print(f"\n{table(verdicts)}")
    if options.json:
        options.json.write_text(json.dumps({one.fault: asdict(one) for one in verdicts}, indent=1) + "\n")
    return 0 if all(one.is_caught for one in verdicts) else 1


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", type=Path, default=PROJECT, help="the project whose tests are asked")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[fault.name for fault in FAULTS])
    parser.add_argument("--list", action="store_true", help="tell the faults and their tests, and plant none")
    parser.add_argument("--jobs", type=int, default=1, help="how many faults are tried at once")
    parser.add_argument("--full", action="store_true", help="run every test against what the named ones miss")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there too")
    return parser.parse_args(arguments)


def _told(verdict: Verdict) -> Verdict:
    print(
        f"{verdict.outcome:8}{verdict.seconds:6.1f} s  {verdict.fault}: {verdict.test} {verdict.why[:160]}", flush=True
    )
    return verdict


def table(verdicts: Sequence[Verdict]) -> str:
    """One line a fault, and how many were caught."""
    width = max((len(one.fault) for one in verdicts), default=0)
    lines = [f"{one.fault:{width}}  {one.outcome:8}  {one.test or one.why}" for one in verdicts]
    caught = sum(one.is_caught for one in verdicts)
    return "\n".join([*lines, f"{caught} of {len(verdicts)} faults were caught."])


# --- Copies ------------------------------------------------------------------------------------------------------


def copy_of(tree: Path, target: Path) -> Path:
    """What git tracks, or would track, as it stands in the tree; a repository, since some tests ask git."""
    command = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (tree / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, target / name)
    subprocess.run(["git", "init", "--quiet", str(target)], check=True)
    compileall.compile_dir(target, quiet=2)
    return target


def plant(fault: Fault, copy: Path) -> None:
    """Make the edit. Exits where the old text does not stand exactly once, or the new one is no Python."""
    path = copy / fault.file
    path.write_text(planted(fault, path.read_text(encoding="utf-8")), encoding="utf-8")
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()  # or it would be taken for the edited file's, where both are of one second and length


def planted(fault: Fault, text: str) -> str:
    """The file's text with the fault in it."""
    found = text.count(fault.old)
    if found != 1:
        sys.exit(f"{fault.name}: the text to be replaced stands {found} times in {fault.file}.")
    changed = text.replace(fault.old, fault.new)
    ast.parse(changed, fault.file)
    return changed


# --- Runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """How a run of pytest ended; no code if it was cut short."""

    code: int | None
    output: str

    @property
    def failures(self) -> dict[str, str]:
        """Each test that failed with its error, in order."""
        return {found["test"]: found["why"] or "" for found in _FAILED.finditer(self.output)}


@dataclass(frozen=True)
class Bench:
    """Where faults are tried: a copy without any, and the Python that runs its tests."""

    clean: Path
    python: Path
    full: bool
    running: set[subprocess.Popen[str]] = field(default_factory=set)

    def verdicts_of(self, faults: Sequence[Fault], jobs: int) -> list[Verdict]:
        """Each is told when it is known. Who interrupts this ends what was started."""
        with ThreadPoolExecutor(jobs) as threads:
            try:
                return [_told(verdict) for verdict in threads.map(self.verdict_of, faults)]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                for process in [*self.running]:
                    _end(process)
                raise

    def believed(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Not the word of a test that fails without any fault, too."""
        asked = sorted({one.test for one in verdicts if one.is_caught and one.test})
        run = self._pytest(self.clean, asked, FULL_SECONDS) if asked else Run(0, "")
        if run.code not in (0, 1):
            sys.exit(f"The tests that caught faults cannot be run without any:\n{run.output[-2000:]}")
        return [
            replace(one, outcome="broken", why="it fails without the fault too") if self._doubts(one, run) else one
            for one in verdicts
        ]

    def _doubts(self, verdict: Verdict, run: Run) -> bool:
        """Whether its test fails without the fault, or its tests take as long without it."""
        if verdict.test or verdict.outcome != "timeout":
            return verdict.test in run.failures
        (fault,) = (one for one in FAULTS if one.name == verdict.fault)
        return self._pytest(self.clean, [*_paths(fault.tests), "-m", QUICK], NAMED_SECONDS).code != 0

    def verdict_of(self, fault: Fault) -> Verdict:
        """By the tests that are named for it, and if they miss it and all are to be asked, by those."""
        found = self._tried(fault, "named tests", [*_paths(fault.tests), "-m", QUICK], NAMED_SECONDS)
        for suite, which in SUITES.items() if self.full else ():
            if found.outcome == "missed":
                found = self._tried(fault, suite, ["-m", which, "-n", "2", "--dist", "worksteal"], FULL_SECONDS)
        return found

    def _tried(self, fault: Fault, suite: str, selection: Sequence[str], seconds: int) -> Verdict:
        began = time.monotonic()
        with self._copy(fault) as copy:
            run = self._pytest(copy, ["-x", *selection], seconds)
        test, why = next(iter(run.failures.items()), ("", ""))
        verdict = partial(Verdict, fault.name, suite=suite, test=test, seconds=round(time.monotonic() - began, 1))
        if run.code is None or "Timeout (>" in why:
            return verdict("timeout", why=why)
        if run.code == 0:
            return verdict("missed", why=f"by the {suite}")
        if run.code != 1 or not test or _NOT_RUNNING.search(why):
            return verdict("broken", why=why or run.output[-500:])
        return verdict("caught", why=why)

    @contextmanager
    def _copy(self, fault: Fault) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=f"{fault.name}-", dir=self.clean.parent) as folder:
            copy = Path(folder) / "project"
            shutil.copytree(self.clean, copy, ignore=shutil.ignore_patterns(".hypothesis"))
            plant(fault, copy)
            yield copy

    def _pytest(self, copy: Path, arguments: Sequence[str], seconds: int) -> Run:
        """In the copy, and so that processes which the tests start import it too."""
        options = ["-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "-p", _PLUGIN]
        environment = {
            **os.environ,
            "PYTHONPATH": f"{copy}{os.pathsep}{self.clean.parent}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "500",
            "DPDAU_LENGTH": "ci" if LONG in arguments else "test",
        }
        with subprocess.Popen(
            [str(self.python), "-m", "pytest", *options, *arguments],
            cwd=copy,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            self.running.add(process)
            try:
                output, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                _end(process)
                return Run(None, "")
            finally:
                self.running.discard(process)
        return Run(process.returncode, output)


def _paths(tests: Iterable[str]) -> list[str]:
    return [f"dpdau_tests/{test}" for test in tests]


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended then too
    sys.exit(main(sys.argv[1:]))
