"""The finishing loop in map space: class maps as shrunk differences, leave-one-out scores, a wider band.

One chain per independent run. A chain's maps come from its own particles only; it then scores all particles. Class
maps are differences from the consensus, shrunk by the spectral signal power of the differences and by their local
variance. A particle's score for a class that it is part of is corrected for its own contribution (leverage), or it
would prefer whatever it already is.
"""

from __future__ import annotations

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

__all__ = ["ClassMaps", "class_scores", "estimate_classes", "leverage_ratio", "maps_from_centres"]


@dataclass(frozen=True)
class ClassMaps:
    """Difference maps of K classes.

    Attributes
    ----------
    grid : grid of the volumes.
    fixed : complex64 (7, Fourier volume), nuisance maps.
    volumes : complex64 (K, Fourier volume), differences from the consensus, read by trilinear sections.
    ridge : float32 (K, Fourier volume), 1 / (weight + prior).
    leverage : float64, factor of the ridge for the local weight and the interpolation (`leverage_ratio`).
    prior : float64 (shells,), spectral variance of the differences.
    mask : float32 (size, size, size), where differences are allowed.
    focus : float32 (size, size, size), local weight of the last estimate.
    """

    grid: BandGrid
    fixed: np.ndarray
    volumes: np.ndarray
    ridge: np.ndarray
    leverage: float
    prior: np.ndarray
    mask: np.ndarray
    focus: np.ndarray


def maps_from_centres(subspace: Subspace, centres: np.ndarray, prior: np.ndarray, mask: np.ndarray) -> ClassMaps:
    """Difference maps of points (K, J) of a subspace; they hold nobody's contribution, so no leverage."""
    volumes = np.tensordot(centres, subspace.free, axes=1).astype(np.complex64)
    ridge = np.zeros(volumes.shape, np.float32)
    return ClassMaps(subspace.grid, subspace.fixed, volumes, ridge, 0.0, prior, mask, subspace.focus)


def class_scores(
    store: ParticleStore, maps: ClassMaps, shares: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood ratios of this rank's particles for every class, nuisances integrated out.

    Parameters
    ----------
    store : particles; ``data`` holds whitened residuals from the consensus.
    shares : float (n_local, K) with which these particles entered the maps; None if they did not.

    Returns
    -------
    linear, power : float64 (n_local, K); the score of a class whose map is scaled by a is a linear - a^2 power / 2.
    nuisance : float64 (n_local, K, 7), posterior means of the nuisances for every class.
    """
    classes = len(maps.volumes)
    total = NUISANCES + classes
    volumes = interleave(np.concatenate([maps.fixed, maps.volumes]))
    scores = np.empty((len(store.data), classes))
    power = np.empty((len(store.data), classes))
    nuisance = np.empty((len(store.data), classes, NUISANCES))
    packed = pack_ridge(maps.volumes, maps.ridge) if shares is not None else None
    for block in store.blocks():
        linear, gram = moments(store, volumes, total, maps.grid.pad, block.local)
        full = unpack_lower(gram, total)
        reduced, precision = reduced_moments(linear, full, NUISANCES)
        scores[block.local] = reduced
        power[block.local] = np.einsum("nkk->nk", precision)
        nuisance[block.local] = _nuisance_means(linear, full)
        if shares is not None and packed is not None:
            scores[block.local] += _own_correction(
                store, maps, packed, shares[block.local], nuisance[block.local], block
            )
    return scores, power, nuisance


def _nuisance_means(linear: np.ndarray, gram: np.ndarray) -> np.ndarray:
    system = 2.0 * gram[:, :NUISANCES, :NUISANCES] + np.eye(NUISANCES)
    right = 2.0 * (linear[:, :NUISANCES, None] - gram[:, :NUISANCES, NUISANCES:])
    return np.asarray(np.linalg.solve(system, right).transpose(0, 2, 1))


def _own_correction(
    store: ParticleStore, maps: ClassMaps, packed: np.ndarray, shares: np.ndarray, nuisance: np.ndarray, block: Block
) -> np.ndarray:
    """Score without a particle's own contribution minus score with it, for classes that it is part of."""
    data = store.data.rows(block.local)
    own = np.einsum("nk,nka->na", shares, nuisance).astype(np.float32)
    clean = subtract_sections(
        interleave(maps.fixed), NUISANCES, own, data.images, data.ctfs, data.rotations, data.px, data.py, maps.grid.pad
    )
    correction = np.zeros(shares.shape)
    for index in range(shares.shape[1]):
        labels = np.where(shares[:, index] > 0.01, index, -1).astype(np.int32)
        gains = [
            leave_one_out_gains(
                packed, None, labels, factors, clean, data.ctfs, data.rotations, data.px, data.py, maps.grid.pad
            )
            for factors in (
                (maps.leverage * shares[:, index]).astype(np.float32),
                np.zeros(len(shares), np.float32),
            )
        ]
        correction[:, index] = gains[0] - gains[1]
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
    # Sections of nuisance maps may exceed the residuals they explain; they are bounded by their norm.
    peak *= 1.0 + float(np.abs(maps.fixed).max()) * store.largest(own) * NUISANCES

    def fill(block: Block, out: np.ndarray) -> None:
        data = store.data.rows(block.local)
        clean = subtract_sections(
            fixed, NUISANCES, own[block.local], data.images, data.ctfs, data.rotations, data.px, data.py, grid.pad
        )
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
        maps, volumes=volumes, ridge=ridge.astype(np.float32), leverage=leverage_ratio(grid, focus), focus=focus
    )


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


def refine(
    own: ParticleStore, maps: ClassMaps, weights: np.ndarray, iterations: int, floor: float
) -> tuple[ClassMaps, np.ndarray, np.ndarray]:
    """Iterate a chain on its own particles; returns its maps, class weights and scores. Collective."""
    scores, nuisance = class_scores(own, maps)
    for _ in range(iterations):
        shares = softmax(scores + np.log(weights), axis=1)
        weights = np.maximum(own.total(shares) / own.count, floor)
        weights /= weights.sum()
        expected = np.einsum("nk,nka->na", shares, nuisance)
        maps = estimate_classes(own, maps, shares, expected)
        scores, nuisance = class_scores(own, maps, shares)
    return maps, weights, scores
