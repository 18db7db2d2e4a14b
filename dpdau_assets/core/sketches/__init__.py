"""Distinct-count sketches: `base` is the protocol, `exact` the reference, and here is what goes for all kinds alike.

Which kinds there are, sketches from bytes and from keys, unions, and an estimator as the parameters that a
mechanism run keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from fractions import Fraction

from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.sketches.base import Estimator, Header, Sketch, split_bytes
from dpdau_assets.core.sketches.exact import ExactEstimator, ExactSketch
from dpdau_assets.core.sketches.hllpp import HllEstimator, HllSketch
from dpdau_assets.core.sketches.kmv import KmvEstimator, KmvSketch
from dpdau_assets.core.sketches.theta import ThetaEstimator, ThetaSketch

KINDS: Mapping[str, type[Sketch]] = {"set": ExactSketch, "theta": ThetaSketch, "kmv": KmvSketch, "hllpp": HllSketch}
ESTIMATORS: Mapping[str, type[Estimator]] = {
    estimator.kind: estimator for estimator in (ExactEstimator, ThetaEstimator, KmvEstimator, HllEstimator)
}


def build(header: Header, keys: Keys) -> Sketch:
    """A sketch of the header's kind, from sorted distinct keys."""
    return KINDS[header.kind].build(header, keys)


def from_bytes(data: bytes) -> Sketch:
    """Any kind's sketch from its bytes. Raises BadInput for damaged bytes and unknown kinds."""
    header, body = split_bytes(data)
    if header.kind not in KINDS:
        raise BadInput(f"Sketch kind {header.kind!r} is unknown.", f"This version reads {sorted(KINDS)}.")
    return KINDS[header.kind].parse(header, body)


def unite(sketches: Sequence[Sketch]) -> Sketch:
    """The sketch of the users in any of these. Raises BadInput for an empty list and for a mixed one."""
    kinds = {type(sketch) for sketch in sketches}
    if len(kinds) != 1:
        named = sorted({sketch.header.kind for sketch in sketches})
        raise BadInput(f"A union of {len(sketches)} sketches of kinds {named}.", "Rebuild them alike.")
    return kinds.pop().unite(sketches)


def parameters_of(estimator: Estimator) -> dict[str, str]:
    """Kind and public parameters as text, as a mechanism run keeps them."""
    parameters = {name: str(value) for name, value in public_parameters(estimator).items()}
    return {"sketch_impl": estimator.kind, **parameters}


def estimator_from(parameters: Mapping[str, str]) -> Estimator:
    """The reverse of `parameters_of`; other parameters may stand beside. Raises Refused for what is not known here."""
    kind = ESTIMATORS.get(parameters["sketch_impl"])
    names = {field.name for field in fields(kind)} if kind else set()  # type: ignore[arg-type]
    if kind is None or not names <= parameters.keys():
        raise Refused(
            f"Numbers counted by {parameters['sketch_impl']!r} with {sorted(parameters)} are not known here.",
            "Read this ledger with the version of dpdau that wrote it, or a later one.",
        )
    return kind(**{name: _number(name, parameters[name]) for name in names})


def public_parameters(estimator: Estimator) -> dict[str, int | Fraction]:
    """θ0, k, registers or level, by name; none of the exact set."""
    return {field.name: getattr(estimator, field.name) for field in fields(estimator)}  # type: ignore[arg-type]


def _number(name: str, text: str) -> int | Fraction:
    return Fraction(text) if name == "theta0" else int(text)
