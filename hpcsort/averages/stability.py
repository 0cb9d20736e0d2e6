"""How well clusters are found again when some averages are left out."""

from __future__ import annotations

import numpy as np

from hpcsort.averages.cluster import partition_by
from hpcsort.averages.kmeans import Floats, Labels
from hpcsort.parallel import stream

__all__ = ["cluster_stability"]

_SAMPLES = 50


def cluster_stability(distance: Floats, labels: Labels, method: str, seed: int) -> Floats:
    """Mean Jaccard similarity of each cluster to the likest cluster of resampled averages (Hennig 2007).

    Averages are drawn with replacement, doubles are discarded, and the rest (about 63 %) is clustered again by the same
    method into the same number of clusters (fewer where hardly as many averages remain). Clusters of which nothing was
    drawn do not count that time. By Hennig, below 0.6 a cluster should not be trusted, and above 0.85 it is highly
    stable.

    Parameters
    ----------
    distance : float64 (n, n).
    labels : int64 (n,), 0 ... k - 1.
    method : that made them.
    seed : of the draws.

    Returns
    -------
    float64 (k,); NaN where there is one cluster, which is found again in any case.
    """
    count, clusters = len(labels), int(labels.max()) + 1
    if clusters < 2:
        return np.full(clusters, np.nan)
    total, times = np.zeros(clusters), np.zeros(clusters)
    for number in range(_SAMPLES):
        rng = stream(seed, "stability", number)
        drawn = np.unique(rng.integers(count, size=count))
        wanted = min(clusters, len(drawn) - 1)
        if wanted < 2:
            continue
        again = partition_by(distance[np.ix_(drawn, drawn)], wanted, seed)[method](wanted)
        best = _best_jaccard(labels[drawn], again, clusters)
        total += np.nan_to_num(best)
        times += ~np.isnan(best)
    return np.divide(total, times, out=np.full(clusters, np.nan), where=times > 0)


def _best_jaccard(labels: Labels, again: Labels, clusters: int) -> Floats:
    """Largest Jaccard similarity of each cluster to one of the others, (clusters,); NaN for an empty one."""
    old = labels[:, None] == np.arange(clusters)
    new = again[:, None] == np.arange(again.max() + 1)
    both = old.T.astype(np.float64) @ new
    either = old.sum(axis=0)[:, None] + new.sum(axis=0) - both
    return np.where(old.any(axis=0), (both / either).max(axis=1), np.nan)
