"""Averages brought to one size and one grey scale, ready to be compared; blank ones are found here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from hpcsort.planar import PolarGrid, soft_disc

__all__ = ["PreparedAverages", "find_blank", "prepare"]

_BOX_PX = 64
_BLUR_PX = 1.0
_BAND = 0.45
"""Of the Nyquist frequency: what the search sees."""

Images = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PreparedAverages:
    """Averages as they are compared.

    Attributes
    ----------
    images : float32 (n, box, box) [y, x]: low-passed, background 0, standard deviation 1, masked by a soft disc.
    scale : pixels of the input in a pixel of these.
    grid : PolarGrid of the search.
    samples : complex64 (n, R, T / 2), samples of the images on it.
    """

    images: Images
    scale: float
    grid: PolarGrid
    samples: npt.NDArray[np.complex64]

    def __len__(self) -> int:
        return len(self.images)


def find_blank(images: Images) -> npt.NDArray[np.bool_]:
    """Tell averages that show nothing: not finite, or constant but for rounding as they are compared; bool (n,)."""
    finite = np.logical_and.reduce(np.isfinite(images), axis=(1, 2))
    usable = np.where(finite[:, None, None], images, np.float32(0))
    small = _resized(usable, min(images.shape[-1], _BOX_PX))
    inside = small[:, soft_disc(small.shape[-1], small.shape[-1] / 2 - 1) > 0]
    return ~finite | (np.ptp(inside, axis=1) <= 1e-6 * np.abs(usable).max(axis=(1, 2)))


def prepare(images: Images) -> PreparedAverages:
    """Bring averages, none of them blank, to at most 64 px and to one grey scale.

    The images are shrunk by cutting their Fourier transforms and blurred by a Gaussian of 1 px. The background (the
    median of the outer ring of the disc) becomes 0, so that an image that is shifted ends without an edge.

    Parameters
    ----------
    images : float32 (n, box, box), at least 16 px.
    """
    old = images.shape[-1]
    new = min(old, _BOX_PX)
    small = _resized(images, new)
    x = np.arange(new) - new // 2
    radius = np.hypot(x[:, None], x)
    reach = new / 2 - 1
    disc, ring = radius <= reach, (radius <= reach) & (radius >= 0.85 * reach)
    background = np.median(small[:, ring], axis=1)
    spread = small[:, disc].std(axis=1)
    scaled = (small - background[:, None, None]) / spread[:, None, None]
    grid = PolarGrid(new, reach, max(_BAND * new / 2, 1.0))
    return PreparedAverages(
        (scaled * soft_disc(new, reach)).astype(np.float32), old / new, grid, grid.samples(scaled.astype(np.float32))
    )


def _resized(images: Images, new: int) -> npt.NDArray[np.float64]:
    """Images (n, new, new) with the same content about the centre ``new // 2``, blurred."""
    old, kept = images.shape[-1], (new - 1) // 2
    rows = np.r_[0 : kept + 1, -kept:0]
    fall = np.exp(-2 * (np.pi * _BLUR_PX) ** 2 * scipy.fft.fftfreq(new) ** 2)
    fall = fall[:, None] * fall[: new // 2 + 1] * (new / old) ** 2
    small = np.empty((len(images), new, new))
    for place, image in enumerate(images):
        whole = scipy.fft.rfft2(scipy.fft.ifftshift(image.astype(np.float64)))
        cut = np.zeros((new, new // 2 + 1), np.complex128)
        cut[rows, : kept + 1] = whole[rows, : kept + 1]
        small[place] = scipy.fft.fftshift(scipy.fft.irfft2(cut * fall, s=(new, new)))
    return small
