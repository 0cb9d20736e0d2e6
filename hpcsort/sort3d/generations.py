"""Generations: sort the particles that are not yet accounted for, until nothing reproducible is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcsort.parallel import Progress, StoryLog
from hpcsort.sort3d.assignment import assign
from hpcsort.sort3d.chains import SUBSPACE_SHARES, ChainPair, Task, choose_number, finish_pair, learn_pair
from hpcsort.sort3d.groups import Agreement, compare_chains
from hpcsort.sort3d.problem import Problem
from hpcsort.sort3d.sizes import minimum_sizes, smallest_group

__all__ = ["Generation", "Sorting", "sort_generations"]

_MOST_GENERATIONS = 8
_LIBERAL, _STRICT = 0.002, 0.01
"""Least share of the likelihood that one class more must gain: before and after finishing in map space."""


@dataclass(frozen=True)
class Generation:
    """Result of one generation.

    Attributes
    ----------
    number : from 0.
    particles : how many were sorted.
    minimum : minimum group size.
    classes : number of classes that held-out likelihood chose.
    held : number of classes -> mean held-out log-likelihood ratio a particle, before finishing.
    finished : the same after finishing in map space, for the numbers that were tried.
    agreement : what the chains agree on; None where one class won and there was nothing to compare.
    """

    number: int
    particles: int
    minimum: int
    classes: int
    held: dict[int, float]
    finished: dict[int, float]
    agreement: Agreement | None


@dataclass(frozen=True)
class Sorting:
    """Groups of all generations.

    Attributes
    ----------
    labels : int64 (n,), group of each particle in sort order, -1 unaccounted.
    agreeing : float64 (n,), share of chains that agree on the particle, in the last generation that sorted it.
    probability : float64 (n,), mean probability of the particle's group (of its likeliest, where unaccounted).
    reproducibility, chance_mean, chance_std, p : float64 (groups,).
    origin : generation of each group.
    generations : one entry a generation.
    """

    labels: np.ndarray
    agreeing: np.ndarray
    probability: np.ndarray
    reproducibility: list[float]
    chance_mean: list[float]
    chance_std: list[float]
    p: list[float]
    origin: list[int]
    generations: list[Generation]


def sort_generations(problem: Problem, tell: StoryLog, progress: Progress) -> Sorting:
    """Sort generation after generation. Collective; every rank gets the same result."""
    count = problem.count
    state = Sorting(np.full(count, -1), np.zeros(count), np.zeros(count), [], [], [], [], [], [])
    for number in range(_MOST_GENERATIONS):
        active = np.flatnonzero(state.labels < 0)
        minimum = smallest_group(count)
        if number and len(active) < 2 * minimum:
            tell(f"{len(active)} particles are unaccounted for, too few for another generation of groups.")
            break
        generation = _sort_once(problem, state.labels, number, minimum, tell, progress)
        state.generations.append(generation)
        agreement = generation.agreement
        if agreement is None or not agreement.reproducibility.size:
            if number == 0 and agreement is None:
                _accept_all(state)
                tell(
                    f"One group: held-out likelihood prefers a single structure for all {count} particles; no "
                    "difference between particles is reproducible."
                )
            else:
                tell(f"Generation {number}: nothing more is reproducible among {len(active)} particles.")
            break
        first = len(state.origin)
        state.labels[active] = np.where(agreement.labels >= 0, agreement.labels + first, -1)
        state.agreeing[active] = agreement.agreeing
        own = np.where(agreement.labels >= 0, agreement.labels, agreement.probability.argmax(axis=1))
        state.probability[active] = agreement.probability[np.arange(len(active)), own]
        _add_groups(state, agreement, number)
        _tell_groups(tell, state, agreement, number, len(active), first)
    return state


def _sort_once(
    problem: Problem, known: np.ndarray, number: int, minimum: int, tell: StoryLog, progress: Progress
) -> Generation:
    options = problem.options
    active = int((known < 0).sum())
    most = options.max_groups
    if options.img_per_grp is not None:
        most = min(max(active // options.img_per_grp, 1), options.max_groups if number else 29)
    most = max(min(most, active // minimum), 1)
    schedule = _schedule(problem, active, most, minimum)
    task = Task(problem, number, known, tuple(size / active for size in schedule), lambda note: progress.step(1, note))
    lowest = 0 if task.groups else 1
    numbers = list(range(lowest, most + 1))
    if options.img_per_grp is not None and options.freeze_groups:
        tell(f"Generation {number}: {active} particles, at most {most} groups of {options.img_per_grp} particles.")
    else:
        tell(f"Generation {number}: {active} particles, {lowest} to {most} new groups are tried.")
    # The first generation looks for the prior that predicts unseen particles best; later ones keep the strong one.
    shares = SUBSPACE_SHARES if number == 0 else SUBSPACE_SHARES[:1]
    pairs = [learn_pair(task, 0, numbers, share) for share in shares]
    best = max(range(len(pairs)), key=lambda index: pairs[index].best)
    pair, share = pairs[best], shares[best]
    chosen, finished, joints = _choose(task, pair)
    held = {classes: float(gain.mean()) for classes, gain in pair.held.items()}
    tell(
        "Held-out log-likelihood a particle by number of new groups: "
        + ", ".join(f"{classes}: {gain:.3f}" for classes, gain in held.items())
        + "; after finishing in map space: "
        + ", ".join(f"{classes}: {gain:.3f}" for classes, gain in sorted(finished.items()))
        + f". Chosen: {chosen}."
    )
    if chosen == lowest:
        return Generation(number, active, minimum, chosen, held, finished, None)
    for split in range(1, 2 ** (options.depth_order - 1)):
        more = learn_pair(task, split, [chosen], share)
        joints = joints + finish_pair(task, more, chosen)[0]
    orientation = problem.orientation[known < 0]
    # Known groups need no minimum among the leftover, so the bounds hold in the first generation only.
    labels = [assign(joint, orientation, minimum if number == 0 else 0) for joint in joints]
    agreement = compare_chains(labels, joints, minimum, options.seed, task.groups)
    return Generation(number, active, minimum, chosen, held, finished, agreement)


def _schedule(problem: Problem, active: int, most: int, minimum: int) -> list[int]:
    """Minimum group sizes: from 90 % of an even share down to the smallest group, or that alone when frozen."""
    options = problem.options
    if options.freeze_groups and options.img_per_grp is not None:
        return [minimum]
    return [*minimum_sizes(max(int(0.9 * active / most), minimum), minimum, options.nstep), minimum]


def _choose(task: Task, pair: ChainPair) -> tuple[int, dict[int, float], list[np.ndarray]]:
    """Choose the number of new classes: the subspace proposes, its neighbours in map space confirm or refute."""
    lowest = min(pair.held)
    base = np.full_like(pair.held[lowest], pair.held[lowest].mean())
    finished: dict[int, tuple[list[np.ndarray], np.ndarray]] = {}

    def held(number: int) -> np.ndarray:
        if number not in finished:
            finished[number] = finish_pair(task, pair, number)
        return finished[number][1]

    def is_better(number: int) -> bool:
        return choose_number({-1: base, 0: held(number - 1), 1: held(number)}, _STRICT) == 1

    number = proposed = choose_number(pair.held, _LIBERAL)
    while number > lowest and not is_better(number):
        number -= 1
    if number == proposed > lowest:
        while number + 1 in pair.held and is_better(number + 1):
            number += 1
    held(number)
    means = {classes: float(gain.mean()) for classes, (_, gain) in finished.items()}
    return number, means, finished[number][0]


def _accept_all(state: Sorting) -> None:
    state.labels[:] = 0
    state.agreeing[:] = 1.0
    state.probability[:] = 1.0
    # Everybody agrees on one group, by chance as well.
    state.reproducibility.append(1.0)
    state.chance_mean.append(1.0)
    state.chance_std.append(0.0)
    state.p.append(1.0)
    state.origin.append(0)


def _add_groups(state: Sorting, agreement: Agreement, number: int) -> None:
    state.reproducibility.extend(agreement.reproducibility.tolist())
    state.chance_mean.extend(agreement.chance_mean.tolist())
    state.chance_std.extend(agreement.chance_std.tolist())
    state.p.extend(agreement.p.tolist())
    state.origin.extend([number] * len(agreement.reproducibility))


def _tell_groups(tell: StoryLog, state: Sorting, agreement: Agreement, number: int, active: int, first: int) -> None:
    accounted = int((agreement.labels >= 0).sum())
    tell(
        f"Generation {number}: {len(agreement.reproducibility)} reproducible groups hold {accounted} of {active} "
        f"particles ({100 * accounted / active:.1f} %)."
    )
    for index, score in enumerate(agreement.reproducibility):
        size = int((agreement.labels == index).sum())
        tell(
            f"  group {first + index}: {size} particles, reproducibility {100 * score:.1f} % against "
            f"{100 * agreement.chance_mean[index]:.1f} +- {100 * agreement.chance_std[index]:.1f} % by chance "
            f"(p = {agreement.p[index]:.2g})."
        )
    for size, _, _, reason in agreement.rejected:
        tell(f"  a class of {size} particles is rejected: {reason}.")
