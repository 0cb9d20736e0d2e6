"""Principal components of the aligned particles of each class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcsort.cl2d.state import State, aligned_features
from hpcsort.cl2d.stock import Stock
from hpcsort.parallel import ExactSum, stream

__all__ = ["principal_axes", "projections"]

_ROUNDS = 8


def principal_axes(
    stock: Stock, state: State, wanted: npt.NDArray[np.int64], count: int, seed: int
) -> npt.NDArray[np.float32]:
    """First principal components of classes, by subspace iteration. Collective.

    Parameters
    ----------
    stock, state : particles and their classes.
    wanted : int64 (W,), the classes.
    count : components of each.
    seed : of the vectors to start from.

    Returns
    -------
    float32 (W, count, F), orthonormal, the largest first.
    """
    place = np.full(state.classes + 1, -1)
    place[wanted] = np.arange(len(wanted))
    size = 2 * int(np.prod(stock.grid.shape))
    start = stream(seed, "principal axes", state.classes).standard_normal((len(wanted), count, size))
    axes = _orthonormal(start)
    for _ in range(_ROUNDS):
        bound = float(np.sum(np.square(stock.norms, dtype=np.float64))) * 4.5 + 1e-30
        total = ExactSum((len(wanted), count, size), bound)
        for rows, samples in zip(stock.rows(), stock.samples, strict=True):
            group = place[state.labels[rows]]
            inside = np.flatnonzero(group >= 0)
            spread = _deviations(stock, state, rows, samples, inside)
            along = np.einsum("nf,ncf->nc", spread, axes[group[inside]])
            hot = np.zeros((len(wanted), len(inside)), np.float32)
            hot[group[inside], np.arange(len(inside))] = 1.0
            total.add(np.stack([(hot * along[:, part]) @ spread for part in range(count)], axis=1))
        axes = _orthonormal(total.join(stock.comm))
    return axes


def projections(
    stock: Stock, state: State, wanted: npt.NDArray[np.int64], axes: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Coordinates of all particles along the components of their class, and what the components leave. Collective.

    Returns
    -------
    coordinates : float32 (N, count); 0 for particles of other classes.
    residual : float32 (N,), mean square of what is left of the particle after its class mean and the components.
    """
    place = np.full(state.classes + 1, -1)
    place[wanted] = np.arange(len(wanted))
    count = axes.shape[1]
    parts, lefts = [], []
    for rows, samples in zip(stock.rows(), stock.samples, strict=True):
        group = place[state.labels[rows]]
        inside = np.flatnonzero(group >= 0)
        spread = _deviations(stock, state, rows, samples, inside)
        along = np.zeros((len(group), count), np.float32)
        left = np.zeros(len(group), np.float32)
        along[inside] = np.einsum("nf,ncf->nc", spread, axes[group[inside]])
        left[inside] = (np.square(spread).sum(axis=1) - np.square(along[inside]).sum(axis=1)) / spread.shape[1]
        parts.append(along)
        lefts.append(left)
    return stock.gather(parts, np.float32, (count,)), stock.gather(lefts, np.float32)


def _deviations(
    stock: Stock, state: State, rows: slice, samples: npt.NDArray[np.complex64], inside: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Aligned features of chosen particles of a chunk less the mean of their class, float32 (k, F)."""
    features = aligned_features(stock.grid, samples[inside], state.poses.rows(rows).rows(inside))
    means = state.means.reshape(state.classes, -1).view(np.float32)
    return np.asarray(features - means[state.labels[rows][inside]])


def _orthonormal(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Orthonormal vectors (W, count, F) that span the same spaces, the first along the first."""
    q, _ = np.linalg.qr(vectors.transpose(0, 2, 1))
    return np.ascontiguousarray(q.transpose(0, 2, 1), np.float32)
