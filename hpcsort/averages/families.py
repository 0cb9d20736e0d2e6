"""Families: clusters with a representative, and every member brought onto it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcsort.averages.cluster import Partition, silhouettes
from hpcsort.averages.prepare import PreparedAverages
from hpcsort.averages.similarity import MAX_SHIFT, Similarity
from hpcsort.planar import PlanarPoses, refine_poses

__all__ = ["Family", "blank_family", "make_families"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Family:
    """Averages of one cluster.

    Attributes
    ----------
    members : int64 (m,), rows of the input: the representative, then the others by falling score.
    scores : float64 (m,), similarity to the representative, 1 of itself; NaN for blank averages.
    poses : of the members in the frame of the representative, shifts in pixels of the input.
    silhouette : mean of the members; NaN where there is one family, and for blank averages.
    stability : mean Jaccard similarity under resampling; NaN likewise.
    blank : whether these are the averages that show nothing.
    """

    members: Ints
    scores: Floats
    poses: PlanarPoses
    silhouette: float
    stability: float
    blank: bool = False


def make_families(
    rows: Ints, prepared: PreparedAverages, similarity: Similarity, partition: Partition, stability: Floats
) -> list[Family]:
    """Order the clusters of a partition and align their members.

    The representative is the member with the smallest sum of distances to the others. Families come in falling order of
    size; of equal ones that which has the first average of the input.

    Parameters
    ----------
    rows : int64 (n,), of the averages in the input.
    prepared, similarity, partition, stability : of these n averages.
    """
    distance, labels = similarity.distance, partition.labels
    count = int(labels.max()) + 1
    values = silhouettes(distance, labels) if count > 1 else np.full(len(labels), np.nan)
    made = []
    for label in np.argsort(-np.bincount(labels), kind="stable"):
        own = np.flatnonzero(labels == label)
        best = own[distance[np.ix_(own, own)].sum(axis=0).argmin()]
        score = similarity.score[own, best]
        order = own[np.lexsort((own, -score, own != best))]
        poses = _polished(prepared, similarity.poses_onto(order, int(best)), order, int(best))
        score = similarity.score[order, best]
        made.append(Family(rows[order], score, poses, float(values[own].mean()), float(stability[label])))
    return made


def blank_family(rows: Ints) -> Family:
    """Family of the averages that show nothing, as they are."""
    nan = float("nan")
    return Family(rows, np.full(len(rows), nan), PlanarPoses.identity(len(rows)), nan, nan, True)


def _polished(prepared: PreparedAverages, poses: PlanarPoses, members: Ints, best: int) -> PlanarPoses:
    """Poses after more steps than all pairs get, shifts in pixels of the input."""
    onto = np.repeat(prepared.samples[best][None], len(members), axis=0)
    poses, _ = refine_poses(prepared.grid, prepared.samples[members], onto, poses, MAX_SHIFT * prepared.grid.box_px)
    # what is not moved stays what it is
    moved = members != best
    return PlanarPoses(poses.psi_deg * moved, poses.shift_px * moved[:, None] * prepared.scale, poses.mirror)
