"""How particles compare with class maps: scores of all classes and of junk, nuisances integrated out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcsort.images import Seen
from hpcsort.kernels import interleave, leave_one_out_gains, pack_ridge, subtract_sections
from hpcsort.sort3d.classmaps import ClassMaps
from hpcsort.sort3d.statistics import JUNK_KINDS, integrated, junk_scores
from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import NUISANCES, seen_moments

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
    """Compare this rank's particles ``local`` with the classes; collective.

    Their own ``shares`` in the maps are left out; None where they are not part of them.
    """
    classes, count = maps.classes, len(local)
    total = NUISANCES + classes
    once = store.comm.once_per_node
    volumes = once(lambda: interleave(np.concatenate([maps.fixed, maps.volumes])))
    ridge = None if shares is None else once(lambda: pack_ridge(maps.volumes, maps.ridge))
    fixed = interleave(maps.fixed)
    steps = np.arange(classes)
    diagonal = steps * (steps + 3) // 2
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
        joint, gram = seen_moments(poses, volumes, total, maps.grid.pad)
        each = mean = integrated(joint, gram)
        linear, power = each.linear, each.precision[:, diagonal]
        if poses.first is not None:
            joint, gram = poses.expected(joint), poses.expected(gram)
            mean = integrated(joint, gram)
        rest, pull = found.rest[rows], found.pull[rows] = mean.rest, mean.pull
        found.junk[rows] = junk_scores(mean, joint, gram, maps.contrast)
        if shares is not None and ridge is not None:
            expected = _expected_nuisances(rest, pull, shares[rows], maps.scale).astype(np.float32)
            linear += _own_corrections(poses, maps, ridge, fixed, expected, shares[rows])
        found.linear[rows], found.power[rows], found.offset[rows] = poses.marginal(linear, power)
    return found


def _pieces(store: ParticleStore, local: np.ndarray) -> list[slice]:
    """Cut rising local rows at the blocks of the store, so that results do not depend on the number of ranks."""
    edges = np.searchsorted(local, [block.local.start for block in store.blocks()] + [len(store.data)])
    return [slice(int(first), int(last)) for first, last in pairwise(edges) if last > first]


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
    rows, labels = np.nonzero(shares > _SMALL_SHARE)
    reach = maps.leverage if poses.overlap is None else maps.leverage * poses.overlap[rows]
    correction = np.zeros(shares.shape)
    correction[rows, labels] = leave_one_out_gains(
        ridge,
        None,
        labels.astype(np.int32),
        (reach * shares[rows, labels]).astype(np.float32),
        clean,
        *geometry,
        rows=rows.astype(np.int32),
        change=True,
    )
    return correction
