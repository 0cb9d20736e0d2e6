"""Probabilities of poses: the finest grid around each maximum of the likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from hpcsort.images import BandData
from hpcsort.matching.grids import angles_between, turned
from hpcsort.matching.model import Candidates, Model, shift_phases

__all__ = ["FinestGrid", "Limits", "Poses", "pose_probabilities"]

_REACH, _WIDER = 4.5, 1.3
"""Half-axes of the ellipsoid that is looked at, in standard deviations of the pose, whose variances by Laplace's
approximation are widened first."""
_DENSE = 1.2
"""Points that are looked at are at most so many standard deviations from each other."""
_MOST_FINE = {2: 6, 3: 4}
"""Points along each side of a cell of shifts, of rotations; what is sharper than that lies in one cell anyway."""
_COARSEST = 1.5
"""Cells of poses less certain than the finest grid grow to so many standard deviations, which adds a fifth to their
variance and keeps the list short."""
_MOST_POINTS = 30_000
_LEAST = 1e-12


@dataclass(frozen=True)
class FinestGrid:
    """Spacing of the finest grid: radians and px. Poses less certain than that get a coarser one."""

    turn: float
    shift: float


@dataclass(frozen=True)
class Limits:
    """Region of a local search, about the given poses: radians and px."""

    turn: float
    shift: float


@dataclass(frozen=True)
class Poses:
    """Poses of one particle with probabilities, the likeliest first.

    Attributes
    ----------
    rotations, shifts, probability : float64 (m, 3, 3), (m, 2), (m,): of the likeliest reference; the probabilities are
        those of a cell of the grid given that reference.
    reference : that reference.
    references : float64 (K,), probability of each reference.
    """

    rotations: np.ndarray
    shifts: np.ndarray
    probability: np.ndarray
    reference: int
    references: np.ndarray


@dataclass(frozen=True)
class _Cells:
    rotations: np.ndarray
    shifts: np.ndarray
    log_mass: np.ndarray
    reference: int


def pose_probabilities(
    model: Model, data: BandData, modes: Candidates, grid: FinestGrid, limits: Limits | None
) -> list[Poses]:
    """Integrate the likelihood over the cells of a grid around each mode.

    The grid is the product of a cubic lattice of rotation vectors and a square one of shifts, centred on the mode. A
    cell that is wide for the likelihood is integrated over several points. All rotations are equally likely beforehand,
    and all shifts; ``limits`` excludes what lies outside.

    Parameters
    ----------
    modes : maxima with their information, in the order of their owners; every particle has one.

    Returns
    -------
    One entry a particle.
    """
    edges = np.searchsorted(modes.owner, np.arange(len(data) + 1))
    return [
        _probabilities(model, data, particle, modes.rows(np.arange(edges[particle], edges[particle + 1])), grid, limits)
        for particle in range(len(data))
    ]


def _probabilities(
    model: Model, data: BandData, particle: int, modes: Candidates, grid: FinestGrid, limits: Limits | None
) -> Poses:
    covered: list[_Region] = []
    cells = [
        _integrate(model, data, particle, modes.rows(np.array([place])), covered, grid, limits)
        for place in np.argsort(-modes.scores, kind="stable").tolist()
    ]
    if not any(np.isfinite(part.log_mass).any() for part in cells):
        return _single(model, modes)
    top = max(part.log_mass.max() for part in cells)
    mass = np.zeros(len(model.references))
    for part in cells:
        mass[part.reference] += np.exp(part.log_mass - top).sum()
    best = int(np.argmax(mass))
    own = [part for part in cells if part.reference == best]
    rotations = np.concatenate([part.rotations for part in own])
    shifts = np.concatenate([part.shifts for part in own])
    probability = np.exp(np.concatenate([part.log_mass for part in own]) - top) / mass[best]
    order = np.argsort(-probability, kind="stable")
    order = order[probability[order] > _LEAST]
    return Poses(rotations[order], shifts[order], probability[order], best, mass / mass.sum())


def _single(model: Model, modes: Candidates) -> Poses:
    best = int(np.argmax(modes.scores))
    shares = np.zeros(len(model.references))
    shares[modes.reference[best]] = 1.0
    chosen = slice(best, best + 1)
    return Poses(modes.rotations[chosen], modes.shifts[chosen], np.ones(1), int(modes.reference[best]), shares)


def _integrate(
    model: Model,
    data: BandData,
    particle: int,
    mode: Candidates,
    covered: list[_Region],
    grid: FinestGrid,
    limits: Limits | None,
) -> _Cells:
    """Logarithms of the masses of the cells around a mode, less what earlier ones have covered; adds to ``covered``."""
    number, centre, origin = int(mode.reference[0]), mode.rotations[0], mode.shifts[0]
    # a direction that the image tells nothing of has a deviation of 1 rad or px
    covariance = np.linalg.inv(mode.information[0] + np.eye(5))
    turns, shifts = _Lattice.of(covariance[:3, :3], grid.turn), _Lattice.of(covariance[3:, 3:], grid.shift)
    scores = _scores(model, data, particle, number, turned(centre, turns.fine), shifts.fine + origin)
    scores += _log_volume(turns.fine)[:, None]
    top = float(scores.max())
    mass = shifts.summed(turns.summed(np.exp(scores - top)).T).T.reshape(-1)
    rotations = np.repeat(turned(centre, turns.points), len(shifts.points), axis=0)
    places = np.tile(shifts.points + origin, (len(turns.points), 1))
    excluded = (mass <= 0) | _outside(data.rotations[particle].astype(np.float64), rotations, places, grid, limits)
    for region in covered:
        if region.reference == number:
            excluded |= region.holds(rotations, places)
    covered.append(_Region(number, centre, origin, turns, shifts))
    log_mass = np.log(np.where(excluded, 1.0, mass)) + top
    return _Cells(rotations, places, np.where(excluded, -np.inf, log_mass), number)


@dataclass(frozen=True)
class _Lattice:
    """Cells of a lattice inside an ellipsoid.

    Attributes
    ----------
    points : float64 (n, d), centres of the cells.
    fine : float64 (f, d), points that are looked at.
    first : int64 (n,), first fine point of each cell.
    volume : of one fine point.
    shape : float64 (d, d), points with x' shape x <= 1 are inside.
    """

    points: np.ndarray
    fine: np.ndarray
    first: np.ndarray
    volume: float
    shape: np.ndarray

    @classmethod
    def of(cls, covariance: np.ndarray, finest: float) -> _Lattice:
        dimensions = len(covariance)
        deviation = float(np.linalg.det(covariance) ** (0.5 / dimensions))
        step = max(finest, _COARSEST * deviation)
        while True:
            parts = int(np.clip(np.ceil(step / (_DENSE * deviation)), 1, _MOST_FINE[dimensions]))
            spread = _WIDER * covariance + (0.5 * step / parts) ** 2 * np.eye(dimensions)
            reach = np.rint(_REACH * np.sqrt(np.diag(spread)) / step).astype(np.int64)
            if np.prod((2 * reach + 1) * parts) <= _MOST_POINTS:
                break
            step *= 1.2
        points = _product([np.arange(-extent, extent + 1) * step for extent in reach])
        inner = _product([((np.arange(parts) + 0.5) / parts - 0.5) * step] * dimensions)
        fine = points[:, None] + inner
        shape = np.linalg.inv(spread) / _REACH**2
        looked_at = _inside(fine.reshape(-1, dimensions), shape).reshape(fine.shape[:2])
        counts = looked_at.sum(axis=1)
        used = counts > 0
        first = (np.cumsum(counts) - counts)[used]
        return cls(points[used], fine[looked_at], first, (step / parts) ** dimensions, shape)

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Integrate values at the fine points (f, k) over each cell, (n, k)."""
        return np.asarray(np.add.reduceat(values, self.first, axis=0) * self.volume)


def _product(axes: list[np.ndarray]) -> np.ndarray:
    """All points with these coordinates, float64 (n, d)."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes)).astype(np.float64)


@dataclass(frozen=True)
class _Region:
    """What the grid around one mode covers."""

    reference: int
    rotation: np.ndarray
    origin: np.ndarray
    turns: _Lattice
    shifts: _Lattice

    def holds(self, rotations: np.ndarray, places: np.ndarray) -> np.ndarray:
        vectors = Rotation.from_matrix(rotations @ self.rotation.T).as_rotvec()
        return _inside(vectors, self.turns.shape) & _inside(places - self.origin, self.shifts.shape)


def _inside(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ni,ij,nj->n", points, shape, points) <= 1.0)


def _scores(
    model: Model, data: BandData, particle: int, number: int, rotations: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """Score of the product of rotations (r, 3, 3) and shifts (s, 2), float64 (r, s)."""
    gains = model.gains(data, number, slice(particle, particle + 1))[0]
    sections = model.references.sections(number, rotations, data.px, data.py).view(np.float32)
    moved = (gains * data.images[particle] * shift_phases(shifts, data.px, data.py, model.box)).view(np.float32)
    cross = sections @ moved.T
    power = np.square(sections, out=sections) @ np.repeat(gains**2, 2)
    return np.asarray(2.0 * cross.astype(np.float64) - power[:, None])


def _log_volume(vectors: np.ndarray) -> np.ndarray:
    """Volume of rotations by that of rotation vectors: (2 sin(t/2) / t)^2 for the angle t."""
    angle = np.sqrt((vectors**2).sum(axis=1))
    return np.asarray(2.0 * np.log(np.maximum(np.abs(np.sinc(angle / (2.0 * np.pi))), 1e-30)))


def _outside(
    given: np.ndarray, rotations: np.ndarray, shifts: np.ndarray, grid: FinestGrid, limits: Limits | None
) -> np.ndarray:
    """Cells whose centres lie outside a local search by more than half a spacing."""
    if limits is None:
        return np.zeros(len(rotations), bool)
    angle = angles_between(rotations, given)
    far = angle > limits.turn + 0.5 * grid.turn
    return np.asarray(far | (np.sqrt((shifts**2).sum(axis=1)) > limits.shift + 0.5 * grid.shift))
