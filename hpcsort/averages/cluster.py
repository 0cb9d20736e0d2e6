"""Three ways to cluster averages, and the choice among them and of the number of families by silhouettes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from hpcsort.averages.kmeans import Floats, Labels, draw_starts, in_order, kmeans
from hpcsort.parallel import stream

__all__ = ["METHODS", "Partition", "average_tree", "choose_partition", "partition_by", "pca_features", "silhouettes"]

METHODS = ("kmeans", "ward", "average")
_VARIANCE = 0.95


@dataclass(frozen=True, eq=False)
class Partition:
    """One partition and how it was found.

    Attributes
    ----------
    method : "kmeans", "ward" or "average"; "none" for one family.
    labels : int64 (n,), from 0 in the order in which they first occur.
    silhouette : mean over all averages; NaN for one family.
    """

    method: str
    labels: Labels
    silhouette: float


def pca_features(distance: Floats) -> Floats:
    """Principal components of the rows of a distance matrix (n, n) that explain 95 % of the variance: (n, d)."""
    centred = distance - distance.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    share = np.cumsum(size**2)
    if share[-1] == 0:
        return np.zeros((len(distance), 1))
    count = int(np.searchsorted(share, _VARIANCE * share[-1])) + 1
    return np.asarray(left[:, :count] * size[:count])


def silhouettes(distance: Floats, labels: Labels) -> Floats:
    """Silhouette of every average on a given distance (Rousseeuw 1987), float64 (n,); 0 for one alone in its cluster.

    Parameters
    ----------
    distance : float64 (n, n).
    labels : int64 (n,), 0 ... k - 1, none empty, k at least 2.
    """
    member = (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float64)
    sizes = member.sum(axis=0)
    sums = distance @ member
    rows = np.arange(len(labels))
    own = sums[rows, labels] / np.maximum(sizes[labels] - 1, 1)
    means = sums / sizes
    means[rows, labels] = np.inf
    other = means.min(axis=1)
    larger = np.maximum(own, other)
    value = np.divide(other - own, larger, out=np.zeros(len(labels)), where=larger > 0)
    return np.where(sizes[labels] > 1, value, 0.0)


def average_tree(distance: Floats) -> Floats:
    """Tree of average linkage on the distance itself, as scipy's linkage has it, (n - 1, 4)."""
    return np.asarray(linkage(squareform(distance, checks=False), "average"))


def partition_by(distance: Floats, most: int, seed: int) -> dict[str, Callable[[int], Labels]]:
    """Return the partition of each method as a function of the number of clusters, which is at most `most`.

    k-means and Ward see the PCA features of the distance rows, as in the original program; average linkage the
    distance itself.
    """
    features = pca_features(distance)
    ward, average = linkage(features, "ward"), average_tree(distance)
    starts = draw_starts(features, most, stream(seed, "kmeans"))
    return {
        "kmeans": lambda k: kmeans(features, starts[:, :k]),
        "ward": lambda k: in_order(fcluster(ward, k, "maxclust").astype(np.int64)),
        "average": lambda k: in_order(fcluster(average, k, "maxclust").astype(np.int64)),
    }


def choose_partition(distance: Floats, lowest: int, highest: int, seed: int) -> tuple[Partition, list[Partition]]:
    """Choose method and number of clusters by the mean silhouette on the distance.

    Parameters
    ----------
    distance : float64 (n, n).
    lowest, highest : numbers of clusters, 2 <= lowest <= highest <= n - 1.
    seed : of k-means.

    Returns
    -------
    best : of equal ones that of the smaller number of clusters, then of the first method.
    all : every partition that was looked at. Where averages coincide there may be fewer clusters than asked for; such
        partitions are left out, unless nothing else remains.
    """
    ways = partition_by(distance, highest, seed)
    made = [
        (k, Partition(name, labels, float(silhouettes(distance, labels).mean())))
        for k in range(lowest, highest + 1)
        for name in METHODS
        if (labels := ways[name](k)).max() > 0
    ]
    tried = [partition for k, partition in made if partition.labels.max() + 1 == k] or [found for _, found in made]
    if not tried:
        return Partition("none", np.zeros(len(distance), np.int64), float("nan")), []
    return max(tried, key=lambda partition: partition.silhouette), tried
