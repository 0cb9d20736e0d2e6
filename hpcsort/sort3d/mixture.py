"""MGSK-means on the particles' statistics: annealed mixtures and their held-out likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from hpcsort.sort3d.statistics import Statistics
from hpcsort.sort3d.subspace import unpack_lower

__all__ = ["Mixture", "fit_mixture", "held_out"]

_RIDGE = 5.0
"""Prior precision of all centres together, in units of particles of unit precision: keeps centres of tiny classes at
home. It is shared out, so that classes that coincide cost what one class does."""
_ITERATIONS_PER_STEP = 4
"""Iterations at each minimum group size of the schedule."""


@dataclass(frozen=True)
class Mixture:
    """Classes as points of the subspace.

    Attributes
    ----------
    centres : float64 (K, J).
    weights : float64 (K,), shares, sum 1.
    likelihood : total log-likelihood ratio of the particles that it was fitted to.
    """

    centres: np.ndarray
    weights: np.ndarray
    likelihood: float

    def log_joint(self, statistics: Statistics) -> np.ndarray:
        """Log of weight times likelihood ratio, float64 (n, K)."""
        return statistics.scores(self.centres) + np.log(self.weights)


def fit_mixture(
    statistics: Statistics,
    start: np.ndarray,
    *,
    floors: tuple[float, ...],
    iterations: int = 80,
    first_temperature: float = 1 / 0.3,
    fixed: np.ndarray | None = None,
) -> Mixture:
    """Maximise the likelihood by EM from ``start``, annealed from ``first_temperature`` to 1.

    Parameters
    ----------
    statistics : particles to fit.
    start : float64 (K, J), start centres.
    floors : smallest share of a class (the minimum group size over the number of particles, at most 1 / K), step by
        step once the annealing is over; the last one stays.
    fixed : float64 (F, J), centres that stay where they are and come before the free ones.
    """
    count = len(statistics)
    size = start.shape[1]
    still = 0 if fixed is None else len(fixed)
    centres = start if fixed is None else np.concatenate([fixed, start])
    classes = len(centres)
    weights = np.full(classes, 1.0 / classes)
    rows, columns = np.tril_indices(size)
    twice = np.where(rows == columns, 1.0, 2.0)
    # Classes by particles: sums over the few classes run along the fast axis of memory. (In float32
    # shares that vanish become denormal numbers, which cost twice as much as they save.)
    packed = np.ascontiguousarray(statistics.precision[:, rows, columns].T)
    linear = np.ascontiguousarray(statistics.linear.T)
    ridge = _RIDGE / max(classes - still, 1) * np.eye(size)
    likelihood = previous = -np.inf
    cold = 0
    for iteration in range(iterations):
        coldness = min(1.0, 1.0 / first_temperature + 0.05 * iteration)
        outer = -0.5 * centres[:, rows] * centres[:, columns] * twice
        share = centres @ linear
        share += outer @ packed
        share *= coldness
        share += np.log(weights)[:, None]
        peak = share.max(axis=0)
        share -= peak
        np.exp(share, out=share)
        norm = share.sum(axis=0)
        share /= norm
        likelihood = float(np.log(norm).sum() + peak.sum())
        # While it is warm all classes keep equal weight: a class that starts badly must not starve before it settles.
        if coldness == 1.0:
            step = min(cold // _ITERATIONS_PER_STEP, len(floors) - 1)
            weights = _floored(share.sum(axis=1) / count, floors[step])
            cold += 1
        free = share[still:]
        precision = unpack_lower(free @ packed.T, size) + ridge
        moved = np.linalg.solve(precision, (free @ linear.T)[..., None])[..., 0]
        centres = moved if fixed is None else np.concatenate([fixed, moved])
        settled = cold > _ITERATIONS_PER_STEP * (len(floors) - 1)
        if settled and abs(likelihood - previous) < 1e-7 * abs(likelihood) + 1e-4:
            break
        previous = likelihood
    return Mixture(centres, weights, likelihood)


def held_out(mixture: Mixture, statistics: Statistics) -> np.ndarray:
    """Log-likelihood ratio of each particle under a mixture that has not seen it, float64 (n,)."""
    return np.asarray(logsumexp(mixture.log_joint(statistics), axis=1))


def _floored(shares: np.ndarray, floor: float) -> np.ndarray:
    """Shares raised to at least ``floor``, the rest scaled down; sum 1."""
    floor = min(floor, 1.0 / len(shares))
    low = shares < floor
    while True:
        scaled = shares * (1.0 - floor * low.sum()) / max(float(shares[~low].sum()), 1e-300)
        again = low | (scaled < floor)
        if (again == low).all():
            return np.where(low, floor, scaled)
        low = again
