"""The templates of what people look at: HTML and SVG, in which no text is ever markup."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


def template(name: str) -> Template:
    """A file of this folder; what is put into it is escaped, and a name that it has not raises."""
    return environment().get_template(name)


@cache
def environment() -> Environment:
    """Made once; whoever needs filters of its own adds them."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
