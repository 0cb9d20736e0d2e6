"""The classical engine: boxes of two K-means chains in map space that start at random and refine each other.

Each box runs its two chains to convergence, keeps what both agree on, starts both again from that and from a random
placing of the rest, and so on until they agree. All chains of all boxes of a layer advance in lock step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np

from hpcsort.parallel import stream
from hpcsort.partitions import intersect_groups, match_groups, rand_index
from hpcsort.sort3d.assignment import label_new_classes
from hpcsort.sort3d.finish import with_junk
from hpcsort.sort3d.kmeans import iterate_chains, known_scores, score_chains
from hpcsort.sort3d.lockstep import Chain, Field, clean_residuals
from hpcsort.sort3d.merging import merge_duplicates
from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.records import BoxChains, BoxPlan
from hpcsort.sort3d.refill import refill
from hpcsort.sort3d.sizes import minimum_sizes, reset_classes, size_range, smallest_group
from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.task import Task

__all__ = ["classical_classes", "run_classical_layer"]

_CLASS_SHARE = 0.2
"""Prior power of a class's difference as a share of the consensus power."""
_MOST_CLASSES = 29
_ROUNDS = 5
"""Restarts of a box."""
_ITERATIONS = 15
_SETTLED, _MOVING = 10.0, 50.0
"""Changed particles in % below which a chain is done, and below which its minimum size is lowered."""
_STALLED = {True: 2.0, False: 1.0}
_AGREED, _GAINED, _RAND_AGREED = 90.0, 1.0, 0.90
_SWAPPED, _SWAPPED_FIRST = 0.05, 0.10


def classical_classes(options: SortOptions, active: int, minimum: int) -> int:
    """Count the classes of the first layer.

    With ``img_per_grp`` as many groups of that size as there are particles for, 2 to 29; without it, more than any set
    is likely to have (``max_groups``): superfluous classes are joined.

    Parameters
    ----------
    options : ``img_per_grp`` and ``max_groups`` are used.
    active : number of particles that are sorted.
    minimum : smallest group that is looked for.
    """
    if options.img_per_grp is None:
        return max(min(options.max_groups, active // max(minimum, 1)), 2)
    return int(np.clip(active // options.img_per_grp, 2, _MOST_CLASSES))


def run_classical_layer(task: Task, plans: list[BoxPlan]) -> list[BoxChains]:
    """Run all boxes of a layer in lock step. Collective.

    Parameters
    ----------
    task : what the generation sorts.
    plans : one a box; without a start its chains begin from random partitions of equal classes.

    Returns
    -------
    One entry a box. Except in freeze-groups mode a chain may end with fewer classes than planned (its joint has as
    many columns as it has groups and classes), and with one where its particles are all alike.
    """
    ground = _prepare(task)
    boxes = [_Box(task, plan) for plan in plans]
    turn, kept = task.journal.saved("passes") or (0, [])
    for box, state in zip(boxes, kept, strict=False):
        box.go_on(state, ground.store)
    while running := [box for box in boxes if not box.done]:
        turn += 1
        active = [run for box in running for run in box.runs if not run.done]
        labels = iterate_chains(ground, [run.chain for run in active], [run.minimum for run in active])
        for run, found in zip(active, labels, strict=True):
            run.take(found)
        task.step(f"layer {plans[0].layer}: pass {turn}, {len(active)} chains in {len(running)} boxes")
        ended = [box for box in running if all(run.done for run in box.runs)]
        if ended:
            chains = [run.chain for box in ended for run in box.runs]
            scores = score_chains(ground, chains)
            if not _is_frozen(task):
                scores = merge_duplicates(ground, chains, scores)
            for index, box in enumerate(ended):
                box.take(ground, scores[2 * index : 2 * index + 2])
        task.journal.keep("passes", partial(_to_keep, turn, boxes, ground.store))
    return [box.result for box in boxes]


def _to_keep(turn: int, boxes: list[_Box], store: ParticleStore) -> tuple[int, list[_BoxState]]:
    return turn, [box.to_keep(store) for box in boxes]


def _prepare(task: Task) -> Field:
    problem, band = task.problem, task.problem.wide
    clean, junk = clean_residuals(band.store, band.fixed, band.grid.pad, float(band.start().spread[0]))
    prior = _CLASS_SHARE * band.power
    nobody = np.zeros((len(junk), 0))
    everyone = Field(clean, band.grid, band.mask, band.region, prior, problem.orientation, nobody, junk)
    mine = task.active[clean.positions]
    known = known_scores(everyone, np.where(task.usable, task.known, -1), task.groups)[mine]
    store = clean.restricted(task.active)
    return Field(store, band.grid, band.mask, band.region, prior, problem.orientation[task.active], known, junk[mine])


@dataclass
class _Run:
    """K-means of one chain from one start: its minimum sizes, and when it stops.

    Attributes
    ----------
    chain : maps and labels.
    sizes : minimum group sizes in the order in which they hold.
    frozen : freeze-groups mode.
    fuzzy : with ``use_umat``.
    first : number of first iterations whose changes do not count as stalled.
    """

    chain: Chain
    sizes: list[int]
    frozen: bool
    fuzzy: bool
    first: int
    step: int = 0
    just_lowered: bool = False
    changes: list[float] = field(default_factory=list)
    done: bool = False

    @property
    def minimum(self) -> int:
        """Minimum group size that holds now."""
        return self.sizes[self.step]

    def take(self, labels: np.ndarray) -> None:
        """Take the labels of an iteration and decide what follows."""
        own = self.chain.own
        changed = 100.0 * (1.0 - match_groups(self.chain.labels[own], labels[own]).overlap.sum() / _placed(labels[own]))
        before = self.changes[-1] if self.changes else 100.0
        self.changes.append(changed)
        self.chain.labels = labels
        last = self.step == len(self.sizes) - 1
        stalled = len(self.changes) >= self.first + 3 and float(np.std(self.changes[-3:])) < _STALLED[self.frozen]
        if self.just_lowered:
            self.just_lowered = False
        elif not last and ((changed < _MOVING and changed <= before) or stalled):
            self.step += 1
            self.just_lowered = True
        else:
            self.done = last and (changed < _SETTLED or stalled)
        limit = _ITERATIONS + len(self.sizes) - 1
        self.done |= len(self.changes) >= limit
        if self.fuzzy:
            # Vanishes as the labels settle and as the minimum size falls.
            self.chain.fuzziness = 0.5 * min(changed / 100.0, 1.0) ** 2 * self.minimum / max(self.sizes)


@dataclass(frozen=True)
class _BoxState:
    """A box between two passes; its chains hold what all ranks know of their particles."""

    classes: int
    round: int
    rounds: int
    ratio: float
    done: bool
    runs: list[_Run]
    result: BoxChains | None


def _placed(labels: np.ndarray) -> int:
    return max(int((labels >= 0).sum()), 1)


def _is_frozen(task: Task) -> bool:
    """Freeze-groups mode: the number of classes and the minimum size are the user's."""
    return task.problem.options.img_per_grp is not None and task.problem.options.freeze_groups


class _Box:
    """Two chains that are run, compared and started again until they agree."""

    def __init__(self, task: Task, plan: BoxPlan) -> None:
        options, problem = task.problem.options, task.problem
        self._task, self._plan = task, plan
        self._active = task.active
        self._count = int(self._active.sum())
        self._frozen = _is_frozen(task)
        self._fuzzy = bool(getattr(options, "use_umat", False))
        self._total = problem.count
        self._fsc = problem.consensus.fsc
        self._classes = plan.classes
        self._round = 0
        self._rounds = _ROUNDS
        self._ratio = 0.0
        self.done = False
        self.runs = self._start(self._random_starts() if plan.start is None else plan.start)
        self.result: BoxChains

    def to_keep(self, store: ParticleStore) -> _BoxState:
        """Gather what `go_on` needs. Collective."""
        runs = [replace(run, chain=run.chain.with_rows(store.gathered)) for run in self.runs]
        result = self.result if self.done else None
        return _BoxState(self._classes, self._round, self._rounds, self._ratio, self.done, runs, result)

    def go_on(self, state: _BoxState, store: ParticleStore) -> None:
        """Return to where a box was kept."""
        self._classes, self._round, self._rounds = state.classes, state.round, state.rounds
        self._ratio, self.done = state.ratio, state.done
        self.runs = [replace(run, chain=run.chain.with_rows(store.own_rows)) for run in state.runs]
        if state.result is not None:
            self.result = state.result

    def _stream(self, chain: int) -> np.random.Generator:
        key = f"generation {self._task.generation}", self._plan.key, f"chain {chain}", f"round {self._round}"
        return stream(self._task.problem.options.seed, "classical", *key)

    def _random_starts(self) -> tuple[np.ndarray, np.ndarray]:
        """Two random partitions into equal classes."""
        first, second = (self._stream(chain).permutation(self._count) % self._classes for chain in (0, 1))
        return first, second

    def _start(self, starts: tuple[np.ndarray, np.ndarray]) -> list[_Run]:
        runs = []
        for start, sizes, learns in zip(starts, self._schedules(), self._plan.learns, strict=True):
            own = (learns & self._task.usable)[self._active]
            chain = Chain(own, np.where(own, start, -1), self._classes)
            runs.append(_Run(chain, sizes, self._frozen, self._fuzzy, int(np.clip(len(sizes), 3, 5))))
        return runs

    def _schedules(self) -> tuple[list[int], list[int]]:
        """Minimum sizes of either chain.

        A first round lowers them from the highest, the second chain between the steps of the first, so that the two do
        not march in step. Rounds that start from stable sets begin where it ended. The last size is the smallest that
        is looked for: what a minimum forced into a small group leaves it again.
        """
        low, high = self._range()
        if self._frozen:
            return [(low + high) // 2], [(low + high) // 2]
        least = min(smallest_group(self._count), low)
        if self._round:
            return [low, least], [low, least]
        more = minimum_sizes(high, low, self._task.problem.options.nstep + 1)
        between = [(above + below) // 2 for above, below in pairwise(more)]
        return [*minimum_sizes(high, low, self._task.problem.options.nstep), least], [*between, least]

    def _range(self) -> tuple[int, int]:
        return size_range(self._fsc, self._total, self._count, self._classes, self._frozen)

    def take(self, ground: Field, scores: list[np.ndarray]) -> None:
        """Compare the two chains, given their scores (n, K) of all particles; start again or end."""
        known, junk = ground.store.gathered(ground.known), ground.store.gathered(ground.junk)
        joints = [_joint(known, score, junk, run.chain) for score, run in zip(scores, self.runs, strict=True)]
        least = self.runs[0].minimum if self._frozen else smallest_group(self._count)
        labels = [label_new_classes(joint, ground.orientation, least, known.shape[1]) for joint in joints]
        changes = [tuple(percent / 100.0 for percent in run.changes) for run in self.runs]
        self.result = BoxChains((labels[0], labels[1]), (joints[0], joints[1]), (changes[0], changes[1]))
        matched = match_groups(labels[0], labels[1])
        ratio = 100.0 * matched.overlap.sum() / _placed(labels[0])
        rand = rand_index(labels[0], labels[1])
        converged = self._agree(ratio, rand)
        self._ratio = ratio
        stable, reset = self._select(intersect_groups(labels[0], labels[1], matched.pairs))
        self._round += 1
        if reset:
            self._rounds = min(self._rounds + 1, 2 * _ROUNDS)
        if (converged and not reset) or self._round >= self._rounds:
            self.done = True
            return
        share = _SWAPPED_FIRST if self._plan.number == 0 else _SWAPPED
        placed = (labels[0] >= 0) | (labels[1] >= 0)
        first, second = (
            np.where(placed, refill(stable, self._classes, share, self._stream(chain)), -1) for chain in (0, 1)
        )
        self.runs = self._start((first, second))

    def _agree(self, ratio: float, rand: float) -> bool:
        """Tell whether another round is of no use."""
        if all(run.chain.classes == 1 for run in self.runs):
            return True
        if self._round < 1:
            return False
        if ratio > _AGREED or abs(ratio - self._ratio) < _GAINED:
            return True
        return not self._frozen and rand > _RAND_AGREED

    def _select(self, stable: np.ndarray) -> tuple[np.ndarray, bool]:
        """Drop remnants and count the classes anew (search and general mode); tells whether there are fewer now."""
        if self._frozen or stable.max(initial=-1) < 0:
            return stable, False
        sizes = np.bincount(stable[stable >= 0])
        keep = sizes >= smallest_group(self._count)
        renamed = np.full(len(sizes) + 1, -1, np.int64)
        renamed[:-1][keep] = np.arange(keep.sum())
        stable = renamed[stable]
        classes = reset_classes(sizes[keep], int((stable < 0).sum()), self._count, self._classes)
        # Leave room for a group that only one chain has found.
        classes = min(max(classes, *(run.chain.classes for run in self.runs)), self._classes)
        reset = classes < self._classes
        self._classes = classes
        return stable, reset


def _joint(known: np.ndarray, scores: np.ndarray, junk: np.ndarray, chain: Chain) -> np.ndarray:
    """Log of share times likelihood ratio, float64 (n, groups + K + 2): known groups first, junk last."""
    both = np.concatenate([known, scores], axis=1)
    # One more for each class, so that none has share zero.
    sizes = np.bincount(both[chain.own].argmax(axis=1), minlength=both.shape[1]) + 1.0
    return np.asarray(np.concatenate([both, junk], axis=1) + np.log(with_junk(sizes)))
