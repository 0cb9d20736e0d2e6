"""Joining classes of a K-means chain between which particles of one structure were parted."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, softmax

from hpcsort.sort3d.lockstep import SCALE_RANGE, Chain, ClassVolumes, Field, weigh_classes

__all__ = ["merge_duplicates"]

_STANDARD_ERRORS = 2.0
_SHARE = 0.002
"""Least share of the likelihood that two classes must gain over one: small errors of poses and interpolation make
every group significantly different from a point."""
_SHARE_ROUNDS = 8


def merge_duplicates(field: Field, chains: list[Chain], scores: list[np.ndarray]) -> list[np.ndarray]:
    """Join classes that explain particles no better apart than together. Collective.

    Superfluous classes part a true group between them, each chain in another way, and would pass for disagreement.
    A pair is joined where the map of both explains particles that the chain has not seen (or that are left out of it)
    as well as the two maps do, and a class is dropped where the others explain them as well. Each chain joins one pair
    after the other, all chains in lock step.

    Parameters
    ----------
    field : with the known groups' scores, which compete but are not joined.
    chains : lose classes, maps and factors.
    scores : float64 (n, K) of all particles, one array a chain.

    Returns
    -------
    float64 (n, K'), scores of the remaining classes, one array a chain.
    """
    scores = list(scores)
    known = field.store.gathered(field.known)
    left = list(range(len(chains)))
    while left:
        left = [index for index in left if chains[index].classes > 1]
        pairs = {index: _pairs(known, scores[index]) for index in left}
        tried = [_joined(field, chains[index], pairs[index]) for index in left]
        found = weigh_classes(field, tried, [chain.shares for chain in tried], own_only=False) if tried else []
        going = []
        for index, candidate, (linear, power) in zip(left, tried, found, strict=True):
            chain = chains[index]
            both = field.store.gathered(np.stack([linear, power], axis=1))
            candidates, scales = _scaled(both, scores[index], pairs[index], _judges(chain))
            best = _best_join(known, scores[index], candidates, pairs[index], _judges(chain))
            if best is None:
                continue
            if best < len(pairs[index]):
                first, gone = pairs[index][best]
                scores[index][:, first] = candidates[:, best]
                _put(chain, candidate, best, first, float(scales[best]))
            else:
                gone = best - len(pairs[index])
            scores[index] = np.delete(scores[index], gone, axis=1)
            _drop(chain, gone)
            going.append(index)
        left = going
    return scores


def _judges(chain: Chain) -> np.ndarray:
    """Particles that decide: those that did not make the maps, where there are any."""
    return np.ones(len(chain.own), bool) if chain.own.all() else ~chain.own


def _pairs(known: np.ndarray, scores: np.ndarray) -> list[tuple[int, int]]:
    """Return each class with the class that most of its particles would go to."""
    classes = scores.shape[1]
    best = scores.argmax(axis=1)
    others = scores.copy()
    others[np.arange(len(scores)), best] = -np.inf
    next_best = others.argmax(axis=1)
    mine = scores.max(axis=1) > known.max(axis=1, initial=-np.inf)
    flow = np.bincount((best * classes + next_best)[mine], minlength=classes**2).reshape(classes, classes)
    return sorted({(min(k, m), max(k, m)) for k, m in enumerate(flow.argmax(axis=1).tolist()) if k != m})


def _joined(field: Field, chain: Chain, pairs: list[tuple[int, int]]) -> Chain:
    """Classes made of pairs of classes, as a chain whose memberships overlap."""
    maps = chain.maps
    assert maps is not None
    prior = 1.0 / field.grid.shell_fill(field.prior)
    volumes, ridges, shares = [], [], []
    for first, second in pairs:
        weights = [np.divide(1.0, maps.ridge[k], out=prior.copy(), where=maps.ridge[k] > 0) for k in (first, second)]
        ridge = np.where(maps.ridge[first] > 0, 1.0 / (weights[0] + weights[1] - prior), 0.0)
        # Maps times weights are the sums from which they were made, but for the local weight.
        volumes.append(ridge * (maps.volumes[first] * weights[0] + maps.volumes[second] * weights[1]))
        ridges.append(ridge)
        shares.append(np.minimum(chain.shares[:, first] + chain.shares[:, second], 1.0))
    both = ClassVolumes(np.array(volumes, np.complex64), np.array(ridges, np.float32), maps.leverage)
    return Chain(chain.own, chain.labels, len(pairs), fuzziness=1.0, maps=both, shares=np.stack(shares, axis=1))


def _scaled(
    evidence: np.ndarray, scores: np.ndarray, pairs: list[tuple[int, int]], judges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, pairs) of the joined classes and the factors of their maps, fitted to their particles."""
    best = scores.argmax(axis=1)
    scales = np.ones(len(pairs))
    for index, pair in enumerate(pairs):
        linear, power = evidence[judges & np.isin(best, pair), :, index].sum(axis=0)
        scales[index] = np.clip(linear / max(power, 1e-30), *SCALE_RANGE)
    return scales * evidence[:, 0] - 0.5 * scales**2 * evidence[:, 1], scales


def _best_join(
    known: np.ndarray,
    scores: np.ndarray,
    candidates: np.ndarray,
    pairs: list[tuple[int, int]],
    judges: np.ndarray,
) -> int | None:
    """Return the pair whose joining, or (number of pairs + class) the class whose loss costs least; None: too much."""
    groups = known.shape[1]
    table = np.concatenate([known, scores], axis=1)[judges]
    apart = _mixture_likelihood(table)
    gained = abs(float(apart.mean()))
    best, least = None, np.inf
    for index in range(len(pairs) + scores.shape[1]):
        if index < len(pairs):
            first, gone = pairs[index]
        else:
            first, gone = -1, index - len(pairs)
        tried = np.delete(table, groups + gone, axis=1)
        if first >= 0:
            tried[:, groups + first] = candidates[judges, index]
        lost = apart - _mixture_likelihood(tried)
        error = float(lost.std()) / np.sqrt(len(lost))
        if lost.mean() <= max(_STANDARD_ERRORS * error, _SHARE * gained) and lost.mean() < least:
            best, least = index, float(lost.mean())
    return best


def _mixture_likelihood(table: np.ndarray) -> np.ndarray:
    """Log-likelihood ratio (n,) of every particle under the classes, whose shares are fitted."""
    weights = np.full(table.shape[1], 1.0 / table.shape[1])
    for _ in range(_SHARE_ROUNDS):
        weights = softmax(table + np.log(weights), axis=1).mean(axis=0) + 1e-12
    return np.asarray(logsumexp(table + np.log(weights), axis=1))


def _put(chain: Chain, candidate: Chain, index: int, place: int, scale: float) -> None:
    """Put a joined class where the first of its two was."""
    assert chain.maps is not None
    assert candidate.maps is not None
    volumes, ridge = chain.maps.volumes.copy(), chain.maps.ridge.copy()
    volumes[place], ridge[place] = candidate.maps.volumes[index], candidate.maps.ridge[index]
    chain.maps = ClassVolumes(volumes, ridge, chain.maps.leverage)
    chain.scale, chain.shares = chain.scale.copy(), chain.shares.copy()
    chain.scale[place], chain.shares[:, place] = scale, candidate.shares[:, index]


def _drop(chain: Chain, gone: int) -> None:
    """Let a class go."""
    assert chain.maps is not None
    volumes, ridge = (np.delete(part, gone, axis=0) for part in (chain.maps.volumes, chain.maps.ridge))
    chain.maps = ClassVolumes(volumes, ridge, chain.maps.leverage)
    chain.scale, chain.shares = np.delete(chain.scale, gone), np.delete(chain.shares, gone, axis=1)
    chain.classes -= 1
