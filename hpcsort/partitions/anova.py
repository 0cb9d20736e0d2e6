"""Whether a property of the particles (defocus, norm, number of smears) differs between groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hpcsort.partitions.contingency import checked_labels


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
    holm = _holm(pair_p)
    return Anova(groups, counts, means + grand_mean, stds, grand_mean, F, p, eta_squared, pairs, pair_F, pair_p, holm)


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


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values corrected by Holm's step-down rule; NaN stays and is not counted."""
    corrected = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(order.size, 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
