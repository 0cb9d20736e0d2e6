"""Smeared orientations: each particle with a list of poses and their probabilities.

A refinement that does not commit itself to one pose (MERIDIEN; `hpcsort match`) leaves for every particle the poses
that its image does not rule out. Rows of one particle are consecutive, the likeliest first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Smears"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Smears:
    """Poses of N particles, M in all.

    Attributes
    ----------
    first : int64 (N + 1,), rows first[i]:first[i + 1] belong to particle i; every particle has at least one.
    angles_deg : float64 (M, 3), rot, tilt, psi in RELION's convention.
    shifts_px : float64 (M, 2), shift along x, y that centres the content (RELION's origins), px of the image.
    weight : float64 (M,), probabilities, which sum to 1 for each particle.
    dropped : float64 (N,), probability of poses that are not listed (cut off before renormalisation).
    """

    first: Ints
    angles_deg: Floats
    shifts_px: Floats
    weight: Floats
    dropped: Floats

    def __post_init__(self) -> None:
        poses, particles = len(self.weight), len(self.dropped)
        shapes = (self.first.shape, self.angles_deg.shape, self.shifts_px.shape)
        if shapes != ((particles + 1,), (poses, 3), (poses, 2)):
            raise ValueError(f"smears of {particles} particles with {poses} poses do not have shapes {shapes}")
        if self.first[0] != 0 or self.first[-1] != poses or (np.diff(self.first) < 1).any():
            raise ValueError("the rows of smears must follow each other, at least one for each particle")

    def __len__(self) -> int:
        return len(self.dropped)

    @property
    def counts(self) -> Ints:
        """Number of poses of each particle, int64 (N,)."""
        return np.diff(self.first)

    @property
    def owner(self) -> Ints:
        """Particle of each pose, int64 (M,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    @classmethod
    def of_lists(
        cls, owner: npt.ArrayLike, angles_deg: npt.ArrayLike, shifts_px: npt.ArrayLike, weight: npt.ArrayLike
    ) -> Smears:
        """Make smears from poses (M,) in any order; probabilities are renormalised, what they lack of 1 is `dropped`.

        ``owner`` names the particle (0 to N - 1) of each pose; each must own one at least with a positive weight.
        """
        owners = np.asarray(owner, np.int64)
        given = np.asarray(weight, np.float64)
        counts = np.bincount(owners)
        total = np.bincount(owners, given, minlength=len(counts))
        if not ((counts > 0) & (total > 0)).all():
            raise ValueError(f"particle {int(np.argmin(total))} has no pose of positive probability")
        order = np.lexsort((-given, owners))
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(
            first,
            np.asarray(angles_deg, np.float64)[order],
            np.asarray(shifts_px, np.float64)[order],
            (given / total[owners])[order],
            np.maximum(1.0 - total, 0.0),
        )

    def beyond(self, reach_px: float) -> Ints:
        """Particles (k,) int64 that have a pose with a shift of more than ``reach_px`` along x or y, ascending."""
        return np.unique(self.owner[np.abs(self.shifts_px).max(axis=1, initial=0) > reach_px])

    def rows(self, chosen: npt.ArrayLike) -> Smears:
        """Smears of the particles ``chosen`` (int, any order, repeats allowed)."""
        particles = np.asarray(chosen, np.int64).reshape(-1)
        counts = self.counts[particles]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        poses = np.arange(first[-1]) + np.repeat(self.first[particles] - first[:-1], counts)
        return Smears(first, self.angles_deg[poses], self.shifts_px[poses], self.weight[poses], self.dropped[particles])

    def limited(self, most: int) -> Smears:
        """At most the ``most`` likeliest poses of each particle, renormalised; the rest is added to `dropped`."""
        place = np.arange(len(self.weight)) - self.first[self.owner]
        kept = place < most
        return self._of_poses(kept)

    def cut(self, cumulative: float) -> Smears:
        """Only the likeliest poses that together reach the probability ``cumulative``, renormalised."""
        before = np.cumsum(self.weight) - self.weight
        return self._of_poses(before - before[self.first[:-1]][self.owner] < cumulative)

    def _of_poses(self, kept: npt.NDArray[np.bool_]) -> Smears:
        owner = self.owner[kept]
        held = np.bincount(owner, self.weight[kept], minlength=len(self))
        first = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(self)))]).astype(np.int64)
        return Smears(
            first,
            self.angles_deg[kept],
            self.shifts_px[kept],
            self.weight[kept] / held[owner],
            1.0 - (1.0 - self.dropped) * held,
        )
