"""Prints the OpenAPI document of the HTTP API: names sorted, alike on every machine, whatever the environment says.

Usage: python tools/openapi.py [--out FILE]

The TypeScript client is generated from a copy, `clients/ts/openapi.json`; `npm run generate` there writes it anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dpdau_assets.api.app import routes
from dpdau_assets.core.settings import Settings


def document() -> str:
    """The document as text. No setting is in it, so it is that of the defaults."""
    return json.dumps(routes(Settings()).openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Print the document, or write it to the file that is named."""
    parser = argparse.ArgumentParser(description="Print the OpenAPI document of the HTTP API.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="written in place of stdout")
    out = parser.parse_args(arguments).out
    if out is None:
        sys.stdout.write(document())
    else:
        out.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
