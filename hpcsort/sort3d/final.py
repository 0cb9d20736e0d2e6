"""Final maps: from exactly the listed particles, at full box size, with half-maps and their FSC."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcsort.errors import InputError
from hpcsort.geometry import relion_matrices
from hpcsort.images import BandData, load_band
from hpcsort.io import ImageReader, ParticleTable, judge_images, write_map, write_text_atomically
from hpcsort.io.eman_hdf import write_hdf_map
from hpcsort.kernels import aligned_empty, insert_sections
from hpcsort.parallel import Communicator, deal_chunks, together
from hpcsort.volumes import (
    BandGrid,
    SectionSums,
    last_shell_above,
    map_fsc,
    reconstruct_map,
    soft_sphere,
    wiener_prior,
)

__all__ = ["GroupMaps", "reconstruct_groups", "write_group_maps"]

_BUDGET_BYTES = 2 << 30
_BATCH_PIXELS = 1 << 22
_MOST_PER_BLOCK = 4096
_MASK_EDGE_PX = 5.0
# Grey values may reach this many times the noise, averaged over an image, before a sum is made a second time.
_EXPECTED_RMS = 4.0
# No image is this many times its noise: the noise was measured as zero.
_ABSURD = 1e12
# Sections through a voxel: no more pixels of one section come near it than these, whatever the view.
_PIXELS_NEAR = 8.0

Progress = Callable[[int, int], None]
Sums = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class GroupMaps:
    """Maps of one group; all in units of the particles' noise (its standard deviation is 1).

    Attributes
    ----------
    map : float32 (box, box, box), from all particles, filtered by the signal-to-noise ratio of their FSC; not masked.
    half1, half2 : float32 (box, box, box), from the halves, neither filtered nor masked.
    fsc : float64 (box // 2 + 1,), between the halves inside the mask.
    resolution_A : where the FSC first falls below 0.143; infinite where it never exceeds that.
    size : number of particles.
    """

    map: np.ndarray
    half1: np.ndarray
    half2: np.ndarray
    fsc: np.ndarray
    resolution_A: float
    size: int


@dataclass(frozen=True)
class _Block:
    """Rows of the table that are summed in float32 before they go into an exact sum."""

    slot: int
    rows: np.ndarray


def reconstruct_groups(
    comm: Communicator,
    table: ParticleTable,
    groups: Sequence[np.ndarray],
    *,
    half: np.ndarray,
    radius_px: int,
    mask: np.ndarray | None,
    symmetry: np.ndarray,
    pad: int = 2,
    progress: Progress | None = None,
) -> list[GroupMaps] | None:
    """Reconstruct a map from exactly the particles of each group. Collective.

    Images are read once for each group they are in, normalised by the background outside the radius, and inserted
    into one volume per group and half. The maps have the same bits for any number of ranks.

    Parameters
    ----------
    comm : communicator of all ranks.
    table : N particles, the same on every rank.
    groups : for each group the rows of its particles in the table, in any order.
    half : int (N,), the half, 0 or 1, of each particle of the table.
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
    slots = [rows for group in groups for rows in _halves(np.asarray(group, np.int64), half)]
    if mask is None and comm.is_root:
        mask = soft_sphere(grid.distance * box, radius_px, _MASK_EDGE_PX)
    work = _Inserter(comm, table, grid, radius_px, np.asarray(symmetry, np.float64))
    done, total = 0, sum(len(rows) for rows in slots)
    maps: list[GroupMaps] = []
    first: Sums | None = None
    for start in range(0, len(slots), work.slots_at_once):
        for number, sums in enumerate(work.sum_slots(slots[start : start + work.slots_at_once]), start):
            joined = sums.join(comm)
            if joined is None:
                continue
            if number % 2 == 0:
                first = joined
            else:
                assert first is not None
                assert mask is not None
                size = len(slots[number - 1]) + len(slots[number])
                maps.append(_finish(grid, first, joined, mask, radius_px / box, voxel_A, size))
                first = None
            done += len(slots[number])
            if progress is not None:
                progress(done, total)
    return maps if comm.is_root else None


def write_group_maps(
    folder: str | os.PathLike[str],
    stem: str,
    maps: GroupMaps,
    voxel_A: float,
    overwrite: bool = False,
    map_format: str = "mrc",
) -> None:
    """Write stem.mrc, stem_half1.mrc, stem_half2.mrc (or .hdf) and stem_fsc.txt.

    The table of the FSC has the columns shell, resolution in A and FSC.

    Parameters
    ----------
    folder : existing folder.
    stem : beginning of the files' names.
    maps : of one group.
    voxel_A : voxel size.
    overwrite : whether existing files may be replaced.
    map_format : "mrc", or "hdf" for maps as EMAN2 keeps them.

    Raises
    ------
    OutputError
        If a file exists and ``overwrite`` is false, or cannot be written.
    """
    place = Path(folder)
    write = {"mrc": write_map, "hdf": write_hdf_map}[map_format]
    for name, volume in ((stem, maps.map), (f"{stem}_half1", maps.half1), (f"{stem}_half2", maps.half2)):
        write(place / f"{name}.{map_format}", volume, voxel_A, overwrite=overwrite)
    box = len(maps.map)
    lines = ["# shell resolution_A fsc"]
    for shell, value in enumerate(maps.fsc.tolist()):
        lines.append(f"{shell:5d} {box * voxel_A / shell if shell else np.inf:12.4f} {value:9.6f}")
    write_text_atomically(place / f"{stem}_fsc.txt", "\n".join(lines) + "\n", overwrite=overwrite)


def _halves(rows: np.ndarray, half: np.ndarray) -> list[np.ndarray]:
    """Rows of both halves in the order of the table, so that the listing's order does not matter."""
    ordered = np.sort(rows)
    if (np.diff(ordered) == 0).any():
        raise ValueError(f"row {ordered[:-1][np.diff(ordered) == 0][0]} is listed twice in one group")
    if not np.isin(half[ordered], (0, 1)).all():
        raise ValueError("the half of a listed particle is neither 0 nor 1")
    return [ordered[half[ordered] == which] for which in (0, 1)]


def _finish(
    grid: BandGrid, first: Sums, second: Sums, mask: np.ndarray, radius: float, voxel_A: float, size: int
) -> GroupMaps:
    half1, half2 = (reconstruct_map(*sums, grid, particle_radius=radius) for sums in (first, second))
    fsc = map_fsc(half1 * mask, half2 * mask)
    numerator, weight = first[0] + second[0], first[1] + second[1]
    prior = wiener_prior(weight, fsc, grid)
    combined = reconstruct_map(numerator, weight, grid, prior=prior, particle_radius=radius)
    shell = last_shell_above(fsc)
    return GroupMaps(combined, half1, half2, fsc, grid.size * voxel_A / shell if shell > 0 else np.inf, size)


class _Inserter:
    """Fills the sums of some slots (halves of groups) from this rank's blocks of their particles."""

    def __init__(
        self, comm: Communicator, table: ParticleTable, grid: BandGrid, radius_px: int, symmetry: np.ndarray
    ) -> None:
        self._comm, self._table, self._grid, self._radius_px = comm, table, grid, radius_px
        # All at once on every rank: vectorised sines must not see how particles are dealt.
        self._rotations = relion_matrices(table.angles_deg)
        self._symmetry = symmetry
        self._batch = max(1, _BATCH_PIXELS // grid.size**2)
        # Adding a volume exactly takes about as long as inserting this many particles.
        self._least_per_block = -(-grid.size * grid.pad**3 // (8 * len(symmetry)))
        scratch = 16 * int(np.prod(grid.fourier_shape, dtype=np.int64))
        self.slots_at_once = max(1, (_BUDGET_BYTES - scratch) // SectionSums.bytes_needed(grid))

    def sum_slots(self, slots: list[np.ndarray]) -> list[SectionSums]:
        """Back-project the particles of each slot; a rank's sums hold its own blocks. Collective."""
        blocks = [block for slot, rows in enumerate(slots) for block in self._blocks(slot, rows)]
        mine = deal_chunks([len(block.rows) for block in blocks], self._comm.size)[self._comm.rank]
        scale = max(1.0, float(np.abs(self._table.ctf_scale).max(initial=0.0)))
        allowed = np.full(len(slots), _EXPECTED_RMS * self._grid.size * scale**2)
        while True:
            bounds = _PIXELS_NEAR * len(self._symmetry) * allowed * np.array([max(len(rows), 1) for rows in slots])
            sums = [SectionSums(self._grid, float(bound)) for bound in bounds]
            found = np.zeros(len(slots))
            with together(self._comm):
                self._fill([blocks[index] for index in mine], sums, allowed, found)
            found = np.asarray(self._comm.max(found))
            if (found <= allowed).all():
                return sums
            # Rare: an image or a CTF is larger than expected. The bound then follows from all particles of the slot.
            allowed = np.maximum(allowed, found)

    def _blocks(self, slot: int, rows: np.ndarray) -> list[_Block]:
        """Cut a slot's rows by its size and the box alone, so that float32 sums do not depend on the ranks."""
        length = int(np.clip(-(-len(rows) // 32), min(self._least_per_block, _MOST_PER_BLOCK), _MOST_PER_BLOCK))
        return [_Block(slot, rows[start : start + length]) for start in range(0, len(rows), length)]

    def _fill(self, blocks: list[_Block], sums: list[SectionSums], allowed: np.ndarray, found: np.ndarray) -> None:
        if not blocks:
            return
        scratch = aligned_empty((1, *self._grid.fourier_shape, 4), np.float32)
        with ImageReader(self._table) as reader:
            for block in blocks:
                scratch[...] = 0
                largest = self._insert(reader, block.rows, scratch)
                found[block.slot] = max(found[block.slot], largest)
                if found[block.slot] <= allowed[block.slot]:
                    sums[block.slot].add(scratch[0])

    def _insert(self, reader: ImageReader, rows: np.ndarray, scratch: np.ndarray) -> float:
        """Insert a block; returns the largest |C F| or C^2 of any of its pixels, or a limit above it."""
        largest = 0.0
        for start in range(0, len(rows), self._batch):
            chosen = rows[start : start + self._batch]
            rotations = self._rotations[chosen]
            data = load_band(
                self._table, chosen, rotations, self._grid.radius, reader.read,
                particle_radius_px=self._radius_px, batch=len(chosen), inspect=self._refuse,
            )  # fmt: skip
            largest = max(largest, self._largest(data, chosen))
            labels, ones = np.zeros(len(chosen), np.int32), np.ones(len(chosen), np.float32)
            for operator in self._symmetry:
                turned = np.ascontiguousarray(rotations @ operator, np.float32)
                insert_sections(
                    data.images, data.ctfs, turned, labels, ones, data.px, data.py, float(self._grid.pad), scratch
                )
        return largest

    def _largest(self, data: BandData, rows: np.ndarray) -> float:
        values, transfer = np.abs(data.images).max(axis=1), np.abs(data.ctfs).max(axis=1)
        flat = np.flatnonzero(values > _ABSURD)
        if flat.size:
            star_row = int(self._table.source_row[rows[flat[0]]]) + 1
            raise InputError(
                f"{self._table.source}, row {star_row}: the image is constant outside the radius of"
                f" {self._radius_px} px, so that its noise cannot be measured; give images that are not masked,"
                " or a smaller --radius"
            )
        return float((np.maximum(values, transfer) * transfer).max())

    def _refuse(self, rows: np.ndarray, images: np.ndarray) -> None:
        bad = judge_images(images, rows, self._table)
        if bad:
            raise InputError(f"{bad[0].describe()}; leave it out with --skip-bad")
