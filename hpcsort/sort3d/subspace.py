"""The linear subspace of structural differences, learned at fixed poses.

Model of a particle's residual (probabilistic PCA, Tipping & Bishop 1999, with the projection operator inside):

    y_i = C_i P_i (sum_n s_in N_n + sum_j z_ij U_j) + noise,    s, z ~ N(0, 1)

The U_j are learned by expectation maximisation. The E step is projection matching of all maps (`section_moments`), the
M step back-projection of weighted residuals with a J x J system in every voxel (`backproject_moments`). The seven N_n
are the first-order effects of errors in contrast, shift and rotation on the consensus; they take up what would
otherwise pass for a structural difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from hpcsort.kernels import backproject_moments, complete_friedel, interleave, section_moments
from hpcsort.parallel import stream
from hpcsort.sort3d.store import Block, ParticleStore
from hpcsort.volumes import BandGrid

__all__ = [
    "NUISANCES",
    "SUBSPACE_ITERATIONS",
    "Subspace",
    "learn_subspace",
    "local_weight",
    "moments",
    "nuisance_maps",
    "unpack_lower",
]

NUISANCES = 7
"""Contrast, three shifts, three rotations."""

SUBSPACE_ITERATIONS = 12
_LOCAL_ITERATIONS = 7

_SMOOTHING = 1 / 32
"""Width (standard deviation) of the smoothing of local variances in units of the box edge."""
_NOISE_QUANTILE = 0.4
_NOISE_FACTOR = 1.2


@dataclass(frozen=True)
class Subspace:
    """Nuisance maps and learned maps, as Fourier volumes read by trilinear sections.

    Attributes
    ----------
    grid : grid of the volumes.
    fixed : complex64 (7, Fourier volume), nuisance maps scaled by their standard deviations.
    free : complex64 (J, Fourier volume), learned maps for latents of unit variance.
    focus : float32 (size, size, size), local weight of the learned maps, 0 to 1.
    spread : float64 (7,), standard deviations of the nuisances: contrast (fraction), shifts (grid voxels), rotations
        (radians).
    """

    grid: BandGrid
    fixed: np.ndarray
    free: np.ndarray
    focus: np.ndarray
    spread: np.ndarray

    @property
    def components(self) -> int:
        """Number J of learned maps."""
        return len(self.free)

    def volumes(self) -> np.ndarray:
        """Nuisance and learned maps interleaved for the kernels."""
        return interleave(np.concatenate([self.fixed, self.free]))


def nuisance_maps(grid: BandGrid, consensus: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """First-order effects of pose and contrast errors on a map, per unit error, float32 (7, size, size, size).

    Order: contrast (the map), shift along z, y, x in grid voxels (gradient), rotation about x, y, z in radians
    (r x gradient).
    """
    gradient = np.gradient(consensus)
    centre = grid.size // 2
    z, y, x = (axis.astype(np.float32) - centre for axis in np.indices(consensus.shape))
    dz, dy, dx = gradient
    turns = [y * dz - z * dy, z * dx - x * dz, x * dy - y * dx]
    return np.stack([consensus * mask, *(g * mask for g in gradient), *(t * mask for t in turns)]).astype(np.float32)


def unpack_lower(packed: np.ndarray, size: int) -> np.ndarray:
    """Symmetric matrices (n, size, size) float64 from packed lower triangles (n, size * (size + 1) / 2)."""
    rows, columns = np.tril_indices(size)
    full = np.empty((len(packed), size, size))
    full[:, rows, columns] = packed
    full[:, columns, rows] = packed
    return full


def moments(store: ParticleStore, volumes: np.ndarray, count: int, pad: int, rows: slice) -> tuple[np.ndarray, ...]:
    """Linear terms (n, count) and packed Gram matrices of ``count`` maps for local particles ``rows``, float64."""
    data = store.data.rows(rows)
    linear, gram = section_moments(volumes, count, data.images, data.ctfs, data.rotations, data.px, data.py, pad)
    return linear.astype(np.float64), gram.astype(np.float64)


def learn_subspace(
    store: ParticleStore,
    start: Subspace,
    components: int,
    prior: np.ndarray,
    *,
    seed: int,
    run: str,
    iterations: int = SUBSPACE_ITERATIONS,
    local_iterations: int = _LOCAL_ITERATIONS,
    step: Callable[[str], None] | None = None,
) -> Subspace:
    """Learn ``components`` maps from the residuals in ``store``. Collective; every rank gets the same subspace.

    Parameters
    ----------
    store : particles of this run; ``data`` holds whitened residuals.
    start : gives grid, nuisance maps and the mask in which differences are allowed (``focus``).
    components : number J of maps.
    prior : float64 (shells,), prior variance of a map's Fourier voxel in each shell.
    seed, run : key of the random start, independent of the ranks.
    iterations, local_iterations : EM iterations in all, and the last ones in which the local weights act. Few are
        better than many: the maximum of the likelihood overfits the run's own particles (benchmarks/accuracy.md).
    step : called with a note after each iteration.
    """
    grid = start.grid
    current = replace(start, free=np.zeros((0, *grid.fourier_shape), np.complex64))
    latent, covariance = _posteriors(store, current)
    # Drawn for all particles on every rank: the start must not depend on who owns which particle.
    draw = stream(seed, run, "latents").standard_normal((store.count, components))[store.positions]
    latent = np.concatenate([latent, draw], axis=1)
    covariance = np.pad(covariance, ((0, 0), (0, components), (0, components)))
    for iteration in range(iterations):
        numerator, weight = _backproject(store, grid, latent, covariance, components)
        local = iteration >= iterations - local_iterations
        result = None
        if store.comm.is_root:
            result = _solve_maps(current, numerator, weight, prior, start.focus, local)
        free, focus = store.comm.bcast(result)
        current = replace(current, free=free, focus=focus)
        latent, covariance = _posteriors(store, current)
        current, latent, covariance = _standardise(store, current, latent, covariance)
        if step is not None:
            step(f"{run}: subspace iteration {iteration + 1} of {iterations}")
    return current


def _posteriors(store: ParticleStore, subspace: Subspace) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means (n_local, T) and covariances (n_local, T, T) of all T latents."""
    total = NUISANCES + subspace.components
    volumes = subspace.volumes()
    means = np.empty((len(store.data), total))
    covariances = np.empty((len(store.data), total, total))
    for block in store.blocks():
        linear, gram = moments(store, volumes, total, subspace.grid.pad, block.local)
        precision = 2.0 * unpack_lower(gram, total) + np.eye(total)
        covariances[block.local] = np.linalg.inv(precision)
        means[block.local] = np.einsum("nab,nb->na", covariances[block.local], 2.0 * linear)
    return means, covariances


def _backproject(
    store: ParticleStore, grid: BandGrid, latent: np.ndarray, covariance: np.ndarray, components: int
) -> tuple[np.ndarray, np.ndarray]:
    """M step sums: numerators (J, ...) and weights (pairs, ...) over voxels; pairs as in `_pairs`."""
    rows, columns = _pairs(components)
    depth = -(-(2 * components + len(rows)) // 16) * 16
    shape = (*grid.fourier_shape, depth)
    second = latent[:, rows] * latent[:, columns] + covariance[:, rows, columns]
    peak = max(store.largest(latent), store.largest(second), 1.0)
    bound = 8.0 * store.count * peak * (store.largest(store.data.images) + store.largest(store.data.ctfs) + 1.0) ** 2
    z = np.ascontiguousarray(latent[:, NUISANCES:], np.float32)
    q = np.ascontiguousarray(second, np.float32)

    def fill(block: Block, out: np.ndarray) -> None:
        data = store.data.rows(block.local)
        backproject_moments(
            data.images, data.ctfs, data.rotations, z[block.local], q[block.local], data.px, data.py, grid.pad, out
        )

    sums = np.moveaxis(store.sum_blocks(shape, bound, fill), -1, 0)
    numerator = sums[:components] + 1j * sums[components : 2 * components]
    weight = np.ascontiguousarray(sums[2 * components : 2 * components + len(rows)])
    for volume in numerator:
        complete_friedel(volume, hermitian=True)
    for volume in weight:
        complete_friedel(volume, hermitian=False)
    return numerator, weight


def _pairs(components: int) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs of second moments: free with free (lower triangle), then free with fixed."""
    rows, columns = np.tril_indices(components)
    free_fixed = np.indices((components, NUISANCES)).reshape(2, -1)
    return (
        np.concatenate([rows + NUISANCES, free_fixed[0] + NUISANCES]),
        np.concatenate([columns + NUISANCES, free_fixed[1]]),
    )


def _solve_maps(
    current: Subspace, numerator: np.ndarray, weight: np.ndarray, prior: np.ndarray, mask: np.ndarray, local: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the J x J system of every voxel, then weight the maps locally; returns maps and local weight."""
    grid = current.grid
    components = len(numerator)
    inside = grid.support
    packed = weight[:, inside].T
    pairs = components * (components + 1) // 2
    system = unpack_lower(packed[:, :pairs], components)
    cross = packed[:, pairs:].reshape(-1, components, NUISANCES)
    right = numerator[:, inside].T - np.einsum("bjn,nb->bj", cross, current.fixed[:, inside])
    system[:, np.arange(components), np.arange(components)] += 1.0 / grid.shell_fill(prior)[inside][:, None]
    free = np.zeros((components, *grid.fourier_shape), np.complex64)
    free[:, inside] = np.linalg.solve(system, right[..., None])[..., 0].T
    real = grid.to_real(free, corrected=False)
    focus = np.asarray(mask * local_weight(grid, real, mask) if local else mask, np.float32)
    return grid.to_fourier(real * focus, corrected=False), focus


def local_weight(grid: BandGrid, maps: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share of the maps' smoothed local variance that exceeds the noise, 0 to 1: an automatic focus mask.

    Structural differences fill a small part of the box, so the lower quartiles of the local variance inside the mask
    are noise. (The variance that the weights predict does not serve: EM shrinks the maps' noise below it.)

    Parameters
    ----------
    maps : float32 (J, size, size, size), differences.
    mask : float32 (size, size, size); the noise is measured where it is above one half.
    """
    smoothed = gaussian_filter((maps.astype(np.float64) ** 2).sum(axis=0), _SMOOTHING * grid.size)
    noise = _NOISE_FACTOR * np.quantile(smoothed[mask > 0.5], _NOISE_QUANTILE)
    return np.asarray(np.maximum(smoothed - noise, 0.0) / np.maximum(smoothed, 1e-30), np.float32)


def _standardise(
    store: ParticleStore, subspace: Subspace, latent: np.ndarray, covariance: np.ndarray
) -> tuple[Subspace, np.ndarray, np.ndarray]:
    """Rescale and rotate the latents to unit covariance (and the maps inversely), ordered by the maps' power."""
    free_latent = latent[:, NUISANCES:]
    second = covariance[:, NUISANCES:, NUISANCES:] + np.einsum("ni,nj->nij", free_latent, free_latent)
    scatter = store.total(second) / max(store.count, 1)
    factor = np.linalg.cholesky(scatter + 1e-9 * np.eye(len(scatter)))
    mixed = np.tensordot(factor.T, subspace.free, axes=1)
    weighted = mixed.reshape(len(mixed), -1) * np.sqrt(subspace.grid.multiplicity.ravel())
    gram = (weighted @ weighted.conj().T).real
    values, vectors = np.linalg.eigh(gram)
    vectors = vectors[:, np.argsort(values)[::-1]]
    vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(vectors))] < 0, -1.0, 1.0)
    transform = np.eye(NUISANCES + len(factor))
    transform[NUISANCES:, NUISANCES:] = vectors.T @ np.linalg.inv(factor)
    free = np.tensordot(vectors.T, mixed, axes=1).astype(np.complex64)
    return (
        replace(subspace, free=free),
        latent @ transform.T,
        np.einsum("ab,nbc,dc->nad", transform, covariance, transform, optimize=True),
    )
