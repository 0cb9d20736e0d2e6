"""The consensus map of all particles, its half-set FSC, the noise spectra, and residuals against it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from hpcsort.images import noise_spectrum
from hpcsort.kernels import complete_friedel, insert_sections, interleave
from hpcsort.sort3d.store import Block, ParticleStore, exact_total
from hpcsort.volumes import BandGrid, fsc_of_full, shell_correlation

__all__ = ["Consensus", "build_consensus", "half_sums", "subtract_consensus", "whiten", "whiten_as_told"]


@dataclass(frozen=True)
class Consensus:
    """Consensus of a set of particles.

    Attributes
    ----------
    grid : grid of the map.
    map : float32 (size, size, size), regularised and masked.
    volume : complex64 Fourier volume whose trilinear sections are those of ``map``.
    fsc : float64 (shells,), between the half-sets' maps inside the mask.
    """

    grid: BandGrid
    map: np.ndarray
    volume: np.ndarray
    fsc: np.ndarray


def half_sums(store: ParticleStore, grid: BandGrid, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Back-project whitened images into two half-sets.

    Parameters
    ----------
    store : particles; ``data`` whitened.
    half : int (n_local,), 0 or 1, or -1 to leave a particle out.

    Returns
    -------
    numerator : complex128 (2, Fourier volume), sum of t C F; weight : float64 (2, Fourier volume), sum of t C^2.
    """
    labels = half.astype(np.int32)
    ones = np.ones(len(store.data), np.float32)
    peak = store.pixel_limit

    def fill(block: Block, out: np.ndarray) -> None:
        seen = store.data.seen(block.local)
        data, chosen, weights = seen.data, seen.per_pose(labels[block.local]), seen.weighted(ones[block.local])
        insert_sections(
            data.images, data.ctfs, data.rotations, chosen, weights, data.px, data.py, grid.pad, out=out
        )  # fmt: skip

    sums = store.sum_blocks((2, *grid.fourier_shape, 4), 8.0 * store.count * peak**2, fill)
    numerator = sums[..., 0] + 1j * sums[..., 1]
    weight = np.ascontiguousarray(sums[..., 2])
    for index in range(2):
        complete_friedel(numerator[index], hermitian=True)
        complete_friedel(weight[index], hermitian=False)
    return numerator, weight


def build_consensus(store: ParticleStore, grid: BandGrid, half: np.ndarray, mask: np.ndarray) -> Consensus:
    """Reconstruct the consensus map; see `half_sums` for ``half``. Collective; every rank gets the same map.

    The sum of the half-sets is Wiener filtered with the signal-to-noise ratio that their FSC gives
    (SSNR = FSC / (1 - FSC) for all images; Rosenthal & Henderson 2003), masked, and corrected for interpolation.
    """
    numerator, weight = half_sums(store, grid, half)
    halves = np.stack([_divide(numerator[i], weight[i], np.zeros(1), grid) for i in range(2)])
    maps = grid.to_real(halves) * mask
    fsc = _grid_fsc(grid, maps[0], maps[1])
    ssnr = fsc_of_full(fsc)
    total = weight.sum(axis=0)
    level = grid.shell_mean(total)
    prior = level[: len(ssnr)] * (1.0 - ssnr) / np.maximum(ssnr, 1e-3)
    prior[0] = prior[1]
    volume = _divide(numerator.sum(axis=0), total, prior, grid)
    consensus = grid.to_real(volume) * mask
    return Consensus(grid, consensus, grid.to_fourier(consensus), fsc)


def subtract_consensus(store: ParticleStore, consensus: Consensus) -> ParticleStore:
    """Return the particles' residuals y = F - C P V0."""
    ones = np.ones((len(store.data), 1), np.float32)
    volumes = interleave(consensus.volume[None])
    return store.with_data(store.data.minus(volumes, 1, ones, consensus.grid.pad))


def whiten(store: ParticleStore, residual: ParticleStore, groups: int) -> tuple[ParticleStore, np.ndarray]:
    """Divide data by the noise level of ``residual`` (or of the data themselves) per group and shell.

    Returns
    -------
    The store with whitened data, and sigma, float64 (groups, radius + 1), by which it was divided.
    """
    powers, counts = [], []
    for block in store.blocks():
        seen = residual.data.seen(block.local)
        power, count = noise_spectrum(seen.data, seen.data.images, groups, seen.scored)
        powers.append(power)
        counts.append(count)
    shape = (groups, store.data.radius + 1)
    power = exact_total(store.comm, powers, shape, len(store.chunks))
    count = exact_total(store.comm, counts, shape, len(store.chunks))
    variance = np.divide(power, count, out=np.zeros(shape), where=count > 0)
    variance[:, 0] = variance[:, 1]
    sigma = np.sqrt(np.where(variance > 0, variance, 1.0))
    return store.with_data(store.data.whitened(sigma)), sigma


def whiten_as_told(store: ParticleStore, noise_power: np.ndarray) -> ParticleStore:
    """Divide data by noise spectra that come with them; noise is one group from then on.

    Parameters
    ----------
    store : particles with their noise groups.
    noise_power : float64 (groups, shells), 0 where unknown: there the median of the groups that know it serves.
    """
    shells = store.data.radius + 1
    power = np.zeros((len(noise_power), shells))
    given = noise_power[:, :shells]
    power[:, : given.shape[1]] = given
    power[:, 0] = 0.0
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        usual = np.nanmedian(np.where(power > 0, power, np.nan), axis=0)
    known = np.flatnonzero(np.isfinite(usual))
    usual = np.interp(np.arange(shells), known, usual[known]) if known.size else np.ones(shells)
    sigma = np.sqrt(np.where(power > 0, power, usual) / usual.mean())
    return store.with_data(store.data.whitened(sigma).in_one_group())


def _divide(numerator: np.ndarray, weight: np.ndarray, prior: np.ndarray, grid: BandGrid) -> np.ndarray:
    denominator = weight + grid.shell_fill(prior)
    floor = 1e-3 * float(weight.mean()) + 1e-30
    inside = (denominator > floor) & grid.support
    return np.asarray(np.where(inside, numerator / np.where(inside, denominator, 1.0), 0.0), np.complex64)


def _grid_fsc(grid: BandGrid, map_a: np.ndarray, map_b: np.ndarray) -> np.ndarray:
    fourier_a = grid.to_fourier(map_a, corrected=False)
    fourier_b = grid.to_fourier(map_b, corrected=False)
    cross = grid.shell_mean((fourier_a * fourier_b.conj()).real)
    return shell_correlation(cross, grid.shell_mean(np.abs(fourier_a) ** 2), grid.shell_mean(np.abs(fourier_b) ** 2))[
        : grid.radius + 1
    ]
