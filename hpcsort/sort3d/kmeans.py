"""One iteration of minimum-group-size K-means in map space, for many chains in lock step."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from hpcsort.sort3d.assignment import assign
from hpcsort.sort3d.finish import JUNK_SHARE
from hpcsort.sort3d.lockstep import SCALE_RANGE, Chain, Field, make_maps, weigh_classes

__all__ = ["iterate_chains", "known_scores", "score_chains"]

_SMALL_SHARE = 0.01
"""A particle that is part of a class by less than this is left out of it."""


def iterate_chains(field: Field, chains: list[Chain], minimum: list[int]) -> list[np.ndarray]:
    """Make the maps of all chains from their labels, score, and assign anew. Collective.

    Parameters
    ----------
    field, chains : chains get new maps, factors and scores.
    minimum : smallest group size of each chain, out of all particles of the store.

    Returns
    -------
    int64 (n,) a chain, new labels of its own particles.
    """
    shares = [_memberships(field, chain) for chain in chains]
    made = make_maps(field, chains, shares)
    for chain, maps, share in zip(chains, made, shares, strict=True):
        chain.maps, chain.shares = maps, share
    evidence = weigh_classes(field, chains, shares, own_only=True)
    _fit_scales(field, chains, shares, evidence)
    for chain, (linear, power) in zip(chains, evidence, strict=True):
        chain.scores = chain.scale * linear - 0.5 * chain.scale**2 * power
    return _assign_all(field, chains, minimum)


def score_chains(field: Field, chains: list[Chain]) -> list[np.ndarray]:
    """Log-likelihood ratios (n, K) of all particles for each chain's last maps, on every rank. Collective."""
    evidence = weigh_classes(field, chains, None, own_only=False)
    scores = []
    for chain, (linear, power) in zip(chains, evidence, strict=True):
        own = chain.own[field.here]
        found = chain.scale * linear - 0.5 * chain.scale**2 * power
        found[own] = chain.scores[own]
        scores.append(field.store.gathered(found))
    return scores


def known_scores(field: Field, known: np.ndarray, groups: int) -> np.ndarray:
    """Log-likelihood ratios (n_local, groups) of known groups, whose maps come from all their members. Collective.

    Parameters
    ----------
    field : all particles, without known groups.
    known : int (n,), known group of each particle, -1 for none.
    groups : number of known groups; zero gives an array without columns.
    """
    if not groups:
        return np.zeros((len(field.store.data), 0))
    chain = Chain(known >= 0, np.asarray(known, np.int64), groups)
    shares = [_memberships(field, chain)]
    (chain.maps,) = make_maps(field, [chain], shares)
    _fit_scales(field, [chain], shares, weigh_classes(field, [chain], shares, own_only=True))
    ((linear, power),) = weigh_classes(field, [chain], None, own_only=False)
    return np.asarray(chain.scale * linear - 0.5 * chain.scale**2 * power)


def _memberships(field: Field, chain: Chain) -> np.ndarray:
    """Share of this rank's particles in each class, float32 (n_local, K); rows sum to 1 or, without a class, to 0.

    Without fuzziness, or before there are scores, a particle belongs to its class alone. Else to others as well, by
    their probabilities.
    """
    labels = chain.labels[field.here]
    hard = (labels[:, None] == np.arange(chain.classes)).astype(np.float32)
    if not chain.fuzziness or chain.maps is None:
        return hard
    both = np.concatenate([field.known, chain.scores], axis=1)
    soft = softmax(both, axis=1)[:, field.known.shape[1] :]
    mixed = (1.0 - chain.fuzziness) * hard + chain.fuzziness * soft
    mixed[mixed < _SMALL_SHARE] = 0.0
    mixed *= (labels >= 0)[:, None] / np.maximum(mixed.sum(axis=1, keepdims=True), 1e-30)
    return np.asarray(mixed, np.float32)


def _fit_scales(
    field: Field, chains: list[Chain], shares: list[np.ndarray], evidence: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Give each map the factor of highest likelihood for the particles of its class.

    Shrinking gives a difference map its best shape but too small a size; its size is one number, which the particles
    determine well.
    """
    rows = [
        np.concatenate([share * linear, share * power], axis=1)
        for share, (linear, power) in zip(shares, evidence, strict=True)
    ]
    sums = field.store.total(np.concatenate(rows, axis=1))
    start = 0
    for chain in chains:
        above, below = sums[start : start + 2 * chain.classes].reshape(2, -1)
        chain.scale = np.clip(above / np.maximum(below, 1e-30), *SCALE_RANGE)
        start += 2 * chain.classes


def _assign_all(field: Field, chains: list[Chain], minimum: list[int]) -> list[np.ndarray]:
    """Assign each chain's own particles; each rank assigns its share of the chains."""
    comm = field.store.comm
    groups = field.known.shape[1]
    junk = field.store.gathered(field.junk).max(axis=1)
    done: dict[int, np.ndarray] = {}
    for index, (chain, least) in enumerate(zip(chains, minimum, strict=True)):
        scores = field.store.gathered(np.concatenate([field.known, chain.scores], axis=1))
        if index % comm.size != comm.rank:
            continue
        labels = np.full(len(scores), -1, np.int64)
        share = least * chain.own.sum() / max(len(scores), 1)
        mine = chain.own & (scores.max(axis=1) >= junk + np.log(JUNK_SHARE * chain.classes))
        found = assign(scores[mine], field.orientation[mine], int(share), groups)
        labels[mine] = np.where(found >= groups, found - groups, -1)
        done[index] = labels
    gathered: dict[int, np.ndarray] = {}
    for part in comm.allgather(done):
        gathered.update(part)
    return [gathered[index] for index in range(len(chains))]
