"""Poses between the grid points: Gauss-Newton ascent of the likelihood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hpcsort.images import BandData
from hpcsort.matching.grids import turned
from hpcsort.matching.model import Candidates, Model, shift_phases

__all__ = ["evaluate", "refine"]

_BLOCK_PIXELS = 40_000
"""Pixels of the candidates treated at a time: their derivatives stay in the cache."""
_DAMPING, _CALMER, _FIRMER = 1e-2, 0.3, 10.0


def refine(model: Model, data: BandData, candidates: Candidates, *, steps: int, reach: float) -> Candidates:
    """Climb to the nearest maximum of each candidate's likelihood inside the band of ``data``.

    Levenberg's damped Gauss-Newton steps on (rotation vector in the frame of the view, shift), each kept only where the
    likelihood has risen.

    Parameters
    ----------
    model, data : whitened images and what they are compared with.
    candidates : start; scores and information need not be known.
    steps : number of steps.
    reach : largest turn of one step, radians; the largest shift is that of the particle's edge.

    Returns
    -------
    The candidates with new poses, scores and information.
    """
    if len(candidates) == 0:
        return candidates
    best, gradient = evaluate(model, data, candidates)
    damping = np.full(len(best), _DAMPING)
    longest = np.array([reach] * 3 + [reach * model.references.diameter * model.box / 2.0] * 2)
    for _ in range(steps):
        move = _damped_step(best.information, gradient, damping)
        move /= np.maximum(np.abs(move / longest).max(axis=1), 1.0)[:, None]
        trial = replace(best, rotations=turned(best.rotations, move[:, :3]), shifts=best.shifts + move[:, 3:])
        trial, slope = evaluate(model, data, trial)
        better = trial.scores > best.scores
        best = _chosen(better, trial, best)
        gradient = np.where(better[:, None], slope, gradient)
        damping = np.where(better, damping * _CALMER, damping * _FIRMER)
    return best


def evaluate(model: Model, data: BandData, candidates: Candidates) -> tuple[Candidates, np.ndarray]:
    """Score of each candidate, its gradient (T, 5), and the information, by the pose."""
    count = len(candidates)
    scores, gradient, information = np.zeros(count), np.zeros((count, 5)), np.zeros((count, 5, 5))
    block = max(1, _BLOCK_PIXELS // data.px.size)
    for number in range(len(model.references)):
        rows = np.flatnonzero(candidates.reference == number)
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            scores[part], gradient[part], information[part] = _derivatives(model, data, candidates.rows(part), number)
    return replace(candidates, scores=scores, information=information), gradient


def _derivatives(
    model: Model, data: BandData, part: Candidates, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    px, py, count = data.px, data.py, len(part)
    gains = model.gains(data, number, part.owner)
    images = data.images[part.owner] * shift_phases(part.shifts, px, py, model.box)
    predicted = model.references.sections(number, part.rotations, px, py) * gains
    slopes = model.references.gradients(number, part.rotations, px, py)
    slopes *= np.complex64(-2j * np.pi) * gains
    # the gradient in the frame of the view, A times that of the volume
    view = np.einsum("tij,jtp->itp", part.rotations.astype(np.float32), slopes)
    columns = np.empty((count, 5, px.size), np.complex64)
    # a turn by w moves the point q = (px, py, 0) of the section to q - w x q
    columns[:, 0] = -view[2] * py
    columns[:, 1] = view[2] * px
    columns[:, 2] = view[0] * py - view[1] * px
    moved = np.complex64(2j * np.pi / model.box) * predicted
    columns[:, 3], columns[:, 4] = moved * px, moved * py
    real = columns.view(np.float32).reshape(count, 5, -1)
    residual = (images - predicted).view(np.float32)
    power = _squares(images) - _squares(images - predicted)
    gradient = 2.0 * np.matmul(real, residual[:, :, None])[:, :, 0]
    information = 2.0 * np.matmul(real, real.transpose(0, 2, 1))
    return power, gradient.astype(np.float64), information.astype(np.float64)


def _squares(values: np.ndarray) -> np.ndarray:
    real = values.view(np.float32)
    return np.einsum("tp,tp->t", real, real, dtype=np.float64)


def _damped_step(information: np.ndarray, gradient: np.ndarray, damping: np.ndarray) -> np.ndarray:
    diagonal = np.einsum("tii->ti", information)
    # a direction without information, as about the axis of a cylinder, does not move
    floor = 1e-6 * diagonal.max(axis=1, keepdims=True) + 1e-12
    matrix = information + np.eye(5) * (damping[:, None] * diagonal + floor)[:, :, None]
    return np.asarray(np.linalg.solve(matrix, gradient[:, :, None])[:, :, 0])


def _chosen(better: np.ndarray, trial: Candidates, best: Candidates) -> Candidates:
    return replace(
        best,
        rotations=np.where(better[:, None, None], trial.rotations, best.rotations),
        shifts=np.where(better[:, None], trial.shifts, best.shifts),
        scores=np.where(better, trial.scores, best.scores),
        information=np.where(better[:, None, None], trial.information, best.information),
    )
