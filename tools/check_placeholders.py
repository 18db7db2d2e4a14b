"""Every {{TOKEN}} in the repository has its row in Placeholders.md, and every row is still used in the file it names.

Usage: python tools/check_placeholders.py [ROOT]

Reads what git tracks, and what it would track: untracked files that are not ignored. Binary files are skipped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TABLE = "Placeholders.md"
COLUMNS = 6  # placeholder, file, meaning, type, constraint and example, default
NOT_USES = {TABLE, "tools/check_placeholders.py", "dpdau_tests/test_placeholders.py"}

_TOKEN = re.compile(r"\{\{([A-Z][A-Z0-9_]*)\}\}")  # `${{ github.ref }}` has spaces and lower case
_ROW = re.compile(r"^\|\s*`\{\{([A-Z][A-Z0-9_]*)\}\}`\s*\|")
_CELL_EDGE = re.compile(r"(?<!\\)\|")

Use = tuple[str, str]  # token, file


def main(arguments: list[str]) -> int:
    """Print every problem and return 1, or return 0."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    problems = find_problems(root)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("Placeholders: every one has its row, and every row its placeholder.")
    return 1 if problems else 0


def find_problems(root: Path) -> list[str]:
    """One sentence a problem, sorted."""
    if not (root / TABLE).is_file():
        return [f"{TABLE} is missing in {root}."]
    rows, malformed = read_table((root / TABLE).read_text(encoding="utf-8"))
    uses = find_uses(root)
    undocumented = [f"{{{{{t}}}}} in {f} has no row in {TABLE}." for t, f in sorted(uses - rows)]
    stale = [f"{TABLE} says that {f} holds {{{{{t}}}}}: it does not." for t, f in sorted(rows - uses)]
    return malformed + undocumented + stale


def find_uses(root: Path) -> set[Use]:
    """Every (token, file) in the repository's text files."""
    uses: set[Use] = set()
    for name in _repository_files(root):
        path = root / name
        if name in NOT_USES or path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            uses |= {(token, name) for token in _TOKEN.findall(data.decode("utf-8", errors="replace"))}
    return uses


def read_table(text: str) -> tuple[set[Use], list[str]]:
    """The table's (token, file) rows, and a sentence for each row with a cell missing or empty."""
    rows: set[Use] = set()
    malformed = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not (row := _ROW.match(line)):
            continue
        cells = [cell.strip() for cell in _CELL_EDGE.split(line.strip().strip("|"))]
        if len(cells) != COLUMNS or not all(cells):
            malformed.append(f"{TABLE} line {number}: a row has {COLUMNS} filled cells, this one does not.")
            continue
        rows.add((row[1], cells[1].strip("`")))
    return rows, malformed


def _repository_files(root: Path) -> list[str]:
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        sys.exit(f"git cannot list the files of {root}: {listing.stderr.strip()}")
    return [name for name in listing.stdout.split("\0") if name]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
