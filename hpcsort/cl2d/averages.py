"""Averages of classes and cores in real space, and how far their halves agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from hpcsort.cl2d.state import State
from hpcsort.cl2d.stock import Stock
from hpcsort.parallel import ExactSum, stream
from hpcsort.planar import apply_poses
from hpcsort.volumes import last_shell_above, shell_correlation

__all__ = ["Averages", "average_parts", "half_set"]

_LEAST = 10
"""Fewer particles than this give no halves that could be compared."""


@dataclass(frozen=True, eq=False)
class Averages:
    """Averages of one choice of particles of every class.

    Attributes
    ----------
    images : float32 (Q, box, box); zeros where no particle is chosen.
    sizes : int64 (Q,), particles chosen.
    resolution_px : float64 (Q,), frequency in Fourier pixels up to which the correlation of two halves stays at
        or above 0.5; 0 for fewer than 10 particles.
    """

    images: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.int64]
    resolution_px: npt.NDArray[np.float64]


def half_set(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Random half, 0 or 1, of each of N particles; the same in every level."""
    return stream(seed, "halves").permutation(count) % 2


def average_parts(
    stock: Stock, state: State, choices: dict[str, npt.NDArray[np.bool_]], seed: int
) -> dict[str, Averages]:
    """Average all particles of each class, and those of some choices, in one pass over the images. Collective.

    Parameters
    ----------
    stock, state : particles and their classes.
    choices : name to bool (N,); each choice is a part of the one before.
    seed : of the halves.
    """
    nested = np.sum([choice.astype(np.int64) for choice in choices.values()], axis=0)
    kinds, classes, box = len(choices), state.classes, stock.grid.box_px
    halves = half_set(stock.count, seed)
    # particles that are in the first choice only, in the first two, ...; and by half
    slot = ((nested - 1) * classes + state.labels) * 2 + halves
    shape = (kinds * classes * 2, box, box)
    peak = max((float(np.abs(block).max(initial=0.0)) for block in stock.images), default=0.0)
    # interpolation and shift may go beyond the largest pixel, but not by much more than a factor
    total = ExactSum(shape, 16.0 * stock.comm.max(peak) * stock.count + 1e-30)
    for rows, images in zip(stock.rows(), stock.images, strict=True):
        aligned = apply_poses(images, state.poses.rows(rows))
        for number, image in zip(slot[rows].tolist(), aligned, strict=True):
            if number >= 0:
                total.add(image, index=number)
    sums = total.join(stock.comm).reshape(kinds, classes, 2, box, box)
    counts = np.bincount(slot[slot >= 0], minlength=shape[0]).reshape(kinds, classes, 2)
    # a particle of a later choice is also one of all earlier ones
    sums, counts = np.cumsum(sums[::-1], axis=0)[::-1], np.cumsum(counts[::-1], axis=0)[::-1]
    return {name: _averages(stock, part, count) for name, part, count in zip(choices, sums, counts, strict=True)}


def _averages(stock: Stock, sums: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> Averages:
    sizes = counts.sum(axis=1)
    means = sums.sum(axis=1) / np.maximum(sizes, 1)[:, None, None]
    if stock.final_filter is not None:
        box = stock.grid.box_px
        means = scipy.fft.irfft2(scipy.fft.rfft2(means) * stock.final_filter, s=(box, box))
    resolution = np.zeros(len(sizes))
    for number, (pair, size) in enumerate(zip(sums, counts, strict=True)):
        if size.min() >= _LEAST // 2 and size.sum() >= _LEAST:
            resolution[number] = last_shell_above(_ring_correlation(*pair), 0.5)
    return Averages(means.astype(np.float32), sizes, resolution)


def _ring_correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Fourier ring correlation of two images, one value for each whole radius up to box // 2."""
    box = len(a)
    first, second = scipy.fft.rfft2(a), scipy.fft.rfft2(b)
    x = np.arange(box // 2 + 1)
    ring = np.rint(np.hypot(scipy.fft.fftfreq(box, 1 / box)[:, None], x)).astype(np.int64)
    weight = np.where((x == 0) | (2 * x == box), 1.0, 2.0)
    rings = box // 2 + 1

    def total(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(ring.ravel(), (weight * values).ravel())[:rings], np.float64)

    return shell_correlation(total((first * second.conj()).real), total(np.abs(first) ** 2), total(np.abs(second) ** 2))
