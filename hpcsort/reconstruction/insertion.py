"""Back-projection of particles, with one pose or many, into exact sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpcsort.errors import InputError
from hpcsort.geometry import relion_matrices
from hpcsort.images import BandData, load_band
from hpcsort.io import ImageReader, ParticleTable, judge_images
from hpcsort.kernels import aligned_empty, insert_sections
from hpcsort.parallel import Communicator, deal_chunks, together
from hpcsort.reconstruction.poses import PoseBatch, pose_batches
from hpcsort.volumes import BandGrid, SectionSums

__all__ = ["Inserter"]

_BUDGET_BYTES = 512 << 20
_BATCH_PIXELS = 1 << 22
_MOST_PER_BLOCK = 4096
# Grey values may reach this many times the noise, averaged over an image, before a sum is made a second time.
_EXPECTED_RMS = 4.0
# No image is this many times its noise: the noise was measured as zero.
_ABSURD = 1e12
# Sections through a voxel: no more pixels of one section come near it than these, whatever the view.
_PIXELS_NEAR = 8.0


@dataclass(frozen=True)
class _Block:
    """Rows of the table that are summed in float32 before they go into an exact sum."""

    slot: int
    rows: np.ndarray


class Inserter:
    """Fills the sums of some slots (groups, or halves of them) from this rank's blocks of their particles.

    Parameters
    ----------
    comm : communicator of all ranks.
    table : the particles; all poses of their smears are inserted where they have any.
    grid : of the Fourier volumes.
    radius_px : radius of the particle, outside which the background is measured.
    symmetry : float64 (g, 3, 3); every pose is inserted with every operator.

    Attributes
    ----------
    slots_at_once : number of slots whose sums fit into memory together.
    """

    def __init__(
        self, comm: Communicator, table: ParticleTable, grid: BandGrid, radius_px: int, symmetry: np.ndarray
    ) -> None:
        self._comm, self._table, self._grid, self._radius_px = comm, table, grid, radius_px
        # All at once on every rank: vectorised sines must not see how particles are dealt.
        self._rotations = relion_matrices(table.angles_deg)
        self._symmetry = symmetry
        self._sections = np.ones(len(table), np.int64) if table.smears is None else table.smears.counts
        self._sigma = _relative_noise(table)
        self._batch = max(1, _BATCH_PIXELS // grid.size**2)
        # Adding a volume exactly takes about a third of the time of inserting this many sections.
        self._least_per_block = -(-3 * grid.size * grid.pad**3 // (8 * len(symmetry)))
        scratch = 16 * int(np.prod(grid.fourier_shape, dtype=np.int64))
        self.slots_at_once = max(1, (_BUDGET_BYTES - scratch) // SectionSums.bytes_needed(grid))

    def sum_slots(self, slots: list[np.ndarray]) -> list[SectionSums]:
        """Back-project the particles of each slot; a rank's sums hold its own blocks. Collective."""
        blocks = [block for slot, rows in enumerate(slots) for block in self._blocks(slot, rows)]
        loads = [self._sections[block.rows].sum() for block in blocks]
        mine = deal_chunks(loads, self._comm.size)[self._comm.rank]
        allowed = np.full(len(slots), self._expected())
        while True:
            # The probabilities of a particle's poses sum to 1, so that they do not change the bound.
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

    def _expected(self) -> float:
        scale = max(1.0, float(np.abs(self._table.ctf_scale).max(initial=0.0)))
        if self._table.image_scale is not None:
            scale *= max(1.0, float(np.abs(self._table.image_scale).max(initial=0.0)))
        return _EXPECTED_RMS * self._grid.size * scale**2

    def _blocks(self, slot: int, rows: np.ndarray) -> list[_Block]:
        """Cut a slot's rows by its size, smears and the box alone, so that float32 sums do not depend on the ranks."""
        poses = -(-int(self._sections[rows].sum()) // max(len(rows), 1))
        least, most = (max(1, number // max(poses, 1)) for number in (self._least_per_block, _MOST_PER_BLOCK))
        length = int(np.clip(-(-len(rows) // 32), min(least, most), most))
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
            self._comm.beat()
            data = load_band(
                self._table, chosen, self._rotations[chosen], self._grid.radius, reader.read,
                particle_radius_px=self._radius_px, batch=len(chosen), inspect=self._refuse,
            )  # fmt: skip
            if self._sigma is not None:
                data = data.whitened(self._sigma)
            largest = max(largest, self._largest(data, chosen))
            for part in self._posed(data, chosen):
                labels = np.zeros(len(part.weights), np.int32)
                for operator in self._symmetry:
                    turned = np.ascontiguousarray(part.rotations @ operator, np.float32)
                    insert_sections(
                        part.images, part.ctfs, turned, labels, part.weights, data.px, data.py,
                        float(self._grid.pad), scratch,
                    )  # fmt: skip
        return largest

    def _posed(self, data: BandData, rows: np.ndarray) -> Iterator[PoseBatch]:
        if self._table.smears is None:
            yield PoseBatch(data.images, data.ctfs, self._rotations[rows], np.ones(len(rows), np.float32))
        else:
            box, shifts = self._grid.size, self._table.shifts_px[rows]
            yield from pose_batches(data, self._table.smears.rows(rows), shifts, box, self._batch)

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


def _relative_noise(table: ParticleTable) -> np.ndarray | None:
    """Noise's deviation of each optics group (groups, shells), relative to that of all; None where all are alike.

    What is common to all groups in a shell cancels where the numerator is divided by the weight. Scaled such that the
    mean of 1/sigma^2 over the particles is 1; groups whose noise is unknown get that mean.
    """
    power = table.noise_power
    if power is None or len(table) == 0:
        return None
    counts = np.bincount(table.optics_group, minlength=len(power))[: len(power)]
    known = (power > 0) & (counts > 0)[:, None]
    inverse = np.divide(1.0, power, out=np.zeros(power.shape), where=known)
    particles = (counts[:, None] * known).sum(axis=0)
    mean = (counts[:, None] * inverse).sum(axis=0) / np.maximum(particles, 1)
    weight = np.divide(inverse, mean, out=np.ones(power.shape), where=known & (mean > 0))
    return None if np.allclose(weight, 1.0, rtol=1e-6, atol=0.0) else np.asarray(1.0 / np.sqrt(weight))
