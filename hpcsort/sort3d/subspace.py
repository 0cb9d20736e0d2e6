"""The linear subspace of structural differences at fixed poses.

Model of a particle's residual (probabilistic PCA, Tipping & Bishop 1999, with the projection operator inside):

    y_i = C_i P_i (sum_n s_in N_n + sum_j z_ij U_j) + noise,    s, z ~ N(0, 1)

The U_j are learned (`learning.py`). The seven N_n are the first-order effects of errors in contrast, shift and
rotation on the consensus; they take up what would otherwise pass for a structural difference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import fftfreq, irfftn, rfftfreq, rfftn
from scipy.ndimage import gaussian_filter

from hpcsort.images import Seen
from hpcsort.kernels import interleave, section_moments
from hpcsort.sort3d.store import ParticleStore
from hpcsort.volumes import BandGrid

__all__ = [
    "NUISANCES",
    "Subspace",
    "local_weight",
    "moments",
    "nuisance_maps",
    "second_order_map",
    "seen_moments",
    "unpack_lower",
]

NUISANCES = 7
"""Contrast, three shifts, three rotations."""

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
    region : float32 (size, size, size), where the noise of the maps is measured: the particle, even where differences
        are allowed in a part of it only.
    spread : float64 (7,), standard deviations of the nuisances: contrast (fraction), shifts (px of the full box),
        rotations (radians).
    """

    grid: BandGrid
    fixed: np.ndarray
    free: np.ndarray
    focus: np.ndarray
    region: np.ndarray
    spread: np.ndarray

    @property
    def components(self) -> int:
        """Number J of learned maps."""
        return len(self.free)

    def leading(self, components: int) -> Subspace:
        """Return the same subspace with its first maps only."""
        return replace(self, free=self.free[:components])

    def volumes(self) -> np.ndarray:
        """Nuisance and learned maps interleaved for the kernels."""
        return interleave(np.concatenate([self.fixed, self.free]))


def nuisance_maps(grid: BandGrid, consensus: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """First-order effects of pose and contrast errors on a map, per unit error, float32 (7, size, size, size).

    Order: contrast (the map), shift along z, y, x in grid voxels (gradient), rotation about x, y, z in radians
    (r x gradient).
    """
    gradient = _gradient(consensus)
    centre = grid.size // 2
    z, y, x = (axis.astype(np.float32) - centre for axis in np.indices(consensus.shape))
    dz, dy, dx = gradient
    turns = [y * dz - z * dy, z * dx - x * dz, x * dy - y * dx]
    return np.stack([consensus * mask, *(g * mask for g in gradient), *(t * mask for t in turns)]).astype(np.float32)


def _gradient(volume: np.ndarray) -> list[np.ndarray]:
    """Differentiate along z, y, x per voxel, exactly for a band-limited map: differences lose half near the edge."""
    spectrum = rfftn(volume)
    frequencies = [fftfreq(volume.shape[0]), fftfreq(volume.shape[1]), rfftfreq(volume.shape[2])]
    found = []
    for axis, frequency in enumerate(frequencies):
        shape = [1, 1, 1]
        shape[axis] = -1
        # The derivative of the Nyquist frequency has no phase.
        factor = np.where(np.abs(frequency) == 0.5, 0.0, 2j * np.pi * frequency).reshape(shape)
        found.append(irfftn(spectrum * factor, s=volume.shape))
    return found


def second_order_map(grid: BandGrid, fixed: np.ndarray, mask: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Mean second-order effect of errors in shift and rotation, complex64 Fourier volume.

    S = 1/2 sum_n sigma_n^2 D_n D_n V0, with D_n the first-order effects of `nuisance_maps`. The nuisances are
    integrated out to first order only; this is the size of what is left, and of classes a sort could make of it.

    Parameters
    ----------
    fixed : complex64 (7, Fourier volume), nuisance maps scaled by their standard deviations.
    spread : float64 (7,), these deviations; shifts in voxels of the grid.
    """
    # D_n V0 comes scaled by sigma_n, so one more factor sigma_n is due.
    first = grid.to_real(fixed, corrected=False)
    second = np.zeros_like(first[0])
    for index in range(1, NUISANCES):
        second += 0.5 * spread[index] * nuisance_maps(grid, first[index], mask)[index]
    return np.asarray(grid.to_fourier(second[None], corrected=False)[0])


def unpack_lower(packed: np.ndarray, size: int) -> np.ndarray:
    """Symmetric matrices (n, size, size) float64 from packed lower triangles (n, size * (size + 1) / 2)."""
    rows, columns = np.tril_indices(size)
    full = np.empty((len(packed), size, size))
    full[:, rows, columns] = packed
    full[:, columns, rows] = packed
    return full


def moments(
    store: ParticleStore, volumes: np.ndarray, count: int, pad: int, rows: slice | np.ndarray
) -> tuple[np.ndarray, ...]:
    """Linear terms (n, count) and packed Gram matrices of ``count`` maps for local particles ``rows``, float32.

    Of a particle with several poses they are the expected ones.
    """
    seen = store.data.seen(rows)
    linear, gram = seen_moments(seen, volumes, count, pad)
    return seen.expected(linear), seen.expected(gram)


def seen_moments(seen: Seen, volumes: np.ndarray, count: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear terms (v, count) and packed Gram matrices of ``count`` maps for every pose, float32."""
    data = seen.source
    return section_moments(
        volumes, count, data.images, data.ctfs, data.rotations, data.px, data.py, pad, rows=seen.rows
    )


def local_weight(grid: BandGrid, maps: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Share of the maps' smoothed local variance that exceeds the noise, 0 to 1: an automatic focus mask.

    Structural differences fill a small part of the box, so the lower quartiles of the local variance inside the mask
    are noise. (The variance that the weights predict does not serve: EM shrinks the maps' noise below it.)

    Parameters
    ----------
    maps : float32 (J, size, size, size), differences.
    region : float32 (size, size, size); the noise is measured where it is above one half.
    """
    smoothed = gaussian_filter((maps.astype(np.float64) ** 2).sum(axis=0), _SMOOTHING * grid.size)
    noise = _NOISE_FACTOR * np.quantile(smoothed[region > 0.5], _NOISE_QUANTILE)
    return np.asarray(np.maximum(smoothed - noise, 0.0) / np.maximum(smoothed, 1e-30), np.float32)
