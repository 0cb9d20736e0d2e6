"""How particles compare with class maps: scores of all classes and of junk, nuisances integrated out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcsort.images import Seen
from hpcsort.kernels import interleave, leave_one_out_gains, pack_ridge, subtract_sections
from hpcsort.sort3d.classmaps import ClassMaps
from hpcsort.sort3d.statistics import JUNK_KINDS, junk_scores, reduced_moments
from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import NUISANCES, seen_moments, unpack_lower

__all__ = ["Look", "look"]

_SMALL_SHARE = 0.01
"""A particle that is part of a class by less than this does not bias its score for it."""


@dataclass(frozen=True)
class Look:
    """How some particles see a chain's class maps, nuisances integrated out.

    The log-likelihood ratio of class k scaled by a is a ``linear`` - a^2 ``power`` / 2 + ``offset``, (n, K) each (see
    `Seen.marginal`); the expected nuisances are ``rest`` - a ``pull``, (n, 7) and (n, K, 7). ``junk`` (n, 2) as in
    `junk_scores`.
    """

    linear: np.ndarray
    power: np.ndarray
    offset: np.ndarray
    rest: np.ndarray
    pull: np.ndarray
    junk: np.ndarray

    def scores(self, scale: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios (n, K + 2) of the scaled classes and of junk."""
        return np.concatenate([scale * self.linear - 0.5 * scale**2 * self.power + self.offset, self.junk], axis=1)

    def nuisances(self, shares: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return the expected nuisances (n, 7) of particles that belong to the classes by ``shares`` (n, K)."""
        return _expected_nuisances(self.rest, self.pull, shares, scale)


def look(store: ParticleStore, maps: ClassMaps, local: np.ndarray, shares: np.ndarray | None) -> Look:
    """Compare this rank's particles ``local`` with the classes, their own ``shares`` in the maps left out."""
    classes, count = maps.classes, len(local)
    total = NUISANCES + classes
    volumes = interleave(np.concatenate([maps.fixed, maps.volumes]))
    ridge = None if shares is None else pack_ridge(maps.volumes, maps.ridge)
    fixed = interleave(maps.fixed)
    found = Look(
        np.empty((count, classes)),
        np.empty((count, classes)),
        np.empty((count, classes)),
        np.empty((count, NUISANCES)),
        np.empty((count, classes, NUISANCES)),
        np.empty((count, JUNK_KINDS)),
    )
    for rows in _pieces(store, local):
        poses = store.data.seen(local[rows])
        joint, packed = seen_moments(poses, volumes, total, maps.grid.pad)
        gram = unpack_lower(packed, total)
        linear, precision = reduced_moments(joint, gram, NUISANCES)
        power = np.einsum("nkk->nk", precision)
        joint, gram = poses.expected(joint), poses.expected(gram)
        rest, pull = found.rest[rows], found.pull[rows] = _nuisance_means(joint, gram)
        found.junk[rows] = junk_scores(joint, gram, maps.contrast)
        if shares is not None and ridge is not None:
            expected = _expected_nuisances(rest, pull, shares[rows], maps.scale).astype(np.float32)
            linear += _own_corrections(poses, maps, ridge, fixed, expected, shares[rows])
        found.linear[rows], found.power[rows], found.offset[rows] = poses.marginal(linear, power)
    return found


def _pieces(store: ParticleStore, local: np.ndarray) -> list[slice]:
    """Cut rising local rows at the blocks of the store, so that results do not depend on the number of ranks."""
    edges = np.searchsorted(local, [block.local.start for block in store.blocks()] + [len(store.data)])
    return [slice(int(first), int(last)) for first, last in pairwise(edges) if last > first]


def _nuisance_means(linear: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    system = 2.0 * gram[:, :NUISANCES, :NUISANCES] + np.eye(NUISANCES)
    right = 2.0 * np.concatenate([linear[:, :NUISANCES, None], gram[:, :NUISANCES, NUISANCES:]], axis=2)
    solved = np.linalg.solve(system, right)
    return solved[:, :, 0], solved[:, :, 1:].transpose(0, 2, 1)


def _expected_nuisances(rest: np.ndarray, pull: np.ndarray, shares: np.ndarray, scale: np.ndarray) -> np.ndarray:
    total = shares.sum(axis=1, keepdims=True)
    return np.asarray(total * rest - np.einsum("nk,nka->na", shares * scale, pull))


def _own_corrections(
    poses: Seen, maps: ClassMaps, ridge: np.ndarray, fixed: np.ndarray, expected: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """Score without a particle's own contribution minus score with it, (v, K), for the classes it is part of."""
    data, shares = poses.data, poses.per_pose(shares)
    geometry = (data.ctfs, data.rotations, data.px, data.py, maps.grid.pad)
    clean = subtract_sections(fixed, NUISANCES, poses.per_pose(expected), data.images, *geometry)
    none = np.zeros(len(data), np.float32)
    correction = np.zeros(shares.shape)
    reach = maps.leverage if poses.overlap is None else maps.leverage * poses.overlap
    for index in range(shares.shape[1]):
        share = shares[:, index]
        labels = np.where(share > _SMALL_SHARE, index, -1).astype(np.int32)
        if (labels < 0).all():
            continue
        leverage = (reach * share).astype(np.float32)
        without = leave_one_out_gains(ridge, None, labels, leverage, clean, *geometry)
        correction[:, index] = without - leave_one_out_gains(ridge, None, labels, none, clean, *geometry)
    return correction
