"""How half Fourier volumes lie in memory: their size, and many of them interleaved voxel by voxel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcsort.kernels._backend import implementation
from hpcsort.kernels._checks import check_array, check_half_volume, check_output

_CACHE_LINE_BYTES = 64


def half_width(radius: float, pad: float) -> int:
    """Return h, the half-width in voxels of a half volume that holds the band of `radius` pixels at padding `pad`.

    A half volume has shape (2h+1, 2h+1, h+1) as [z, y, x]; frequency (x, y, z), in voxels of the padded transform,
    is at index [z + h, y + h, x]. The margin of one voxel keeps all eight corners of a point inside.
    """
    return math.ceil(pad * radius) + 1


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an uninitialised C-contiguous array that starts on a 64-byte cache line.

    A voxel of eight interleaved maps is one cache line; a base that is not aligned makes it two.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _CACHE_LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


def lane_count(count: int) -> int:
    """Return the lanes L that `interleave` uses for `count` maps: 4 up to four maps, else a multiple of 8."""
    return 4 if count <= 4 else -(-count // 8) * 8


def interleave(volumes: NDArray[np.complex64], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Lay K half volumes side by side in every voxel.

    Parameters
    ----------
    volumes : complex64 (K, 2h+1, 2h+1, h+1)
        Half Fourier volumes as [map, z, y, x], centred.
    out : float32 (2h+1, 2h+1, h+1, 2, L), optional
        Receives the result, for example in a node-shared window; should start on a 64-byte boundary.

    Returns
    -------
    float32 (2h+1, 2h+1, h+1, 2, L)
        Real parts at [..., 0, k], imaginary parts at [..., 1, k]; lanes k >= K are zero. L is `lane_count`.

    Raises
    ------
    ValueError
        For wrong shapes or dtypes.
    """
    check_array("volumes", volumes, np.complex64, (None, None, None, None))
    check_half_volume("volumes", volumes.shape[1:])
    shape = (*volumes.shape[1:], 2, lane_count(volumes.shape[0]))
    if out is None:
        out = aligned_empty(shape, np.float32)
    check_output("out", out, np.float32, shape)
    implementation.interleave(volumes, out)
    return out
