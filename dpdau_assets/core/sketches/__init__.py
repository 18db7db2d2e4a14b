"""Distinct-count sketches: `base` is the protocol, `exact` the reference."""

from __future__ import annotations

from collections.abc import Sequence

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.sketches.base import Sketch, split_bytes
from dpdau_assets.core.sketches.exact import ExactSketch

KINDS: dict[str, type[Sketch]] = {"set": ExactSketch}


def from_bytes(data: bytes) -> Sketch:
    """Any kind's sketch from its bytes. Raises BadInput for damaged bytes and unknown kinds."""
    header, body = split_bytes(data)
    if header.kind not in KINDS:
        raise BadInput(f"Sketch kind {header.kind!r} is unknown.", f"This version reads {sorted(KINDS)}.")
    return KINDS[header.kind].parse(header, body)


def unite(sketches: Sequence[Sketch]) -> Sketch:
    """Of the users in any of them. Raises BadInput for an empty list and for a mixed one."""
    if len({type(sketch) for sketch in sketches}) != 1:
        raise BadInput(f"A union of {len(sketches)} sketches of mixed kinds.", "Rebuild them alike.")
    return type(sketches[0]).unite(sketches)
