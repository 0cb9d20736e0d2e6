"""Central sections of one volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcsort.kernels._backend import implementation
from hpcsort.kernels._checks import check_array, check_geometry, check_half_volume, prepare_output


def extract_sections(
    volume: NDArray[np.complex64],
    rotations: NDArray[np.float32],
    px: NDArray[np.float32],
    py: NDArray[np.float32],
    pad: float,
    out: NDArray[np.complex64] | None = None,
) -> NDArray[np.complex64]:
    """Interpolate central sections of a half Fourier volume.

    Parameters
    ----------
    volume : complex64 (2h+1, 2h+1, h+1)
        Half volume [z, y, x], centred, already divided by the interpolation's sinc^2 in real space.
    rotations : float32 (n, 3, 3)
        A with view (x, y, z) = A @ volume (x, y, z).
    px, py : float32 (P,)
        Integer frequencies of the half plane's pixels, DC excluded.
    pad : float
        Padding of the volume: voxels per image frequency, at least 1.
    out : complex64 (n, P), optional
        Receives the result.

    Returns
    -------
    complex64 (n, P)
        Trilinear values at the points ``pad * (A[0] * px + A[1] * py)``.

    Raises
    ------
    ValueError
        For wrong shapes, dtypes, or points outside the volume.
    """
    check_array("volume", volume, np.complex64, (None, None, None))
    half = check_half_volume("volume", volume.shape)
    shape = check_geometry(rotations, px, py, pad, half)
    out = prepare_output("out", out, np.complex64, shape)
    implementation.extract_sections(volume, rotations, px, py, pad, out)
    return out
