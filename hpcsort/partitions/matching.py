"""Matching the groups of two partitions one to one, and what both agree on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from hpcsort.partitions.contingency import checked_labels, contingency_table, count_groups, group_sizes


@dataclass(frozen=True)
class Matching:
    """Matched groups of two partitions, in rising order of the first partition's groups.

    Attributes
    ----------
    pairs : (M, 2) int64
        Group of the first and of the second partition.
    overlap : (M,) int64
        Particles in both.
    sizes : (M, 2) int64
        Particles in either group, those unassigned in the other partition included.
    jaccard : (M,) float64
        Overlap / union, 0..1.
    table : (Ka, Kb) int64
        The contingency table.
    """

    pairs: NDArray[np.int64]
    overlap: NDArray[np.int64]
    sizes: NDArray[np.int64]
    jaccard: NDArray[np.float64]
    table: NDArray[np.int64]


def match_groups(a: ArrayLike, b: ArrayLike) -> Matching:
    """Match the groups of two partitions so that the matched groups share most particles.

    Parameters
    ----------
    a, b : (N,) int
        Labels from 0, -1 unassigned. The numbers of groups may differ; groups without a partner
        and matched groups without a common particle are left out.

    Returns
    -------
    Matching
        Of the assignment that maximises the sum of overlaps (Kuhn 1955).
    """
    table = contingency_table(a, b)
    rows, columns = match_table(table)
    pairs = np.stack([rows, columns], axis=1)
    overlap = table[rows, columns]
    sizes = np.stack([group_sizes(a)[rows], group_sizes(b)[columns]], axis=1)
    return Matching(pairs, overlap, sizes, jaccard(overlap, sizes[:, 0], sizes[:, 1]), table)


def match_table(table: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the one-to-one assignment with the largest sum, without empty cells."""
    rows, columns = linear_sum_assignment(table, maximize=True)
    shared = table[rows, columns] > 0
    return rows[shared].astype(np.int64), columns[shared].astype(np.int64)


def jaccard(overlap: ArrayLike, size_a: ArrayLike, size_b: ArrayLike) -> NDArray[np.float64]:
    """Return |A and B| / |A or B| from the three numbers; 0 for two empty groups."""
    both = np.asarray(overlap, np.float64)
    union = np.asarray(size_a) + np.asarray(size_b) - both
    return np.divide(both, union, out=np.zeros(np.broadcast(both, union).shape), where=union > 0)


def intersect_groups(a: ArrayLike, b: ArrayLike, pairs: ArrayLike) -> NDArray[np.int64]:
    """Label the stable sets: particles that both partitions put into matched groups.

    Parameters
    ----------
    a, b : (N,) int
        Labels from 0, -1 unassigned.
    pairs : (M, 2) int
        Matched groups, for example some of `Matching.pairs`, no group twice.

    Returns
    -------
    (N,) int64: the number of the pair, -1 where the partitions disagree.
    """
    first, second = checked_labels(a), checked_labels(b)
    if first.shape != second.shape:
        raise ValueError(f"partitions of {first.size} and {second.size} particles cannot be compared")
    matched = np.asarray(pairs, np.int64).reshape(-1, 2)
    # The last entry stands for -1, of which it is the Python index.
    pair_of_a, pair_of_b = (np.full(count_groups(labels) + 1, -1) for labels in (first, second))
    for number, (left, right) in enumerate(matched):
        if not (0 <= left < pair_of_a.size - 1 and 0 <= right < pair_of_b.size - 1):
            raise ValueError(f"pair ({left}, {right}) names a group that no particle has")
        if pair_of_a[left] >= 0 or pair_of_b[right] >= 0:
            raise ValueError(f"pair ({left}, {right}) names a group that another pair has already")
        pair_of_a[left] = pair_of_b[right] = number
    stable = pair_of_a[first]
    return np.where(stable == pair_of_b[second], stable, -1)


def matched_accuracy(truth: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of particles in the right group under the best one-to-one matching.

    Parameters
    ----------
    truth : (N,) int
        True groups; particles with -1 belong to none and are not counted.
    labels : (N,) int
        Groups found; unassigned particles (-1) count as wrong.

    Returns
    -------
    0..1; NaN where no particle has a true group.
    """
    known = int((checked_labels(truth) >= 0).sum())
    return float(match_groups(truth, labels).overlap.sum() / known) if known else float("nan")


def purities(truth: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return for each group found the share of its most frequent true group.

    Parameters
    ----------
    truth : (N,) int
        True groups; particles with -1 belong to none and make a group impure.
    labels : (N,) int
        Groups found, -1 unassigned.

    Returns
    -------
    (K,) float64, 0..1; NaN for a label no particle has.
    """
    sizes = group_sizes(labels)
    table = contingency_table(truth, labels)
    largest = table.max(axis=0, initial=0)
    return np.divide(largest, sizes, out=np.full(sizes.shape, np.nan), where=sizes > 0)
