"""What sorting needs to know of each particle: the log-likelihood of any point of the subspace, as (b, M).

Within the subspace the log-likelihood ratio of a particle whose structure sits at mu against the consensus is exactly

    log p(y_i | mu) - log p(y_i | 0) = b_i . mu - mu . M_i mu / 2

with the nuisances integrated out (a Schur complement of the joint Gram matrix).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcsort.kernels import Marginals, marginal_moments
from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import NUISANCES, Subspace, moments, unpack_lower

__all__ = ["JUNK_KINDS", "Statistics", "integrated", "junk_scores", "particle_statistics"]

JUNK_KINDS = 2
"""Images without a particle, and a broad component."""
_BREADTH = 4.0


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

    def component_gains(self) -> np.ndarray:
        """Log-likelihood ratios (n, J + 1) of the first 0, 1, ... J components, latents of N(0, 1) integrated out."""
        size = self.linear.shape[1]
        factor = np.linalg.cholesky(self.precision + np.eye(size))
        half = np.linalg.solve(factor, self.linear[..., None])[..., 0]
        # The factor of a leading block is the leading block of the factor.
        steps = 0.5 * half**2 - np.log(np.einsum("naa->na", factor))
        return np.concatenate([np.zeros((len(self), 1)), np.cumsum(steps, axis=1)], axis=1)

    def leading(self, components: int) -> Statistics:
        """Statistics in the first components only."""
        return Statistics(self.linear[:, :components], self.precision[:, :components, :components])

    def scores(self, points: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios (n, K) of the points (K, J)."""
        outer = (points[:, :, None] * points[:, None, :]).reshape(len(points), -1)
        return np.asarray(self.linear @ points.T - 0.5 * self.precision.reshape(len(self), -1) @ outer.T)

    def latents(self) -> np.ndarray:
        """Posterior means (n, J) under a standard normal prior."""
        size = self.linear.shape[1]
        solved = np.linalg.solve(self.precision + np.eye(size), self.linear[..., None])
        return np.asarray(solved[..., 0])


def integrated(linear: np.ndarray, gram: np.ndarray) -> Marginals:
    """Integrate the nuisances, which come first, out of joint moments of `moments`."""
    return marginal_moments(linear, gram, NUISANCES, _BREADTH)


def particle_statistics(store: ParticleStore, subspaces: list[Subspace]) -> list[Statistics]:
    """Statistics of all particles of the store in every subspace, in sort order, on every rank. Collective."""
    volumes = [store.comm.once_per_node(subspace.volumes) for subspace in subspaces]
    linear = [np.empty((len(store.data), subspace.components)) for subspace in subspaces]
    precision = [np.empty((*part.shape, part.shape[1])) for part in linear]
    for block in store.blocks():
        for index, subspace in enumerate(subspaces):
            total = NUISANCES + subspace.components
            found = integrated(*moments(store, volumes[index], total, subspace.grid.pad, block.local))
            linear[index][block.local] = found.linear
            precision[index][block.local] = unpack_lower(found.precision, subspace.components)
    return [Statistics(store.gathered(one), store.gathered(two)) for one, two in zip(linear, precision, strict=True)]


def junk_scores(found: Marginals, linear: np.ndarray, gram: np.ndarray, contrast: float) -> np.ndarray:
    """Log-likelihood ratios (n, 2) of two kinds of junk against the consensus with its nuisances integrated out.

    The first is an image without a particle: in residuals minus the consensus, that is the contrast map at
    -1 / ``contrast``. The second is a broad component: anything within the maps that is `_BREADTH` times as far off as
    particles are, in pose, contrast and structure.

    Parameters
    ----------
    found : of `integrated`.
    linear, gram : the joint moments that it was made of.
    contrast : standard deviation of the contrast for which its map is scaled.
    """
    particle, broad = found.evidence.T
    empty = linear[:, 0] * (-2.0 / contrast) - gram[:, 0] / contrast**2
    return np.stack([empty - particle, broad - particle], axis=1)
