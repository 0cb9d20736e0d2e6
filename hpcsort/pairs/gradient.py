"""To which side of the tilt axis the defocus grows, from the Thon rings of the tilted micrograph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from hpcsort.optics import ctf
from hpcsort.pairs.ctfs import MicrographCtf
from hpcsort.pairs.tilt import TiltFit, heights_px

__all__ = ["estimate_sign"]

_COARSEST_A, _FINEST_A = 60.0, 6.0
_BACKGROUND = 0.3
"""Power between the rings in units of that of the rings."""
_TILE_A, _TILE_PX = 500.0, (64, 512)


def estimate_sign(
    image: npt.NDArray[np.float32], pixels_A: tuple[float, float], values: MicrographCtf, fit: TiltFit
) -> tuple[int, float]:
    """Compare the spectra of tiles with the two gradients that the tilt allows.

    The logarithm of the spectrum of every tile, relative to the mean of all tiles at the same frequency, is correlated
    with what the squared CTF makes of either sign there. Flipped phases do not matter.

    Parameters
    ----------
    image : float32 (ny, nx), tilted micrograph.
    pixels_A : distance of its rows and of its columns in Angstrom.
    values : CTF in the middle of the micrograph.
    fit : of the pair, in pixels of this image.

    Returns
    -------
    sign : +1 if underfocus grows towards (-sin a, cos a) of the axis at a degrees, else -1.
    significance : by how many standard deviations of noise it is preferred; 0 if nothing could be compared.
    """
    tile = int(np.clip(_TILE_A / pixels_A[1], *_TILE_PX)) // 2 * 2
    corners = [
        (top, left)
        for top in range(0, image.shape[0] - tile + 1, tile)
        for left in range(0, image.shape[1] - tile + 1, tile)
    ]
    if len(corners) < 2:
        return 1, 0.0
    fy, fx = np.meshgrid(np.fft.fftfreq(tile, pixels_A[0]), np.fft.rfftfreq(tile, pixels_A[1]), indexing="ij")
    radius = np.hypot(fy, fx)
    finest = max(_FINEST_A, 2.2 * max(pixels_A))
    # each frequency once: the column fx = 0 holds every one twice
    band = (radius > 1 / _COARSEST_A) & (radius < 1 / finest) & ((fx > 0) | (fy > 0))
    if not band.any():
        return 1, 0.0
    taper = np.hanning(tile + 2)[1:-1].astype(np.float32)
    power = np.empty((len(corners), int(band.sum())), np.float32)
    for row, (top, left) in zip(power, corners, strict=True):
        field = image[top : top + tile, left : left + tile]
        row[...] = np.abs(scipy.fft.rfft2((field - field.mean(dtype=np.float64)) * np.outer(taper, taper))[band]) ** 2
    middle = np.array([(left + tile / 2 - 0.5, top + tile / 2 - 0.5) for top, left in corners])
    centre = np.array([image.shape[1] // 2, image.shape[0] // 2], np.float64)
    rise_A = heights_px(middle, fit, centre) * float(np.mean(pixels_A))
    # Logarithms: how much there is in a tile, particles or carbon, becomes a constant that the median takes out.
    relative = np.log(np.maximum(power, 1e-30) / np.maximum(power.mean(axis=0), 1e-30))
    relative -= np.median(relative, axis=1, keepdims=True)
    relative = np.clip(relative, -3, 3)
    contrast = _rings(fy[band], fx[band], values, rise_A) - _rings(fy[band], fx[band], values, -rise_A)
    gain = float(np.sum(relative * contrast, dtype=np.float64))
    # Hann tapers make neighbouring frequencies alike: about three of four tell nothing new
    noise = 2.0 * float(np.sqrt(np.sum(relative.astype(np.float64) ** 2 * contrast**2)))
    return (1 if gain >= 0 else -1), (abs(gain) / noise if noise > 0 else 0.0)


def _rings(
    fy: npt.NDArray[np.float64], fx: npt.NDArray[np.float64], values: MicrographCtf, rise_A: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Logarithm of the squared CTF of each tile over a background, mean of each frequency taken out."""
    squared = (
        ctf(
            fx, fy, 1, 1.0, values.defocus_u_A + rise_A, values.defocus_v_A + rise_A, values.defocus_angle_deg,
            values.voltage_kV, values.cs_mm, values.amplitude_contrast, values.phase_shift_deg,
        )
        ** 2
    )  # fmt: skip
    rings = np.log(squared + np.float32(_BACKGROUND))
    return np.asarray(rings - rings.mean(axis=0), np.float32)
