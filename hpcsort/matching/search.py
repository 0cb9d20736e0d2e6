"""The search of one chunk of particles: coarse grid, climbing through wider bands, finest grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from hpcsort.images import BandData
from hpcsort.matching.grids import (
    angles_between,
    direction_spacing_deg,
    distinct_rotations,
    fold_rotations,
    rotation_ball,
    rotation_grid,
    shift_disc,
)
from hpcsort.matching.model import Candidates, Model
from hpcsort.matching.posterior import FinestGrid, Limits
from hpcsort.matching.propose import StartGrid, propose_global, propose_local
from hpcsort.matching.refine import evaluate, refine

__all__ = ["Plan", "find_modes", "first_candidates", "make_plan"]

_NSIDE = 8
_KEPT_GLOBAL, _KEPT_LOCAL = 8, 5
_WIDENING = 1.5
_NARROWEST = 5
_STEPS, _LAST_STEPS = 3, 4
_LOCAL_STEPS = 3.5
"""Steps from the given pose to the end of a local search, at least."""
_BEHIND = (60.0, 30.0, 14.0)
"""Candidates so many units of the logarithm of the likelihood behind the best are given up: after the first band, after
the others, and after the last."""
_KEPT = 4
_FINEST = 4.0
"""The finest grid divides the angular resolution of the band by this."""


@dataclass(frozen=True)
class Plan:
    """How particles are searched.

    Attributes
    ----------
    local : around the given poses only.
    start : the coarse grid.
    bands : band limits in Fourier pixels, growing; the coarse grid is searched in the first.
    finest : the finest grid.
    limits : region of a local search.
    resolution : angular resolution of each band (the angle between sections that are independent at its limit and the
        edge of the particle), radians.
    step_deg, shift_step : spacing of the coarse grid, degrees and px.
    """

    local: bool
    start: StartGrid
    bands: tuple[int, ...]
    finest: FinestGrid
    limits: Limits | None
    resolution: tuple[float, ...]
    step_deg: float
    shift_step: float


def make_plan(
    *,
    local: bool,
    box: int,
    band: int,
    diameter: float,
    operators: np.ndarray,
    nside: int | None = None,
    step_deg: float | None = None,
    angle_range_deg: float = 10.0,
    shift_range: float | None = None,
    shift_step: float | None = None,
) -> Plan:
    """Choose bands and grids.

    Parameters
    ----------
    band : band limit in Fourier pixels.
    diameter : of the particle, in units of the box edge. Sections of a particle of diameter D differ at the frequency k
        for turns of 1 / (k D) (Crowther et al. 1970).
    nside, step_deg : spacing of the first grid of directions; 7.3 degrees where neither is given (global), or half of
        the band's angular resolution (local).
    """
    if local:
        half_last = np.rad2deg(0.5 / (band * diameter))
        step = step_deg or max(half_last, angle_range_deg / _LOCAL_STEPS)
        first = np.deg2rad(step) * 2.0
    else:
        sides = nside or (_NSIDE if step_deg is None else int(np.ceil(direction_spacing_deg(1) / step_deg)))
        step = direction_spacing_deg(sides)
        first = np.deg2rad(step)
    start = int(np.clip(round(1.0 / (first * diameter)), min(_NARROWEST, band), band))
    bands = _bands(start, band)
    spacing = shift_step or box / (3.0 * start)
    reach = shift_range if shift_range is not None else (3.0 if local else box / 10.0)
    rotations = rotation_ball(angle_range_deg, step) if local else rotation_grid(sides, operators)
    kept, apart = (_KEPT_LOCAL if local else _KEPT_GLOBAL), 1.1 * step
    finest = 1.0 / (_FINEST * band * diameter)
    return Plan(
        local=local,
        start=StartGrid(rotations, shift_disc(reach, spacing), apart, kept, operators),
        bands=bands,
        # the particle's edge moves as far by a turn as by a shift
        finest=FinestGrid(finest, finest * diameter * box / 2.0),
        limits=Limits(np.deg2rad(angle_range_deg), reach) if local else None,
        resolution=tuple(1.0 / (limit * diameter) for limit in bands),
        step_deg=step,
        shift_step=spacing,
    )


def _bands(first: int, last: int) -> tuple[int, ...]:
    """Geometric ladder, each rung at most `_WIDENING` times the one before it."""
    count = int(np.ceil(np.log(last / first) / np.log(_WIDENING) - 1e-9)) if last > first else 0
    return tuple(np.rint(np.geomspace(first, last, count + 1)).astype(int).tolist()) if count else (last,)


def first_candidates(model: Model, data: BandData, plan: Plan, *, scale_free: bool = False) -> Candidates:
    """Find the best poses of the coarse grid in the first band."""
    narrow = data.cropped(plan.bands[0])
    propose = propose_local if plan.local else propose_global
    return propose(model, narrow, plan.start, scale_free)


def find_modes(model: Model, data: BandData, plan: Plan) -> Candidates:
    """Maxima of the likelihood of each particle in the widest band.

    Parameters
    ----------
    data : whitened; ``rotations`` are the given poses, which only a local search uses.

    Returns
    -------
    At least one candidate a particle, in the order of the particles.
    """
    found = first_candidates(model, data, plan)
    last = len(plan.bands) - 1
    for level, (band, resolution) in enumerate(zip(plan.bands, plan.resolution, strict=True)):
        steps = _LAST_STEPS if level == last else _STEPS
        inside = data.cropped(band)
        climbed = refine(model, inside, found, steps=steps, reach=0.5 * resolution)
        found = _kept_inside(model, inside, climbed, found, plan) if plan.limits else climbed
        behind = _BEHIND[2] if level == last else _BEHIND[min(level, 1)]
        found = _pruned(found, plan, behind, np.rad2deg(resolution) * (0.5 if level == last else 0.3))
    return found


def _kept_inside(model: Model, data: BandData, climbed: Candidates, start: Candidates, plan: Plan) -> Candidates:
    """Put candidates that have left a local search back to where they came from."""
    assert plan.limits is not None
    given = data.rotations[climbed.owner].astype(np.float64)
    angle = angles_between(climbed.rotations, given)
    length = np.sqrt((climbed.shifts**2).sum(axis=1))
    far = angle > plan.limits.turn + 0.5 * plan.finest.turn
    far |= length > plan.limits.shift + 0.5 * plan.finest.shift
    if not far.any():
        return climbed
    rotations = np.where(far[:, None, None], start.rotations, climbed.rotations)
    shifts = np.where(far[:, None], start.shifts, climbed.shifts)
    return evaluate(model, data, replace(climbed, rotations=rotations, shifts=shifts))[0]


def _pruned(found: Candidates, plan: Plan, behind: float, apart_deg: float) -> Candidates:
    """Drop candidates that are far behind or coincide; the best of each reference stays."""
    operators = plan.start.operators
    if plan.local:
        operators = operators[:1]
    else:
        found = replace(found, rotations=fold_rotations(found.rotations, operators))
    best = np.full(int(found.owner.max()) + 1, -np.inf)
    np.maximum.at(best, found.owner, found.scores)
    references = int(found.reference.max()) + 1
    edges = np.flatnonzero(np.diff(found.owner * references + found.reference, prepend=-1, append=-1))
    kept = []
    for start, stop in pairwise(edges.tolist()):
        scores = found.scores[start:stop]
        chosen = distinct_rotations(found.rotations[start:stop], scores, _KEPT, apart_deg, operators)
        near = scores[chosen] >= best[found.owner[start]] - behind
        near[0] = True
        kept.append(start + chosen[near])
    return found.rows(np.concatenate(kept))
