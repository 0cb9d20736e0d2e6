"""A focus mask from the data: balls all over the particle, each judged by particles that it has not learned from.

A difference of one or two per cent of the mass is lost in the noise of a map of the whole particle. Within a ball of a
fiftieth of its volume the same difference stands out: one map is learned there from half of the particles, and the
likelihood of the other half says whether it is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from hpcsort.parallel import stream
from hpcsort.sort3d.learning import SubspaceRun, learn_subspaces
from hpcsort.sort3d.problem import Problem
from hpcsort.sort3d.statistics import particle_statistics
from hpcsort.sort3d.store import ParticleStore

__all__ = ["ball_places", "find_focus"]

_RADIUS, _EDGE = 0.13, 0.04
"""Ball around a place, in box edges."""
_SPACING = 0.2
"""Lattice constant of the body-centred lattice of places: no point is farther than 0.56 of it from one."""
_NUDGE = 0.07
"""Step by which the best ball is moved, in box edges, while that gains."""
_MOST_NUDGES = 3
_MOST_PARTICLES = 4000
"""What more particles would show, a sort without a focus shows too."""
_ITERATIONS = 10
_SHARE = 1.0
"""Prior power of the map in a ball as a share of the consensus power."""
_CHANCE = 0.001
"""Probability that any ball is taken where there is nothing. The mean of a held-out likelihood ratio is 1 then, so that
it exceeds 1 / p with a probability of at most p (Markov's inequality)."""
_PART = 0.4
"""A ball belongs to the focus if it gains more than this share of what the best one gains."""


def find_focus(
    problem: Problem, tell: Callable[[str], None], step: Callable[[str], None] = lambda note: None
) -> tuple[Problem, np.ndarray | None]:
    """Find where particles differ. Collective; the same on every rank.

    Parameters
    ----------
    problem : the sort.
    tell : writes a sentence to the log.
    step : called with a note after each ball.

    Returns
    -------
    problem : with the focus, or as it was where no ball tells unseen particles apart.
    focus : float32 (size, size, size) on the grid of ``problem.narrow``, or None.
    """
    band = problem.narrow
    store, half = _some_particles(problem)
    places = ball_places(band.region)
    balls = [_ball(place, band.region) for place in places]
    gains = []
    for index, ball in enumerate(balls):
        gains.append(_held_out(problem, store, half, ball))
        step(f"ball {index + 1} of {len(balls)}")
    if max(gains) * store.count < np.log(len(balls) / _CHANCE):
        tell(f"In none of {len(places)} balls unseen particles differ; the sort goes on without a focus.")
        return problem, None
    kept = [index for index, gain in enumerate(gains) if gain >= _PART * max(gains)]
    place, ball, gain = _nudged(problem, store, half, places[int(np.argmax(gains))], max(gains))
    focus = np.max([ball, *(balls[index] for index in kept)], axis=0).astype(np.float32)
    at = (place / band.grid.size - 0.5).round(2).tolist()
    share = 100 * float((focus * band.region).sum() / band.region.sum())
    tell(
        f"Focus: {len(kept)} of {len(places)} balls, {share:.1f} % of the mask; the best is at z, y, x = {at[0]:g}, "
        f"{at[1]:g}, {at[2]:g} box edges from the centre and gains {gain:.3f} of held-out log-likelihood a "
        "particle (focus.mrc)."
    )
    return problem.focused(focus), focus


def ball_places(region: np.ndarray) -> np.ndarray:
    """Centres of balls that cover a particle, float (places, 3) in voxels (z, y, x): a body-centred lattice."""
    size = max(region.shape)
    steps = np.arange(np.ceil(-0.5 / _SPACING), 0.5 / _SPACING + 1) * _SPACING
    corners = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    places = np.concatenate([corners, corners + _SPACING / 2]) * size + size // 2
    places = places[((places >= 0) & (places <= size - 1)).all(axis=1)]
    nearest = np.rint(places).astype(np.int64)
    return places[region[tuple(nearest.T)] > 0.5]


def _ball(place: np.ndarray, region: np.ndarray) -> np.ndarray:
    size = max(region.shape)
    distance = np.sqrt(sum((axis - at) ** 2 for axis, at in zip(np.indices(region.shape), place, strict=True)))
    return np.asarray(np.clip((_RADIUS * size - distance) / (_EDGE * size) + 0.5, 0.0, 1.0), np.float32)


def _nudged(
    problem: Problem, store: ParticleStore, half: np.ndarray, place: np.ndarray, gain: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Move a ball along the axes while that gains; returns its place, itself, and its gain."""
    region = problem.narrow.region
    for _ in range(_MOST_NUDGES):
        steps = np.concatenate([np.eye(3), -np.eye(3)]) * _NUDGE * max(region.shape)
        found = [_held_out(problem, store, half, _ball(place + move, region)) for move in steps]
        if max(found) <= gain:
            break
        place, gain = place + steps[int(np.argmax(found))], max(found)
    return place, _ball(place, region), gain


def _some_particles(problem: Problem) -> tuple[ParticleStore, np.ndarray]:
    """At most so many particles that an image shows, and a half of each; mates of an image share one."""
    draw = stream(problem.options.seed, "focus", "particles")
    images = int(problem.image.max()) + 1
    rank = draw.permutation(images)[problem.image]
    usable = problem.empty <= 0.5
    per_image = max(problem.count / images, 1.0)
    chosen = usable & (rank < _MOST_PARTICLES / per_image)
    return problem.narrow.store.restricted(chosen), (rank % 2)[chosen]


def _held_out(problem: Problem, store: ParticleStore, half: np.ndarray, ball: np.ndarray) -> float:
    """Mean log-likelihood ratio of the particles, each with the map of the half that it is not in."""
    return problem.journal.step("ball", partial(_try_ball, problem, store, half, ball))


def _try_ball(problem: Problem, store: ParticleStore, half: np.ndarray, ball: np.ndarray) -> float:
    band = problem.narrow
    start = replace(band.start(), focus=(ball * band.region).astype(np.float32))
    runs = [SubspaceRun(f"focus chain {chain}", half == chain, 1, _SHARE * band.power) for chain in (0, 1)]
    found = learn_subspaces(store, start, runs, seed=problem.options.seed, iterations=_ITERATIONS, local_iterations=0)
    first, second = (part.component_gains()[:, 1] for part in particle_statistics(store, found))
    return float(np.where(half == 0, second, first).mean())
