"""Images without a particle, found by their contrast before anything is learned from them."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from hpcsort.kernels import interleave, score_sections
from hpcsort.sort3d.consensus import Consensus
from hpcsort.sort3d.store import ParticleStore, exact_total

__all__ = ["emptiness"]

_ITERATIONS = 30
_FIRST_SHARE, _FIRST_SPREAD = 0.1, 0.2
_LEAST_SPREAD = 0.02


def emptiness(residual: ParticleStore, consensus: Consensus) -> np.ndarray:
    """Probability (n_local,) that an image shows no particle. Collective.

    The contrast of particle i, the factor a of a C P V0 + noise, is measured with variance 1 / I_i. Over a stack,
    contrasts follow a mixture of zero (no particle) and N(mean, spread^2), which is fitted by expectation
    maximisation. The mean is fitted too, because junk among the particles dims the consensus.

    Parameters
    ----------
    residual : particles; ``data`` holds whitened residuals from the consensus.
    consensus : map of all particles.
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
    return np.asarray(np.where(contrast < mean, empty, 0.0))


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
