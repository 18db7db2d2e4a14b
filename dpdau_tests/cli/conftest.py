"""What the tests of the edges share: the command line as a user meets it, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from dpdau_assets.cli.main import main
from dpdau_tests.support.connections import closed_at_the_end
from dpdau_tests.support.master_secret import SECRET
from dpdau_tests.support.prepared import Prepared


@dataclass(frozen=True)
class Answer:
    """What a command left behind: exit code, JSON on stdout (None without any), words on stderr in one line."""

    code: int
    json: Any
    said: str


@dataclass(frozen=True)
class _Ended:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str


class Dpdau:
    """Calls `dpdau` in one folder; `printed` is all that came out, of every call.

    In this process, since a fresh one spends seconds on imports, with nothing left over from one call to the next.
    With `processes`, each call is a process of its own.
    """

    def __init__(self, folder: Path, *, processes: bool = False, **environment: str) -> None:
        self.folder = folder
        self.printed = ""
        self._call = _in_a_process if processes else _in_this_process
        basic = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "DATA_DIR": str(folder / "data")}
        self.environment = {**basic, "HASH_SALT_SECRET": SECRET, **environment}

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Answer:
        done = self._call(arguments, stdin, self.folder, {**self.environment, **environment})
        self.printed += done.stdout + done.stderr
        printed = json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else None
        return Answer(done.code, printed, " ".join(done.stderr.split()))


def _in_a_process(arguments: tuple[str, ...], stdin: str, folder: Path, environment: Mapping[str, str]) -> _Ended:
    done = subprocess.run(
        [sys.executable, "-m", "dpdau_assets.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    return _Ended(done.returncode, done.stdout, done.stderr)


def _in_this_process(arguments: tuple[str, ...], stdin: str, folder: Path, environment: Mapping[str, str]) -> _Ended:
    entered, out, err = (TextIOWrapper(BytesIO(text), encoding="utf-8") for text in (stdin.encode(), b"", b""))
    with (
        patch.object(sys, "argv", ["dpdau", *arguments]),
        patch.object(sys, "stdin", entered),
        patch.dict(os.environ, environment, clear=True),
        chdir(folder),
        closed_at_the_end(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = _exit_code()
    for stream in (out, err):
        stream.flush()
    return _Ended(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]


def _exit_code() -> int:
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


@pytest.fixture
def begun(tmp_path: Path, prepared: Prepared) -> Callable[..., Dpdau]:
    """Calls `dpdau` in a folder that begins as what a recipe, a function of a Dpdau, leaves behind in an empty one."""

    def begin(recipe: Callable[[Dpdau], object], **environment: str) -> Dpdau:
        name = f"{recipe.__module__}.{recipe.__qualname__} {sorted(environment.items())}"
        folder = prepared.copy(name, lambda empty: recipe(Dpdau(empty, **environment)), tmp_path / "begun")
        return Dpdau(folder, **environment)

    return begin
