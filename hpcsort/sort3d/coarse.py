"""A subspace in a narrower band, in which its learning begins: fewer pixels, and no detail yet to get lost in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import Subspace
from hpcsort.volumes import BandGrid, good_even_size, resample_map

__all__ = ["coarse_radius", "coarser", "refined", "sorting_grid"]

_SHARE, _LEAST = 0.6, 6


def sorting_grid(radius: int) -> BandGrid:
    """Grid of maps up to ``radius``: wide enough for products of two maps to be cut off without wrapping around."""
    return BandGrid(good_even_size(int(np.ceil(2.5 * radius)) + 2), radius)


def coarse_radius(radius: int) -> int:
    """Band limit in Fourier pixels in which the learning of a band up to ``radius`` begins."""
    return min(radius, max(_LEAST, round(_SHARE * radius)))


def coarser(store: ParticleStore, start: Subspace) -> tuple[ParticleStore, Subspace]:
    """Crop particles, and a subspace without learned maps, to the band in which learning begins."""
    grid = sorting_grid(coarse_radius(start.grid.radius))
    inner, half = grid.half, start.grid.half
    cut = slice(half - inner, half + inner + 1)
    fixed = (start.fixed[:, cut, cut, : inner + 1] * grid.support).astype(np.complex64)
    focus, region = (
        np.clip(resample_map(mask, grid.size), 0.0, 1.0).astype(np.float32) for mask in (start.focus, start.region)
    )
    free = np.zeros((0, *grid.fourier_shape), np.complex64)
    cropped = store.with_data(store.data.cropped(grid.radius))
    return cropped, Subspace(grid, fixed, free, focus, region, start.spread)


def refined(current: Subspace, start: Subspace) -> Subspace:
    """Return a subspace on the grid of ``start``, its learned maps zero outside their band."""
    return replace(
        start,
        fixed=(start.fixed * (current.spread / start.spread)[:, None, None, None]).astype(np.complex64),
        free=start.grid.embed(current.free, current.grid),
        spread=current.spread,
    )
