"""The commands of docs/deploy.md, by heading, as they stand there."""

from __future__ import annotations

import re

from dpdau_tests.support.project import PROJECT

PAGE = (PROJECT / "docs" / "deploy.md").read_text(encoding="utf-8")

_PART = re.compile(r"^#+ (?P<heading>[^\n]+)$|^```(?P<kind>\w+)\n(?P<block>.*?)^```$", re.M | re.S)


def blocks(kind: str) -> dict[str, list[str]]:
    """The blocks of this kind below each heading that has some."""
    found: dict[str, list[str]] = {}
    heading = ""
    for part in _PART.finditer(PAGE):
        heading = part["heading"] or heading
        if part["kind"] == kind:
            found.setdefault(heading, []).append(part["block"])
    return found


def alias(name: str) -> str:
    """The line that gives a command its short name."""
    (line,) = re.findall(rf"^alias {name}=.*$", PAGE, flags=re.M)
    return line
