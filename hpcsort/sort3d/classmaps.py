"""Class maps as differences from the consensus, shrunk by their spectral prior and by their local variance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hpcsort.parallel import Communicator
from hpcsort.sort3d.subspace import Subspace, local_weight
from hpcsort.volumes import BandGrid

__all__ = ["ClassMaps", "leverage_ratio", "maps_from_centres", "share_maps", "shrink_classes"]


@dataclass(frozen=True)
class ClassMaps:
    """Difference maps of K classes.

    Attributes
    ----------
    grid : grid of the volumes.
    fixed : complex64 (7, Fourier volume), nuisance maps.
    contrast : standard deviation of the contrast for which its nuisance map is scaled.
    volumes : complex64 (K, Fourier volume), differences from the consensus before `scale`, read by sections.
    scale : float64 (K,), factors of the volumes (`finish.py` finds them).
    ridge : float32 (K, Fourier volume), 1 / (weight + 1 / prior).
    leverage : factor of the ridge for the local weight and the interpolation (`leverage_ratio`).
    prior : float64 (shells,), prior variance of the differences' Fourier voxels.
    mask, region : float32 (size, size, size), where differences are allowed, and where their noise is measured.
    focus : float32 (size, size, size), local weight of the last estimate.
    """

    grid: BandGrid
    fixed: np.ndarray
    contrast: float
    volumes: np.ndarray
    scale: np.ndarray
    ridge: np.ndarray
    leverage: float
    prior: np.ndarray
    mask: np.ndarray
    region: np.ndarray
    focus: np.ndarray

    @property
    def classes(self) -> int:
        """Number K of classes."""
        return len(self.volumes)


def maps_from_centres(
    subspace: Subspace,
    centres: np.ndarray,
    grid: BandGrid,
    fixed: np.ndarray,
    prior: np.ndarray,
    mask: np.ndarray,
    region: np.ndarray,
) -> ClassMaps:
    """Difference maps of points (K, J) of a subspace, for a loop on a wider ``grid``.

    They are weighted sums of all particles, so nobody's own contribution stands out and the leverage is zero.
    ``fixed`` are the nuisance maps of that grid, scaled by the subspace's spread.
    """
    volumes = np.tensordot(centres, subspace.free, axes=1).astype(np.complex64)
    wide = grid.embed(volumes, subspace.grid)
    ridge = np.zeros(wide.shape, np.float32)
    contrast = float(subspace.spread[0])
    return ClassMaps(grid, fixed, contrast, wide, np.ones(len(centres)), ridge, 0.0, prior, mask, region, mask)


def shrink_classes(maps: ClassMaps, numerator: np.ndarray, weight: np.ndarray) -> ClassMaps:
    """Make maps from back-projected sums: ridge by the prior, then local weights by the variance across classes.

    Parameters
    ----------
    maps : the last maps; grid, prior and mask are used.
    numerator, weight : (K, Fourier volume), sums of t C y and t C^2 over particles times their shares.
    """
    grid = maps.grid
    ridge = np.where(grid.support, 1.0 / (weight + 1.0 / grid.shell_fill(maps.prior)), 0.0)
    real = grid.to_real((numerator * ridge).astype(np.complex64), corrected=False)
    focus = maps.mask * local_weight(grid, real, maps.region)
    volumes = grid.to_fourier(real * focus, corrected=False)
    return replace(
        maps,
        volumes=volumes,
        scale=np.ones(len(volumes)),
        ridge=ridge.astype(np.float32),
        leverage=leverage_ratio(grid, focus),
        focus=focus,
    )


def share_maps(comm: Communicator, maps: ClassMaps, new: ClassMaps | None, root: int) -> ClassMaps:
    """Give all ranks the ``new`` maps of one of them, once per node; the others hold the last ``maps``. Collective."""
    scale, leverage = comm.bcast(None if new is None else (new.scale, new.leverage), root=root)
    return replace(
        maps,
        volumes=comm.share(None if new is None else new.volumes, root),
        ridge=comm.share(None if new is None else new.ridge, root),
        focus=comm.share(None if new is None else new.focus, root),
        scale=scale,
        leverage=leverage,
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
