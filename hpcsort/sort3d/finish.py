"""The finishing loop in map space: class maps as shrunk differences, leave-one-out scores, a wider band.

One chain per independent run. A chain's maps come from its own particles only; it then scores all particles. Class
maps are differences from the consensus, shrunk by the spectral signal power of the differences and by their local
variance. A particle's score for a class that it is part of is corrected for its own contribution (leverage), or it
would prefer whatever it already is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from hpcsort.kernels import (
    backproject_moments,
    complete_friedel,
    interleave,
    leave_one_out_gains,
    moment_record_length,
    pack_ridge,
    subtract_sections,
)
from hpcsort.sort3d.statistics import reduced_moments
from hpcsort.sort3d.store import Block, ParticleStore
from hpcsort.sort3d.subspace import NUISANCES, Subspace, local_weight, moments, unpack_lower
from hpcsort.volumes import BandGrid

__all__ = [
    "ClassMaps",
    "Evidence",
    "estimate_classes",
    "leverage_ratio",
    "maps_from_centres",
    "refine_classes",
    "weigh_evidence",
]

_SMALL_SHARE = 0.01
"""A particle that is part of a class by less than this does not bias its score for it."""
_SCALE_RANGE = (0.3, 5.0)


@dataclass(frozen=True)
class ClassMaps:
    """Difference maps of K classes.

    Attributes
    ----------
    grid : grid of the volumes.
    fixed : complex64 (7, Fourier volume), nuisance maps.
    volumes : complex64 (K, Fourier volume), differences from the consensus before `scale`, read by sections.
    scale : float64 (K,), factors of the volumes (see `_best_scale`).
    ridge : float32 (K, Fourier volume), 1 / (weight + 1 / prior).
    leverage : factor of the ridge for the local weight and the interpolation (`leverage_ratio`).
    prior : float64 (shells,), prior variance of the differences' Fourier voxels.
    mask : float32 (size, size, size), where differences are allowed.
    focus : float32 (size, size, size), local weight of the last estimate.
    """

    grid: BandGrid
    fixed: np.ndarray
    volumes: np.ndarray
    scale: np.ndarray
    ridge: np.ndarray
    leverage: float
    prior: np.ndarray
    mask: np.ndarray
    focus: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """How this rank's n particles see K class maps, nuisances integrated out.

    Attributes
    ----------
    linear, power : float64 (n, K); the log-likelihood ratio of class k scaled by a is a linear - a^2 power / 2.
    rest, pull : float64 (n, 7) and (n, K, 7); the expected nuisances are rest - a pull.
    """

    linear: np.ndarray
    power: np.ndarray
    rest: np.ndarray
    pull: np.ndarray

    def scores(self, scale: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios (n, K) of the scaled classes."""
        return np.asarray(scale * self.linear - 0.5 * scale**2 * self.power)

    def nuisances(self, shares: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return the expected nuisances (n, 7) of particles that belong to the classes by ``shares`` (n, K)."""
        total = shares.sum(axis=1, keepdims=True)
        return np.asarray(total * self.rest - np.einsum("nk,nka->na", shares * scale, self.pull))


def maps_from_centres(
    subspace: Subspace, centres: np.ndarray, grid: BandGrid, fixed: np.ndarray, prior: np.ndarray, mask: np.ndarray
) -> ClassMaps:
    """Difference maps of points (K, J) of a subspace, for a loop on a wider ``grid``.

    They are weighted sums of all particles, so nobody's own contribution stands out and the leverage is zero.
    """
    volumes = np.tensordot(centres, subspace.free, axes=1).astype(np.complex64)
    wide = grid.embed(volumes, subspace.grid)
    ridge = np.zeros(wide.shape, np.float32)
    return ClassMaps(grid, fixed, wide, np.ones(len(centres)), ridge, 0.0, prior, mask, mask)


def weigh_evidence(store: ParticleStore, maps: ClassMaps, shares: np.ndarray | None = None) -> Evidence:
    """Compare this rank's particles with every class.

    Parameters
    ----------
    store : particles; ``data`` holds whitened residuals from the consensus.
    shares : float (n_local, K) with which these particles entered the maps; None if they did not.
    """
    classes = len(maps.volumes)
    total = NUISANCES + classes
    count = len(store.data)
    volumes = interleave(np.concatenate([maps.fixed, maps.volumes]))
    linear, power = np.empty((count, classes)), np.empty((count, classes))
    rest, pull = np.empty((count, NUISANCES)), np.empty((count, classes, NUISANCES))
    for block in store.blocks():
        joint, packed = moments(store, volumes, total, maps.grid.pad, block.local)
        gram = unpack_lower(packed, total)
        linear[block.local], precision = reduced_moments(joint, gram, NUISANCES)
        power[block.local] = np.einsum("nkk->nk", precision)
        rest[block.local], pull[block.local] = _nuisance_means(joint, gram)
    evidence = Evidence(linear, power, rest, pull)
    if shares is not None:
        linear += _own_corrections(store, maps, evidence, shares)
    return evidence


def _nuisance_means(linear: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    system = 2.0 * gram[:, :NUISANCES, :NUISANCES] + np.eye(NUISANCES)
    right = 2.0 * np.concatenate([linear[:, :NUISANCES, None], gram[:, :NUISANCES, NUISANCES:]], axis=2)
    solved = np.linalg.solve(system, right)
    return solved[:, :, 0], solved[:, :, 1:].transpose(0, 2, 1)


def _own_corrections(store: ParticleStore, maps: ClassMaps, evidence: Evidence, shares: np.ndarray) -> np.ndarray:
    """Score without a particle's own contribution minus score with it, (n_local, K), for the classes it is part of."""
    packed = pack_ridge(maps.volumes, maps.ridge)
    fixed = interleave(maps.fixed)
    expected = evidence.nuisances(shares, maps.scale).astype(np.float32)
    correction = np.zeros(shares.shape)
    for block in store.blocks():
        data = store.data.rows(block.local)
        geometry = (data.ctfs, data.rotations, data.px, data.py, maps.grid.pad)
        clean = subtract_sections(fixed, NUISANCES, expected[block.local], data.images, *geometry)
        none = np.zeros(len(data), np.float32)
        for index in range(shares.shape[1]):
            share = shares[block.local, index]
            labels = np.where(share > _SMALL_SHARE, index, -1).astype(np.int32)
            leverage = (maps.leverage * share).astype(np.float32)
            without = leave_one_out_gains(packed, None, labels, leverage, clean, *geometry)
            correction[block.local, index] = without - leave_one_out_gains(packed, None, labels, none, clean, *geometry)
    return correction


def estimate_classes(store: ParticleStore, maps: ClassMaps, shares: np.ndarray, nuisance: np.ndarray) -> ClassMaps:
    """Back-project particles into their classes and shrink the differences. Collective.

    Parameters
    ----------
    store : the chain's own particles; ``data`` holds whitened residuals.
    maps : the last maps: grid, nuisance maps and prior.
    shares : float64 (n_local, K), responsibilities.
    nuisance : float64 (n_local, 7), each particle's expected nuisances, subtracted first.
    """
    classes = shares.shape[1]
    grid = maps.grid
    own = np.ascontiguousarray(nuisance, np.float32)
    weights = np.ascontiguousarray(shares, np.float32)
    fixed = interleave(maps.fixed)
    peak = store.largest(store.data.images) + store.largest(store.data.ctfs) + 1.0
    peak *= 1.0 + float(np.abs(maps.fixed).max()) * store.largest(own) * NUISANCES

    def fill(block: Block, out: np.ndarray) -> None:
        data = store.data.rows(block.local)
        geometry = (data.ctfs, data.rotations, data.px, data.py, grid.pad)
        clean = subtract_sections(fixed, NUISANCES, own[block.local], data.images, *geometry)
        share = weights[block.local]
        backproject_moments(clean, data.ctfs, data.rotations, share, share, data.px, data.py, grid.pad, out)

    shape = (*grid.fourier_shape, moment_record_length(classes, classes))
    sums = np.moveaxis(store.sum_blocks(shape, 8.0 * store.count * peak**2, fill), -1, 0)
    result = None
    if store.comm.is_root:
        numerator = sums[:classes] + 1j * sums[classes : 2 * classes]
        weight = np.ascontiguousarray(sums[2 * classes : 3 * classes])
        for index in range(classes):
            complete_friedel(numerator[index], hermitian=True)
            complete_friedel(weight[index], hermitian=False)
        result = _shrink(maps, numerator, weight)
    shrunk: ClassMaps = store.comm.bcast(result)
    return shrunk


def _shrink(maps: ClassMaps, numerator: np.ndarray, weight: np.ndarray) -> ClassMaps:
    """Ridge by the prior variance of differences, then local weights by their variance across classes."""
    grid = maps.grid
    ridge = np.where(grid.support, 1.0 / (weight + 1.0 / grid.shell_fill(maps.prior)), 0.0)
    real = grid.to_real((numerator * ridge).astype(np.complex64), corrected=False)
    focus = maps.mask * local_weight(grid, real, maps.mask)
    volumes = grid.to_fourier(real * focus, corrected=False)
    return replace(
        maps,
        volumes=volumes,
        scale=np.ones(len(volumes)),
        ridge=ridge.astype(np.float32),
        leverage=leverage_ratio(grid, focus),
        focus=focus,
    )


def _best_scale(store: ParticleStore, evidence: Evidence, shares: np.ndarray) -> np.ndarray:
    """Scale of each class of highest leave-one-out likelihood, (K,). Collective.

    Shrinking gives a difference map its best shape but too small a size; its size is one number, which the particles
    determine well. Without this the two closest classes of a set merge (benchmarks/accuracy.md).
    """
    sums = store.total(np.stack([shares * evidence.linear, shares * evidence.power], axis=1))
    return np.asarray(np.clip(sums[0] / np.maximum(sums[1], 1e-30), *_SCALE_RANGE))


def leverage_ratio(grid: BandGrid, focus: np.ndarray) -> float:
    """Mean leverage of a particle on its masked class map, relative to sum(t^2) / (weight + prior).

    Masking in real space is convolution in Fourier space by the mask's transform m(d): the particle's pixel then
    returns to itself through all pairs of corners, sum_kk' t_k t_k' m(k - k'). Averaged over positions between the
    voxels, t t' is 2/3 (same) or 1/6 (either neighbour) along each axis, and sum(t^2) alone is 8/27.
    """
    spectrum = grid.to_fourier(focus, corrected=False)
    half = grid.half
    along = np.array([1 / 6, 2 / 3, 1 / 6])
    weights = along[:, None, None] * along[None, :, None] * along[None, None, :]
    near = spectrum[half - 1 : half + 2, half - 1 : half + 2, :2].real * grid.size / float(grid.size * grid.pad) ** 3
    both = np.concatenate([near[::-1, ::-1, 1:], near], axis=2)
    return float((weights * both).sum() / (8 / 27))


def refine_classes(
    own: ParticleStore,
    maps: ClassMaps,
    weights: np.ndarray,
    *,
    iterations: int,
    floor: float,
    pinned: np.ndarray | None = None,
    step: Callable[[str], None] | None = None,
) -> tuple[ClassMaps, np.ndarray, np.ndarray]:
    """Iterate a chain on its own particles. Collective.

    Parameters
    ----------
    own : the chain's own particles.
    maps, weights : classes to start from and their shares (K,).
    iterations : number of estimates of the maps.
    floor : smallest share of a class.
    pinned : int (n_local,), class of particles that stay where they are, -1 for the others; None pins none.
    step : called with a note after each iteration.

    Returns
    -------
    maps, weights (K,), and leave-one-out scores (n_local, K) of the own particles for the returned maps.
    """
    free = np.ones(len(own.data), bool) if pinned is None else pinned < 0
    evidence = weigh_evidence(own, maps)
    scores = evidence.scores(maps.scale)
    for iteration in range(iterations):
        shares = softmax(scores + np.log(weights), axis=1)
        if pinned is not None:
            shares[~free] = np.eye(len(weights))[pinned[~free]]
        weights = np.maximum(own.total(shares * free[:, None]) / max(float(own.total(free.astype(float))), 1.0), floor)
        weights = weights / weights.sum()
        maps = estimate_classes(own, maps, shares, evidence.nuisances(shares, maps.scale))
        evidence = weigh_evidence(own, maps, shares)
        maps = replace(maps, scale=_best_scale(own, evidence, shares))
        scores = evidence.scores(maps.scale)
        if step is not None:
            step(f"finishing {len(weights)} classes, iteration {iteration + 1} of {iterations}")
    return maps, weights, scores
