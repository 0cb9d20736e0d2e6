"""Two-way comparison of chains: which groups are reproducible, and who belongs to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from hpcsort.partitions import ChanceLevel, chance_jaccard, match_groups, p_value

__all__ = ["Agreement", "compare_chains"]

_CHANCE_DEVIATIONS = 2.0
_SIGNIFICANCE = 0.05
_AGREEING_SHARE = 0.75
_NEXT_SEED = 1_000_003


@dataclass(frozen=True)
class Agreement:
    """What independent chains agree on.

    Attributes
    ----------
    labels : int64 (n,), reproducible group of each particle, -1 for none; groups by falling size.
    probability : float64 (n, groups), mean over chains of the probability of each reproducible group.
    agreeing : float64 (n,), share of the chains that put the particle where most of them do.
    reproducibility : float64 (groups,), mean Jaccard score over pairs of independent chains.
    chance_mean, chance_std : float64 (groups,), of that score for random partitions of the same sizes.
    p : float64 (groups,), how often chance reaches the score.
    rejected : list of (size, Jaccard, chance, reason) of classes that did not reproduce.
    """

    labels: np.ndarray
    probability: np.ndarray
    agreeing: np.ndarray
    reproducibility: np.ndarray
    chance_mean: np.ndarray
    chance_std: np.ndarray
    p: np.ndarray
    rejected: list[tuple[int, float, float, str]]


def compare_chains(
    labels: list[np.ndarray], joints: list[np.ndarray], minimum: int, seed: int, offset: int = 0
) -> Agreement:
    """Match the classes of all chains and keep what they share.

    Chains 0 and 1, 2 and 3, ... are pairs of one half split: they share no noise, and their Jaccard scores measure
    reproducibility. A particle is accounted for if at least three quarters of all chains agree on its group (of two
    chains: both).

    Parameters
    ----------
    labels : per chain, int (n,), class of each particle.
    joints : per chain, float64 (n, K), log of share times likelihood.
    minimum : smallest reproducible group.
    seed : of the chance level's random partitions.
    offset : classes below it are known groups: they compete for particles but are not reported.
    """
    count = len(labels[0])
    classes = joints[0].shape[1] - offset
    aligned: list[np.ndarray] = []
    probabilities: list[np.ndarray] = []
    for chain, own in enumerate(labels):
        shifted = np.where(own >= offset, own - offset, -1)
        share = softmax(joints[chain], axis=1)[:, offset:]
        if chain:
            order = _order_like(aligned[0], shifted, classes)
            shifted = np.where(shifted >= 0, order[shifted], -1)
            rearranged = np.empty_like(share)
            rearranged[:, order] = share
            share = rearranged
        aligned.append(shifted)
        probabilities.append(share)
    votes = np.stack([(chain[:, None] == np.arange(classes)).astype(np.float64) for chain in aligned]).mean(axis=0)
    winner = votes.argmax(axis=1) if classes else np.zeros(count, np.int64)
    agreeing = votes.max(axis=1, initial=0.0)
    accounted = np.where(agreeing >= _AGREEING_SHARE, winner, -1)
    scores, means, stds, ps = _against_chance(aligned, classes, count, seed)
    kept, rejected = [], []
    for index in range(classes):
        size = int((accounted == index).sum())
        reason = _why_not(size, minimum, scores[index], means[index], stds[index], ps[index])
        if reason:
            rejected.append((size, float(scores[index]), float(means[index]), reason))
        else:
            kept.append(index)
    kept.sort(key=lambda index: (-int((accounted == index).sum()), index))
    renamed = np.full(classes + 1, -1, np.int64)
    renamed[kept] = np.arange(len(kept))
    probability = np.mean(probabilities, axis=0)[:, kept]
    return Agreement(
        renamed[accounted], probability, agreeing, scores[kept], means[kept], stds[kept], ps[kept], rejected
    )


def _order_like(reference: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Class of the reference for every class of ``labels``; classes without a partner take the free places."""
    order = np.full(classes, -1, np.int64)
    pairs = match_groups(reference, labels).pairs
    order[pairs[:, 1]] = pairs[:, 0]
    free = [index for index in range(classes) if index not in set(pairs[:, 0].tolist())]
    order[order < 0] = free
    return order


def _against_chance(aligned: list[np.ndarray], classes: int, count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Mean Jaccard score of each class over pairs of independent chains; mean, deviation and p-value of chance.

    Chance is the same mean over as many pairs of random partitions of the same sizes, so that one chain that went
    astray lowers the score but does not decide.
    """
    scores, draws = [], []
    for pair, (first, second) in enumerate(zip(aligned[0::2], aligned[1::2], strict=True)):
        sizes = [np.bincount(chain[chain >= 0], minlength=classes) for chain in (first, second)]
        both = np.bincount(first[(first == second) & (first >= 0)], minlength=classes)
        union = sizes[0] + sizes[1] - both
        scores.append(np.divide(both, union, out=np.zeros(classes), where=union > 0))
        draws.append(chance_jaccard(sizes[0], sizes[1], count, draws=1000, seed=seed + _NEXT_SEED * pair).draws)
    score, drawn = np.mean(scores, axis=0), np.mean(draws, axis=0)
    chance = ChanceLevel(drawn.mean(axis=0), drawn.std(axis=0), drawn)
    return score, chance.mean, chance.std, p_value(score, chance)


def _why_not(size: int, minimum: int, score: float, mean: float, std: float, p: float) -> str:
    if score <= mean + _CHANCE_DEVIATIONS * std or p > _SIGNIFICANCE:
        return f"its reproducibility {score:.3f} is what chance gives ({mean:.3f} +- {std:.3f})"
    if size < minimum:
        return f"its {size} reproducible particles are fewer than the minimum group size {minimum}"
    return ""
