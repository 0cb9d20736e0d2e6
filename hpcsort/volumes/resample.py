"""Masks as users give them, and maps at another sampling of the same box."""

from __future__ import annotations

import os

import numpy as np
import scipy.signal

from hpcsort.errors import InputError
from hpcsort.io import read_map

__all__ = ["read_mask", "resample_map"]

_TOLERANCE = 1e-3
_VOXEL_TOLERANCE = 0.01
# Some programs write 1 where they do not know the voxel size.
_UNKNOWN_VOXELS_A = (0.0, 1.0)


def read_mask(path: str | os.PathLike[str], box: int, voxel_A: float) -> np.ndarray:
    """Read a mask that belongs to particles of a box.

    Parameters
    ----------
    path : MRC file of a map (z, y, x), centre at ``box // 2``; 1 inside the mask, 0 outside, anything between at the
        edge.
    box : edge of the images in pixels.
    voxel_A : pixel size of the images; a voxel size of 0 or 1 in the mask's header counts as not stated.

    Returns
    -------
    float32 (box, box, box), values in [0, 1].

    Raises
    ------
    InputError
        If the file is no map of this size and sampling, has values that are NaN or outside 0 to 1, or is empty.
    """
    data, stated_A = read_map(path)
    if data.shape != (box,) * 3:
        size = " x ".join(str(edge) for edge in reversed(data.shape))
        raise InputError(
            f"mask {path} has {size} voxels but the images have {box} px; crop or pad it to {box} x {box} x {box}"
        )
    if stated_A not in _UNKNOWN_VOXELS_A and abs(stated_A - voxel_A) > _VOXEL_TOLERANCE * voxel_A:
        raise InputError(
            f"mask {path} has voxels of {stated_A:.5g} A but the images have pixels of {voxel_A:.5g} A;"
            " resample the mask, or correct the voxel size in its header"
        )
    bad = int(np.count_nonzero(~np.isfinite(data)))
    if bad:
        raise InputError(f"mask {path} has {bad} voxels that are NaN or infinite; make the mask again")
    low, high = float(data.min()), float(data.max())
    if low < -_TOLERANCE or high > 1.0 + _TOLERANCE:
        raise InputError(
            f"mask {path} has values from {low:.4g} to {high:.4g} where 0 (outside) to 1 (inside) is needed;"
            " scale or threshold it"
        )
    if high <= 0.5:
        raise InputError(
            f"mask {path} is empty: its largest value is {high:.4g} where the inside is 1; make the mask again"
        )
    return np.clip(data, 0.0, 1.0, out=data)


def resample_map(volume: np.ndarray, size: int) -> np.ndarray:
    """Sample a map of the same box on another number of voxels, by cropping or padding its Fourier transform.

    Values are kept: a constant stays the constant, and a map without detail beyond the coarser grid's band is the
    same function at other points. Sharp edges ring, so that a mask may leave [0, 1] a little.

    Parameters
    ----------
    volume : float32 (n, n, n), centre at ``n // 2``.
    size : edge of the result, centre at ``size // 2``.

    Returns
    -------
    float32 (size, size, size).
    """
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise ValueError(f"a map of shape {volume.shape} is not a cube")
    if size < 1:
        raise ValueError(f"a map has at least one voxel along its edge, not {size}")
    result = np.fft.ifftshift(np.asarray(volume, np.float32))
    if size != len(volume):
        for axis in range(3):
            result = scipy.signal.resample(result, size, axis=axis)
    return np.ascontiguousarray(np.fft.fftshift(result), np.float32)
