"""Images without a particle, found by their contrast before anything is learned from them."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from scipy.stats import skew

from hpcsort.errors import InputError
from hpcsort.kernels import interleave, score_sections
from hpcsort.parallel import raise_together
from hpcsort.sort3d.consensus import Consensus
from hpcsort.sort3d.store import ParticleStore, exact_total

__all__ = ["contrast_notes", "emptiness"]

_ITERATIONS = 30
_FIRST_SHARE, _FIRST_SPREAD = 0.1, 0.2
_LEAST_SPREAD = 0.02
_FEWEST = 40
_SURELY_NEGATIVE = -5.0
"""Standard errors by which noise alone makes one contrast of some million negative."""
_LEAST_SKEWNESS = -0.5
"""Maps of particles that are bright have a skewness of 0.4 to 3 in a sphere around the particle."""


def emptiness(residual: ParticleStore, consensus: Consensus) -> np.ndarray:
    """Probability (n_local,) that an image shows no particle. Collective.

    The contrast of particle i, the factor a of a C P V0 + noise, is measured with variance 1 / I_i. Over a stack,
    contrasts follow a mixture of zero (no particle) and N(mean, spread^2), which is fitted by expectation
    maximisation. The mean is fitted too, because junk among the particles dims the consensus.

    Parameters
    ----------
    residual : particles; ``data`` holds whitened residuals from the consensus.
    consensus : map of all particles.

    Raises
    ------
    InputError
        If too few images are left that show a particle.
    """
    contrast, information = _contrasts(residual, consensus)
    share, mean, spread = _FIRST_SHARE, 1.0, _FIRST_SPREAD
    empty = np.zeros(len(contrast))
    for _ in range(_ITERATIONS):
        variance = spread**2 + 1.0 / information
        ratio = -0.5 * contrast**2 * information + 0.5 * np.log(information)
        ratio += 0.5 * (contrast - mean) ** 2 / variance + 0.5 * np.log(variance)
        empty = expit(ratio + np.log(share) - np.log1p(-share))
        weight = (1.0 - empty) / variance
        sums = [
            np.array([weight[b].sum(), (weight * contrast)[b].sum(), empty[b].sum()])
            for b in (block.local for block in residual.blocks())
        ]
        total = exact_total(residual.comm, sums, (3,), len(residual.chunks))
        mean = float(total[1] / max(total[0], 1e-300))
        share = float(np.clip(total[2] / max(residual.count, 1), 1e-6, 0.9))
        # Posterior second moment of the particles' own deviation (EM for a variance under known errors).
        shrink = spread**2 / variance
        moment = shrink**2 * (contrast - mean) ** 2 + shrink / information
        parts = [
            np.array([((1 - empty) * moment)[b].sum(), (1 - empty)[b].sum()])
            for b in (block.local for block in residual.blocks())
        ]
        second = exact_total(residual.comm, parts, (2,), len(residual.chunks))
        spread = max(float(np.sqrt(second[0] / max(second[1], 1e-300))), _LEAST_SPREAD)
    # Too bright is not empty.
    empty = np.asarray(np.where(contrast < mean, empty, 0.0))
    seen = round(float(residual.total(empty <= 0.5)))
    if seen < _FEWEST:
        raise_together(
            residual.comm,
            InputError(
                f"only {seen} of {residual.count} images show what the map of all particles shows; check the poses,"
                " the CTF and the images, or give more particles."
            ),
        )
    return empty


def contrast_notes(residual: ParticleStore, consensus: Consensus) -> list[str]:
    """Say in words where the contrast of images seems to be inverted, all or some of them. Collective.

    Parameters
    ----------
    residual, consensus : as `emptiness`.
    """
    notes = []
    density = consensus.map[consensus.map != 0].astype(np.float64)
    if density.size and density.mean() < 0 and skew(density) < _LEAST_SKEWNESS:
        notes.append(
            "The consensus map is darker inside than outside: the contrast of the images seems to be inverted, and so"
            " will the maps be. The sort is the same; multiply the images by -1 for bright maps."
        )
    contrast, information = _contrasts(residual, consensus)
    inverted = round(float(residual.total(contrast * np.sqrt(information) < _SURELY_NEGATIVE)))
    if inverted:
        notes.append(
            f"{inverted} of {residual.count} images show the negative of the consensus map: their contrast is inverted"
            " or their pose is wrong; bring all images to one contrast."
        )
    return notes


def _contrasts(residual: ParticleStore, consensus: Consensus) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares contrast of every particle of this rank, and its inverse variance."""
    volumes = interleave(consensus.volume[None])
    cross, power = np.empty(len(residual.data)), np.empty(len(residual.data))
    for block in residual.blocks():
        seen = residual.data.seen(block.local)
        data = seen.data
        one, two = score_sections(
            volumes, 1, data.images, data.ctfs, data.rotations, data.px, data.py, consensus.grid.pad
        )
        cross[block.local], power[block.local] = seen.expected(one[:, 0]), seen.expected(two[:, 0])
    # Whitened complex noise has E|n|^2 = 1 per pixel, its real part half of that.
    power = np.maximum(power, 1e-12)
    # What is left after the consensus was taken away once.
    return 1.0 + cross / power, 2.0 * power
