"""Two-way comparisons: which groups two partitions share beyond chance, and what independent chains agree on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from hpcsort.partitions import (
    ChanceLevel,
    adjusted_rand_index,
    chance_jaccard,
    group_sizes,
    intersect_groups,
    match_groups,
    p_value,
    rand_index,
)
from hpcsort.sort3d.records import BoxChains, Comparison
from hpcsort.sort3d.statistics import JUNK_KINDS

__all__ = ["Reproducibility", "compare", "ensemble", "measure_groups"]

_CHANCE_DEVIATIONS = 2.0
_SIGNIFICANCE = 0.05
_DRAWS = 1000
_NEXT_SEED = 1_000_003


@dataclass(frozen=True)
class Reproducibility:
    """How well independent chains agree on each group, against chance.

    Attributes
    ----------
    score : float64 (groups,), mean Jaccard score over pairs of independent chains.
    chance_mean, chance_std : float64 (groups,), of that mean for random partitions of the same sizes.
    p : float64 (groups,), how often chance reaches the score.
    """

    score: np.ndarray
    chance_mean: np.ndarray
    chance_std: np.ndarray
    p: np.ndarray


def compare(a: np.ndarray, b: np.ndarray, minimum: int, seed: int) -> Comparison:
    """Match the groups of two partitions and keep the pairs that share more than chance gives.

    Parameters
    ----------
    a, b : int (n,), groups from 0, -1 for none.
    minimum : smallest number of shared particles.
    seed : of the random partitions.
    """
    matching = match_groups(a, b)
    first = matching.pairs[:, 0]
    chance = chance_jaccard(group_sizes(a), group_sizes(b), len(a), draws=_DRAWS, seed=seed)
    own = ChanceLevel(chance.mean[first], chance.std[first], chance.draws[:, first])
    p = p_value(matching.jaccard, own)
    reasons = [
        _why_not(int(overlap), minimum, score, mean, std, value)
        for overlap, score, mean, std, value in zip(
            matching.overlap, matching.jaccard, own.mean, own.std, p, strict=True
        )
    ]
    accepted = np.array([not reason for reason in reasons], bool)
    kept = np.flatnonzero(accepted)
    kept = kept[np.argsort(-matching.overlap[kept], kind="stable")]
    labels = intersect_groups(a, b, matching.pairs[kept])
    return Comparison(
        matching.sizes, matching.overlap, matching.jaccard, own.mean, own.std, p, accepted, reasons, labels,
        rand_index(a, b), adjusted_rand_index(a, b),
    )  # fmt: skip


def _why_not(overlap: int, minimum: int, score: float, mean: float, std: float, p: float) -> str:
    if score <= mean + _CHANCE_DEVIATIONS * std or p > _SIGNIFICANCE:
        return f"its reproducibility {score:.3f} is what chance gives ({mean:.3f} +- {std:.3f})"
    if overlap < minimum:
        return f"its {overlap} reproducible particles are fewer than the minimum group size {minimum}"
    return ""


def measure_groups(labels: np.ndarray, boxes: list[BoxChains], seed: int) -> Reproducibility:
    """Measure how well the independent chains of each box reproduce the groups of ``labels`` (n,).

    Every chain's classes are matched to the groups. Chance is the same mean over as many pairs of random partitions of
    the same sizes.
    """
    groups = int(labels.max(initial=-1)) + 1
    scores, draws = [], []
    for number, box in enumerate(boxes):
        first, second = (_like(labels, chain, groups) for chain in box.labels)
        sizes = [np.bincount(chain[chain >= 0], minlength=groups) for chain in (first, second)]
        both = np.bincount(first[(first == second) & (first >= 0)], minlength=groups)
        union = sizes[0] + sizes[1] - both
        scores.append(np.divide(both, union, out=np.zeros(groups), where=union > 0))
        chance = chance_jaccard(sizes[0], sizes[1], len(labels), draws=_DRAWS, seed=seed + _NEXT_SEED * number)
        draws.append(chance.draws)
    score, drawn = np.mean(scores, axis=0), np.mean(draws, axis=0)
    level = ChanceLevel(drawn.mean(axis=0), drawn.std(axis=0), drawn)
    return Reproducibility(score, level.mean, level.std, p_value(score, level))


def _like(reference: np.ndarray, labels: np.ndarray, groups: int) -> np.ndarray:
    """Rename classes by the groups that they match; classes without a partner become -1."""
    pairs = match_groups(reference, labels).pairs
    names = np.full(int(labels.max(initial=-1)) + 2, -1)
    names[pairs[:, 1]] = pairs[:, 0]
    renamed = names[labels]
    return np.asarray(np.where(renamed < groups, renamed, -1))


def ensemble(labels: np.ndarray, boxes: list[BoxChains], known: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join what all chains say about every particle.

    Parameters
    ----------
    labels : int (n,), groups, -1 for none.
    boxes : chains whose classes are matched to the groups.
    known : number of known groups, the first columns of every chain's joints.

    Returns
    -------
    probability : float64 (n, groups), mean over chains of the posterior probability of each group.
    junk : float64 (n,), the same of both kinds of junk.
    agreeing : float64 (n,), share of the chains that put the particle into the group where most of them put it.
    """
    groups = int(labels.max(initial=-1)) + 1
    count, chains = len(labels), 2 * len(boxes)
    probability, junk, votes = np.zeros((count, groups)), np.zeros(count), np.zeros((count, groups))
    for box in boxes:
        for own, joint in zip(box.labels, box.joints, strict=True):
            share = softmax(joint, axis=1)
            pairs = match_groups(labels, own).pairs
            probability[:, pairs[:, 0]] += share[:, known + pairs[:, 1]] / chains
            junk += share[:, -JUNK_KINDS:].sum(axis=1) / chains
            votes[:, pairs[:, 0]] += (own[:, None] == pairs[:, 1]) / chains
    return probability, junk, votes.max(axis=1, initial=0.0)
