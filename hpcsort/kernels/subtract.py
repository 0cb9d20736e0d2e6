"""Residuals of particles after taking away their fitted sections."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcsort.kernels._backend import implementation
from hpcsort.kernels._checks import check_array, check_geometry, check_interleaved, check_particles, prepare_output

_Float = NDArray[np.float32]
_Complex = NDArray[np.complex64]


def subtract_sections(
    interleaved: _Float,
    count: int,
    coefficients: _Float,
    images: _Complex,
    ctfs: _Float,
    rotations: _Float,
    px: _Float,
    py: _Float,
    pad: float,
    out: _Complex | None = None,
) -> _Complex:
    """Subtract from every particle its combination of the maps' sections.

    Parameters
    ----------
    interleaved : float32 (2h+1, 2h+1, h+1, 2, L)
        Maps as laid out by `interleave`.
    count : int
        Number of maps J among the L lanes.
    coefficients : float32 (n, J)
        Coefficient of each map for each particle.
    images, ctfs, rotations, px, py, pad
        As in `score_sections`.
    out : complex64 (n, P), optional
        Receives the result; may be `images` itself.

    Returns
    -------
    complex64 (n, P)
        ``y - c * sum_j coefficient_j P_j``.

    Raises
    ------
    ValueError
        For wrong shapes, dtypes, or points outside the volumes.
    """
    half = check_interleaved(interleaved, count)
    n, pixels = check_geometry(rotations, px, py, pad, half)
    check_particles(images, ctfs, n, pixels)
    check_array("coefficients", coefficients, np.float32, (n, count))
    out = prepare_output("out", out, np.complex64, (n, pixels))
    implementation.subtract_sections(interleaved, count, coefficients, images, ctfs, rotations, px, py, pad, out)
    return out
