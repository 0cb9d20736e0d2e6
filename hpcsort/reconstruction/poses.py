"""Particles at all poses of their smears: sections with weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpcsort.geometry import relion_matrices
from hpcsort.images import BandData
from hpcsort.io import Smears

__all__ = ["PoseBatch", "pose_batches"]


@dataclass(frozen=True)
class PoseBatch:
    """Sections ready for insertion.

    Attributes
    ----------
    images : complex64 (m, P), centred at the section's own shift.
    ctfs : float32 (m, P).
    rotations : float64 (m, 3, 3), view = rotation @ volume (x, y, z).
    weights : float32 (m,), probability of each section; multiplies numerator and weight alike.
    """

    images: np.ndarray
    ctfs: np.ndarray
    rotations: np.ndarray
    weights: np.ndarray


def pose_batches(data: BandData, smears: Smears, shifts_px: np.ndarray, box: int, batch: int) -> Iterator[PoseBatch]:
    """Give every particle at all of its poses, ``batch`` poses at a time or one orientation.

    Poses of one orientation that differ by their shift alone become one section, the mean of the shifted images with
    the sum of their probabilities: insertion is linear and costs more than shifting.

    Parameters
    ----------
    data : particles (n, P), centred by ``shifts_px``.
    smears : their poses.
    shifts_px : float64 (n, 2), shifts that ``data`` has already had.
    box : edge of the images in pixels.
    batch : number of poses.
    """
    owner = smears.owner
    rot, tilt, psi = smears.angles_deg.T
    order = np.lexsort((psi, tilt, rot, owner))
    keys = np.column_stack([owner, smears.angles_deg])[order]
    first = np.flatnonzero(np.concatenate([[True], (np.diff(keys, axis=0) != 0).any(axis=1)]))
    stops = np.append(first, len(order))
    part = 0
    while part < len(first):
        end = max(int(np.searchsorted(stops, stops[part] + batch, "right")) - 1, part + 1)
        poses = order[stops[part] : stops[end]]
        starts = first[part:end] - stops[part]
        yield _sections(data, smears, shifts_px, box, poses, starts)
        part = end


def _sections(
    data: BandData, smears: Smears, shifts_px: np.ndarray, box: int, poses: np.ndarray, starts: np.ndarray
) -> PoseBatch:
    owner = smears.owner[poses]
    probability = smears.weight[poses]
    total = np.add.reduceat(probability, starts)
    share = probability / np.repeat(np.maximum(total, 1e-300), np.diff(np.append(starts, len(poses))))
    factor = _phases(data, smears.shifts_px[poses] - shifts_px[owner], box)
    if len(starts) < len(poses):
        factor = np.add.reduceat(factor * share.astype(np.float32)[:, None], starts, axis=0)
    own, one = owner[starts], poses[starts]
    return PoseBatch(
        data.images[own] * factor,
        np.ascontiguousarray(data.ctfs[own]),
        relion_matrices(smears.angles_deg[one]),
        total.astype(np.float32),
    )


def _phases(data: BandData, shifts_px: np.ndarray, box: int) -> np.ndarray:
    """Factors (m, P) complex64 that shift by (m, 2); a product of two tables, as each exponential is dear."""
    kx, ky = data.px.astype(np.int64), data.py.astype(np.int64)
    frequencies = np.arange(-data.radius, data.radius + 1)
    along_x, along_y = (
        np.exp(-2j * np.pi / box * shifts_px[:, axis, None] * frequencies).astype(np.complex64) for axis in (0, 1)
    )
    return np.asarray(along_x[:, kx + data.radius] * along_y[:, ky + data.radius], np.complex64)
