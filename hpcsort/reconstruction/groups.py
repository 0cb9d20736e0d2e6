"""Maps from exactly the listed particles, at full box size, with half-maps and their FSC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpcsort.errors import InputError
from hpcsort.io import ParticleTable
from hpcsort.parallel import Communicator
from hpcsort.reconstruction.insertion import Inserter
from hpcsort.volumes import BandGrid, last_shell_above, map_fsc, reconstruct_map, soft_sphere, wiener_prior

__all__ = ["GroupMaps", "reconstruct_groups", "resolution_A"]

_MASK_EDGE_PX = 5.0

Progress = Callable[[int, int], None]
Sums = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class GroupMaps:
    """Maps of one group; all in units of the particles' noise (its standard deviation is 1).

    Attributes
    ----------
    map : float32 (box, box, box), from all particles, filtered by the signal-to-noise ratio of their FSC; not masked.
    half1, half2 : float32 (box, box, box), from the halves, neither filtered nor masked; without halves None, and the
        map is not filtered.
    fsc : float64 (box // 2 + 1,), between the halves inside the mask; without halves None.
    resolution_A : where the FSC first falls below 0.143; infinite where it never exceeds that, NaN without halves.
    size : number of particles.
    """

    map: np.ndarray
    half1: np.ndarray | None
    half2: np.ndarray | None
    fsc: np.ndarray | None
    resolution_A: float
    size: int


def reconstruct_groups(
    comm: Communicator,
    table: ParticleTable,
    groups: Sequence[np.ndarray],
    *,
    half: np.ndarray | None,
    radius_px: int,
    mask: np.ndarray | None,
    symmetry: np.ndarray,
    pad: int = 2,
    progress: Progress | None = None,
) -> list[GroupMaps] | None:
    """Reconstruct a map from exactly the particles of each group. Collective.

    Images are read once for each group they are in, normalised by the background outside the radius, and inserted
    into one volume per group and half. CTFs are divided by the table's ``image_scale``, in numerator and weight
    alike, and both are weighted by one over its ``noise_power``, where it has them. A table with smears is inserted
    with all poses of a particle: with probabilities w_m the numerator is sum_m w_m C F_m and the weight sum_m w_m
    C^2, F_m being centred by the pose's own shift. The maps have the same bits for any number of ranks.

    Parameters
    ----------
    comm : communicator of all ranks.
    table : N particles, the same on every rank.
    groups : for each group the rows of its particles in the table, in any order.
    half : int (N,), the half, 0 or 1, of each particle of the table. None makes no halves, and maps that are not
        filtered.
    radius_px : radius of the particle.
    mask : float32 (box, box, box) inside which the FSC is measured; None is a soft sphere of the radius. Needed on
        rank 0.
    symmetry : float (g, 3, 3), operators of the point group.
    pad : padding of the Fourier volumes.
    progress : called on rank 0 with the numbers of particles done and to do.

    Returns
    -------
    One `GroupMaps` for each group on rank 0, None elsewhere.

    Raises
    ------
    InputError
        If an image cannot be read, is not finite, or has a constant background, or pixel sizes differ.
    """
    if table.box_px is None:
        raise InputError(f"no stack of {table.source} was found; name the folder that holds them with --datadir")
    box, voxel_A = table.box_px, table.pixel_size_A
    grid = BandGrid(box, box // 2 - 1, pad)
    parts = 1 if half is None else 2
    slots = [rows for group in groups for rows in _halves(np.asarray(group, np.int64), half)]
    if mask is None and comm.is_root:
        mask = soft_sphere(grid.distance * box, radius_px, _MASK_EDGE_PX)
    work = Inserter(comm, table, grid, radius_px, np.asarray(symmetry, np.float64))
    done, total = 0, sum(len(rows) for rows in slots)
    maps: list[GroupMaps] = []
    held: list[Sums] = []
    for start in range(0, len(slots), work.slots_at_once):
        for number, sums in enumerate(work.sum_slots(slots[start : start + work.slots_at_once]), start):
            joined = sums.join(comm)
            if joined is None:
                continue
            held.append(joined)
            if len(held) == parts:
                size = sum(len(rows) for rows in slots[number + 1 - parts : number + 1])
                maps.append(_finish(grid, held, mask, radius_px / box, voxel_A, size))
                held = []
            done += len(slots[number])
            if progress is not None:
                progress(done, total)
    return maps if comm.is_root else None


def resolution_A(fsc: np.ndarray, box: int, voxel_A: float, threshold: float = 0.143) -> float:
    """Resolution where the FSC (shells,) first falls below a threshold; infinite where no shell exceeds it."""
    shell = last_shell_above(fsc, threshold)
    return box * voxel_A / shell if shell > 0 else np.inf


def _halves(rows: np.ndarray, half: np.ndarray | None) -> list[np.ndarray]:
    """Rows of both halves in the order of the table, so that the listing's order does not matter."""
    ordered = np.sort(rows)
    if (np.diff(ordered) == 0).any():
        raise ValueError(f"row {ordered[:-1][np.diff(ordered) == 0][0]} is listed twice in one group")
    if half is None:
        return [ordered]
    if not np.isin(half[ordered], (0, 1)).all():
        raise ValueError("the half of a listed particle is neither 0 nor 1")
    return [ordered[half[ordered] == which] for which in (0, 1)]


def _finish(
    grid: BandGrid, sums: list[Sums], mask: np.ndarray | None, radius: float, voxel_A: float, size: int
) -> GroupMaps:
    if len(sums) == 1:
        return GroupMaps(reconstruct_map(*sums[0], grid, particle_radius=radius), None, None, None, np.nan, size)
    assert mask is not None
    first, second = sums
    half1, half2 = (reconstruct_map(*part, grid, particle_radius=radius) for part in sums)
    fsc = map_fsc(half1 * mask, half2 * mask)
    numerator, weight = first[0] + second[0], first[1] + second[1]
    prior = wiener_prior(weight, fsc, grid)
    combined = reconstruct_map(numerator, weight, grid, prior=prior, particle_radius=radius)
    return GroupMaps(combined, half1, half2, fsc, resolution_A(fsc, grid.size, voxel_A), size)
