"""Generations: sort the particles that are not yet accounted for, until nothing reproducible is left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from hpcsort.parallel import Progress, StoryLog
from hpcsort.sort3d.choice import Choice, choose_classes
from hpcsort.sort3d.classical import classical_classes, run_classical_layer
from hpcsort.sort3d.engine import learn_layer, rerun_layer, weigh_groups
from hpcsort.sort3d.problem import Problem
from hpcsort.sort3d.records import BoxChains, BoxPlan, Generation
from hpcsort.sort3d.sizes import minimum_sizes, size_range, smallest_group
from hpcsort.sort3d.splitting import Found, found_groups, split_groups
from hpcsort.sort3d.survey import COMPONENTS, COMPONENTS_AFTER, PRIOR_SHARES, Survey, survey
from hpcsort.sort3d.task import Task
from hpcsort.sort3d.tree import grow_tree, result_of

__all__ = ["Sorting", "sort_generations"]

_MOST_GENERATIONS = 8
_MOST_ASKED = 29


@dataclass(frozen=True)
class Learned:
    """What later generations and the probabilities take from the first survey: `Survey.share` and `Survey.spread`."""

    share: float
    spread: np.ndarray


@dataclass
class Sorting:
    """Groups of all generations.

    Attributes
    ----------
    labels : int64 (n,), group of each particle in sort order, -1 unaccounted.
    agreeing : float64 (n,), share of chains that agree on the particle, in the last generation that sorted it.
    probability : float64 (n, groups), probability of every group, unaccounted particles included.
    junk : float64 (n,), probability that the image is junk.
    reproducibility, chance_mean, chance_std, p : one entry a group.
    origin : generation of each group.
    generations : one entry a generation.
    learned : what the first generation found out; None where nothing was surveyed.
    """

    labels: np.ndarray
    agreeing: np.ndarray
    probability: np.ndarray
    junk: np.ndarray
    reproducibility: list[float] = field(default_factory=list)
    chance_mean: list[float] = field(default_factory=list)
    chance_std: list[float] = field(default_factory=list)
    p: list[float] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    learned: Learned | None = None


def sort_generations(problem: Problem, tell: StoryLog, progress: Progress) -> Sorting:
    """Sort generation after generation. Collective; every rank gets the same result."""
    count = problem.count
    state = Sorting(np.full(count, -1), np.zeros(count), np.zeros((count, 0)), np.zeros(count))
    for number in range(_MOST_GENERATIONS):
        active = np.flatnonzero(state.labels < 0)
        minimum = smallest_group(count)
        if number and int((problem.empty[active] <= 0.5).sum()) < 2 * minimum:
            tell(f"{len(active)} particles are unaccounted for, too few for another generation of groups.")
            break
        task, most = _pose(problem, state.labels, number, minimum, progress)
        tell(f"Generation {number}: {len(active)} particles, {_mode(task, most)}.")
        sort_once = partial(_sort_once, task, most, minimum, state.learned, tell)
        generation, found, learned = problem.journal.step(f"generation {number}", sort_once)
        state.generations.append(generation)
        state.learned = state.learned or learned
        if found is None or found.groups == 0:
            _tell_nothing(problem, tell, state, generation)
            break
        _take(state, generation, found)
        _tell_groups(tell, state, generation, number)
    _weigh(problem, state, progress)
    return state


def _pose(problem: Problem, known: np.ndarray, number: int, minimum: int, progress: Progress) -> tuple[Task, int]:
    """Task of a generation, and the largest number of new classes."""
    options = problem.options
    active = int((known < 0).sum())
    most = options.max_groups
    if options.img_per_grp is not None:
        most = min(max(active // options.img_per_grp, 1), options.max_groups if number else _MOST_ASKED)
    usable = int(((known < 0) & (problem.empty <= 0.5)).sum())
    most = max(min(most, usable // minimum), 1)
    floors = tuple(size / active for size in _schedule(problem, active, most, minimum))
    return Task(problem, number, known.copy(), floors, lambda note: progress.step(1, note)), most


def _schedule(problem: Problem, active: int, most: int, minimum: int) -> list[int]:
    """Minimum group sizes: from the table's highest down to the smallest group, or that alone when frozen."""
    options = problem.options
    if options.freeze_groups and options.img_per_grp is not None:
        return [minimum]
    fsc = problem.consensus.fsc[: problem.consensus.grid.radius + 1]
    _, high = size_range(fsc, problem.count, active, most, freeze=False)
    return [*minimum_sizes(max(high, minimum), minimum, options.nstep), minimum]


def _mode(task: Task, most: int) -> str:
    """Say in words what a generation tries."""
    options = task.problem.options
    if options.img_per_grp is None:
        return f"search for the number of groups, up to {most}"
    mode = "freeze groups" if options.freeze_groups else "general"
    return f"at most {most} groups of {options.img_per_grp} particles ({mode})"


def _sort_once(
    task: Task, most: int, minimum: int, learned: Learned | None, tell: StoryLog
) -> tuple[Generation, Found | None, Learned]:
    """Choose the settings, grow the tree, look into its groups."""
    options = task.problem.options
    active = np.flatnonzero(task.active)
    sizes = [round(floor * len(active)) for floor in task.floors]
    shares = PRIOR_SHARES if learned is None else (learned.share,)
    lowest = 0 if task.groups else 1
    sizes_learned = COMPONENTS if task.generation == 0 else COMPONENTS_AFTER
    surveyed = survey(task, list(range(lowest, most + 1)), shares, sizes_learned)
    learned = Learned(surveyed.share, surveyed.spread)
    choice = choose_classes(task, surveyed)
    _tell_choice(tell, surveyed, choice)
    classes = choice.classes
    if options.engine == "maps" and task.generation == 0:
        classes = classical_classes(options, len(active), minimum)
    if choice.classes == lowest:
        return Generation(task.generation, active, sizes, classes, choice.held, choice.finished), None, learned

    def run(plans: list[BoxPlan]) -> list[BoxChains]:
        if options.engine == "maps":
            return run_classical_layer(task, plans)
        if plans[0].layer:
            return rerun_layer(task, plans, surveyed)
        if options.independence == "starts":
            return learn_layer(task, plans, surveyed)
        return [choice.first, *learn_layer(task, plans[1:], surveyed)]

    layers = grow_tree(task, classes, minimum, run, options.depth_order)
    boxes = [box.chains for box in layers[0].boxes]
    found = found_groups(result_of(layers), boxes, task.groups, options.seed)
    if options.engine == "subspace" and options.img_per_grp is None:
        found = split_groups(task, found, surveyed.share, minimum, tell)
    record = Generation(task.generation, active, sizes, classes, choice.held, choice.finished, layers, found.labels)
    return record, found, learned


def _take(state: Sorting, generation: Generation, found: Found) -> None:
    """Add a generation's groups to those known."""
    active = generation.active
    first = len(state.origin)
    state.labels[active] = np.where(found.labels >= 0, found.labels + first, -1)
    state.agreeing[active] = found.agreeing
    state.reproducibility.extend(found.score.tolist())
    state.chance_mean.extend(found.chance_mean.tolist())
    state.chance_std.extend(found.chance_std.tolist())
    state.p.extend(found.p.tolist())
    state.origin.extend([generation.number] * found.groups)


def _weigh(problem: Problem, state: Sorting, progress: Progress) -> None:
    """Probabilities of all groups for all particles, from maps of all of them."""
    groups = len(state.origin)
    if groups < 2 or state.learned is None:
        state.probability = np.ones((problem.count, groups)) * (1.0 - problem.empty[:, None])
        state.junk = problem.empty
        return
    task = Task(problem, 0, np.full(problem.count, -1), (1.0,), lambda note: progress.step(1, note))
    spread = state.learned.spread
    share = problem.journal.step("probabilities", lambda: weigh_groups(task, state.labels, spread))
    state.probability, state.junk = share[:, :groups], share[:, groups:].sum(axis=1)


def _tell_choice(tell: StoryLog, found: Survey, choice: Choice) -> None:
    contrast, shift, turn = found.spread[0], found.spread[1], np.rad2deg(found.spread[4])
    tell(
        f"Differences have {found.components} component{'s' if found.components > 1 else ''} that predict unseen "
        f"particles; errors of {100 * contrast:.0f} % in contrast, {shift:.2f} px in shift and {turn:.1f} degrees in "
        "rotation are allowed for."
    )
    tell(
        "Held-out log-likelihood a particle by number of new groups: "
        + ", ".join(f"{classes}: {gain:.3f}" for classes, gain in choice.held.items())
        + "; after finishing in map space: "
        + ", ".join(f"{classes}: {gain:.3f}" for classes, gain in choice.finished.items())
        + f". Chosen: {choice.classes}."
    )


def _tell_nothing(problem: Problem, tell: StoryLog, state: Sorting, generation: Generation) -> None:
    if generation.number or generation.layers:
        tell(f"Generation {generation.number}: nothing more is reproducible among {len(generation.active)} particles.")
        return
    # Everything that shows a particle is one group, on which everybody agrees, by chance as well.
    state.labels = np.where(problem.empty > 0.5, -1, 0)
    state.agreeing[:] = 1.0
    state.reproducibility, state.chance_mean, state.chance_std, state.p = [1.0], [1.0], [0.0], [1.0]
    state.origin = [0]
    state.generations[-1] = replace(generation, labels=state.labels)
    count = int((state.labels >= 0).sum())
    if max(generation.held, default=1) < 2:
        tell(f"One group of all {count} particles: the options allow for no more.")
        return
    tell(
        f"One group: held-out likelihood prefers a single structure for all {count} particles; no difference between "
        "particles is reproducible."
    )


def _tell_groups(tell: StoryLog, state: Sorting, generation: Generation, number: int) -> None:
    labels, first = generation.labels, state.origin.index(number)
    accounted = int((labels >= 0).sum())
    groups = int(labels.max()) + 1
    tell(
        f"Generation {number}: {groups} reproducible groups hold {accounted} of {len(labels)} particles "
        f"({100 * accounted / len(labels):.1f} %)."
    )
    for index in range(first, first + groups):
        tell(
            f"  group {index}: {int((labels == index - first).sum())} particles, reproducibility "
            f"{100 * state.reproducibility[index]:.1f} % against {100 * state.chance_mean[index]:.1f} +- "
            f"{100 * state.chance_std[index]:.1f} % by chance (p = {state.p[index]:.2g})."
        )
    for layer in generation.layers:
        for comparison in layer.comparisons:
            for overlap, reason in zip(comparison.overlap, comparison.reasons, strict=True):
                if reason:
                    tell(f"  layer {layer.number}: a class that shares {overlap} particles is rejected: {reason}.")
