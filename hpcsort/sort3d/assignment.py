"""Assignment of particles to classes with a minimum group size, in every orientation group."""

from __future__ import annotations

import numpy as np

__all__ = ["assign", "group_quota"]


def group_quota(minimum: int, classes: int, members: int, count: int) -> int:
    """Particles that every class gets in an orientation group of ``members`` out of ``count`` particles.

    The minimum group size is shared out in proportion, and at most 95 % of a group is decided by it (rho of
    SORT3D_DEPTH: q = int(min(m K / N, 0.95) n / K)).
    """
    share = min(minimum * classes / max(count, 1), 0.95)
    return int(share * members / max(classes, 1))


def assign(scores: np.ndarray, orientation: np.ndarray | None = None, minimum: int = 0) -> np.ndarray:
    """Assign each particle to a class of highest score, every class getting its minimum in every orientation group.

    The sum of scores is maximised subject to the lower bounds (a transport problem): its dual gives each class an
    offset that is zero unless the bound is active, so that particles move to a small class in the order of their
    margins to the class they leave, not of their raw scores.

    Parameters
    ----------
    scores : float64 (n, K), log-likelihoods.
    orientation : int (n,), orientation group of each particle; None is one group.
    minimum : smallest group size over all orientation groups; see `group_quota`.

    Returns
    -------
    int64 (n,), class of each particle. Ties go to the lower class.
    """
    count, classes = scores.shape
    if minimum <= 0 or classes < 2 or count == 0:
        return np.asarray(scores.argmax(axis=1), np.int64) if count else np.zeros(0, np.int64)
    labels = np.empty(count, np.int64)
    groups = np.zeros(count, np.int64) if orientation is None else orientation
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        quota = group_quota(minimum, classes, len(members), count)
        labels[members] = _assign_with_quota(scores[members], quota)
    return labels


def _assign_with_quota(scores: np.ndarray, quota: int) -> np.ndarray:
    """Auction over classes: raise the offset of a class that is too small until it holds exactly its quota."""
    count, classes = scores.shape
    labels = scores.argmax(axis=1)
    if quota == 0:
        return np.asarray(labels, np.int64)
    offsets = np.zeros(classes)
    rows = np.arange(count)
    # Each raise takes particles from richer classes only; a class may be robbed below its quota again and is then
    # raised in turn. Offsets only grow, so this ends; the limit guards against ties in degenerate scores.
    for _ in range(50 * classes):
        sizes = np.bincount(labels, minlength=classes)
        short = np.flatnonzero(sizes < quota)
        if short.size == 0:
            return np.asarray(labels, np.int64)
        target = short[np.argmin(sizes[short])]
        shifted = scores + offsets
        other = shifted.copy()
        other[:, target] = -np.inf
        best_other = other.argmax(axis=1)
        margin = scores[:, target] - other[rows, best_other]
        taken = np.argsort(-margin, kind="stable")[:quota]
        offsets[target] = max(offsets[target], -float(margin[taken[-1]]))
        labels = best_other
        labels[taken] = target
    return _top_up(scores, labels, quota)


def _top_up(scores: np.ndarray, labels: np.ndarray, quota: int) -> np.ndarray:
    """Fill small classes from classes above their quota, smallest loss first."""
    classes = scores.shape[1]
    for target in range(classes):
        while (need := quota - int((labels == target).sum())) > 0:
            sizes = np.bincount(labels, minlength=classes)
            spare = sizes[labels] > quota
            loss = np.where(spare, scores[np.arange(len(labels)), labels] - scores[:, target], np.inf)
            donor = labels[int(loss.argmin())]
            movable = np.flatnonzero((labels == donor) & spare)
            count = min(need, int(sizes[donor]) - quota)
            labels[movable[np.argsort(loss[movable], kind="stable")[:count]]] = target
    return np.asarray(labels, np.int64)
