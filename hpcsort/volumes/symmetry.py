"""Maps and point groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

__all__ = ["symmetrise_map"]


def symmetrise_map(volume: np.ndarray, operators: npt.ArrayLike) -> np.ndarray:
    """Mean of a map over the operators of a point group, by cubic splines; zero is assumed outside the box.

    Parameters
    ----------
    volume : float32 (n, n, n), [z, y, x], centre at voxel ``n // 2``.
    operators : float (g, 3, 3), rotations of (x, y, z) about the centre; a group, so that the order and whether they or
        their inverses are applied does not matter.

    Returns
    -------
    float32 (n, n, n).
    """
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise ValueError(f"a map of shape {volume.shape} is not a cube")
    centre = np.full(3, len(volume) // 2, np.float64)
    spline = scipy.ndimage.spline_filter(np.asarray(volume, np.float64), order=3)
    total = np.zeros(volume.shape)
    group = np.asarray(operators, np.float64).reshape(-1, 3, 3)
    for operator in group:
        # The output at z, y, x reads the input at the turned place.
        turn = operator[::-1, ::-1]
        total += scipy.ndimage.affine_transform(spline, turn, centre - turn @ centre, order=3, prefilter=False)
    return np.asarray(total / len(group), np.float32)
