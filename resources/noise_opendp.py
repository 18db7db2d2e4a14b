"""The port Noise on OpenDP's exact discrete samplers; their bits are OpenSSL's, seeded by the system.

Owns the rule: Noise is exact, on integers, and nobody can predict it.
"""

from __future__ import annotations

from opendp.domains import atom_domain, vector_domain
from opendp.measurements import make_gaussian, make_laplace
from opendp.metrics import l1_distance, l2_distance
from opendp.mod import enable_features

from dpdau_assets.core.errors import Refused

# Below, no draw would ever differ from 0; above, one could reach the end of 64 bits, where OpenDP clamps it.
_SMALLEST, _LARGEST = 2.0**-6, 2.0**50


class OpenDPNoise:
    """Discrete Gaussian and discrete Laplace noise that nobody can predict or repeat."""

    private = True

    def __init__(self) -> None:
        enable_features("contrib")  # holds for the process; nothing else of OpenDP is switched on

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        """Independent draws, each x with probability in proportion to exp(-x² / 2 sigma²)."""
        integers = vector_domain(atom_domain(T="i64"))
        return make_gaussian(integers, l2_distance(T="i64"), _usable(sigma))([0] * draws)

    def laplace(self, scale: float, draws: int = 1) -> list[int]:
        """Independent draws, each x with probability in proportion to exp(-|x| / scale)."""
        integers = vector_domain(atom_domain(T="i64"))
        return make_laplace(integers, l1_distance(T="i64"), _usable(scale))([0] * draws)


def _usable(scale: float) -> float:
    """The scale itself. Raises Refused for one that adds no noise: OpenDP takes 0 without a word, and adds 0."""
    if _SMALLEST <= scale <= _LARGEST:
        return scale
    raise Refused(f"Noise of scale {scale} protects nobody, or overflows.", "Set a smaller or a larger epsilon.")
