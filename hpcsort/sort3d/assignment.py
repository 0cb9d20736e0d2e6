"""Assignment of particles to classes with a minimum group size, in every orientation group."""

from __future__ import annotations

import numpy as np

from hpcsort.sort3d.statistics import JUNK_KINDS

__all__ = ["assign", "group_quota", "label_new_classes"]

_FEW = 8
"""Missing particles up to which single moves are faster than prices."""
_COOLING = 0.25
_COLDEST = 2e-4
_NEWTON_STEPS = 12


def group_quota(minimum: int, classes: int, members: int, count: int) -> int:
    """Particles that every class gets in an orientation group of ``members`` out of ``count`` particles.

    The minimum group size is shared out in proportion, and at most 95 % of a group is decided by it (rho of
    SORT3D_DEPTH: q = int(min(m K / N, 0.95) n / K)).
    """
    share = min(minimum * classes / max(count, 1), 0.95)
    return int(share * members / max(classes, 1))


def assign(
    scores: np.ndarray, orientation: np.ndarray | None = None, minimum: int = 0, unbounded: int = 0
) -> np.ndarray:
    """Assign each particle to a class of highest score, every class getting its minimum in every orientation group.

    The sum of scores is maximised subject to the lower bounds (a transport problem), so that particles move to a small
    class in the order of what they lose by it, not of their raw scores.

    Parameters
    ----------
    scores : float64 (n, K), log-likelihoods.
    orientation : int (n,), orientation group of each particle; None is one group.
    minimum : smallest group size over all orientation groups; see `group_quota`.
    unbounded : the first so many classes take what they are best for, and have no minimum.

    Returns
    -------
    int64 (n,), class of each particle. Ties go to the lower class.
    """
    count, classes = scores.shape
    if count == 0:
        return np.zeros(0, np.int64)
    best = np.asarray(scores.argmax(axis=1), np.int64)
    bounded = classes - unbounded
    if minimum <= 0 or classes < 2 or bounded < 1:
        return best
    labels = np.empty(count, np.int64)
    groups = np.zeros(count, np.int64) if orientation is None else orientation
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        quota = np.zeros(classes, np.int64)
        quota[unbounded:] = group_quota(minimum, bounded, len(members), count)
        labels[members] = _assign_with_quota(np.asarray(scores[members], np.float64), quota)
    return labels


def label_new_classes(joint: np.ndarray, orientation: np.ndarray, minimum: int, groups: int) -> np.ndarray:
    """Label particles by new classes that hold a minimum size; known groups and junk have none.

    Parameters
    ----------
    joint : float64 (n, groups + K + 2), log of share times likelihood: known groups first, the kinds of junk last.
    orientation : int (n,), orientation group of each particle.
    minimum : smallest size of a new class.
    groups : number of known groups.

    Returns
    -------
    int64 (n,), new class from 0; -1 for a particle of a known group or junk.
    """
    classes = joint.shape[1] - JUNK_KINDS
    placed = joint.argmax(axis=1) < classes
    labels = np.full(len(joint), -1, np.int64)
    labels[placed] = assign(joint[placed, :classes], orientation[placed], minimum, groups) - groups
    return np.maximum(labels, -1)


def _assign_with_quota(scores: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Best assignment that gives every class its quota.

    Everybody goes to the best class at some prices of the classes, which is the best assignment to groups of those
    sizes, whatever the prices; shortest augmenting paths then lead to the best sizes (Ahuja, Magnanti & Orlin 1993).
    Good prices leave few paths.
    """
    labels = np.asarray(scores.argmax(axis=1), np.int64)
    missing = int(np.maximum(quota - np.bincount(labels, minlength=len(quota)), 0).sum())
    if missing > _FEW:
        labels = np.asarray((scores + _prices(scores, quota)).argmax(axis=1), np.int64)
    if missing:
        _augment(scores, labels, quota)
    return labels


def _prices(scores: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Price >= 0 of every class at which its best customers are about its quota, float64 (K,).

    Minimises the dual of the transport problem, sum_i max_k (s_ik + price_k) - sum_k quota_k price_k, in which the
    maximum is a log-sum-exp at falling temperature, by Newton's method with the negative prices cut off.
    """
    prices = _first_prices(scores, quota)
    top = np.partition(scores + prices, -2, axis=1)[:, -2:]
    width = float((top[:, 1] - top[:, 0]).mean())
    temperature = width
    while temperature > _COLDEST * width:
        prices = _newton(scores, quota, prices, temperature)
        temperature *= _COOLING
    return prices


def _first_prices(scores: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Two rounds of auction: each class in turn offers just what wins its quota from the others."""
    prices = np.zeros(scores.shape[1])
    for _ in range(2):
        for index in np.flatnonzero(quota):
            offers = scores + prices
            own = offers[:, index] - prices[index]
            offers[:, index] = -np.inf
            margins = offers.max(axis=1) - own
            prices[index] = max(np.partition(margins, quota[index] - 1)[quota[index] - 1], 0.0)
    return prices


def _newton(scores: np.ndarray, quota: np.ndarray, prices: np.ndarray, temperature: float) -> np.ndarray:
    value, shares, sizes = _dual(scores, quota, prices, temperature)
    for _ in range(_NEWTON_STEPS):
        slope = sizes - quota
        free = (prices > 0) | (slope < 0)
        if np.abs(slope[free]).max(initial=0.0) < 0.5:
            break
        bent = (np.diag(sizes) - shares.T @ shares)[np.ix_(free, free)] / temperature
        bent += np.eye(len(bent)) * (1e-6 * np.trace(bent) / len(bent) + 1e-9 / temperature)
        step = np.zeros(len(prices))
        step[free] = -np.linalg.solve(bent, slope[free])
        length = 1.0
        while length > 1e-3:
            tried = np.maximum(prices + length * step, 0.0)
            new = _dual(scores, quota, tried, temperature)
            if new[0] < value:
                break
            length *= 0.25
        else:
            break
        prices, (value, shares, sizes) = tried, new
    return prices


def _dual(
    scores: np.ndarray, quota: np.ndarray, prices: np.ndarray, temperature: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Smoothed dual, shares (n, K) and expected sizes (K,) of the classes."""
    shares = (scores + prices) / temperature
    top = shares.max(axis=1, keepdims=True)
    np.exp(np.subtract(shares, top, out=shares), out=shares)
    norm = shares.sum(axis=1, keepdims=True)
    shares /= norm
    value = temperature * float((top + np.log(norm)).sum()) - float(quota @ prices)
    return value, shares, shares.sum(axis=0)


def _augment(scores: np.ndarray, labels: np.ndarray, quota: np.ndarray) -> None:
    """Move particles along the cheapest chains of classes, in place, until sizes and scores are the best.

    First from classes that can spare a particle to those that lack one; then from those that can spare to wherever
    it raises the score. Equal moves are made together.
    """
    classes = len(quota)
    sizes = np.bincount(labels, minlength=classes)
    loss = np.full((classes, classes), np.inf)
    for source in range(classes):
        loss[source] = _cheapest(scores, labels, source)
    # Rounding may not make a circle of ties look like a gain.
    margin = 1e-12 * (1.0 + float(np.abs(scores).max()))
    while True:
        small = sizes < quota
        chain, gain = _cheapest_chain(loss, sizes > quota, small if small.any() else np.ones(classes, bool), margin)
        if not chain or not (small.any() or gain < -margin):
            return
        ready = []
        for source, target in chain:
            members = np.flatnonzero(labels == source)
            each = scores[members, source] - scores[members, target]
            ready.append(members[each <= loss[source, target] + margin])
        first, last = chain[0][0], chain[-1][1]
        number = min(len(particles) for particles in ready)
        number = min(number, sizes[first] - quota[first])
        if small[last]:
            number = min(number, quota[last] - sizes[last])
        for (_, target), particles in zip(chain, ready, strict=True):
            labels[particles[:number]] = target
        sizes[first] -= number
        sizes[last] += number
        for source in {place for link in chain for place in link}:
            loss[source] = _cheapest(scores, labels, source)


def _cheapest(scores: np.ndarray, labels: np.ndarray, source: int) -> np.ndarray:
    """Smallest loss of score for a particle of class ``source`` to move to each other class, (K,)."""
    members = scores[labels == source]
    if not len(members):
        return np.full(scores.shape[1], np.inf)
    lost = np.asarray((members[:, [source]] - members).min(axis=0))
    lost[source] = np.inf
    return lost


def _cheapest_chain(
    loss: np.ndarray, spare: np.ndarray, wanted: np.ndarray, margin: float
) -> tuple[list[tuple[int, int]], float]:
    """Chain of (class, class) links of least loss from any class in ``spare`` to any in ``wanted`` (Bellman-Ford)."""
    classes = len(spare)
    distance = np.where(spare, 0.0, np.inf)
    before = np.full(classes, -1)
    for _ in range(classes):
        through = distance[:, None] + loss
        best = through.argmin(axis=0)
        reached = through[best, np.arange(classes)]
        better = reached < distance - margin
        if not better.any():
            break
        before[better] = best[better]
        distance[better] = reached[better]
    place = int(np.where(wanted, distance, np.inf).argmin())
    chain: list[tuple[int, int]] = []
    gain = float(distance[place])
    while before[place] >= 0 and len(chain) < classes:
        chain.append((int(before[place]), place))
        place = int(before[place])
    return chain[::-1], gain
