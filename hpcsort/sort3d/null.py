"""The data-level null: one state seen with the data's poses, CTFs, errors and noise, and sorted by the same code.

What a sort of such sets finds is found by chance, by overfitting, or because the model of the images is not exact.
Groups of the data count as supported where they go beyond it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.spatial.transform import Rotation

from hpcsort.images import BandData
from hpcsort.kernels import extract_sections
from hpcsort.parallel import stream
from hpcsort.sort3d.mixture import Mixture
from hpcsort.sort3d.moves import best_mixtures
from hpcsort.sort3d.problem import Problem
from hpcsort.sort3d.sizes import smallest_group
from hpcsort.sort3d.store import Block
from hpcsort.sort3d.support import NullLevels, stable_sets
from hpcsort.sort3d.survey import STARTS, Survey, survey
from hpcsort.sort3d.task import Task
from hpcsort.volumes import BandGrid, fsc_of_full

__all__ = ["null_distribution", "null_survey", "simulate_null", "solve_by_survey", "weigh_survey"]

_PAD = 2
"""Padding of the volume that is projected; the sort's own sections have less and are less exact, as with data."""
_LEAST_SHARE = 0.25
"""Smallest share of signal in a shell of the consensus up to which its power is restored."""
Solve = Callable[[Problem, int], tuple[float, np.ndarray]]


def simulate_null(problem: Problem, number: int, spread: np.ndarray) -> Problem:
    """Simulate and prepare set ``number`` of one state, the consensus. Collective; the same on any number of ranks.

    Where there is a choice, the null is made to look more like a mixture rather than less:

    - Poses err by exact rotations and shifts and images by contrast, as strongly as ``spread`` says. The sort removes
      such errors to first order only, and what is left may pass for structure here as it may in the data. The errors
      come on top of a consensus that the data's own errors have blurred already; their learned spreads hold some of
      the data's heterogeneity as well.
    - Sections are read from a finer volume than the sort's own, so that errors of interpolation are there as well.
    - The Wiener filter leaves a share C (the FSC of all images against the truth, squared) of the signal's power;
      division by its root restores it. What is left of noise in the consensus becomes part of the one true structure:
      nothing is fitted twice, because the prepared set makes its own consensus from its own images.
    - Noise is the data's residuals with a random phase in every pixel. If there is one state the residuals are noise,
      the phases of noise are random, and the sets with new phases are exchangeable with the data, whatever the noise
      levels of the particles, of junk among them or of directions of the CTF. If there are several, their differences
      add to the noise; they are a small part of a pixel's power. Images without a particle stay without.

    Parameters
    ----------
    problem : the sort of the data.
    number : of the set, from 0; random numbers belong to it and to the chunks of particles.
    spread : float64 (7,), standard deviations of contrast, shifts (px of the full box) and rotations
        (radians), as the data's sort learned them (`Survey.spread`). Too large ones hide what is there: errors of 2.5
        degrees leave differences of a quarter of a log-likelihood unit a particle beyond the first order.
    """
    store = problem.wide.store
    data, phase = _at_one_pose(problem, number)
    box = problem.table.box_px
    assert box is not None
    volume, grid = _one_state(problem)
    images = np.empty_like(data.images)
    for block, chunk in zip(store.blocks(), store.mine, strict=True):
        draw = stream(problem.options.seed, "null", number, chunk)
        angle = draw.random((block.local.stop - block.local.start, data.px.size), dtype=np.float32)
        error = draw.standard_normal((len(angle), 6))
        lost = problem.empty[block.positions] > 0.5
        noise = _restored(problem, data, block, lost) * np.exp(np.complex64(2j * np.pi) * angle)
        turned = Rotation.from_rotvec(error[:, 3:] * spread[4:]).as_matrix() @ data.rotations[block.local]
        sections = extract_sections(volume, np.ascontiguousarray(turned, np.float32), data.px, data.py, grid.pad)
        shift = error[:, 1:3] * spread[1:3] / box
        moved = np.exp(-2j * np.pi * (shift[:, :1] * data.px + shift[:, 1:] * data.py))
        contrast = np.where(lost[:, None], 0.0, 1.0 + spread[0] * error[:, :1])
        images[block.local] = data.ctfs[block.local] * sections * (contrast * moved) + noise
    return problem.with_images(images if phase is None else images * phase.conj())


def _at_one_pose(problem: Problem, number: int) -> tuple[BandData, np.ndarray | None]:
    """Residuals at one pose of each particle, drawn by its probability, and the phase of its shift in the images."""
    store = problem.wide.store
    if isinstance(store.data, BandData):
        return store.data, None
    drawn = np.empty(len(store.data), np.int64)
    poses = store.data.poses
    for block, chunk in zip(store.blocks(), store.mine, strict=True):
        point = stream(problem.options.seed, "null poses", number, chunk).random(block.local.stop - block.local.start)
        for place, value in zip(range(block.local.start, block.local.stop), point, strict=True):
            weight = poses.weight[poses.first[place] : poses.first[place + 1]]
            drawn[place] = min(int(np.searchsorted(np.cumsum(weight), value)), len(weight) - 1)
    return store.data.one_pose(drawn)


def _restored(problem: Problem, data: BandData, block: Block, lost: np.ndarray) -> np.ndarray:
    """Residuals of a block; images without a particle, bool ``lost``, get back the consensus that they never held."""
    consensus = problem.consensus
    images = np.array(data.images[block.local])
    if lost.any():
        own = data.rows(np.arange(block.local.start, block.local.stop)[lost])
        images[lost] += own.ctfs * extract_sections(consensus.volume, own.rotations, own.px, own.py, consensus.grid.pad)
    return images


def _one_state(problem: Problem) -> tuple[np.ndarray, BandGrid]:
    """Fourier volume of the consensus with the power of its signal, and its grid."""
    consensus = problem.consensus
    grid = BandGrid(consensus.grid.size, consensus.grid.radius, _PAD)
    volume = None
    if problem.comm.is_root:
        share = np.maximum(fsc_of_full(consensus.fsc), _LEAST_SHARE)
        share[0] = share[1]
        volume = (grid.to_fourier(consensus.map) / np.sqrt(grid.shell_fill(share))).astype(np.complex64)
    return problem.comm.bcast(volume), grid


def null_survey(problem: Problem, classes: int) -> Survey:
    """Survey of 1 to ``classes`` classes in all particles, in the subspace alone. Collective."""
    return survey(_all_particles(problem), list(range(1, max(classes, 2) + 1)))


def solve_by_survey(problem: Problem, classes: int) -> tuple[float, np.ndarray]:
    """Gain and scores of groups (see `null_distribution`) from a problem's `null_survey`. Collective.

    Finishing in map space, layers and generations are left out: a tenth of a sort's time, and the pair of chains is
    where groups that are not there would first agree.
    """
    gain, _, scores = weigh_survey(problem, null_survey(problem, classes), classes)
    return gain, scores


def weigh_survey(problem: Problem, found: Survey, classes: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Gain of a survey, and the `stable_sets` of its chains in so many classes with their scores. Collective.

    The gain is in whole units of log-likelihood over all particles, divided by their number: where there is nothing,
    classes coincide, and the last digits of a gain of zero would decide.
    """
    sets, scores = stable_sets(*_labels(problem, found, classes))
    return float(np.round(found.gain * problem.count) / problem.count), sets, scores


def _labels(problem: Problem, found: Survey, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Likeliest of so many classes in each chain, int64 (n,), -1 for images without a particle. Collective."""
    task = _all_particles(problem)
    # The survey stops where more classes are worse; the asked-for number must be there.
    if all(classes in chain for chain in found.mixtures):
        mixtures = [chain[classes] for chain in found.mixtures]
    else:
        mixtures = _mixtures(task, found, classes)
    first, second = (
        np.where(task.usable, mixture.log_joint(statistics)[:, :classes].argmax(axis=1), -1)
        for mixture, statistics in zip(mixtures, found.statistics, strict=True)
    )
    return first, second


def _all_particles(problem: Problem) -> Task:
    floors = (smallest_group(problem.count) / problem.count,)
    return Task(problem, 0, np.full(problem.count, -1), floors, lambda note: None)


def _mixtures(task: Task, found: Survey, classes: int) -> list[Mixture]:
    own = [
        part.rows(np.flatnonzero(task.usable & (found.half == chain))) for chain, part in enumerate(found.statistics)
    ]
    blank = [np.zeros((0, part.linear.shape[1])) for part in own]
    seed = task.problem.options.seed
    more = task.journal.step(
        f"{classes} classes",
        lambda: best_mixtures(
            task.problem.comm, own, [classes], seed=seed, key=task.key, starts=STARTS, floors=task.floors, fixed=blank
        ),
    )
    return [chain[classes] for chain in more]


def null_distribution(
    problem: Problem,
    count: int,
    classes: int,
    solve: Solve,
    spread: np.ndarray,
    *,
    step: Callable[[str], None] | None = None,
) -> NullLevels:
    """Sort ``count`` sets of one state as the data were sorted. Collective.

    Parameters
    ----------
    problem : the sort of the data.
    count : number N of sets; p-values are multiples of 1 / (N + 1), so that 19 are the fewest that can support a group.
    classes : number of classes that the data were given; the null's groups are compared at the same number.
    solve : sorts a problem into so many classes; returns the mean held-out gain of the best number of classes above
        one against one, and scores (`stable_sets`) of the groups of a pair of independent chains. The same function
        must have given the data's figures.
    spread : see `simulate_null`.
    step : called with a note after each set.
    """
    gains, largest = np.empty(count), np.empty(count)
    for number in range(count):
        gain, reproducibility = problem.journal.step(
            f"null set {number + 1}", partial(_solve_null, problem, number, spread, classes, solve)
        )
        gains[number], largest[number] = gain, np.max(reproducibility, initial=0.0)
        if step is not None:
            step(f"null set {number + 1} of {count}")
    return NullLevels(classes, gains, largest)


def _solve_null(
    problem: Problem, number: int, spread: np.ndarray, classes: int, solve: Solve
) -> tuple[float, np.ndarray]:
    return solve(simulate_null(problem, number, spread), classes)
