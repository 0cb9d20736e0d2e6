"""Noise of the images and amplitude of the references, from a part of the particles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hpcsort.images import BandData, noise_spectrum
from hpcsort.matching.grids import turned
from hpcsort.matching.model import Candidates, Model, shift_phases
from hpcsort.matching.references import References
from hpcsort.matching.search import Plan, find_modes, first_candidates
from hpcsort.parallel import Communicator, ExactSum, stream

__all__ = ["Sample", "calibrate", "sample_rows"]

_SAMPLE, _FEWEST = 256, 32
_PRIOR = 20.0
"""Pixels that a shell's noise is worth before it is measured; and the weight of an amplitude's prior."""
_ROUNDS = 2


@dataclass(frozen=True)
class Sample:
    """Particles of one rank that noise and amplitudes are learned from.

    Attributes
    ----------
    chunks : Fourier data as read, a chunk each; the same chunks for any number of ranks.
    rows : table rows of each chunk.
    groups : number of noise groups.
    """

    chunks: list[BandData]
    rows: list[np.ndarray]
    groups: int


def sample_rows(group: np.ndarray) -> np.ndarray:
    """Evenly spread particles of every optics group (N,), int64, rising."""
    names = np.unique(group)
    share = max(_FEWEST, _SAMPLE // max(len(names), 1))
    chosen = []
    for name in names.tolist():
        members = np.flatnonzero(group == name)
        places = np.linspace(0, len(members) - 1, min(share, len(members)))
        chosen.append(members[np.rint(places).astype(np.int64)])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def calibrate(
    comm: Communicator,
    references: References,
    sample: Sample,
    box: int,
    plan: Plan,
    step: Callable[[str], None],
) -> Model:
    """Learn noise spectra and amplitudes by expectation maximisation. Collective; every rank returns the same model.

    Poses are first ranked by a measure that knows neither amplitude nor signal. Then each round searches the sample,
    draws one pose of each particle from Laplace's approximation of its posterior, and measures there the amplitude of
    the references (Wiener's regression a = <m, y> / <m, m>, a factor for each map and one curve over shells) and what
    remains, the noise. A drawn pose leaves what the pose's uncertainty leaves, so that noise is not underestimated.

    Parameters
    ----------
    step : called with a note after each round.
    """
    shells = references.grid.radius + 1
    sigma = _noise(comm, sample, [chunk.images for chunk in sample.chunks], np.ones((sample.groups, shells)))
    model = Model(references, np.ones((len(references), shells)), sigma, box)
    white = [chunk.whitened(sigma) for chunk in sample.chunks]
    found = [_best(first_candidates(model, chunk, plan, scale_free=True)) for chunk in white]
    narrow = plan.bands[0]
    cropped = [chunk.cropped(narrow) for chunk in white]
    model = replace(model, amplitude=_amplitude(comm, model, cropped, found, shells, whole=True))
    step("first poses")
    for turn in range(_ROUNDS):
        found = [_best(find_modes(model, chunk, plan)) for chunk in white]
        drawn = [_drawn(poses, rows, turn) for poses, rows in zip(found, sample.rows, strict=True)]
        model = replace(model, amplitude=_amplitude(comm, model, white, drawn, shells))
        residuals = [
            chunk.images - _predicted(model, data, poses) / _factor(data, model.sigma)
            for chunk, data, poses in zip(sample.chunks, white, drawn, strict=True)
        ]
        model = replace(model, sigma=_noise(comm, sample, residuals, model.sigma))
        white = [chunk.whitened(model.sigma) for chunk in sample.chunks]
        step(f"round {turn + 1} of {_ROUNDS}")
    return model


def _best(found: Candidates) -> Candidates:
    """Keep the best candidate of each particle, in their order."""
    order = np.lexsort((-found.scores, found.owner))
    first = np.flatnonzero(np.diff(found.owner[order], prepend=-1))
    return found.rows(order[first])


def _drawn(poses: Candidates, rows: np.ndarray, turn: int) -> Candidates:
    if len(poses) == 0:
        return poses
    covariance = np.linalg.inv(poses.information + np.eye(5))
    root = np.linalg.cholesky(covariance)
    normal = np.stack([stream(0, "match", turn, row).standard_normal(5) for row in rows.tolist()])
    error = np.einsum("tij,tj->ti", root, normal)
    return replace(poses, rotations=turned(poses.rotations, error[:, :3]), shifts=poses.shifts + error[:, 3:])


def _predicted(model: Model, data: BandData, poses: Candidates) -> np.ndarray:
    """Images expected at one pose for each particle, before the shift is undone: complex64 (n, P), whitened."""
    out = np.empty_like(data.images)
    for number in range(len(model.references)):
        rows = np.flatnonzero(poses.reference == number)
        sections = model.references.sections(number, poses.rotations[rows], data.px, data.py)
        out[rows] = sections * model.gains(data, number, rows)
    return out * shift_phases(poses.shifts, data.px, data.py, model.box).conj()


def _factor(data: BandData, sigma: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / sigma[data.groups[:, None], data.shell[None]], np.float32)


def _noise(comm: Communicator, sample: Sample, images: list[np.ndarray], last: np.ndarray) -> np.ndarray:
    """Deviation of images (unwhitened) in each group and shell, float64 (groups, shells)."""
    sums = [
        np.stack(noise_spectrum(chunk, values, sample.groups))
        for chunk, values in zip(sample.chunks, images, strict=True)
    ]
    power, count = _exact_total(comm, sums, (2, *last.shape))
    # a group without particles in the sample has the noise of all; few particles are drawn towards it
    common = (power.sum(axis=0) + 1e-12) / np.maximum(count.sum(axis=0), 1e-12)
    common[0] = common[1]
    return np.sqrt((power + _PRIOR * common) / (count + _PRIOR))


def _amplitude(
    comm: Communicator,
    model: Model,
    chunks: list[BandData],
    poses: list[Candidates],
    shells: int,
    whole: bool = False,
) -> np.ndarray:
    """Regress images on sections at the poses: new amplitudes, float64 (K, shells).

    Parameters
    ----------
    whole : one factor for each map and no curve over shells.
    """
    references = len(model.references)
    sums = [_regression(model, data, found, shells) for data, found in zip(chunks, poses, strict=True)]
    cross, power = _exact_total(comm, sums, (2, references, shells))
    pooled = cross.sum() / max(power.sum(), 1e-30)
    prior = 0.02 * power.sum()
    factor = (cross.sum(axis=1) + prior * pooled) / np.maximum(power.sum(axis=1) + prior, 1e-30)
    factor = np.maximum(factor, 1e-3 * abs(pooled) + 1e-30)
    curve = np.ones(shells)
    if not whole:
        expected = (factor[:, None] ** 2 * power).sum(axis=0)
        curve = ((factor[:, None] * cross).sum(axis=0) + _PRIOR) / (expected + _PRIOR)
        curve = np.maximum(curve, 1e-3)
    return np.asarray(model.amplitude * factor[:, None] * curve)


def _regression(model: Model, data: BandData, poses: Candidates, shells: int) -> np.ndarray:
    """Sum over particles Re(conj(m) y) and |m|^2 of each shell, float64 (2, K, shells)."""
    predicted = _predicted(model, data, poses)
    values = np.stack([(predicted.conj() * data.images).real, np.abs(predicted) ** 2]).astype(np.float64)
    out = np.zeros((2, len(model.references), shells))
    for number in range(len(model.references)):
        total = values[:, poses.reference == number].sum(axis=1)
        for kind in range(2):
            out[kind, number] = np.bincount(np.minimum(data.shell, shells - 1), total[kind], shells)[:shells]
    return out


def _exact_total(comm: Communicator, blocks: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Sum arrays of all ranks with the same bits for any number of ranks."""
    own = max((float(np.abs(block).max(initial=0)) for block in blocks), default=0.0)
    count = sum(comm.allgather(len(blocks)))
    total = ExactSum(shape, float(comm.max(own)) * max(count, 1) + 1e-300)
    for block in blocks:
        total.add(block)
    return np.array(total.join(comm))
