"""Lower bounds on ε from what two neighbouring worlds gave (Clopper and Pearson 1934; Nasr et al. 2023, 2302.07956)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import beta

from dpdau_assets.core.privacy.mechanisms import eps_of

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """With one confidence, all at once.

    Attributes:
        by_counts: ε at the given δ, from (p - δ) / q with p and q the shares of the worlds in one event.
        by_curve: μ, from Φ⁻¹(p) - Φ⁻¹(q): no mechanism of a smaller one, however composed, has such shares.
    """

    by_counts: float
    by_curve: float

    def epsilon(self, delta: float) -> float:
        """The larger of two bounds on ε at `delta`: by counts, and by the curve that prices it."""
        return max(self.by_counts, eps_of(self.by_curve, delta))


def lower_bounds(present: Numbers, absent: Numbers, delta: float, odds: float) -> Bounds:
    """The event is "at least so much", chosen on the first fifth of the trials and counted on the others.

    A bound is above the truth with odds of at most `odds`: half of them for each world's share.
    """
    threshold = _threshold(present[: len(present) // 5], absent[: len(absent) // 5], odds)
    p, q = _shares(present[len(present) // 5 :], absent[len(absent) // 5 :], np.array([threshold]), odds)
    return Bounds(max(0.0, float(_by_counts(p, q, delta)[0])), max(0.0, float(_by_curve(p, q)[0])))


def _threshold(present: Numbers, absent: Numbers, odds: float) -> float:
    """What separates these trials best: by the curve, since by counts it would often be one that few speak for."""
    thresholds = np.unique(np.concatenate([present, absent]))
    return float(thresholds[_by_curve(*_shares(present, absent, thresholds, odds)).argmax()])


def _shares(present: Numbers, absent: Numbers, thresholds: Numbers, odds: float) -> tuple[Numbers, Numbers]:
    """At least how many of the one world's trials reach each threshold, and at most how many of the other's."""
    hits, n = _reaching(present, thresholds), len(present)
    alarms, m = _reaching(absent, thresholds), len(absent)
    least = np.where(hits == 0, 0.0, beta.ppf(odds / 2, np.maximum(hits, 1), n - hits + 1))
    most = np.where(alarms == m, 1.0, beta.isf(odds / 2, alarms + 1, np.maximum(m - alarms, 1)))
    return least, most


def _reaching(values: Numbers, thresholds: Numbers) -> npt.NDArray[np.int64]:
    return len(values) - np.searchsorted(np.sort(values), thresholds, side="left")


def _by_counts(p: Numbers, q: Numbers, delta: float) -> Numbers:
    """The larger ε that the counts show, of the event and of its complement."""
    tiny = math.ulp(0.0)
    of_event = np.log(np.maximum(p - delta, tiny) / q)
    of_complement = np.log(np.maximum(1 - q - delta, tiny) / (1 - p))
    return np.maximum(of_event, of_complement)


def _by_curve(p: Numbers, q: Numbers) -> Numbers:
    return ndtri(p) - ndtri(q)
