"""The default engine: chains that learn a subspace, fit classes in it, and finish them in map space."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, softmax

from hpcsort.sort3d.assignment import label_new_classes
from hpcsort.sort3d.classmaps import ClassMaps, maps_from_centres
from hpcsort.sort3d.finish import Chain, refine_chains, with_junk
from hpcsort.sort3d.learning import SubspaceRun, learn_subspaces
from hpcsort.sort3d.mixture import Mixture
from hpcsort.sort3d.moves import best_mixtures
from hpcsort.sort3d.records import BoxChains, BoxPlan
from hpcsort.sort3d.statistics import JUNK_KINDS, particle_statistics
from hpcsort.sort3d.subspace import Subspace
from hpcsort.sort3d.survey import STARTS, Survey, fit_weights, known_centres, split_halves
from hpcsort.sort3d.task import Task

__all__ = ["FINISH_ITERATIONS", "finish_survey", "learn_layer", "rerun_layer", "weigh_groups"]

_CLASS_SHARE = 0.2
"""Prior power of a class's difference as a share of the consensus power."""
FINISH_ITERATIONS = 4
_SPARE = 2
"""Components that are learned beyond those that predict unseen particles: EM converges faster with some to spare."""
_WEIGHING_ITERATIONS, _WEIGHING_SHARE = 2, 0.1


def finish_survey(task: Task, survey: Survey, number: int) -> tuple[BoxChains, np.ndarray]:
    """Finish both chains of the survey in map space with ``number`` new classes. Collective.

    Returns
    -------
    chains : what they say.
    held : float64, log-likelihood ratio of each usable particle under the chain that has not seen it.
    """
    chains = [
        _from_mixture(task, survey.half == chain, survey.subspaces[chain], survey.mixtures[chain][number])
        for chain in (0, 1)
    ]
    chains, joints = _refine(task, chains, FINISH_ITERATIONS)
    seen = []
    for chain, joint in enumerate(joints):
        scores = (joint - np.log(chains[chain].weights))[:, :-JUNK_KINDS]
        weights = fit_weights(scores[task.usable & (survey.half == chain)])
        seen.append(logsumexp(scores + np.log(weights), axis=1))
    held = np.where(survey.half == 0, seen[1], seen[0])
    return _chains(task, chains, joints), held[task.usable]


def learn_layer(task: Task, plans: list[BoxPlan], survey: Survey) -> list[BoxChains]:
    """Run boxes that start from nothing, with the settings that the survey chose. Collective."""
    if not plans:
        return []
    problem, band = task.problem, task.problem.narrow
    size = problem.options.components or survey.components + _SPARE
    learns = task.active & task.usable
    runs = [
        SubspaceRun(
            f"{task.key} {plan.key} chain {chain}", learns & plan.learns[chain], size, survey.share * band.power
        )
        for plan in plans
        for chain in (0, 1)
    ]
    subspaces = task.journal.step(
        "subspaces",
        lambda: learn_subspaces(
            band.store, band.start(), runs, seed=problem.options.seed, step=task.step, journal=task.journal
        ),
    )
    if not problem.options.components:
        subspaces = [subspace.leading(survey.components) for subspace in subspaces]
    statistics = particle_statistics(band.store, subspaces)
    chosen = [plan.learns[chain] for plan in plans for chain in (0, 1)]
    own = [part.rows(np.flatnonzero(learns & mine)) for part, mine in zip(statistics, chosen, strict=True)]
    fixed = [known_centres(task, part, mine) for part, mine in zip(statistics, chosen, strict=True)]
    classes = plans[0].classes
    mixtures = task.journal.step(
        "mixtures",
        lambda: best_mixtures(
            problem.comm,
            own,
            [classes],
            seed=problem.options.seed,
            key=f"{task.key} layer {plans[0].layer} boxes from {plans[0].number}",
            starts=STARTS,
            floors=task.floors,
            fixed=fixed,
        ),
    )
    chains = [
        _from_mixture(task, mine, subspace, mixture[classes])
        for mine, subspace, mixture in zip(chosen, subspaces, mixtures, strict=True)
    ]
    chains, joints = _refine(task, chains, FINISH_ITERATIONS, until_settled=True)
    return [_chains(task, chains[first : first + 2], joints[first : first + 2]) for first in range(0, len(chains), 2)]


def rerun_layer(task: Task, plans: list[BoxPlan], survey: Survey) -> list[BoxChains]:
    """Run boxes that start from partitions: map space only. Collective."""
    chains = []
    for plan in plans:
        assert plan.start is not None
        for chain in (0, 1):
            total = task.groups + plan.classes
            start = np.full(task.problem.count, -1)
            begun = plan.start[chain]
            start[task.active] = np.where(begun >= 0, begun + task.groups, -1)
            maps = _empty_maps(task, survey.spread, total)
            chains.append(Chain(plan.learns[chain] & task.usable, maps, with_junk(np.ones(total)), start))
    chains, joints = _refine(task, chains, FINISH_ITERATIONS - 1, until_settled=True)
    return [_chains(task, chains[first : first + 2], joints[first : first + 2]) for first in range(0, len(chains), 2)]


def weigh_groups(task: Task, labels: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Probability of every group for every particle, by maps of all groups. Collective.

    Three chains are averaged: one learns from all particles, two from disjoint halves. The first knows the maps best,
    the others know how uncertain maps are; the mean is right as often as it says (benchmarks/accuracy.md).

    Parameters
    ----------
    task : of which only the problem is used; nobody is pinned.
    labels : int (n,), group of each particle, -1 for none.
    spread : float64 (7,), standard deviations of the nuisances.

    Returns
    -------
    float64 (n, groups + 2), probabilities, those of both kinds of junk last; a particle is compared with maps that
    its own contribution is taken out of.
    """
    groups = int(labels.max()) + 1
    half = split_halves(task, "weighing")
    maps = _empty_maps(task, spread, groups, _WEIGHING_SHARE)
    chains = [
        Chain(learns & task.usable, maps, with_junk(np.ones(groups)), labels)
        for learns in (np.ones(len(labels), bool), half == 0, half == 1)
    ]
    free = np.full(task.problem.count, -1)
    _, joints = refine_chains(
        task.problem.wide.store,
        chains,
        free,
        iterations=_WEIGHING_ITERATIONS,
        floor=1e-4,
        step=task.step,
        journal=task.journal,
    )
    full, first, second = (softmax(joint, axis=1) for joint in joints)
    return np.asarray(0.5 * full + 0.25 * (first + second))


def _from_mixture(task: Task, learns: np.ndarray, subspace: Subspace, mixture: Mixture) -> Chain:
    band = task.problem.wide
    prior = _CLASS_SHARE * band.power
    fixed = band.scaled_nuisances(subspace.spread)
    maps = maps_from_centres(subspace, mixture.centres, band.grid, fixed, prior, band.mask, band.region)
    return Chain(learns & task.usable, maps, with_junk(mixture.weights))


def _empty_maps(task: Task, spread: np.ndarray, classes: int, share: float = _CLASS_SHARE) -> ClassMaps:
    band = task.problem.wide
    blank = np.zeros((classes, *band.grid.fourier_shape), np.complex64)
    fixed = band.scaled_nuisances(spread)
    prior = share * band.power
    ridge = np.zeros(blank.shape, np.float32)
    return ClassMaps(
        band.grid,
        fixed,
        float(spread[0]),
        blank,
        np.ones(classes),
        ridge,
        0.0,
        prior,
        band.mask,
        band.region,
        band.mask,
    )


def _refine(
    task: Task, chains: list[Chain], iterations: int, until_settled: bool = False
) -> tuple[list[Chain], list[np.ndarray]]:
    # The floor is a share of the particles that are sorted, the weights are shares of all.
    floor = task.floors[-1] * float(task.active.sum()) / task.problem.count
    return refine_chains(
        task.problem.wide.store,
        chains,
        task.known,
        iterations=iterations,
        floor=floor,
        until_settled=until_settled,
        step=task.step,
        journal=task.journal,
    )


def _chains(task: Task, chains: list[Chain], joints: list[np.ndarray]) -> BoxChains:
    """Labels of both chains, the minimum group size held in every orientation group."""
    orientation = task.problem.orientation[task.active]
    first, second = (joint[task.active] for joint in joints)
    minimum = round(task.floors[-1] * int(task.active.sum()))
    labels = [label_new_classes(joint, orientation, minimum, task.groups) for joint in (first, second)]
    return BoxChains((labels[0], labels[1]), (first, second), (chains[0].changes, chains[1].changes))
