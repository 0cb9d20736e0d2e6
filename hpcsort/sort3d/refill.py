"""Start partitions of a box's next round: the stable sets, and the other particles placed anew at random."""

from __future__ import annotations

import numpy as np

__all__ = ["refill"]

_LEAST_CHANCE = 0.05
"""Chance of a class that has its even share already, next to 1 of an empty one."""
_DEALS = 16


def refill(stable: np.ndarray, classes: int, swapped: float, random: np.random.Generator) -> np.ndarray:
    """Make a start partition from stable sets: some members are exchanged, the others are dealt to small classes.

    Parameters
    ----------
    stable : int (n,), stable set of each particle from 0, -1 for those in none.
    classes : number of classes of the partition, at least the number of stable sets.
    swapped : share of each stable set's members that are exchanged with particles of none.
    random : draws for all particles.

    Returns
    -------
    int64 (n,), no particle without a class.
    """
    labels = np.array(stable, np.int64)
    count, sets = len(labels), int(labels.max(initial=-1)) + 1
    if not sets:
        return np.asarray(random.permutation(count) % classes, np.int64)
    rank = random.random(count)
    rest = np.flatnonzero(labels < 0)
    taken = _draw_members(labels, sets, swapped, rank)
    spare = np.concatenate([rest, taken]) if len(taken) > len(rest) else rest
    owed = np.sort(labels[taken])
    labels[taken] = -1
    given = random.permutation(spare)[: len(owed)]
    labels[given] = owed
    _seed_empty(labels, sets, classes, random)
    _deal_rest(labels, classes, random)
    return labels


def _draw_members(labels: np.ndarray, sets: int, share: float, rank: np.ndarray) -> np.ndarray:
    """Draw a random ``share`` of the members of every set."""
    drawn = []
    for index in range(sets):
        members = np.flatnonzero(labels == index)
        drawn.append(members[np.argsort(rank[members], kind="stable")][: int(share * len(members))])
    return np.concatenate(drawn)


def _seed_empty(labels: np.ndarray, sets: int, classes: int, random: np.random.Generator) -> None:
    """Give classes without a stable set half an even share of the particles of none; trim sets that leave too few."""
    even, empty = len(labels) // classes, classes - sets
    if not empty or even < 2:
        return
    if empty * even > (labels < 0).sum() + even:
        for index in range(sets):
            members = random.permutation(np.flatnonzero(labels == index))
            labels[members[even:]] = -1
    rest = random.permutation(np.flatnonzero(labels < 0))
    for index in range(empty):
        labels[rest[index * (even // 2) : (index + 1) * (even // 2)]] = sets + index


def _deal_rest(labels: np.ndarray, classes: int, random: np.random.Generator) -> None:
    """Deal particles of none to classes, the more willingly the smaller a class is."""
    even = max(len(labels) / classes, 1.0)
    rest = random.permutation(np.flatnonzero(labels < 0))
    for part in np.array_split(rest, _DEALS):
        sizes = np.bincount(labels[labels >= 0], minlength=classes)
        chance = np.maximum(1.0 - sizes / even, _LEAST_CHANCE)
        labels[part] = random.choice(classes, len(part), p=chance / chance.sum())
