"""The contingency table of two partitions, from which all comparisons follow."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def contingency_table(
    a: ArrayLike, b: ArrayLike, groups_a: int | None = None, groups_b: int | None = None
) -> NDArray[np.int64]:
    """Count the particles two partitions put into each pair of groups.

    Parameters
    ----------
    a, b : (N,) int
        Group of each particle, from 0; -1 is unassigned. Particles unassigned in either partition
        are not counted.
    groups_a, groups_b : int, optional
        Numbers of groups; by default the highest label plus one.

    Returns
    -------
    (Ka, Kb) int64.
    """
    first, second = checked_labels(a), checked_labels(b)
    if first.shape != second.shape:
        raise ValueError(f"partitions of {first.size} and {second.size} particles cannot be compared")
    rows, columns = count_groups(first, groups_a), count_groups(second, groups_b)
    both = (first >= 0) & (second >= 0)
    cells = np.bincount(first[both] * columns + second[both], minlength=rows * columns)
    return cells.reshape(rows, columns)


def group_sizes(labels: ArrayLike, groups: int | None = None) -> NDArray[np.int64]:
    """Count the particles of each group: (K,) int64, without the unassigned (-1)."""
    checked = checked_labels(labels)
    return np.bincount(checked[checked >= 0], minlength=count_groups(checked, groups))


def checked_labels(labels: ArrayLike) -> NDArray[np.int64]:
    """Return labels as int64 (N,); ValueError for anything but integers from -1 on."""
    array = np.asarray(labels)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"labels must be integers in one dimension, not {array.dtype} of shape {array.shape}")
    array = array.astype(np.int64)
    if array.size and array.min() < -1:
        raise ValueError(f"labels must be -1 (unassigned) or groups from 0 on, not {array.min()}")
    return array


def count_groups(labels: NDArray[np.int64], groups: int | None = None) -> int:
    """Return the number of groups: highest label plus one, or what was asked if that suffices."""
    highest = int(labels.max(initial=-1)) + 1
    if groups is None:
        return highest
    if groups < highest:
        raise ValueError(f"label {highest - 1} does not fit into {groups} groups")
    return groups
