"""What a generation finds out first: the prior, the number of components and the number of classes.

One pair of chains learns from disjoint halves under several settings in lock step; each setting is judged by the
likelihood of particles that its chain has not seen. All particles take part in that, those of known groups too:
particles are left over because they lie between groups, and among these alone a class between two groups would always
seem to gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import logsumexp

from hpcsort.kernels import interleave
from hpcsort.parallel import stream
from hpcsort.sort3d.learning import SUBSPACE_ITERATIONS, SubspaceRun, learn_subspaces
from hpcsort.sort3d.mixture import Mixture
from hpcsort.sort3d.moves import best_mixtures
from hpcsort.sort3d.statistics import Statistics, particle_statistics
from hpcsort.sort3d.subspace import Subspace, moments, second_order_map
from hpcsort.sort3d.task import Task

__all__ = [
    "COMPONENTS",
    "COMPONENTS_AFTER",
    "LIBERAL",
    "PRIOR_SHARES",
    "STARTS",
    "STRICT",
    "Survey",
    "choose_number",
    "fit_weights",
    "known_centres",
    "split_halves",
    "survey",
]

PRIOR_SHARES = (0.015, 0.05)
"""Prior power of a learned map as a share of the consensus power. Weak differences need a weaker prior to be seen at
all; held-out likelihood chooses (benchmarks/accuracy.md)."""
COMPONENTS = (8, 16, 24)
COMPONENTS_AFTER = (4, 8)
"""Components that are learned, one number after the other: from a whole stack, and from what is left over."""
STARTS = 4
_BATCH = 3
_STANDARD_ERRORS = 2.0
_LEAST_WEIGHT = 1e-6
LIBERAL, STRICT = 0.0001, 0.002
"""Least share of the likelihood that one class more must gain: before and after finishing in map space."""
_SECOND_ORDER = 0.03
"""Share of the errors' second-order effect that one class more must gain beyond."""


@dataclass(frozen=True)
class Survey:
    """Two chains of one half split, and what they say about the settings.

    Attributes
    ----------
    half : int (n,), which chain learns from a particle.
    share : prior that predicts unseen particles best.
    components : number of components that predict them.
    subspaces, statistics : one a chain, of these components.
    mixtures : number of new classes -> mixture, one dictionary a chain.
    least : log-likelihood a particle that one class more must gain: errors of poses beyond the first order give less.
    held : number of new classes -> held-out log-likelihood ratio of each usable particle, known groups' too, float64.
    """

    half: np.ndarray
    share: float
    components: int
    subspaces: list[Subspace]
    statistics: list[Statistics]
    mixtures: list[dict[int, Mixture]]
    least: float
    held: dict[int, np.ndarray]

    @property
    def best(self) -> float:
        """Mean held-out log-likelihood ratio of the best number of classes."""
        return max(float(gain.mean()) for gain in self.held.values())

    @property
    def gain(self) -> float:
        """Mean held-out log-likelihood a particle that the best number of classes above the lowest gains over it."""
        lowest = min(self.held)
        others = [float((gain - self.held[lowest]).mean()) for number, gain in self.held.items() if number > lowest]
        return max(others, default=0.0)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviations of the nuisances, mean of both chains, float64 (7,)."""
        return np.asarray(np.mean([subspace.spread for subspace in self.subspaces], axis=0))


def split_halves(task: Task, key: str) -> np.ndarray:
    """Half of each particle (n,), 0 or 1: a random even split of the images, by the key and not by ranks."""
    images = task.problem.image
    drawn = stream(task.problem.options.seed, task.key, key, "halves").permutation(int(images.max()) + 1) % 2
    return np.asarray(drawn[images], np.int64)


def survey(
    task: Task,
    numbers: list[int],
    shares: tuple[float, ...] = PRIOR_SHARES,
    sizes: tuple[int, ...] = COMPONENTS,
    iterations: int = SUBSPACE_ITERATIONS,
) -> Survey:
    """Learn one pair of chains and judge priors, components and ``numbers`` (rising) of new classes. Collective.

    ``shares`` are the priors and ``sizes`` the numbers of components to learn, the next where the last may be too few,
    in ``iterations`` of the subspace.
    """
    half = split_halves(task, "layer 0 box 0")
    asked = task.problem.options.components
    sizes = (asked,) if asked else sizes
    best: Survey | None = None
    for size in sizes:
        learned = _learn(task, half, shares, size, iterations)
        found = [_judge(task, half, share, *pair, numbers, bool(asked)) for share, pair in learned.items()]
        chosen = max(found, key=lambda one: one.best)
        if best is None or chosen.best > best.best:
            best = chosen
        # K classes span K - 1 dimensions: more are learned only where the classes may need them.
        if choose_number(best.held, LIBERAL, best.least) <= size or best is not chosen:
            break
        shares = (best.share,)
    assert best is not None
    return best


def _learn(
    task: Task, half: np.ndarray, shares: tuple[float, ...], size: int, iterations: int
) -> dict[float, tuple[list[Subspace], list[Statistics]]]:
    band = task.problem.narrow
    learns = task.active & task.usable
    runs = [
        SubspaceRun(f"{task.key} layer 0 box 0 chain {chain}", learns & (half == chain), size, share * band.power)
        for share in shares
        for chain in (0, 1)
    ]
    seed = task.problem.options.seed
    subspaces = task.journal.step(
        f"subspaces of {size} components",
        lambda: learn_subspaces(
            band.store, band.start(), runs, seed=seed, iterations=iterations, step=task.step, journal=task.journal
        ),
    )
    statistics = particle_statistics(band.store, subspaces)
    return {
        share: (subspaces[2 * index : 2 * index + 2], statistics[2 * index : 2 * index + 2])
        for index, share in enumerate(shares)
    }


def _judge(
    task: Task,
    half: np.ndarray,
    share: float,
    subspaces: list[Subspace],
    statistics: list[Statistics],
    numbers: list[int],
    all_components: bool,
) -> Survey:
    learns = task.active & task.usable
    if all_components:
        components = subspaces[0].components
    else:
        unseen = [part.rows(np.flatnonzero(learns & (half != chain))) for chain, part in enumerate(statistics)]
        components = _choose_components(np.concatenate([part.component_gains() for part in unseen]))
    subspaces = [subspace.leading(components) for subspace in subspaces]
    statistics = [part.leading(components) for part in statistics]
    own = [part.rows(np.flatnonzero(learns & (half == chain))) for chain, part in enumerate(statistics)]
    fixed = [known_centres(task, part, half == chain) for chain, part in enumerate(statistics)]
    least = _SECOND_ORDER * float(np.mean([_second_order(task, subspace) for subspace in subspaces]))
    mixtures: list[dict[int, Mixture]] = [{}, {}]
    held: dict[int, np.ndarray] = {}
    for batch in (numbers[first : first + _BATCH] for first in range(0, len(numbers), _BATCH)):
        fit = partial(
            best_mixtures,
            task.problem.comm,
            own,
            batch,
            seed=task.problem.options.seed,
            key=task.key,
            starts=STARTS,
            floors=task.floors,
            fixed=fixed,
        )
        found = task.journal.step("mixtures", fit)
        for mixture, more in zip(mixtures, found, strict=True):
            mixture.update(more)
        held.update({number: _held_out(task, half, statistics, mixtures, number) for number in batch})
        # More classes than are no better already would be no better still.
        if choose_number(held, LIBERAL, least) <= batch[-1] - _BATCH:
            break
    task.step("classes fitted")
    return Survey(half, share, components, subspaces, statistics, mixtures, least, held)


def _choose_components(gains: np.ndarray) -> int:
    """Count the leading components that predict unseen particles, at least one.

    ``gains`` (n, J + 1) are log-likelihood ratios with the first 0, 1, ... J components.
    """
    return max(choose_number({number: gains[:, number] for number in range(gains.shape[1])}, 0.0), 1)


def _held_out(
    task: Task, half: np.ndarray, statistics: list[Statistics], mixtures: list[dict[int, Mixture]], number: int
) -> np.ndarray:
    gain = np.empty(task.problem.count)
    for chain, part in enumerate(statistics):
        scores = part.scores(mixtures[chain][number].centres)
        own, other = (np.flatnonzero(task.usable & mine) for mine in (half == chain, half != chain))
        gain[other] = logsumexp(scores[other] + np.log(fit_weights(scores[own])), axis=1)
    return gain[task.usable]


def fit_weights(scores: np.ndarray, iterations: int = 30) -> np.ndarray:
    """Shares (K,) of fixed classes by maximum likelihood (EM), given log-likelihood ratios (n, K)."""
    classes = scores.shape[1]
    weights = np.full(classes, 1.0 / classes)
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    for _ in range(iterations):
        share = likelihood * weights
        share /= share.sum(axis=1, keepdims=True)
        weights = np.maximum(share.mean(axis=0), _LEAST_WEIGHT)
        weights /= weights.sum()
    return weights


def known_centres(task: Task, statistics: Statistics, mine: np.ndarray) -> np.ndarray:
    """Where the known groups lie in a chain's subspace, from their members in the chain's half, (groups, J)."""
    size = statistics.linear.shape[1]
    centres = np.zeros((task.groups, size))
    for group in range(task.groups):
        members = statistics.rows(np.flatnonzero((task.known == group) & mine))
        centres[group] = np.linalg.solve(members.precision.sum(axis=0) + np.eye(size), members.linear.sum(axis=0))
    return centres


def _second_order(task: Task, subspace: Subspace) -> float:
    """Mean over particles of the squared signal-to-noise ratio of the errors' second-order effect."""
    grid, store = subspace.grid, task.problem.narrow.store
    spread = subspace.spread.copy()
    assert task.problem.table.box_px is not None
    spread[1:4] *= grid.size / task.problem.table.box_px
    volume = interleave(second_order_map(grid, subspace.fixed, task.problem.narrow.mask, spread)[None])
    power = np.concatenate(
        [moments(store, volume, 1, grid.pad, block.local)[1][:, 0] for block in store.blocks()] or [np.zeros(0)]
    )
    return float(store.total(power) / max(store.count, 1))


def choose_number(held: dict[int, np.ndarray], share: float, least: float = 0.0) -> int:
    """Largest number of classes whose held-out likelihood is better than that of fewer.

    Better means by more than two standard errors of the particles' paired differences, and for every class more by
    more than ``share`` of what classes gain in all and by more than ``least``: given enough particles, small errors of
    poses and interpolation make every group significantly different from a point, and a point more then always helps a
    little.
    """
    numbers = sorted(held)
    best = numbers[0]
    for number in numbers[1:]:
        difference = held[number] - held[best]
        error = difference.std() / np.sqrt(max(len(difference), 1))
        total = held[number].mean() - held[numbers[0]].mean()
        if difference.mean() > max(_STANDARD_ERRORS * error, (number - best) * max(share * total, least)):
            best = number
    return best
