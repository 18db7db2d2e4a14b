"""What the tests of the edges share: the command line in processes of its own, as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECRET = "s" * 40


@dataclass(frozen=True)
class Answer:
    """What a command left behind: exit code, JSON on stdout (None without any), words on stderr in one line."""

    code: int
    json: Any
    said: str


class Dpdau:
    """Calls `dpdau` in one folder, in a process each; `printed` is all that came out, of every call."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.printed = ""
        basic = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "DATA_DIR": str(folder / "data")}
        self.environment = {**basic, "HASH_SALT_SECRET": SECRET, **environment}

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "dpdau_assets.cli", *arguments], input=stdin,
            capture_output=True, text=True, cwd=self.folder, env={**self.environment, **environment},
        )  # fmt: skip
        self.printed += done.stdout + done.stderr
        printed = json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else None
        return Answer(done.returncode, printed, " ".join(done.stderr.split()))
