"""Particles as the kernels see them: one row a pose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hpcsort.images.band import BandData

__all__ = ["Seen"]


@dataclass(frozen=True)
class Seen:
    """Some particles as rows for the kernels: a row for each pose of each particle.

    Attributes
    ----------
    source, rows : where their data lie: rows (int32 (v,), those of a particle consecutive) of ``source``; None is all.
    first : int64 (n + 1,), rows first[i]:first[i + 1] are particle i's; None where every particle has one pose.
    weight : float32 (v,), probability of each pose, by which it takes part in maps; None with ``first``.
    scored : float32 (v,), probability by which it takes part in scores; None with ``first``.
    overlap : float32 (v,), share of a particle's contribution to a map that lies where this pose reads the map; None
        with ``first``.
    """

    source: BandData
    rows: np.ndarray | None = None
    first: np.ndarray | None = None
    weight: np.ndarray | None = None
    scored: np.ndarray | None = None
    overlap: np.ndarray | None = None

    @cached_property
    def data(self) -> BandData:
        """The v rows as arrays of their own."""
        return self.source if self.rows is None else self.source.rows(self.rows)

    def per_pose(self, values: np.ndarray) -> np.ndarray:
        """Repeat values (n, ...) of particles for each of their poses, (v, ...)."""
        return values if self.first is None else np.repeat(values, np.diff(self.first), axis=0)

    def weighted(self, values: np.ndarray) -> np.ndarray:
        """Values (n, ...) of particles shared out over their poses by probability, (v, ...)."""
        if self.weight is None:
            return values
        return self.per_pose(values) * self.weight.reshape(-1, *[1] * (values.ndim - 1))

    def expected(self, values: np.ndarray) -> np.ndarray:
        """Mean over the poses of each particle, (n, ...), of values (v, ...)."""
        if self.scored is None or self.first is None or not len(values):
            return values
        weight = self.scored.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(np.add.reduceat(weight * values, self.first[:-1], axis=0), values.dtype)

    def marginal(self, linear: np.ndarray, power: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-likelihood ratios with the pose summed over: log sum_m w_m exp(linear_m - power_m / 2).

        The probabilities w_m are those given the image and the consensus, so the ratio of a class against the
        consensus is their mean of the ratios at each pose.

        Parameters
        ----------
        linear, power : float64 (v, K), terms of each pose; the ratio of a class scaled by a is
            a linear - a^2 power / 2.

        Returns
        -------
        linear, power, offset : float64 (n, K). a linear - a^2 power / 2 + offset is the ratio at a = 1, and a lower
            bound of it elsewhere (the poses' probabilities given the class are those at a = 1).
        """
        if self.scored is None or self.first is None or not len(linear):
            return linear, power, np.zeros_like(linear)
        starts, chosen = self.first[:-1], self.scored > 0
        with np.errstate(divide="ignore"):
            prior = np.log(self.scored.astype(np.float64))[:, None]
        joint = np.where(chosen[:, None], prior + linear - 0.5 * power, -np.inf)
        top = np.repeat(np.maximum.reduceat(joint, starts, axis=0), np.diff(self.first), axis=0)
        share = np.exp(joint - top)
        share /= np.repeat(np.add.reduceat(share, starts, axis=0), np.diff(self.first), axis=0)
        spent = np.where(
            share > 0, share * (np.log(np.maximum(share, 1e-300)) - np.where(chosen[:, None], prior, 0)), 0
        )
        return (
            np.add.reduceat(share * linear, starts, axis=0),
            np.add.reduceat(share * power, starts, axis=0),
            -np.add.reduceat(spent, starts, axis=0),
        )
