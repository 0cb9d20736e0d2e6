"""Assignment of particles to classes with a minimum group size, in every orientation group."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import permutations

import numpy as np

__all__ = ["assign", "group_quota"]

_Link = tuple[float, int]


def group_quota(minimum: int, classes: int, members: int, count: int) -> int:
    """Particles that every class gets in an orientation group of ``members`` out of ``count`` particles.

    The minimum group size is shared out in proportion, and at most 95 % of a group is decided by it (rho of
    SORT3D_DEPTH: q = int(min(m K / N, 0.95) n / K)).
    """
    share = min(minimum * classes / max(count, 1), 0.95)
    return int(share * members / max(classes, 1))


def assign(scores: np.ndarray, orientation: np.ndarray | None = None, minimum: int = 0) -> np.ndarray:
    """Assign each particle to a class of highest score, every class getting its minimum in every orientation group.

    The sum of scores is maximised subject to the lower bounds (a transport problem), so that particles move to a small
    class in the order of what they lose by it, not of their raw scores.

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
    """Best assignment that gives every class ``quota``: shortest augmenting paths (Ahuja, Magnanti & Orlin 1993).

    Everybody starts in the best class. Then one particle after the other is won for a small class, along the chain of
    classes from one with particles to spare that costs least, each link being the particle that minds least.
    """
    labels = np.asarray(scores.argmax(axis=1), np.int64)
    sizes = np.bincount(labels, minlength=scores.shape[1])
    missing = int(np.maximum(quota - sizes, 0).sum())
    if missing == 0:
        return labels
    links = _cheapest_links(scores, labels, missing)
    for _ in range(missing):
        for (source, _), link in links.items():
            while link and labels[link[0][1]] != source:
                heappop(link)
        chain = _cheapest_chain(links, sizes > quota, sizes < quota)
        # Chosen before any of them moves: a link is about members of now.
        moves = [(links[step][0][1], step[1]) for step in chain]
        sizes[chain[0][0]] -= 1
        sizes[chain[-1][1]] += 1
        for particle, target in moves:
            labels[particle] = target
            for other in range(len(sizes)):
                if other != target:
                    loss = float(scores[particle, target] - scores[particle, other])
                    heappush(links[target, other], (loss, particle))
    return labels


def _cheapest_links(scores: np.ndarray, labels: np.ndarray, missing: int) -> dict[tuple[int, int], list[_Link]]:
    """Heaps of (loss, particle) from each class to each other, as deep as ``missing`` moves can reach."""
    links: dict[tuple[int, int], list[_Link]] = {}
    for source, target in permutations(range(scores.shape[1]), 2):
        members = np.flatnonzero(labels == source)
        loss = scores[members, source] - scores[members, target]
        # Each move takes at most one particle by this link and one by any other.
        first = np.argsort(loss, kind="stable")[: 2 * missing]
        links[source, target] = list(zip(loss[first].tolist(), members[first].tolist(), strict=True))
    return links


def _cheapest_chain(
    links: dict[tuple[int, int], list[_Link]], spare: np.ndarray, small: np.ndarray
) -> list[tuple[int, int]]:
    """Chain of (class, class) links of least loss from any class in ``spare`` to any in ``small`` (Bellman-Ford)."""
    classes = len(spare)
    loss = np.full((classes, classes), np.inf)
    for step, link in links.items():
        if link:
            loss[step] = link[0][0]
    distance = np.where(spare, 0.0, np.inf)
    before = np.full(classes, -1)
    # Rounding may not make a circle of ties look like a gain.
    margin = 1e-12 * (1.0 + float(np.abs(loss[np.isfinite(loss)]).max(initial=0.0)))
    for _ in range(classes):
        through = distance[:, None] + loss
        best = through.argmin(axis=0)
        reached = through[best, np.arange(classes)]
        better = reached < distance - margin
        if not better.any():
            break
        before[better] = best[better]
        distance[better] = reached[better]
    place = int(np.where(small, distance, np.inf).argmin())
    chain: list[tuple[int, int]] = []
    while before[place] >= 0 and len(chain) < classes:
        chain.append((int(before[place]), place))
        place = int(before[place])
    return chain[::-1]
