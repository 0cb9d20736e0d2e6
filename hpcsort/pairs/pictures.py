"""Small pictures of micrographs and windows for the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Pictures", "make_pictures"]

_EDGE = 360
_WINDOW = 96
_COUNT = 6

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Grey pictures, uint8.

    Attributes
    ----------
    micrographs : untilted, tilted; as large as a page holds.
    binning : how many pixels of the preprocessed micrograph are one of the picture.
    windows : untilted, tilted; (k, y, x) of the same k particles.
    """

    micrographs: tuple[Grey, Grey]
    binning: tuple[int, int]
    windows: tuple[Grey, Grey]


def make_pictures(
    untilted: npt.NDArray[np.float32],
    tilted: npt.NDArray[np.float32],
    windows_untilted: npt.NDArray[np.float32],
    windows_tilted: npt.NDArray[np.float32],
) -> Pictures:
    """Shrink two micrographs (ny, nx) and the first of their windows (k, box, box)."""
    binnings = [max(1, -(-max(image.shape) // _EDGE)) for image in (untilted, tilted)]
    first, second = (_grey(_binned(image, by)) for image, by in zip((untilted, tilted), binnings, strict=True))
    by = max(1, -(-windows_untilted.shape[1] // _WINDOW))
    panels = []
    for windows in (windows_untilted, windows_tilted):
        panels.append(np.array([_grey(_binned(one, by)) for one in windows[:_COUNT]], np.uint8))
    return Pictures((first, second), (binnings[0], binnings[1]), (panels[0], panels[1]))


def _binned(image: npt.NDArray[np.float32], by: int) -> npt.NDArray[np.float32]:
    ny, nx = image.shape[0] // by, image.shape[1] // by
    blocks = image[: ny * by, : nx * by].reshape(ny, by, nx, by)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _grey(image: npt.NDArray[np.float32]) -> Grey:
    low, high = np.percentile(image, [0.5, 99.5]) if image.size else (0.0, 1.0)
    return np.asarray(np.clip((image - low) * (255.0 / max(high - low, 1e-30)), 0, 255), np.uint8)
