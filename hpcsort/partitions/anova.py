"""Whether a property of the particles (defocus, norm, number of smears, micrograph) differs between groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hpcsort.partitions.association import cluster_numbers, design_test, moved_share, shrunk_share
from hpcsort.partitions.contingency import checked_labels
from hpcsort.partitions.multiple import holm


@dataclass(frozen=True)
class Anova:
    """One-way analysis of variance of a quantity over groups.

    Attributes
    ----------
    groups : (K,) int64
        Labels of the groups that have particles.
    counts, means, stds : (K,)
        Particles, mean and sample standard deviation (NaN for one particle) of each.
    grand_mean : float
        Over all assigned particles.
    F, p : float
        F statistic and its p-value; NaN where it is not defined (fewer than two groups, or no
        spare particle, or a constant).
    eta_squared : float
        Share of the variance that lies between the groups, 0..1: with many particles p is tiny
        for differences of no importance, eta_squared is not.
    pairs : (K (K - 1) / 2, 2) int64
        Labels of compared groups.
    pair_F, pair_p, pair_p_holm : (K (K - 1) / 2,) float64
        F test of each two groups, its p-value, and that corrected for their number (Holm 1979).
    """

    groups: NDArray[np.int64]
    counts: NDArray[np.int64]
    means: NDArray[np.float64]
    stds: NDArray[np.float64]
    grand_mean: float
    F: float
    p: float
    eta_squared: float
    pairs: NDArray[np.int64]
    pair_F: NDArray[np.float64]
    pair_p: NDArray[np.float64]
    pair_p_holm: NDArray[np.float64]


def analyse_variance(values: ArrayLike, labels: ArrayLike) -> Anova:
    """Compare the means of a quantity between groups.

    Parameters
    ----------
    values : (N,) float
        The quantity of each particle, any unit; finite.
    labels : (N,) int
        Groups from 0; unassigned particles (-1) are left out.
    """
    quantity, group = np.asarray(values, np.float64), checked_labels(labels)
    if quantity.shape != group.shape:
        raise ValueError(f"{quantity.size} values for {group.size} particles")
    if not np.isfinite(quantity[group >= 0]).all():
        raise ValueError("the quantity of an analysis of variance must be finite")
    quantity, group = quantity[group >= 0], group[group >= 0]
    grand_mean = float(quantity.mean()) if quantity.size else float("nan")
    groups, member = np.unique(group, return_inverse=True)
    counts = np.bincount(member, minlength=groups.size)
    # About the grand mean: defocus in Angstrom squared would cost half of the digits.
    means = np.bincount(member, quantity - grand_mean, groups.size) / counts
    deviation = quantity - grand_mean - means[member]
    within = np.bincount(member, deviation**2, groups.size).astype(np.float64)
    stds = np.sqrt(np.divide(within, counts - 1, out=np.full(groups.size, np.nan), where=counts > 1))
    F, p, eta_squared = _f_test(counts, means, within)
    first, second = np.triu_indices(groups.size, 1)
    tests = [_f_test(counts[[i, j]], means[[i, j]], within[[i, j]]) for i, j in zip(first, second, strict=True)]
    pair_F, pair_p, _ = np.array(tests, np.float64).reshape(-1, 3).T
    pairs = np.stack([groups[first], groups[second]], axis=1)
    corrected = holm(pair_p)
    return Anova(
        groups, counts, means + grand_mean, stds, grand_mean, F, p, eta_squared, pairs, pair_F, pair_p, corrected
    )


def _f_test(
    counts: NDArray[np.int64], means: NDArray[np.float64], within: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Return F, p and eta squared from sizes, means and sums of squares within the groups."""
    between_free, within_free = counts.size - 1, int(counts.sum()) - counts.size
    mean = np.average(means, weights=counts) if counts.size else 0.0
    between_sum, within_sum = float((counts * (means - mean) ** 2).sum()), float(within.sum())
    total = between_sum + within_sum
    eta_squared = between_sum / total if total > 0 else float("nan")
    if between_free < 1 or within_free < 1 or total == 0:
        return float("nan"), float("nan"), eta_squared
    if within_sum == 0:
        return float("inf"), 0.0, eta_squared
    F = (between_sum / between_free) / (within_sum / within_free)
    return F, float(stats.f.sf(F, between_free, within_free)), eta_squared


@dataclass(frozen=True)
class ClusteredAnova:
    """The same comparison where particles of one cluster are not independent.

    Attributes
    ----------
    clusters : int
        Clusters that have assigned particles.
    design_effect : float
        How many times wider the chance spread of the group means is than for independent particles.
    F, p : float
        Corrected F statistic and its p-value; NaN where not defined.
    pairs : (M, 2) int64
        Labels of compared groups.
    pair_F, pair_p, pair_p_holm : (M,) float64
        The same for each two groups, and their p-values corrected for their number.
    """

    clusters: int
    design_effect: float
    F: float
    p: float
    pairs: NDArray[np.int64]
    pair_F: NDArray[np.float64]
    pair_p: NDArray[np.float64]
    pair_p_holm: NDArray[np.float64]


def analyse_variance_clustered(values: ArrayLike, labels: ArrayLike, clusters: ArrayLike) -> ClusteredAnova:
    """Compare the means of a quantity between groups with clusters (micrographs) as the unit.

    The score of group g, sum over its particles of y - mean y, is a sum over clusters, and their scatter gives
    its covariance whatever the correlation within a cluster, be the quantity constant in it (defocus), the group
    (one state per grid square), or neither. The statistic (N - 1) eta^2 is corrected for it as in
    `explain_groups` (Rao & Scott 1984; for two groups this is the one-sample t test of the clusters' contributions).

    Parameters
    ----------
    values : (N,) float
        The quantity of each particle, any unit; finite.
    labels : (N,) int
        Groups from 0; unassigned particles (-1) are left out.
    clusters : (N,) int
        Cluster of each particle, any numbers.
    """
    quantity, group = np.asarray(values, np.float64), checked_labels(labels)
    if quantity.shape != group.shape:
        raise ValueError(f"{quantity.size} values for {group.size} particles")
    used = group >= 0
    if not np.isfinite(quantity[used]).all():
        raise ValueError("the quantity of an analysis of variance must be finite")
    unit, quantity = cluster_numbers(clusters, used), quantity[used]
    groups, member = np.unique(group[used], return_inverse=True)
    amount, number = int(unit.max(initial=-1)) + 1, groups.size
    cells = unit * number + member
    centred = quantity - quantity.mean() if quantity.size else quantity
    tables = [np.bincount(cells, weights, amount * number).reshape(amount, number) for weights in (None, centred)]
    counts, sums = (np.asarray(table, np.float64) for table in tables)
    squares = np.bincount(member, centred**2, number).astype(np.float64)
    effect, F, p = _clustered_f(counts, sums, squares)
    first, second = np.triu_indices(number, 1)
    tests = [_clustered_f(counts[:, pair], sums[:, pair], squares[pair]) for pair in np.stack([first, second], axis=1)]
    _, pair_F, pair_p = np.array(tests, np.float64).reshape(-1, 3).T
    pairs = np.stack([groups[first], groups[second]], axis=1)
    return ClusteredAnova(amount, effect, F, p, pairs, pair_F, pair_p, holm(pair_p))


def _clustered_f(
    counts: NDArray[np.float64], sums: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Return design effect, F and p from numbers and sums (C, K) of the cells and sums of squares (K,)."""
    present = counts.any(axis=1)
    counts, sums = counts[present], sums[present]
    sizes, total = counts.sum(axis=0), counts.sum()
    mean = sums.sum() / max(total, 1.0)
    variance = (squares.sum() - total * mean**2) / max(total - 1, 1.0)
    if sizes.size < 2 or not variance > 0:
        return float("nan"), float("nan"), float("nan")
    sums = sums - mean * counts
    # The mean is that of the same particles: each takes its group's share of what its cluster adds to it.
    spread = (sums - sums.sum(axis=1, keepdims=True) * sizes / total) / np.sqrt(sizes * variance)
    statistic = float((sums.sum(axis=0) ** 2 / sizes).sum() / variance)
    return design_test(statistic, sizes.size - 1, spread)


@dataclass(frozen=True)
class Unevenness:
    """How unevenly clusters (micrographs) are spread over the groups.

    Attributes
    ----------
    clusters : int
        Clusters that have assigned particles.
    chi2, expected, p : float
        Chi-squared of the table of groups and clusters, its mean over random labels, and the p-value.
    cramers_v : float
        Cramer's V less what chance gives, 0..1 (Bergsma 2013).
    groups : (K,) int64
        Labels of the groups that have particles.
    group_ratio, group_p, group_p_holm : (K,) float64
        Chi-squared of each group against all others over its mean, its p-value, and that corrected for K.
    group_moved : (K,) float64
        Share of the group's particles that would have to be exchanged to spread it over the clusters as the rest,
        less what chance gives.
    """

    clusters: int
    chi2: float
    expected: float
    p: float
    cramers_v: float
    groups: NDArray[np.int64]
    group_ratio: NDArray[np.float64]
    group_p: NDArray[np.float64]
    group_p_holm: NDArray[np.float64]
    group_moved: NDArray[np.float64]


def measure_unevenness(labels: ArrayLike, clusters: ArrayLike) -> Unevenness:
    """Test whether clusters (micrographs) have their particles in the groups more unevenly than random labels.

    The null is the permutation of the labels over the particles (hypergeometric tables). The p-value is that of a gamma
    distribution with the exact permutation mean and variance of chi-squared (Dawson, Biometrika 41 (1954) 280; Mielke &
    Berry, Psychometrika 50 (1985) 297): many micrographs with few particles each break the usual one.

    Parameters
    ----------
    labels : (N,) int
        Groups from 0; unassigned particles (-1) are left out.
    clusters : (N,) int
        Cluster of each particle, any numbers.
    """
    group = checked_labels(labels)
    used = group >= 0
    unit = cluster_numbers(clusters, used)
    groups, member = np.unique(group[used], return_inverse=True)
    amount, number = int(unit.max(initial=-1)) + 1, groups.size
    table = np.bincount(unit * number + member, minlength=amount * number).reshape(amount, number).astype(np.float64)
    chi2, expected, p = _table_test(table)
    sizes, total = table.sum(axis=1), table.sum()
    tests = []
    for column in table.T:
        one, mean, chance = _table_test(np.stack([column, sizes - column], axis=1))
        tests.append((one / mean if mean > 0 else np.nan, chance, _moved(column, sizes, one, mean)))
    ratio, group_p, moved = np.array(tests, np.float64).reshape(-1, 3).T
    return Unevenness(
        amount, chi2, expected, p, _cramers_v(chi2, amount, number, total), groups, ratio, group_p, holm(group_p), moved
    )


def _table_test(table: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return chi-squared of a table without empty rows and columns, its mean under permutation, and the p-value."""
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), table.sum()
    if len(rows) < 2 or (columns > 0).sum() < 2 or total < 4:
        return 0.0, 0.0, float("nan")
    expected = np.outer(rows, columns) / total
    chi2 = float(((table - expected) ** 2 / expected).sum())
    free_rows, free_columns = len(rows) - 1, len(columns) - 1
    mean = total / (total - 1) * free_rows * free_columns
    v = [free * (total - free - 1) / (total - 1) for free in (free_rows, free_columns)]
    w = [((total / sizes).sum() - len(sizes) ** 2) / (total - 2) for sizes in (rows, columns)]
    variance = 2 * total / (total - 3) * (v[0] - w[0]) * (v[1] - w[1]) + total**2 / (total - 1) * w[0] * w[1]
    if not variance > 1e-12 * mean**2:
        return chi2, float(mean), float("nan")
    return chi2, float(mean), float(stats.gamma.sf(chi2, mean**2 / variance, scale=variance / mean))


def _cramers_v(chi2: float, rows: int, columns: int, total: float) -> float:
    if min(rows, columns) < 2 or total < 2:
        return float("nan")
    excess = max(chi2 / total - (rows - 1) * (columns - 1) / (total - 1), 0.0)
    most = min(size - 1 - (size - 1) ** 2 / (total - 1) for size in (rows, columns))
    return float(min(np.sqrt(excess / most), 1.0)) if most > 0 else float("nan")


def _moved(inside: NDArray[np.float64], sizes: NDArray[np.float64], chi2: float, mean: float) -> float:
    """Share of a group that sits in the wrong clusters, its members per cluster shrunk by what is not noise."""
    total = sizes.sum()
    share = inside.sum() / total
    if not mean > 0:
        return float("nan")
    if chi2 <= 0:
        return 0.0
    shrink = np.sqrt(shrunk_share(chi2 / total, mean / total) / (chi2 / total))
    return moved_share(share + shrink * (inside / sizes - share), share, sizes)
