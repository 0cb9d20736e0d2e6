"""Which class a particle belongs to, given its scores: classical or robust, and the correntropy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcsort.parallel import Communicator
from hpcsort.planar import PolarGrid

__all__ = ["Criterion", "Pictures"]

_BINS = 256
_CLAMP = 0.01
"""Particles added below and above every distribution; more would draw the worst particles to the smallest classes."""

Floats = npt.NDArray[np.float32]


class Criterion:
    """Value of a score for a class.

    Classical: the score itself. Robust (Sorzano et al., J. Struct. Biol. 171 (2010) 197): the share of the class's
    members with a smaller score times the share of the others with a smaller score, so that what is usual for a class
    is taken into account. Scores are counted from the best other class of the same particle, because a noisy particle
    scores low with every class and would go where low scores are usual. The distributions are those of the pass before;
    beyond their ends they stay as they are, and never reach 0 or 1.

    Attributes
    ----------
    learned : float64 (2, Q) and (2, Q, bins + 1), ranges of the scores and shares below each bin of members and others;
        None before anything is learned, and for the classical criterion.
    """

    def __init__(self) -> None:
        self.learned: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None

    def learn(
        self, comm: Communicator, scores: list[Floats], labels: list[npt.NDArray[np.int64]], classes: int
    ) -> None:
        """Learn the distributions of all scores of a pass. Collective.

        Parameters
        ----------
        comm : all ranks.
        scores : float32 (n, Q) for each own chunk, NaN where a particle was not compared with a class.
        labels : int64 (n,) for each own chunk.
        classes : Q.
        """
        own = _margins(np.concatenate([np.zeros((0, classes), np.float32), *scores]))
        member = np.concatenate([np.zeros(0, np.int64), *labels])[:, None] == np.arange(classes)
        known = np.isfinite(own)
        high = comm.max(np.where(known, own, -2.0).max(axis=0, initial=-2.0))
        low = -comm.max(np.where(known, -own, -2.0).max(axis=0, initial=-2.0))
        limits = np.stack([low, np.maximum(high, low + 1e-6)])
        place = np.minimum(_places(own, limits).astype(np.int64), _BINS - 1)
        column = np.broadcast_to(np.arange(classes), own.shape)
        counts = np.zeros((2, classes, _BINS), np.int64)
        for group, chosen in enumerate((known & member, known & ~member)):
            flat = column[chosen] * _BINS + place[chosen]
            counts[group] = np.bincount(flat, minlength=classes * _BINS).reshape(classes, _BINS)
        comm.sum_exact(counts)
        below = np.concatenate([np.zeros((2, classes, 1)), np.cumsum(counts, axis=2)], axis=2)
        self.learned = limits, (below + _CLAMP) / (below[:, :, -1:] + 2 * _CLAMP)

    def values(self, scores: Floats, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Values of scores (n, k) for the classes (n, k) or (k,); higher is better."""
        if self.learned is None:
            return scores.astype(np.float64)
        limits, shares = self.learned
        place = _places(_margins(scores), limits[:, classes])
        lower = np.minimum(place.astype(np.int64), _BINS - 1)
        part = place - lower
        inside, outside = (share[classes, lower] * (1 - part) + share[classes, lower + 1] * part for share in shares)
        return np.asarray(inside * outside)


def _places(scores: npt.NDArray[np.float64], limits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Place of scores between their limits (low, high) among the bins, 0 to their number; clamped."""
    low, high = limits
    return np.nan_to_num(np.clip((scores - low) / (high - low), 0.0, 1.0)) * _BINS


def _margins(scores: Floats) -> npt.NDArray[np.float64]:
    """Scores (n, k) less the best other score of the same row; NaN stays, and a score alone is not changed."""
    known = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
    ranked = np.sort(np.concatenate([np.full((len(scores), 2), -np.inf), known], axis=1), axis=1)
    best, second = ranked[:, -1:], ranked[:, -2:-1]
    other = np.where(known == best, second, best)
    return np.asarray(scores - np.where(np.isfinite(other), other, 0.0))


class Pictures:
    """Band-limited pictures of aligned particles, in which correntropy is measured.

    Correntropy is the mean of exp(-e^2 / (2 sigma^2)) over the pixels of the disc, with e the difference of a particle
    and its class and sigma the square root of 2 times the mean standard deviation of the particles.
    """

    def __init__(self, grid: PolarGrid) -> None:
        self._grid = grid
        step = grid.box_px / (2.0 * np.ceil(grid.band_px) + 2.0)
        axis = np.arange(-int(grid.mask_radius_px / step), int(grid.mask_radius_px / step) + 1) * step
        y, x = np.meshgrid(axis, axis, indexing="ij")
        inside = np.hypot(x, y) <= grid.mask_radius_px
        kx, ky = grid.frequencies.reshape(2, -1).astype(np.float64)
        wave = np.exp(2j * np.pi / grid.box_px * (np.outer(kx, x[inside]) + np.outer(ky, y[inside])))
        spacing = 2 * np.pi / grid.angles * np.gradient(grid.radii) if len(grid.radii) > 1 else np.ones(1)
        # area of each sample; F(-k) doubles the real part
        wave *= np.repeat(2.0 * grid.radii * spacing, grid.angles // 2)[:, None] / grid.box_px**2
        pairs = np.stack([wave.real, -wave.imag], axis=1)
        self._matrix = np.ascontiguousarray(pairs.reshape(-1, pairs.shape[-1]), np.float32)

    def draw(self, samples: npt.NDArray[np.complex64]) -> Floats:
        """Pixels inside the disc, float32 (n, P), of samples (n, R, T / 2)."""
        flat = np.ascontiguousarray(samples).reshape(len(samples), -1).view(np.float32)
        return np.asarray(flat @ self._matrix)

    def correntropy(self, image: Floats, reference: Floats, sigma: float) -> Floats:
        """Correntropy of pairs of pictures (n, P), float32 (n,)."""
        return np.asarray(np.exp(np.square(image - reference) * np.float32(-0.5 / sigma**2)).mean(axis=1), np.float32)
