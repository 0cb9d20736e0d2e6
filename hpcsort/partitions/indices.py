"""Agreement of two partitions in one number: Rand index, adjusted Rand index, adjusted mutual information."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from hpcsort.partitions.contingency import contingency_table


def rand_index(a: ArrayLike, b: ArrayLike) -> float:
    """Return the share of particle pairs that are together in both partitions or apart in both.

    Parameters
    ----------
    a, b : (N,) int
        Labels from 0; particles unassigned (-1) in either partition are left out.

    Returns
    -------
    0..1, 1 for fewer than two particles. Rand 1971.
    """
    both, in_a, in_b, pairs = _count_pairs(contingency_table(a, b))
    return (pairs + 2 * both - in_a - in_b) / pairs if pairs else 1.0


def adjusted_rand_index(a: ArrayLike, b: ArrayLike) -> float:
    """Return the Rand index corrected for chance: 0 for independent partitions, 1 for equal ones.

    Parameters
    ----------
    a, b : (N,) int
        Labels from 0; particles unassigned (-1) in either partition are left out.

    Returns
    -------
    Hubert & Arabie 1985, eq. 5; 1 where both partitions are trivial (one group, or no two
    particles together). May be negative.
    """
    both, in_a, in_b, pairs = _count_pairs(contingency_table(a, b))
    # In whole numbers: the products exceed 2^63 from a few ten thousand particles on.
    numerator = 2 * (both * pairs - in_a * in_b)
    denominator = pairs * (in_a + in_b) - 2 * in_a * in_b
    return numerator / denominator if denominator else 1.0


def adjusted_mutual_information(a: ArrayLike, b: ArrayLike) -> float:
    """Return the mutual information of two partitions corrected for chance and normalised.

    Parameters
    ----------
    a, b : (N,) int
        Labels from 0; particles unassigned (-1) in either partition are left out.

    Returns
    -------
    (I - E[I]) / (mean entropy - E[I]) with the exact expectation over random partitions of the
    same sizes (Vinh, Epps & Bailey 2010, eq. 24a); 1 for equal partitions. May be negative.
    """
    table = contingency_table(a, b)
    table = table[table.any(axis=1)][:, table.any(axis=0)]
    if ((table > 0).sum(axis=0) == 1).all() and ((table > 0).sum(axis=1) == 1).all():
        return 1.0  # equal up to names, and no 0/0 for trivial partitions
    sizes_a, sizes_b, total = table.sum(axis=1), table.sum(axis=0), int(table.sum())
    expected = _expected_information(sizes_a, sizes_b, total)
    mean_entropy = (_entropy(sizes_a, total) + _entropy(sizes_b, total)) / 2
    return float((_information(table) - expected) / (mean_entropy - expected))


def _count_pairs(table: NDArray[np.int64]) -> tuple[int, int, int, int]:
    """Return the pairs of particles together in both, in the first, in the second partition, and all."""
    counts = (table, table.sum(axis=1), table.sum(axis=0), table.sum())
    both, in_a, in_b, pairs = (int((n * (n - 1) // 2).sum()) for n in counts)
    return both, in_a, in_b, pairs


def _entropy(sizes: NDArray[np.int64], total: int) -> float:
    share = sizes / total
    return float(-(share * np.log(share)).sum())


def _information(table: NDArray[np.int64]) -> float:
    """Return the mutual information in nats of a table without empty rows and columns."""
    total = table.sum()
    rows, columns = np.nonzero(table)
    joint = table[rows, columns] / total
    independent = (table.sum(axis=1)[rows] / total) * (table.sum(axis=0)[columns] / total)
    return float((joint * np.log(joint / independent)).sum())


def _expected_information(sizes_a: NDArray[np.int64], sizes_b: NDArray[np.int64], total: int) -> float:
    """Return the mean mutual information of random partitions with these sizes: K^2 hypergeometric sums."""
    log_factorial = gammaln(np.arange(total + 1) + 1.0)
    # Groups of equal size have equal terms.
    (values_a, times_a), (values_b, times_b) = (np.unique(sizes, return_counts=True) for sizes in (sizes_a, sizes_b))
    expected = 0.0
    for size_a, number_a in zip(values_a.tolist(), times_a.tolist(), strict=True):
        for size_b, number_b in zip(values_b.tolist(), times_b.tolist(), strict=True):
            n = np.arange(max(1, size_a + size_b - total), min(size_a, size_b) + 1)
            log_p = -log_factorial[n] - log_factorial[size_a - n] - log_factorial[size_b - n]
            log_p -= log_factorial[total - size_a - size_b + n]
            log_p += log_factorial[[size_a, size_b, total - size_a, total - size_b]].sum() - log_factorial[total]
            gain = n / total * np.log(n * (total / (size_a * size_b)))
            expected += number_a * number_b * float((gain * np.exp(log_p)).sum())
    return expected
