"""Maps at another sampling of the same box."""

from __future__ import annotations

import numpy as np
import scipy.signal

__all__ = ["resample_map"]


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
