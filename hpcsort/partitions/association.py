"""Whether membership of a group follows from what else is known of the particles, with micrographs as the unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hpcsort.partitions.contingency import checked_labels
from hpcsort.partitions.multiple import holm

# Share of the largest variance below which a direction of the features is taken for a constant.
_CONSTANT = 1e-9


@dataclass(frozen=True)
class Explanation:
    """How far each group follows from covariates, against the particles of all other groups.

    Attributes
    ----------
    groups, counts : (K,) int64
        Labels of the groups that have particles, and their sizes.
    free : int
        Independent features.
    design_effect : (K,) float64
        How many times wider the chance spread is than for independent particles; 1 without clusters.
    F, p, p_holm : (K,) float64
        Test of no association, its p-value, and that corrected for the number of groups. NaN where there is
        nothing to test (one group, constant features, fewer than two clusters).
    explained : (K,) float64
        Share of the variance of membership that the features explain, 0..1, less what chance explains.
    moved : (K,) float64
        Share of the group's particles, 0..1, that would have to be exchanged to give the group the covariates of
        the rest: the total variation distance of the two distributions as the features resolve them.
    """

    groups: NDArray[np.int64]
    counts: NDArray[np.int64]
    free: int
    design_effect: NDArray[np.float64]
    F: NDArray[np.float64]
    p: NDArray[np.float64]
    p_holm: NDArray[np.float64]
    explained: NDArray[np.float64]
    moved: NDArray[np.float64]


def explain_groups(features: ArrayLike, labels: ArrayLike, clusters: ArrayLike | None = None) -> Explanation:
    """Test and measure the dependence of each group's membership on covariates.

    Membership m (0 or 1, mean q) is regressed on the features x. The score statistic N R^2 is a chi-squared of k
    degrees for independent particles (exactly so on average over permutations of the labels). Where particles of one
    cluster are alike, the score sum_i (m_i - q) (x_i - mean x) is summed within clusters first, whose scatter
    gives its true covariance, and the statistic is corrected for the eigenvalues of that covariance against the nominal
    one: Rao & Scott, Ann. Stat. 12 (1984) 46, second order, with the F of Thomas & Rao, JASA 82 (1987) 630. It stays
    valid when clusters are few or a group sits in few of them.

    Parameters
    ----------
    features : (N, k) float
        Covariates, any unit; finite. Only the space that they and a constant span matters.
    labels : (N,) int
        Groups from 0; unassigned particles (-1) are left out.
    clusters : (N,) int, optional
        Number of the cluster (micrograph) of each particle, from 0; by default each is its own.
    """
    group = checked_labels(labels)
    table = np.asarray(features, np.float64)
    if table.ndim != 2 or len(table) != group.size:
        raise ValueError(f"features of shape {table.shape} for {group.size} particles")
    used = group >= 0
    if not np.isfinite(table[used]).all():
        raise ValueError("features must be finite")
    white, group = whiten_features(table[used]), group[used]
    unit = None if clusters is None else cluster_numbers(clusters, used)
    groups, member, counts = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(member, kind="stable")
    ends = np.cumsum(counts)
    sums = None if unit is None else sum_by(unit, white, int(unit.max(initial=-1)) + 1)
    rows = [_explain(white, order[end - count : end], unit, sums) for end, count in zip(ends, counts, strict=True)]
    effect, F, p, explained, moved = np.array(rows, np.float64).reshape(-1, 5).T
    return Explanation(groups, counts, white.shape[1], effect, F, p, holm(p), explained, moved)


def quantile_features(values: ArrayLike, labels: ArrayLike, bins: int = 10) -> NDArray[np.float64]:
    """Return indicators (N, bins) of the quantiles of a quantity, so that any dependence shows, not only a shift.

    Parameters
    ----------
    values : (N,) float
        A quantity, any unit.
    labels : (N,) int
        Groups from 0; the quantiles are those of the assigned particles. Equal values share a bin.
    bins : int
        Number of quantiles.
    """
    quantity, used = np.asarray(values, np.float64), checked_labels(labels) >= 0
    if not used.any():
        return np.zeros((quantity.size, bins))
    edges = np.quantile(quantity[used], np.arange(1, bins) / bins)
    return np.asarray(np.searchsorted(edges, quantity, side="right")[:, None] == np.arange(bins), np.float64)


def whiten_features(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return uncorrelated features (N, r) of mean 0 and mean square 1 that span the same space, without constants."""
    if not len(features):
        return np.zeros((0, 0))
    centred = features - features.mean(axis=0)
    size = np.sqrt((centred**2).mean(axis=0))
    # A column that is constant up to rounding must not be scaled up to size one.
    varies = size > 1e-12 * np.abs(features).max(axis=0, initial=0.0)
    scaled = centred[:, varies] / size[varies]
    variances, axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    kept = variances > _CONSTANT * variances.max(initial=0.0)
    return np.asarray(scaled @ (axes[:, kept] / np.sqrt(variances[kept])))


def cluster_numbers(clusters: ArrayLike, used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the clusters of the used particles, numbered from 0 without gaps."""
    given = np.asarray(clusters)
    if given.shape != used.shape:
        raise ValueError(f"clusters of shape {given.shape} for {used.size} particles")
    return np.unique(given[used], return_inverse=True)[1].reshape(-1).astype(np.int64)


def sum_by(number: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return sums (count, k) of the rows (n, k) of each number."""
    columns = [np.bincount(number, column, count) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def design_test(statistic: float, free: int, spread: NDArray[np.float64] | None) -> tuple[float, float, float]:
    """Correct a chi-squared statistic for clusters.

    Parameters
    ----------
    statistic, free
        The statistic and its degrees of freedom for independent particles.
    spread : (C, k), optional
        Contribution of each cluster to the score, in units in which the score of independent particles has the
        identity for its covariance; any number of columns that has `free` independent directions.

    Returns
    -------
    design effect, F, p.
    """
    nothing = float("nan"), float("nan"), float("nan")
    if free < 1:
        return nothing
    if spread is None:
        return 1.0, statistic / free, float(stats.chi2.sf(statistic, free))
    clusters = len(spread)
    if clusters < 2:
        return nothing
    centred = spread - spread.mean(axis=0)
    # Of the two products the smaller; their eigenvalues are the same.
    product = centred @ centred.T if clusters < spread.shape[1] else centred.T @ centred
    product *= clusters / (clusters - 1)
    trace, square = float(np.trace(product)), float((product**2).sum())
    if trace <= 0:
        return nothing
    # The scatter of estimated eigenvalues adds trace^2 / C to their square (Bai & Saranadasa 1996).
    square = max(square - trace**2 / (clusters - 1), trace**2 / free)
    numerator = min(max(trace**2 / square, 1.0), float(free))
    F = statistic / trace
    return trace / free, F, float(stats.f.sf(F, numerator, numerator * (clusters - 1)))


def shrunk_share(share: float, by_chance: float) -> float:
    """Return a share of variance less what chance explains: 0 at that level, 1 at 1 (Ezekiel's adjusted R^2)."""
    return max(share - by_chance, 0.0) / (1.0 - by_chance) if by_chance < 1 else 0.0


def moved_share(fitted: NDArray[np.float64], share: float, weights: NDArray[np.float64] | None = None) -> float:
    """Total variation distance of a group and the rest from fitted probabilities of membership and its mean."""
    distance = np.average(np.abs(np.clip(fitted, 0.0, 1.0) - share), weights=weights)
    return float(min(distance / (2 * share * (1 - share)), 1.0))


def _explain(
    white: NDArray[np.float64],
    members: NDArray[np.int64],
    unit: NDArray[np.int64] | None,
    sums: NDArray[np.float64] | None,
) -> tuple[float, float, float, float, float]:
    """Return design effect, F, p, explained and moved of one group from whitened features."""
    total, free = white.shape
    share = members.size / total
    if share == 1 or total < 3 or free < 1:
        return (float("nan"),) * 5
    inside = white[members]
    score = inside.sum(axis=0)
    # Variance of each component of the score over permutations of the labels.
    nominal = total * share * (1 - share) * total / (total - 1)
    spread = None
    if unit is not None and sums is not None:
        spread = (sum_by(unit[members], inside, len(sums)) - share * sums) / np.sqrt(nominal)
    statistic = float(score @ score) / nominal
    effect, F, p = design_test(statistic, free, spread)
    explained_raw = statistic / (total - 1)
    explained = shrunk_share(explained_raw, (effect if effect == effect else 1.0) * free / (total - 1))
    shrink = np.sqrt(explained / explained_raw) if explained_raw > 0 else 0.0
    return effect, F, p, explained, moved_share(share + white @ (score * shrink / total), share)
