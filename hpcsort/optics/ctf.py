"""Contrast transfer function in RELION's convention."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_ROWS_PER_BLOCK = 64


def electron_wavelength_A(voltage_kV: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Relativistic wavelength of electrons.

    Parameters
    ----------
    voltage_kV : array_like
        Acceleration voltage in kV.

    Returns
    -------
    ndarray, float64
        Wavelength in Angstrom, of the argument's shape (12.2643247 / sqrt(V + 0.978466e-6 V^2), V in volts).
    """
    volts = np.asarray(voltage_kV, dtype=np.float64) * 1e3
    return np.asarray(12.2643247 / np.sqrt(volts * (1.0 + volts * 0.978466e-6)))


def ctf(
    px: npt.ArrayLike,
    py: npt.ArrayLike,
    box_px: int,
    pixel_size_A: npt.ArrayLike,
    defocus_u_A: npt.ArrayLike,
    defocus_v_A: npt.ArrayLike,
    defocus_angle_deg: npt.ArrayLike,
    voltage_kV: npt.ArrayLike,
    cs_mm: npt.ArrayLike,
    amplitude_contrast: npt.ArrayLike,
    phase_shift_deg: npt.ArrayLike = 0.0,
    bfactor_A2: npt.ArrayLike = 0.0,
    scale: npt.ArrayLike = 1.0,
) -> npt.NDArray[np.float32]:
    """CTF of particles at given pixels of the transform.

    ``scale exp(-B s^2 / 4) sin(pi lambda d s^2 - pi/2 Cs lambda^3 s^4 + asin(Q) + phase shift)`` with the defocus
    ``d = (u + v) / 2 + (u - v) / 2 cos 2(theta - angle)``: positive at low frequency, density white in images whose
    CTF is corrected (RELION's sign; Rohou and Grigorieff, J. Struct. Biol. 192 (2015) 216, with the sign changed).

    Parameters
    ----------
    px, py : array_like, shape (P,)
        Coordinates of the pixels, counted from the centre of the transform; x is the fast axis of the image.
    box_px : int
        Edge of the (square) image in pixels.
    pixel_size_A : array_like, shape (n,) or scalar
        Size of a pixel in Angstrom.
    defocus_u_A, defocus_v_A, defocus_angle_deg : array_like, shape (n,) or scalar
        Underfocus along and across the astigmatism axis in Angstrom, and the axis in degrees from x towards y.
    voltage_kV, cs_mm, amplitude_contrast : array_like, shape (n,) or scalar
        Microscope: kV, mm, fraction 0 to 1.
    phase_shift_deg, bfactor_A2, scale : array_like, shape (n,) or scalar
        Phase plate in degrees, B-factor in square Angstrom, factor of the whole.

    Returns
    -------
    ndarray, shape (n, P), float32
        One row per particle; n is 1 if all parameters are scalars.
    """
    x, y = (np.asarray(p, dtype=np.float64).reshape(-1) for p in (px, py))
    pixel, u, v, angle, volts, cs, contrast, phase, bfactor, factor = np.broadcast_arrays(
        *(
            np.atleast_1d(np.asarray(p, dtype=np.float64))
            for p in (
                pixel_size_A,
                defocus_u_A,
                defocus_v_A,
                defocus_angle_deg,
                voltage_kV,
                cs_mm,
                amplitude_contrast,
                phase_shift_deg,
                bfactor_A2,
                scale,
            )
        )
    )
    wavelength = electron_wavelength_A(volts)
    per_px2 = 1.0 / (box_px * pixel) ** 2
    twice = 2.0 * np.deg2rad(angle)
    # s^2 cos 2(theta - a) = (x^2 - y^2) cos 2a + 2xy sin 2a: no arctangent, and nothing special at the origin
    terms = np.stack([x**2 + y**2, x**2 - y**2, 2.0 * x * y, (x**2 + y**2) ** 2])
    stretch = np.pi * wavelength * per_px2 * (u - v) / 2.0
    weights = np.stack(
        [
            np.pi * wavelength * per_px2 * (u + v) / 2.0,
            stretch * np.cos(twice),
            stretch * np.sin(twice),
            -np.pi / 2.0 * cs * 1e7 * wavelength**3 * per_px2**2,
        ],
        axis=1,
    )
    offset = np.arcsin(contrast) + np.deg2rad(phase)
    result = np.empty((len(pixel), x.size), dtype=np.float32)
    for start in range(0, len(pixel), _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        w = weights[rows, :, None]
        # sums by element, not a matrix product: the bits of a row must not depend on how many rows come with it
        phase_rad = w[:, 0] * terms[0] + w[:, 1] * terms[1] + w[:, 2] * terms[2] + w[:, 3] * terms[3]
        values = factor[rows, None] * np.sin(phase_rad + offset[rows, None])
        if np.any(bfactor[rows]):
            values *= np.exp(-bfactor[rows, None] / 4.0 * per_px2[rows, None] * terms[0])
        result[rows] = values
    return result
