"""Similarity of all pairs of averages at their best rotation, shift and mirror."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from hpcsort.averages.prepare import Images, PreparedAverages
from hpcsort.averages.ssim import BORDER, local_moments, ssim
from hpcsort.planar import PlanarPoses, Searcher, refine_poses

__all__ = ["MAX_SHIFT", "Similarity", "compare_all"]

MAX_SHIFT = 0.2
"""Largest shift between two averages as a share of the box, as in the original program."""
_REFERENCES = 32
"""Averages in a block of references; fixed, so that the bits do not depend on the number of threads."""
_PAIRS = 64
"""Pairs whose images are compared at a time."""
_FINE = 4
"""Oversampling at which interpolation between four pixels is exact to a percent of the highest frequency."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Similarity:
    """Similarity of n averages.

    Attributes
    ----------
    score : float64 (n, n), symmetric, 1 on the diagonal.
    poses : of n * n pairs: entry i * n + j is average i in the frame of average j; shifts in pixels of the
        prepared images.
    """

    score: npt.NDArray[np.float64]
    poses: PlanarPoses

    @property
    def distance(self) -> npt.NDArray[np.float64]:
        """1 - score, float64 (n, n), 0 on the diagonal and not negative."""
        return np.maximum(1.0 - self.score, 0.0)

    def poses_onto(self, members: Ints, reference: int) -> PlanarPoses:
        """Poses of averages in the frame of one of them."""
        return self.poses.rows(members * len(self.score) + reference)


def compare_all(
    prepared: PreparedAverages, kind: str, workers: int = 1, step: Callable[[], None] = lambda: None
) -> Similarity:
    """Compare every average with every other.

    All angles, shifts up to a fifth of the box and both hands are compared by correlation of rotational spectra; the
    best pose of each pair is refined, and scored with image i brought onto j and with j brought onto i. The mean of
    both makes the score symmetric.

    Parameters
    ----------
    prepared : n averages.
    kind : "ssim", or "ncc" for the correlation coefficient inside the band (both ways are the same then).
    workers : threads.
    step : called after each block of references, of which there are `block_count`.
    """
    count = len(prepared)
    score = np.eye(count)
    psi, shift, mirror = np.zeros((count, count)), np.zeros((count, count, 2)), np.zeros((count, count), bool)
    scorer = _SsimScorer(prepared) if kind == "ssim" else None

    def work(start: int) -> None:
        i, j, poses, values = _block(prepared, scorer, start)
        score[i, j] = score[j, i] = values
        for rows, columns, found in ((i, j, poses), (j, i, poses.inverse())):
            psi[rows, columns], shift[rows, columns] = found.psi_deg, found.shift_px
            mirror[rows, columns] = found.mirror
        step()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(0, count, _REFERENCES)))
    return Similarity(score, PlanarPoses(psi.reshape(-1), shift.reshape(-1, 2), mirror.reshape(-1)))


def block_count(averages: int) -> int:
    """Return the number of blocks of references, for a progress bar."""
    return -(-averages // _REFERENCES)


def _block(
    prepared: PreparedAverages, scorer: _SsimScorer | None, start: int
) -> tuple[Ints, Ints, PlanarPoses, npt.NDArray[np.float64]]:
    """Pairs of a block of references j with all later averages i: i, j, poses of i in the frame of j, scores."""
    grid, samples, count = prepared.grid, prepared.samples, len(prepared)
    reach = MAX_SHIFT * grid.box_px
    searcher = Searcher(grid, samples[start : start + _REFERENCES], reach)
    found = searcher.compare(grid.spectra(samples[start:]))
    row, column = np.nonzero(np.arange(count - start)[:, None] > np.arange(found.score.shape[1]))
    poses = searcher.poses(found, row, column)
    i, j = row + start, column + start
    parts, values = [], []
    for first in range(0, len(i), _PAIRS):
        pairs = slice(first, first + _PAIRS)
        part, value = refine_poses(grid, samples[i[pairs]], samples[j[pairs]], poses.rows(pairs), reach)
        parts.append(part)
        values.append(value.astype(np.float64) if scorer is None else scorer(i[pairs], j[pairs], part))
    if not parts:
        return i, j, poses, np.zeros(0)
    psi, shift, mirror = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("psi_deg", "shift_px", "mirror")
    )
    return i, j, PlanarPoses(psi, shift, mirror), np.concatenate(values)


class _SsimScorer:
    """Structural similarity of pairs at given poses."""

    def __init__(self, prepared: PreparedAverages) -> None:
        self._images = prepared.images
        box = self._box = prepared.images.shape[-1]
        self._range = np.ptp(prepared.images, axis=(1, 2)).astype(np.float64)
        self._mean, self._variance = local_moments(prepared.images)
        x = np.arange(box) - box // 2
        radius = np.hypot(x[:, None], x)
        self._disc = radius < box / 2 - 1
        y, x = np.nonzero(self._disc)
        self._points = np.stack([x, y]).astype(np.float64) - box // 2
        edge = np.zeros((box, box), bool)
        edge[BORDER:-BORDER, BORDER:-BORDER] = True
        self._inside = edge & (radius < box / 2 - 1 - BORDER)
        # one below the other, so that one call samples many of them
        self._fine = np.concatenate([_oversampled(image) for image in prepared.images])

    def __call__(self, i: Ints, j: Ints, poses: PlanarPoses) -> npt.NDArray[np.float64]:
        return (self._score(i, j, poses) + self._score(j, i, poses.inverse())) / 2

    def _score(self, moving: Ints, fixed: Ints, poses: PlanarPoses) -> npt.NDArray[np.float64]:
        data_range = (self._range[moving] + self._range[fixed]) / 2
        moments = self._mean[fixed], self._variance[fixed]
        return ssim(self._images[fixed], self._moved(moving, poses), data_range, self._inside, moments)

    def _moved(self, which: Ints, poses: PlanarPoses) -> Images:
        out = np.zeros((len(which), self._box, self._box), np.float32)
        # r = matrix x + offset, so the value at r is taken from matrix^T (r - offset)
        centred = self._points - poses.offsets_px[:, :, None]
        source = _FINE * (np.einsum("nij,nik->jnk", poses.matrices, centred) + self._box // 2)
        # images are 0 at their edges and beyond
        edge = _FINE * self._box
        np.clip(source, 0, edge - 1, out=source)
        source[1] += edge * which[:, None]
        out[:, self._disc] = scipy.ndimage.map_coordinates(self._fine, source[::-1], order=1, output=np.float32)
        return out


def _oversampled(image: Images) -> Images:
    box = len(image)
    transform = scipy.fft.rfft2(image)
    kept = (box - 1) // 2
    padded = np.zeros((_FINE * box, _FINE * box // 2 + 1), np.complex64)
    for rows in (slice(0, kept + 1), slice(-kept, None)):
        padded[rows, : kept + 1] = transform[rows, : kept + 1]
    return np.asarray(scipy.fft.irfft2(padded, s=(_FINE * box, _FINE * box)) * np.float32(_FINE**2), np.float32)
