"""Structural similarity of images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

__all__ = ["BORDER", "local_moments", "ssim"]

_WINDOW = 7
BORDER = _WINDOW // 2
"""Pixels at the edge whose window is not whole."""
_K1, _K2 = 0.01, 0.03

Images = npt.NDArray[np.float32]


def local_moments(images: Images) -> tuple[Images, Images]:
    """Means and unbiased variances in 7 x 7 windows about every pixel, float32 (n, box, box) each."""
    mean = _box(images)
    return mean, _unbiased(_box(images * images) - mean * mean)


def ssim(
    first: Images,
    second: Images,
    data_range: npt.NDArray[np.floating],
    inside: npt.NDArray[np.bool_],
    first_moments: tuple[Images, Images] | None = None,
) -> npt.NDArray[np.float64]:
    """Mean structural similarity (Wang, Bovik, Sheikh & Simoncelli 2004, eq. 13) of pairs of images.

    Windows are uniform, of 7 x 7 pixels, K1 = 0.01 and K2 = 0.03, as in the original program.

    Parameters
    ----------
    first, second : float32 (n, box, box).
    data_range : (n,), L of each pair.
    inside : bool (box, box), the pixels over which the index is averaged; none closer to the edge than 3 px.
    first_moments : of `first` (see `local_moments`), where they are known.

    Returns
    -------
    float64 (n,), 1 for equal images.
    """
    mean_a, var_a = local_moments(first) if first_moments is None else first_moments
    mean_b, var_b = local_moments(second)
    product = mean_a * mean_b
    covariance = _unbiased(_box(first * second) - product)
    c1, c2 = ((k * np.asarray(data_range, np.float32)[:, None, None]) ** 2 for k in (_K1, _K2))
    index = (2 * product + c1) * (2 * covariance + c2)
    index /= (mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2)
    return np.asarray(index[:, inside].mean(axis=1, dtype=np.float64))


def _box(images: Images) -> Images:
    return np.asarray(scipy.ndimage.uniform_filter(images, (1, _WINDOW, _WINDOW)))


def _unbiased(moment: Images) -> Images:
    count = _WINDOW**2
    return moment * np.float32(count / (count - 1))
