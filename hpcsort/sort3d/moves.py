"""The best mixture: several starts, and moves out of local optima (two alike classes join, a mixed one is split).

After Ueda, Nakano, Ghahramani & Hinton, SMEM algorithm for mixture models, Neural Computation 12, 2109 (2000).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.special import softmax

from hpcsort.parallel import Communicator, stream
from hpcsort.sort3d.mixture import Mixture, fit_mixture
from hpcsort.sort3d.statistics import Statistics

__all__ = ["best_mixtures", "improve_mixture", "split_direction"]

_ROUNDS = 8
_PAIRS, _SPLITS = 3, 2
"""Pairs of classes and mixed classes that are tried in a round."""
_TRIAL_ITERATIONS = 25
_LEAST_GAIN = 1.0
"""Log-likelihood that a move must gain, in nats of all particles."""


def best_mixtures(
    comm: Communicator,
    runs: list[Statistics],
    numbers: list[int],
    *,
    seed: int,
    key: str,
    starts: int,
    floors: tuple[float, ...],
    fixed: list[np.ndarray] | None = None,
) -> list[dict[int, Mixture]]:
    """Fit the best of several annealed starts, improved by moves, for every run and number of classes. Collective.

    Tasks are dealt to the ranks.

    Parameters
    ----------
    runs : statistics to fit, one entry a run.
    numbers : numbers of (free) classes to try.
    seed, key : key of the random starts.
    floors : see `fit_mixture`.
    fixed : per run, fixed centres (F, J) that take part.
    """
    tasks = [(run, number, start) for run in range(len(runs)) for number in numbers for start in range(starts)]
    found: list[tuple[tuple[int, int, int], Mixture]] = []
    latents = [run.latents() for run in runs]
    for index, (run, number, start) in enumerate(tasks):
        if index % comm.size != comm.rank:
            continue
        comm.beat()
        draw = stream(seed, key, "start", run, number, start)
        rows = draw.choice(len(runs[run]), number, replace=False)
        frozen = None if fixed is None else fixed[run]
        centres = 1.5 * latents[run][rows] if number else np.zeros((0, runs[run].linear.shape[1]))
        found.append(((run, number, start), fit_mixture(runs[run], centres, floors=floors, fixed=frozen)))
    joined = sorted((entry for part in comm.allgather(found) for entry in part), key=lambda entry: entry[0])
    best: list[dict[int, Mixture]] = [{} for _ in runs]
    for (run, number, _), mixture in joined:
        if number not in best[run] or mixture.likelihood > best[run][number].likelihood:
            best[run][number] = mixture
    fits = [(run, number) for run in range(len(runs)) for number in numbers]
    improved = [
        (fit, improve_mixture(runs[fit[0]], best[fit[0]][fit[1]], floors, None if fixed is None else fixed[fit[0]]))
        for index, fit in enumerate(fits)
        if index % comm.size == comm.rank
    ]
    for part in comm.allgather(improved):
        for (run, number), mixture in part:
            best[run][number] = mixture
    return best


def improve_mixture(
    statistics: Statistics, mixture: Mixture, floors: tuple[float, ...], fixed: np.ndarray | None = None
) -> Mixture:
    """Return a mixture of as many classes and at least the same likelihood.

    Parameters
    ----------
    statistics : particles to which the mixture was fitted.
    mixture : where to start.
    floors, fixed : as in `fit_mixture`; fixed classes take no part in moves.
    """
    still = 0 if fixed is None else len(fixed)
    for _ in range(_ROUNDS):
        best = mixture
        for centres in _candidates(statistics, mixture, still):
            trial = fit_mixture(
                statistics,
                centres,
                floors=floors[-1:],
                iterations=_TRIAL_ITERATIONS,
                first_temperature=1.0,
                fixed=fixed,
            )
            if trial.likelihood > best.likelihood + _LEAST_GAIN:
                best = trial
        if best is mixture:
            break
        mixture = best
    return mixture


def _candidates(statistics: Statistics, mixture: Mixture, still: int) -> list[np.ndarray]:
    """Start centres of the free classes after joining one pair and splitting one other class."""
    classes = len(mixture.centres) - still
    if classes < 3:
        return []
    share = softmax(mixture.log_joint(statistics), axis=1)[:, still:]
    centres = mixture.centres[still:]
    length = np.linalg.norm(share, axis=0)
    alike = share.T @ share / np.maximum(length[:, None] * length, 1e-30)
    pairs = sorted(combinations(range(classes), 2), key=lambda pair: -alike[pair])[:_PAIRS]
    steps = [split_direction(statistics, share[:, index], centres[index]) for index in range(classes)]
    mixed = sorted(range(classes), key=lambda index: -steps[index][1])
    found = []
    for first, second in pairs:
        weights = share[:, [first, second]].sum(axis=0)
        joined = (weights[0] * centres[first] + weights[1] * centres[second]) / max(float(weights.sum()), 1e-30)
        for index in [one for one in mixed if one not in (first, second)][:_SPLITS]:
            moved = centres.copy()
            moved[first] = joined
            moved[index] = centres[index] + steps[index][0]
            moved[second] = centres[index] - steps[index][0]
            found.append(moved)
    return found


def split_direction(statistics: Statistics, share: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, float]:
    """Step (J,) from a class's centre to either half of it, and the log-likelihood that its spread gains.

    The members' excess variance A is estimated along the axis v in which their scores g_i = b_i - M_i c vary more than
    the M_i that noise alone would give: with i = sum s_i v.M_i v and h = sum s_i (v.M_i v)^2 about
    A = (sum s_i (v.g_i)^2 - i) / h.

    Parameters
    ----------
    statistics : particles.
    share : float64 (n,), how far each belongs to the class.
    centre : float64 (J,).
    """
    slope = statistics.linear - statistics.precision @ centre
    expected = np.tensordot(share, statistics.precision, axes=1)
    observed = (slope * share[:, None]).T @ slope
    # The axis of largest observed over expected score variance.
    factor = np.linalg.cholesky(
        expected + 1e-9 * np.trace(expected) * np.eye(len(centre)) + 1e-12 * np.eye(len(centre))
    )
    inverse = np.linalg.inv(factor)
    _, vectors = np.linalg.eigh(inverse @ observed @ inverse.T)
    axis = inverse.T @ vectors[:, -1]
    axis /= max(float(np.linalg.norm(axis)), 1e-30)
    information = np.einsum("i,nij,j->n", axis, statistics.precision, axis)
    curvature = float((share * information**2).sum())
    excess = float((share * ((slope @ axis) ** 2 - information)).sum()) / max(curvature, 1e-30)
    if excess <= 0:
        return np.zeros_like(centre), 0.0
    return np.sqrt(excess) * axis, 0.25 * excess**2 * curvature
