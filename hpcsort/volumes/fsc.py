"""Fourier shell correlation and what follows from it."""

from __future__ import annotations

import numpy as np
import scipy.fft

__all__ = ["fsc_of_full", "fsc_of_size", "last_shell_above", "map_fsc", "shell_correlation"]


def shell_correlation(cross: np.ndarray, power_a: np.ndarray, power_b: np.ndarray) -> np.ndarray:
    """Correlation from shell sums of Re(A conj B), |A|^2 and |B|^2; 0 where a power vanishes, 1 in shell 0."""
    norm = np.sqrt(np.maximum(power_a * power_b, 0.0))
    curve = np.divide(cross, norm, out=np.zeros_like(norm), where=norm > 0)
    curve[0] = 1.0
    return np.asarray(np.clip(curve, -1.0, 1.0), np.float64)


def map_fsc(map_a: np.ndarray, map_b: np.ndarray) -> np.ndarray:
    """FSC of two real maps of the same cubic box.

    Parameters
    ----------
    map_a, map_b : float32 (n, n, n).

    Returns
    -------
    float64 (n // 2 + 1,): FSC per shell, radius rounded to Fourier pixels.
    """
    size = len(map_a)
    fourier_a, fourier_b = scipy.fft.rfftn(map_a), scipy.fft.rfftn(map_b)
    full = np.fft.fftfreq(size, 1 / size)
    half = np.arange(size // 2 + 1)
    squared = full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2
    shell = np.rint(np.sqrt(squared)).astype(np.int64)
    weight = np.full(fourier_a.shape, 2.0)
    weight[:, :, 0] = 1.0
    if size % 2 == 0:
        weight[:, :, -1] = 1.0
    shells = size // 2 + 1
    index = np.minimum(shell, shells).ravel()

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, (weight * values).ravel(), shells + 1)[:shells]

    cross = total((fourier_a * fourier_b.conj()).real)
    return shell_correlation(cross, total(np.abs(fourier_a) ** 2), total(np.abs(fourier_b) ** 2))


def fsc_of_full(half_curve: np.ndarray) -> np.ndarray:
    """FSC expected between two maps of all the data from that of its halves, 2F / (1 + F)."""
    return fsc_of_size(half_curve, 2.0)


def fsc_of_size(curve: np.ndarray, ratio: float) -> np.ndarray:
    """FSC expected for ``ratio`` times as many images: F q / (1 - F + F q), from SSNR proportional to images."""
    positive = np.clip(curve, 0.0, 0.999999)
    return np.asarray(positive * ratio / (1.0 - positive + positive * ratio), np.float64)


def last_shell_above(curve: np.ndarray, threshold: float = 0.143) -> int:
    """Last shell before the curve first falls below ``threshold`` (its length - 1 if it never does)."""
    below = np.flatnonzero(curve < threshold)
    return int(below[0]) - 1 if below.size else len(curve) - 1
