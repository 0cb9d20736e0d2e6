"""k-means from several starts at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["draw_starts", "in_order", "kmeans"]

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def draw_starts(points: Floats, most: int, rng: np.random.Generator, starts: int = 10) -> Labels:
    """Draw points to start from by k-means++ (Arthur & Vassilvitskii 2007).

    Each is drawn with a probability in proportion to its squared distance from those drawn before, so that the first k
    of them are a start for k clusters, whatever k is.

    Parameters
    ----------
    points : float64 (n, d).
    most : clusters, at most n.
    rng : for the draws.
    starts : how many lists are drawn.

    Returns
    -------
    int64 (starts, most), places of points.
    """
    centred = points - points.mean(axis=0)
    squares = _squares(centred, centred[None])[0]
    drawn = np.empty((starts, most), np.int64)
    drawn[:, 0] = rng.integers(len(points), size=starts)
    nearest = squares[drawn[:, 0]]
    for place in range(1, most):
        cumulative = nearest.cumsum(axis=1)
        limit = rng.random((starts, 1)) * cumulative[:, -1:]
        drawn[:, place] = np.minimum((cumulative <= limit).sum(axis=1), len(points) - 1)
        np.minimum(nearest, squares[drawn[:, place]], out=nearest)
    return drawn


def kmeans(points: Floats, starts: Labels, most_steps: int = 300) -> Labels:
    """Partition points so that the sum of squared distances to the means is small: the best end of several starts.

    Parameters
    ----------
    points : float64 (n, d).
    starts : int64 (s, k), places of the points that are the first centres (see `draw_starts`).
    most_steps : of Lloyd's algorithm.

    Returns
    -------
    int64 (n,), labels in the order in which they first occur; fewer than k where points coincide.
    """
    # the mean is taken out so that the expanded squares below lose no digits
    points = points - points.mean(axis=0)
    centres = points[starts]
    labels = np.full((len(starts), len(points)), -1, np.int64)
    for _ in range(most_steps):
        squares = _squares(points, centres)
        new = squares.argmin(axis=2)
        if np.array_equal(new, labels):
            break
        labels = new
        centres = _means(points, labels, centres, squares)
    best = _squares(points, centres).min(axis=2).sum(axis=1).argmin()
    return in_order(labels[best])


def in_order(labels: Labels) -> Labels:
    """Rename labels 0, 1, ... in the order in which they first occur."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _squares(points: Floats, centres: Floats) -> Floats:
    """Squared distances (starts, n, k) of n points to the centres (starts, k, d)."""
    squares = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=2)[:, None]
    squares -= 2.0 * (points @ centres.transpose(0, 2, 1))
    return np.maximum(squares, 0.0, out=squares)


def _means(points: Floats, labels: Labels, centres: Floats, squares: Floats) -> Floats:
    """Means of clusters; an empty one moves to the point that is furthest from its centre."""
    starts, clusters = centres.shape[:2]
    member = labels[:, :, None] == np.arange(clusters)
    sizes = member.sum(axis=1)
    means = member.transpose(0, 2, 1).astype(np.float64) @ points / np.maximum(sizes, 1)[:, :, None]
    for start in range(starts):
        empty = np.flatnonzero(sizes[start] == 0)
        if len(empty):
            own = squares[start, np.arange(len(points)), labels[start]]
            means[start, empty] = points[np.argsort(-own, kind="stable")[: len(empty)]]
    return np.asarray(means)
