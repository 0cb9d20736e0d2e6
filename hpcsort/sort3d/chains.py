"""Pairs of independent chains: each learns from its own half of the particles, then both score all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from hpcsort.parallel import stream
from hpcsort.sort3d.finish import maps_from_centres, refine_classes, weigh_evidence
from hpcsort.sort3d.mixture import Mixture, best_mixtures, held_out
from hpcsort.sort3d.problem import Problem
from hpcsort.sort3d.statistics import Statistics, particle_statistics
from hpcsort.sort3d.subspace import SUBSPACE_ITERATIONS, Subspace, learn_subspace

__all__ = ["SUBSPACE_SHARES", "ChainPair", "Task", "choose_number", "expected_steps", "finish_pair", "learn_pair"]

SUBSPACE_SHARES = (0.015, 0.05)
_CLASS_SHARE = 0.2
"""Prior power of a learned map, and of a class's difference, as a share of the consensus power. Weak differences need
a weaker prior to be seen at all; held-out likelihood chooses (benchmarks/accuracy.md)."""
_COMPONENTS = 8
_STARTS = 4
_BATCH = 3
_FINISH_ITERATIONS = 4
_STANDARD_ERRORS = 2.0

Step = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """What a generation sorts.

    Attributes
    ----------
    problem : the sort.
    generation : its number, from 0.
    known : int (n,), group of particles that earlier generations accounted for, -1 for those that are sorted now.
    floors : smallest share of a class among the particles that are sorted, step by step.
    step : called with a short note after each iteration.
    """

    problem: Problem
    generation: int
    known: np.ndarray
    floors: tuple[float, ...]
    step: Step

    @property
    def active(self) -> np.ndarray:
        """Particles that are sorted now, bool (n,)."""
        return self.known < 0

    @property
    def groups(self) -> int:
        """Number of groups that are known already; they are the first classes of every chain."""
        return int(self.known.max(initial=-1)) + 1


@dataclass(frozen=True)
class ChainPair:
    """Two subspaces from disjoint halves and mixtures of every tried number of new classes.

    Attributes
    ----------
    split : number of the half split.
    half : int (n,), which chain learns from a particle.
    subspaces : one a chain.
    statistics : of all particles, one a chain.
    mixtures : number of new classes -> mixture, one dictionary a chain.
    held : number of new classes -> held-out log-likelihood ratio of each active particle, float64 (n_active,).
    """

    split: int
    half: np.ndarray
    subspaces: list[Subspace]
    statistics: list[Statistics]
    mixtures: list[dict[int, Mixture]]
    held: dict[int, np.ndarray]

    @property
    def best(self) -> float:
        """Mean held-out log-likelihood ratio of the best number of classes."""
        return max(float(gain.mean()) for gain in self.held.values())


def learn_pair(task: Task, split: int, numbers: list[int], share: float) -> ChainPair:
    """Learn two subspaces and fit mixtures of ``numbers`` (rising) of new classes, until more are worse. Collective."""
    problem = task.problem
    seed, key = problem.options.seed, f"generation {task.generation} split {split}"
    half = np.asarray(stream(seed, key, "halves").permutation(problem.count) % 2, np.int64)
    band = problem.narrow
    components = problem.options.components or _COMPONENTS
    subspaces = []
    for chain in (0, 1):
        own = band.store.restricted(task.active & (half == chain))
        prior = share * band.power
        subspaces.append(
            learn_subspace(own, band.start(), components, prior, seed=seed, run=f"{key} chain {chain}", step=task.step)
        )
    statistics = [particle_statistics(band.store, subspace) for subspace in subspaces]
    own_rows = [np.flatnonzero(task.active & (half == chain)) for chain in (0, 1)]
    fixed = [_known_centres(task, statistics[chain], half == chain) for chain in (0, 1)]
    mixtures: list[dict[int, Mixture]] = [{}, {}]
    held: dict[int, np.ndarray] = {}
    own_statistics = [part.rows(rows) for part, rows in zip(statistics, own_rows, strict=True)]
    for batch in (numbers[first : first + _BATCH] for first in range(0, len(numbers), _BATCH)):
        found = best_mixtures(
            problem.comm, own_statistics, batch, seed=seed, key=key, starts=_STARTS, floors=task.floors, fixed=fixed
        )
        for mixture, more in zip(mixtures, found, strict=True):
            mixture.update(more)
        held.update({number: _held_out(task, half, statistics, mixtures, number) for number in batch})
        # More classes than are worse already would be worse still.
        if max(held, key=lambda number: held[number].mean()) <= batch[-1] - _BATCH:
            break
    task.step(f"{key}: classes fitted")
    return ChainPair(split, half, subspaces, statistics, mixtures, held)


def _held_out(
    task: Task, half: np.ndarray, statistics: list[Statistics], mixtures: list[dict[int, Mixture]], number: int
) -> np.ndarray:
    gain = np.empty(task.problem.count)
    for chain in (0, 1):
        other = np.flatnonzero(task.active & (half != chain))
        gain[other] = held_out(mixtures[chain][number], statistics[chain].rows(other))
    return gain[task.active]


def _known_centres(task: Task, statistics: Statistics, mine: np.ndarray) -> np.ndarray:
    """Where the known groups lie in a chain's subspace, from their members in the chain's half, (groups, J)."""
    size = statistics.linear.shape[1]
    centres = np.zeros((task.groups, size))
    for group in range(task.groups):
        members = statistics.rows(np.flatnonzero((task.known == group) & mine))
        centres[group] = np.linalg.solve(members.precision.sum(axis=0) + np.eye(size), members.linear.sum(axis=0))
    return centres


def finish_pair(task: Task, pair: ChainPair, number: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Finish both chains in map space with ``number`` new classes. Collective.

    Returns
    -------
    joint : per chain, float64 (n_active, K), log of share times likelihood ratio of every active particle; own
        particles scored with their own contribution left out.
    held : float64 (n_active,), log-likelihood ratio of each particle under the chain that has not seen it.
    """
    band = task.problem.wide
    joints: list[np.ndarray] = []
    held = np.empty(task.problem.count)
    for chain in (0, 1):
        mixture = pair.mixtures[chain][number]
        own_mask = pair.half == chain
        own = band.store.restricted(own_mask)
        other_mask = task.active & ~own_mask
        other = band.store.restricted(other_mask)
        prior = _CLASS_SHARE * band.power
        maps = maps_from_centres(pair.subspaces[chain], mixture.centres, band.grid, band.fixed, prior, band.mask)
        pinned = task.known[own_mask][own.positions]
        maps, weights, scores = refine_classes(
            own,
            maps,
            mixture.weights,
            iterations=_FINISH_ITERATIONS,
            floor=task.floors[-1],
            pinned=pinned,
            step=task.step,
        )
        joint = np.empty((task.problem.count, len(weights)))
        joint[own_mask] = own.gathered(scores)
        joint[other_mask] = other.gathered(weigh_evidence(other, maps).scores(maps.scale))
        joint += np.log(weights)
        held[other_mask] = logsumexp(joint[other_mask], axis=1)
        joints.append(joint[task.active])
    return joints, held[task.active]


def expected_steps(depth_order: int) -> int:
    """Count the iterations of two generations, as far as can be told before: for the progress line."""
    learned, finished = 2 * SUBSPACE_ITERATIONS + 1, 2 * _FINISH_ITERATIONS
    splits = 2 ** (depth_order - 1)
    more_shares = len(SUBSPACE_SHARES) - 1
    return splits * (learned + finished) + more_shares * learned + 2 * finished + learned + 2 * finished


def choose_number(held: dict[int, np.ndarray], share: float) -> int:
    """Largest number of classes whose held-out likelihood is better than that of fewer.

    Better means by more than two standard errors of the particles' paired differences, and by more than ``share`` of
    what classes gain in all: given enough particles, small errors of poses and interpolation make every group
    significantly different from a point, and a point more then always helps a little.
    """
    numbers = sorted(held)
    best = numbers[0]
    for number in numbers[1:]:
        difference = held[number] - held[best]
        error = difference.std() / np.sqrt(max(len(difference), 1))
        total = held[number].mean() - held[numbers[0]].mean()
        if difference.mean() > max(_STANDARD_ERRORS * error, share * total):
            best = number
    return best
