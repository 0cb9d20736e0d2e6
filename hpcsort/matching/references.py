"""Reference maps: read and checked on the master, then as Fourier volumes once per node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcsort.errors import InputError
from hpcsort.io import read_any_map
from hpcsort.kernels import extract_sections
from hpcsort.parallel import Communicator, NodeArray
from hpcsort.volumes import BandGrid, good_even_size, resample_map, soft_sphere

__all__ = ["References", "read_reference", "share_references"]

_PAD = 2
_EDGE = 0.04
_SAME = 0.01
_UNKNOWN_VOXELS_A = (0.0, 1.0)


@dataclass(frozen=True)
class References:
    """K reference maps in Fourier space.

    Attributes
    ----------
    grid : grid of the volumes.
    volumes : complex64 (K, 4, Fourier volume): the map, and the map times x, y, z in units of the box edge (corrected
        for interpolation); from the latter follows the gradient of the transform.
    diameter : diameter of a sphere with the radius of gyration of the mean map, in units of the box edge.
    """

    grid: BandGrid
    volumes: np.ndarray
    diameter: float

    def __len__(self) -> int:
        return len(self.volumes)

    def sections(self, number: int, rotations: np.ndarray, px: np.ndarray, py: np.ndarray) -> np.ndarray:
        """Sections of one map at rotations (..., 3, 3), complex64 (..., P)."""
        flat = np.ascontiguousarray(rotations.reshape(-1, 3, 3), np.float32)
        return extract_sections(self.volumes[number, 0], flat, px, py, self.grid.pad).reshape(
            *rotations.shape[:-2], px.size
        )

    def gradients(self, number: int, rotations: np.ndarray, px: np.ndarray, py: np.ndarray) -> np.ndarray:
        """Gradients of one map's transform at the points of sections, by (kx, ky, kz) of the volume.

        Returns
        -------
        complex64 (3, n, P), per Fourier pixel, still to be multiplied by -2 pi i.
        """
        flat = np.ascontiguousarray(rotations, np.float32)
        return np.stack(
            [extract_sections(self.volumes[number, 1 + axis], flat, px, py, self.grid.pad) for axis in range(3)]
        )


def read_reference(path: Path, box_px: int, pixel_A: float) -> np.ndarray:
    """Read a map and bring it into the box of the particles, at any sampling.

    Returns
    -------
    float32 (n, n, n), centre at ``n // 2``, whose edge is that of the particles' box.

    Raises
    ------
    InputError
        If it is no cubic map, has values that are not finite or all equal, or neither its voxels nor its edge fit.
    """
    data, stated_A = read_any_map(path)
    if len(set(data.shape)) != 1 or data.shape[0] < 2:
        size = " x ".join(str(edge) for edge in reversed(data.shape))
        raise InputError(f"reference {path} has {size} voxels but a cubic map is needed; pad it to a cube")
    bad = int(np.count_nonzero(~np.isfinite(data)))
    if bad:
        raise InputError(f"reference {path} has {bad} voxels that are NaN or infinite; make the map again")
    if np.ptp(data) == 0:
        raise InputError(f"reference {path} is constant ({data.flat[0]:g} everywhere); give a map of the particle")
    edge = len(data)
    voxel_A = pixel_A if stated_A in _UNKNOWN_VOXELS_A else stated_A
    if abs(voxel_A - pixel_A) <= _SAME * pixel_A:
        return _boxed(data, box_px)
    if abs(edge * voxel_A - box_px * pixel_A) <= _SAME * box_px * pixel_A:
        return data
    raise InputError(
        f"reference {path} has {edge} voxels of {voxel_A:.5g} A but the images have {box_px} px of {pixel_A:.5g} A;"
        " resample the map to the same pixel size or box edge, or correct the voxel size in its header"
    )


def share_references(
    comm: Communicator, maps: Sequence[np.ndarray], radius: int, mask_radius: float, box: int
) -> tuple[References, NodeArray]:
    """Mask the maps, transform them on the master, and give them to all nodes. Collective.

    Parameters
    ----------
    maps : on the master, float32 (n, n, n) each, of the same box; elsewhere ignored.
    radius : band limit in Fourier pixels.
    mask_radius : of a soft sphere, in units of the box edge.
    box : edge of the images in px; a map of the same sampling whose projections are the images has amplitude 1.

    Returns
    -------
    The references, and the shared array under them, which is to be freed after use.
    """
    count = comm.bcast(len(maps))
    # twice the band is all that is needed; the rest keeps the mask's edge smooth
    grid = BandGrid(good_even_size(int(np.ceil(2.5 * radius)) + 2), radius, _PAD)
    shared = comm.shared_array((count, 4, *grid.fourier_shape), np.complex64)
    diameter = 0.0
    if comm.is_root:
        mask = soft_sphere(grid.distance, mask_radius - _EDGE, _EDGE)
        # a projection at another sampling sums fewer voxels
        mask *= np.float32((box / grid.size) ** 2)
        masked = [_levelled(resample_map(data, grid.size), mask) * mask for data in maps]
        axis = (np.arange(grid.size, dtype=np.float32) - grid.size // 2) / grid.size
        for number, data in enumerate(masked):
            moments = [data, data * axis, data * axis[:, None], data * axis[:, None, None]]
            shared.writable[number] = grid.to_fourier(np.stack(moments))
        diameter = _diameter(np.mean(masked, axis=0), grid)
    shared.publish()
    return References(grid, shared.array, float(comm.bcast(diameter))), shared


def _levelled(density: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Set the solvent at the mask's edge to 0: a constant under the mask would be a sphere."""
    edge = (mask > 0) & (mask < mask.max())
    return np.asarray(density - (np.median(density[edge]) if edge.any() else 0.0), np.float32)


def _boxed(data: np.ndarray, box: int) -> np.ndarray:
    """Pad with zeros or crop about the centre at n // 2."""
    size = len(data)
    if size == box:
        return data
    out = np.zeros((box,) * 3, np.float32)
    low = box // 2 - size // 2
    source = slice(max(0, -low), max(0, -low) + min(size, box))
    target = slice(max(0, low), max(0, low) + min(size, box))
    out[target, target, target] = data[source, source, source]
    return out


def _diameter(density: np.ndarray, grid: BandGrid) -> float:
    positive = np.maximum(density, 0.0)
    squared = float((positive * grid.distance**2).sum() / max(float(positive.sum()), 1e-30))
    return float(np.clip(2.0 * np.sqrt(5.0 / 3.0 * squared), 0.1, 1.0))
