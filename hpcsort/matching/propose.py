"""First candidates: every pose of a coarse grid compared at a low band, as products of matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcsort.images import BandData
from hpcsort.matching.grids import distinct_rotations, turned
from hpcsort.matching.model import Candidates, Model, shift_phases

__all__ = ["StartGrid", "propose_global", "propose_local"]

_BLOCK = 256
_POOL = 128
_HALF_TURN = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class StartGrid:
    """The coarse grid.

    Attributes
    ----------
    rotations : float64 (Q, 3, 3), half a circle of in-plane angles each (global); or rotation vectors float64 (Q, 3),
        radians, about the given pose (local).
    shifts : float64 (S, 2), px about the given origin.
    apart_deg : candidates of one particle are at least so far from each other.
    kept : candidates of each particle and reference.
    operators : float64 (g, 3, 3), point group.
    """

    rotations: np.ndarray
    shifts: np.ndarray
    apart_deg: float
    kept: int
    operators: np.ndarray


def propose_global(model: Model, data: BandData, grid: StartGrid, scale_free: bool) -> Candidates:
    """Compare every particle with every pose of the grid.

    One product of matrices gives the correlations of all (shift, particle) rows with a block of sections, real and
    imaginary parts apart: their sum belongs to a pose, their difference to the one half a turn further.

    Parameters
    ----------
    scale_free : rank poses by cross^2 / power, which needs no amplitude, rather than by 2 cross - power.
    """
    phases = shift_phases(grid.shifts, data.px, data.py, model.box)
    parts = [
        _best_of_grid(data, grid, number, _grid_scores(model, data, grid, phases, number, scale_free))
        for number in range(len(model.references))
    ]
    return _with_shifts(model, data, grid, phases, _joined(parts), scale_free)


def propose_local(model: Model, data: BandData, grid: StartGrid, scale_free: bool) -> Candidates:
    """Compare every particle with the product of rotations and shifts around its given pose."""
    phases = shift_phases(grid.shifts, data.px, data.py, model.box)
    given = data.rotations.astype(np.float64)
    parts = []
    for number in range(len(model.references)):
        gains = model.gains(data, number)
        moved_gains = gains * data.images
        for particle in range(len(data)):
            rotations = turned(given[particle], grid.rotations)
            sections = model.references.sections(number, rotations, data.px, data.py).view(np.float32)
            moved = (moved_gains[particle] * phases).view(np.float32)
            power = (sections**2) @ np.repeat(gains[particle] ** 2, 2)
            scores = _score((sections @ moved.T).max(axis=1), power, scale_free)
            parts.append(_pick(grid, rotations, scores, particle, number))
    return _with_shifts(model, data, grid, phases, _joined(parts), scale_free)


def _grid_scores(
    model: Model, data: BandData, grid: StartGrid, phases: np.ndarray, number: int, scale_free: bool
) -> np.ndarray:
    """Best score over shifts of each pose, float32 (n, 2 Q): the second half is half a turn further."""
    count, rotations = len(data), grid.rotations
    gains = model.gains(data, number)
    moved = ((gains * data.images)[None] * phases[:, None]).reshape(-1, data.px.size)
    real, imag = np.ascontiguousarray(moved.real), np.ascontiguousarray(moved.imag)
    weights = gains**2
    scores = np.empty((count, 2, len(rotations)), np.float32)
    for start in range(0, len(rotations), _BLOCK):
        part = slice(start, start + _BLOCK)
        sections = model.references.sections(number, rotations[part], data.px, data.py)
        first, second = np.ascontiguousarray(sections.real), np.ascontiguousarray(sections.imag)
        along, across = real @ first.T, imag @ second.T
        power = weights @ (first**2 + second**2).T
        shape = (len(grid.shifts), count, len(first))
        scores[:, 0, part] = _score((along + across).reshape(shape).max(axis=0), power, scale_free)
        np.subtract(along, across, out=along)
        scores[:, 1, part] = _score(along.reshape(shape).max(axis=0), power, scale_free)
    return scores.reshape(count, -1)


def _score(cross: np.ndarray, power: np.ndarray, scale_free: bool) -> np.ndarray:
    if scale_free:
        return np.asarray(np.maximum(cross, 0.0) ** 2 / np.maximum(power, 1e-20))
    return np.asarray(2.0 * cross - power)


def _best_of_grid(data: BandData, grid: StartGrid, number: int, scores: np.ndarray) -> Candidates:
    pool = min(_POOL, scores.shape[1])
    parts = []
    for particle, row in enumerate(scores):
        best = np.argpartition(row, row.size - pool)[row.size - pool :]
        best = np.sort(best)
        half, index = np.divmod(best, len(grid.rotations))
        rotations = np.where(half[:, None, None] == 1, _HALF_TURN @ grid.rotations[index], grid.rotations[index])
        parts.append(_pick(grid, rotations, row[best], particle, number))
    return _joined(parts)


def _pick(grid: StartGrid, rotations: np.ndarray, scores: np.ndarray, particle: int, number: int) -> Candidates:
    chosen = distinct_rotations(rotations, scores, grid.kept, grid.apart_deg, grid.operators)
    count = len(chosen)
    return Candidates(
        np.full(count, particle),
        np.full(count, number),
        rotations[chosen],
        np.zeros((count, 2)),
        scores[chosen].astype(np.float64),
        np.zeros((count, 5, 5)),
    )


def _joined(parts: list[Candidates]) -> Candidates:
    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    names = ("owner", "reference", "rotations", "shifts", "scores", "information")
    joined = Candidates(*(join(name) for name in names))
    return joined.rows(np.argsort(joined.owner, kind="stable"))


def _with_shifts(
    model: Model, data: BandData, grid: StartGrid, phases: np.ndarray, found: Candidates, scale_free: bool
) -> Candidates:
    """Find again the shift of each candidate, whose index was not kept."""
    shifts, scores = np.zeros((len(found), 2)), np.zeros(len(found))
    for number in range(len(model.references)):
        rows = np.flatnonzero(found.reference == number)
        gains = model.gains(data, number)
        sections = model.references.sections(number, found.rotations[rows], data.px, data.py)
        for row, section in zip(rows.tolist(), sections, strict=True):
            particle = int(found.owner[row])
            predicted = (section * gains[particle]).view(np.float32)
            cross = (phases * data.images[particle]).view(np.float32) @ predicted
            best = int(np.argmax(cross))
            shifts[row] = grid.shifts[best]
            scores[row] = _score(cross[best], predicted @ predicted, scale_free)
    return Candidates(found.owner, found.reference, found.rotations, shifts, scores, found.information)
