"""Whether images can be used: a fixed sample of them is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcsort.checking.findings import FAULT, FINE, WARNING, Finding
from hpcsort.io import BadImage, ImageReader, ParticleTable, judge_images

__all__ = ["Sample", "look_at_images", "read_sample"]

_LEAST, _MOST, _MOST_BYTES = 100, 2000, 512 << 20
_CHUNK = 64
_MOST_TOLD = 3
_FLAT = 1e-6
_ODD = 8.0
"""Robust standard deviations of the logarithm of an image's own standard deviation."""


@dataclass(frozen=True)
class Sample:
    """Images that were looked at.

    Attributes
    ----------
    rows : int64 (n,), rows of the table, evenly spaced.
    good : int64 (k,), those of them that a sort would take.
    bad : images that are constant, not finite or outweighed by a few pixels.
    flat : number of images that are constant outside the particle.
    odd : number of good images much stronger or weaker than most.
    """

    rows: npt.NDArray[np.int64]
    good: npt.NDArray[np.int64]
    bad: list[BadImage]
    flat: int
    odd: int


def read_sample(table: ParticleTable, reader: ImageReader, radius_px: float) -> Sample:
    """Read at most 2,000 images, or 512 MB of them, at even distances in the table, and judge each.

    Raises
    ------
    InputError
        If an image cannot be read.
    """
    assert table.box_px is not None
    most = int(np.clip(_MOST_BYTES // (4 * table.box_px**2), _LEAST, _MOST))
    rows = np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).astype(np.int64))
    axis = np.arange(table.box_px) - table.box_px // 2
    outside = axis[:, None] ** 2 + axis[None, :] ** 2 > radius_px**2
    bad: list[BadImage] = []
    spread, flat = np.zeros(len(rows)), np.zeros(len(rows), bool)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        images = reader.read(rows[part])
        bad += judge_images(images, rows[part], table)
        with np.errstate(invalid="ignore", over="ignore"):
            spread[part] = images.std(axis=(1, 2), dtype=np.float64)
            if outside.mean() > 0.01:
                flat[part] = np.ptp(images[:, outside], axis=1) <= _FLAT * np.ptp(images, axis=(1, 2))
    whole = ~np.isin(rows, [image.row for image in bad])
    scale = np.log(spread[whole])
    middle = np.median(scale) if scale.size else 0.0
    # 1.4826 times the median deviation is the standard deviation of a normal distribution.
    usual = max(1.4826 * float(np.median(np.abs(scale - middle))), 0.02) if scale.size else 1.0
    odd = int((np.abs(scale - middle) > _ODD * usual).sum())
    return Sample(rows, rows[whole & ~flat], bad, int((flat & whole).sum()), odd)


def look_at_images(table: ParticleTable, sample: Sample) -> list[Finding]:
    """Say what is wrong with the images of a sample."""
    count = len(sample.rows)
    looked = f"{count:,} images" if count == len(table) else f"{count:,} images looked at (of {len(table):,})"
    figures = {"looked_at": count, "bad": len(sample.bad), "masked": sample.flat, "odd": sample.odd}
    found = []
    if sample.bad:
        listed = "; ".join(image.describe() for image in sample.bad[:_MOST_TOLD])
        more = " ..." if len(sample.bad) > _MOST_TOLD else ""
        text = f"{len(sample.bad)} of the {looked} cannot be sorted: {listed}{more}. --skip-bad leaves such images out."
        found.append(Finding("images", WARNING, text, figures))
    if sample.flat:
        text = (
            f"{sample.flat} of the {looked} are constant outside the particle: they have been masked. Give images with"
            " the solvent around the particle, or a smaller --radius."
        )
        found.append(Finding("images", FAULT, text, figures))
    if sample.odd:
        text = f"{sample.odd} of the {looked} are much stronger or weaker than most; a sort normalises them."
        found.append(Finding("images", WARNING, text, figures))
    if not found:
        found.append(Finding("images", FINE, f"Of {looked} none is constant, not finite or odd.", figures))
    return found
