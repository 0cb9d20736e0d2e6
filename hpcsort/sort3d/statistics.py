"""What sorting needs to know of each particle: the log-likelihood of any point of the subspace, as (b, M).

Within the subspace the log-likelihood ratio of a particle whose structure sits at mu against the consensus is exactly

    log p(y_i | mu) - log p(y_i | 0) = b_i . mu - mu . M_i mu / 2

with the nuisances integrated out (a Schur complement of the joint Gram matrix).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import NUISANCES, Subspace, moments, unpack_lower

__all__ = ["Statistics", "particle_statistics", "reduced_moments"]


@dataclass(frozen=True)
class Statistics:
    """Quadratic log-likelihoods of n particles in J dimensions.

    Attributes
    ----------
    linear : float64 (n, J), b_i.
    precision : float64 (n, J, J), M_i, symmetric and positive semi-definite.
    """

    linear: np.ndarray
    precision: np.ndarray

    def __len__(self) -> int:
        return len(self.linear)

    def rows(self, index: np.ndarray) -> Statistics:
        """Statistics of some particles."""
        return Statistics(self.linear[index], self.precision[index])

    def scores(self, points: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios (n, K) of the points (K, J)."""
        outer = (points[:, :, None] * points[:, None, :]).reshape(len(points), -1)
        return np.asarray(self.linear @ points.T - 0.5 * self.precision.reshape(len(self), -1) @ outer.T)

    def latents(self) -> np.ndarray:
        """Posterior means (n, J) under a standard normal prior."""
        size = self.linear.shape[1]
        solved = np.linalg.solve(self.precision + np.eye(size), self.linear[..., None])
        return np.asarray(solved[..., 0])


def reduced_moments(linear: np.ndarray, gram: np.ndarray, nuisances: int) -> tuple[np.ndarray, np.ndarray]:
    """Integrate the first ``nuisances`` latents (standard normal) out of joint moments.

    Parameters
    ----------
    linear : float64 (n, T), sums of c Re(conj(P_a) y).
    gram : float64 (n, T, T), sums of c^2 Re(conj(P_a) P_b).

    Returns
    -------
    linear (n, J), precision (n, J, J) of `Statistics`, J = T - nuisances.
    """
    # Whitened complex noise has E|n|^2 = 1 per pixel, hence the factor 2 of Re(conj(a) b) in the exponent.
    joint, right = 2.0 * gram, 2.0 * linear
    fixed, mixed = joint[:, :nuisances, :nuisances], joint[:, :nuisances, nuisances:]
    free = joint[:, nuisances:, nuisances:]
    both = np.concatenate([mixed, right[:, :nuisances, None]], axis=2)
    solved = np.linalg.solve(fixed + np.eye(nuisances), both)
    precision = free - np.einsum("nsa,nsb->nab", mixed, solved[:, :, :-1])
    reduced = right[:, nuisances:] - np.einsum("nsa,ns->na", mixed, solved[:, :, -1])
    return reduced, 0.5 * (precision + precision.transpose(0, 2, 1))


def particle_statistics(store: ParticleStore, subspace: Subspace) -> Statistics:
    """Statistics of all particles of the store, in sort order, on every rank. Collective."""
    size = subspace.components
    total = NUISANCES + size
    volumes = subspace.volumes()
    linear = np.empty((len(store.data), size))
    precision = np.empty((len(store.data), size, size))
    for block in store.blocks():
        first, gram = moments(store, volumes, total, subspace.grid.pad, block.local)
        linear[block.local], precision[block.local] = reduced_moments(first, unpack_lower(gram, total), NUISANCES)
    return Statistics(store.gathered(linear), store.gathered(precision))
