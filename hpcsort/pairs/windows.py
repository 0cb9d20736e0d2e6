"""Windows around particles: cutting, sub-pixel shift, phase flip of each, normalisation of all at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.fft

from hpcsort.pairs.ctfs import MicrographCtf
from hpcsort.pairs.preprocess import flip_sign

__all__ = ["cut_windows", "cut_windows_in_transform", "inside", "nearest_pixels", "normalize_windows"]

Array = npt.NDArray[np.float32]

_PIXELS_TOGETHER = 1 << 17
_FLAT = 1e-6
"""Standard deviation of a background, in units of that of the micrograph, below which a window is blank."""


def nearest_pixels(xy_px: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Pixels (n, 2) nearest to coordinates (n, 2); halves go up, so that the rest is in [-0.5, 0.5)."""
    return np.floor(xy_px + 0.5).astype(np.int64)


def inside(centres: npt.NDArray[np.int64], box_px: int, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which windows lie within the micrograph.

    Parameters
    ----------
    centres : int (n, 2), pixels (x, y) that land on index ``box // 2``.
    box_px : edge of the windows.
    shape : rows and columns of the micrograph.
    """
    corner = centres - box_px // 2
    return np.asarray((corner >= 0).all(axis=1) & (corner + box_px <= np.array(shape[::-1])).all(axis=1))


def cut_windows(image: Array, centres: npt.NDArray[np.int64], box_px: int) -> Array:
    """Cut windows; pixels outside the micrograph repeat the nearest one.

    Parameters
    ----------
    image : float32 (ny, nx).
    centres : int (n, 2), pixels (x, y) that land on index ``box // 2`` of both axes.
    box_px : edge of the windows.

    Returns
    -------
    float32 (n, box, box) [y, x].
    """
    ny, nx = image.shape
    offsets = np.arange(box_px) - box_px // 2
    windows = np.empty((len(centres), box_px, box_px), np.float32)
    for window, (x, y) in zip(windows, centres.tolist(), strict=True):
        top, left = y - box_px // 2, x - box_px // 2
        if top >= 0 and left >= 0 and top + box_px <= ny and left + box_px <= nx:
            window[...] = image[top : top + box_px, left : left + box_px]
        else:
            window[...] = image[np.clip(y + offsets, 0, ny - 1)[:, None], np.clip(x + offsets, 0, nx - 1)]
    return windows


def cut_windows_in_transform(
    image: Array,
    xy_px: npt.NDArray[np.float64],
    box_px: int,
    *,
    subpixel: bool = False,
    flips: Sequence[MicrographCtf] | None = None,
    pixels_A: tuple[float, float] = (1.0, 1.0),
) -> Array:
    """Cut windows of which each is shifted by its rest, or flipped with its own CTF, in a transform twice as wide.

    The margin of half a window on every side keeps the wrap-around of the transform out of the window.

    Parameters
    ----------
    image : float32 (ny, nx).
    xy_px : float (n, 2), coordinates (x, y).
    box_px : edge of the windows.
    subpixel : whether the coordinate itself, not its nearest pixel, lands on index ``box // 2``.
    flips : CTF of each particle, or None.
    pixels_A : distance of rows and of columns in Angstrom.

    Returns
    -------
    float32 (n, box, box) [y, x].
    """
    centres = nearest_pixels(xy_px)
    rest = xy_px - centres
    wide = scipy.fft.next_fast_len(2 * box_px, real=True)
    corner = wide // 2 - box_px // 2
    inner = slice(corner, corner + box_px)
    fy, fx = np.fft.fftfreq(wide), np.fft.rfftfreq(wide)
    # at the Nyquist frequency a shift has no meaning for a real image
    fy[np.abs(fy) == 0.5], fx[np.abs(fx) == 0.5] = 0, 0
    windows = np.empty((len(centres), box_px, box_px), np.float32)
    for number, window in enumerate(windows):
        field = cut_windows(image, centres[number : number + 1], wide)[0]
        # the mean is taken out, so that large grey values do not cost digits
        mean = np.float32(field.mean(dtype=np.float64))
        spectrum = scipy.fft.rfft2(field - mean)
        if subpixel:
            x, y = rest[number]
            spectrum *= np.exp(2j * np.pi * fy * y).astype(np.complex64)[:, None]
            spectrum *= np.exp(2j * np.pi * fx * x).astype(np.complex64)
        if flips is not None:
            spectrum *= flip_sign((wide, wide), pixels_A, flips[number])
        # of the way back, only the rows of the window
        lines = scipy.fft.ifft(spectrum, axis=0, overwrite_x=True)[inner]
        window[...] = scipy.fft.irfft(lines, n=wide, axis=1)[:, inner] + mean
    return windows


def normalize_windows(windows: Array, method: str, radius_px: int, scale: float = 1.0) -> npt.NDArray[np.bool_]:
    """Normalise windows in place, all at once.

    The background are the pixels at ``radius_px`` and beyond from index ``box // 2``. Standard deviations of the
    background have n - 1 in the denominator, that of "old" has n.

    Parameters
    ----------
    windows : float32 (n, box, box) [y, x], changed in place; blank ones stay as they are.
    method : "none"; "old" (mean 0 and deviation 1 of the whole window); "new" (of the background); "ramp" (the plane
        that fits the background best is subtracted from the whole window, deviation 1 of what the background keeps).
    radius_px : where the background begins; at most box // 2.
    scale : standard deviation of the micrograph, by which blank windows are known.

    Returns
    -------
    bool (n,), which windows are blank: constant, or not finite.
    """
    box = windows.shape[1]
    offset = np.arange(box) - box // 2
    y, x = np.meshgrid(offset, offset, indexing="ij")
    whole = method in ("none", "old")
    outside = np.arange(box * box) if whole else np.flatnonzero(x**2 + y**2 >= radius_px**2)
    design = np.stack([x.ravel(), y.ravel(), np.ones(box * box)], axis=1)[outside]
    solver = np.linalg.pinv(design).T if method == "ramp" else np.zeros((0, 0))
    freedom = max(len(outside) - (method != "old"), 1)
    blank = np.zeros(len(windows), bool)
    # few at a time: their background in float64 stays in the cache
    together = max(1, _PIXELS_TOGETHER // box**2)
    for first in range(0, len(windows), together):
        part = windows[first : first + together]
        flat = part.reshape(len(part), -1)
        background = (flat if whole else np.take(flat, outside, axis=1)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            mean = background.mean(axis=1)
            background -= mean[:, None]
            if method == "ramp":
                planes = background @ solver
                background -= planes @ design.T
            deviation = np.sqrt(np.einsum("ij,ij->i", background, background) / freedom)
        good = np.isfinite(deviation) & (deviation > _FLAT * scale)
        blank[first : first + together] = ~good
        if method == "none":
            continue
        for number in np.flatnonzero(good):
            window = part[number]
            window -= np.float32(mean[number])
            if method == "ramp":
                along_x, along_y, level = planes[number]
                window -= (along_x * offset + (along_y * offset + level)[:, None]).astype(np.float32)
            window /= np.float32(deviation[number])
    return blank
