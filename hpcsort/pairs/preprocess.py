"""What is done to a whole micrograph before windows are cut: dust, downsampling, phase flip."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from hpcsort.optics import ctf
from hpcsort.pairs.ctfs import MicrographCtf

__all__ = ["downsampled_shape", "flip_sign", "mean_and_deviation", "replace_dust", "transform_micrograph"]

Array = npt.NDArray[np.float32]

_REACH = 2
_ROWS = 16
"""Rows of a micrograph that are worked on at a time: what is made of them stays in the processor's cache."""
_BATCH = 4096


def replace_dust(image: Array, sigmas: float) -> int:
    """Replace, in place, pixels that are far from the mean by the median of good ones around them.

    A pixel is bad if it is further than ``sigmas`` standard deviations from the mean of the micrograph, or not finite.
    It becomes the median of the good pixels in the 5 x 5 around it (of an even number, the mean of the two central
    ones). Pixels without a good one around them wait until those nearer to the rim of the patch are replaced; within
    one such layer the order does not matter, whereas the original goes row by row.

    Parameters
    ----------
    image : float32 (ny, nx), changed in place.
    sigmas : threshold.

    Returns
    -------
    Number of pixels replaced; 0, with the image as it was, if no pixel is good.
    """
    mean, deviation = mean_and_deviation(image)
    if not np.isfinite(deviation):
        finite = np.isfinite(image)
        if not finite.any():
            return 0
        mean, deviation = mean_and_deviation(image[finite][None])
    low, high = np.float32(mean - sigmas * deviation), np.float32(mean + sigmas * deviation)
    bad = np.empty(image.shape, bool)
    for first in range(0, len(image), _ROWS):
        part = image[first : first + _ROWS]
        # written so that NaN is bad
        bad[first : first + _ROWS] = ~((part >= low) & (part <= high))
    rows, columns = np.divmod(np.flatnonzero(bad), image.shape[1])
    count = len(rows)
    if count in (0, image.size):
        return 0
    while len(rows):
        medians = np.concatenate(
            [
                _medians(_around(image, bad, rows[i : i + _BATCH], columns[i : i + _BATCH]))
                for i in range(0, len(rows), _BATCH)
            ]
        )
        ready = np.isfinite(medians)
        image[rows[ready], columns[ready]] = medians[ready]
        bad[rows[ready], columns[ready]] = False
        rows, columns = rows[~ready], columns[~ready]
    return count


def _around(
    image: Array, bad: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> Array:
    """Good pixels (k, 5, 5) around pixels; NaN where they are bad or outside."""
    reach = np.arange(-_REACH, _REACH + 1)
    y, x = rows[:, None, None] + reach[:, None], columns[:, None, None] + reach
    ny, nx = image.shape
    outside = (y < 0) | (y >= ny) | (x < 0) | (x >= nx)
    y, x = np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)
    return np.where(outside | bad[y, x], np.float32(np.nan), image[y, x])


def mean_and_deviation(image: Array) -> tuple[float, float]:
    """Mean and (population) standard deviation of pixels (ny, nx); not finite if one of them is not."""
    start = float(image.flat[0])
    total = squares = 0.0
    with np.errstate(invalid="ignore"):
        for first in range(0, len(image), _ROWS):
            rows = np.subtract(image[first : first + _ROWS], start, dtype=np.float64).ravel()
            total += float(rows.sum())
            squares += float(np.vdot(rows, rows))
    mean = total / image.size
    return start + mean, float(np.sqrt(max(squares / image.size - mean * mean, 0.0)))


def _medians(windows: Array) -> Array:
    """Medians of the numbers in windows (k, 5, 5); NaN where there is none."""
    flat = np.sort(windows.reshape(len(windows), -1), axis=1)  # NaN last
    count = np.isfinite(flat).sum(axis=1)
    each = np.arange(len(flat))
    low, high = flat[each, np.maximum(count - 1, 0) // 2], flat[each, count // 2 % flat.shape[1]]
    return np.where(count > 0, low / 2 + high / 2, np.nan).astype(np.float32)


def downsampled_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Rows and columns after downsampling: floor(n / factor)."""
    if abs(factor - 1) <= 1e-4:
        return shape
    return int(np.floor(shape[0] / factor + 1e-9)), int(np.floor(shape[1] / factor + 1e-9))


def transform_micrograph(
    image: Array, shape: tuple[int, int], pixel_A: float, flip: MicrographCtf | None = None
) -> Array:
    """Downsample by cropping the transform, and flip phases, with one transform there and back.

    Grey values keep their scale and pixel (0, 0) its place; along each axis one new pixel is n / n_new old ones.
    Frequencies at the new Nyquist frequency, whose phase the smaller image cannot hold, are left out.

    Parameters
    ----------
    image : float32 (ny, nx).
    shape : rows and columns of the result, at most those of the image; see `downsampled_shape`.
    pixel_A : pixel size of the image in Angstrom.
    flip : CTF whose negative frequencies are multiplied by -1; None for no flip.

    Returns
    -------
    float32 of `shape`; the image itself where there is nothing to do.
    """
    ny, nx = image.shape
    rows, columns = shape
    if shape == image.shape and flip is None:
        return image
    spectrum = scipy.fft.rfft2(image)
    if shape != image.shape:
        half = columns // 2 + 1
        cropped = np.zeros((rows, half), spectrum.dtype)
        top, bottom = (rows + 1) // 2, (rows - 1) // 2
        kept = half - 1 if columns % 2 == 0 and columns < nx else half
        cropped[:top, :kept] = spectrum[:top, :kept]
        if bottom:
            cropped[-bottom:, :kept] = spectrum[ny - bottom :, :kept]
        if rows == ny and rows % 2 == 0:
            cropped[rows // 2, :kept] = spectrum[rows // 2, :kept]
        cropped *= np.float32(rows * columns / (ny * nx))
        spectrum = cropped
    if flip is not None:
        _flip(spectrum, shape, (pixel_A * ny / rows, pixel_A * nx / columns), flip)
    # one axis after the other: irfft2 makes a copy more
    lines = scipy.fft.ifft(spectrum, axis=0, overwrite_x=True)
    return np.asarray(scipy.fft.irfft(lines, n=columns, axis=1), np.float32)


def flip_sign(shape: tuple[int, int], pixels_A: tuple[float, float], values: MicrographCtf) -> Array:
    """Sign of the CTF, +1 or -1, at the frequencies of `scipy.fft.rfft2` of an image.

    Parameters
    ----------
    shape : rows and columns of the image, square or not.
    pixels_A : distance of its rows and of its columns in Angstrom.
    values : the CTF; its zeros, and the origin of the transform, are positive.

    Returns
    -------
    float32 (ny, nx // 2 + 1).
    """
    fy = np.fft.fftfreq(shape[0], pixels_A[0])
    fx = np.fft.rfftfreq(shape[1], pixels_A[1])
    return _sign(fy, fx, values)


def _flip(
    spectrum: npt.NDArray[np.complexfloating],
    shape: tuple[int, int],
    pixels_A: tuple[float, float],
    values: MicrographCtf,
) -> None:
    """Multiply a transform by the sign of the CTF, some rows at a time: the CTF needs many times their memory."""
    fy = np.fft.fftfreq(shape[0], pixels_A[0])
    fx = np.fft.rfftfreq(shape[1], pixels_A[1])
    for start in range(0, len(fy), _ROWS):
        spectrum[start : start + _ROWS] *= _sign(fy[start : start + _ROWS], fx, values)


def _sign(fy: npt.NDArray[np.floating], fx: npt.NDArray[np.floating], values: MicrographCtf) -> Array:
    y, x = np.meshgrid(fy, fx, indexing="ij")
    # frequencies are given in 1/A, as coordinates in the transform of an image 1 A wide
    transfer = ctf(
        x, y, 1, 1.0, values.defocus_u_A, values.defocus_v_A, values.defocus_angle_deg, values.voltage_kV,
        values.cs_mm, values.amplitude_contrast, values.phase_shift_deg,
    )  # fmt: skip
    return np.where(transfer[0].reshape(x.shape) < 0, np.float32(-1), np.float32(1))
