"""The particles in memory: each rank holds its own chunks, normalised, masked and as polar samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import scipy.fft

from hpcsort.cl2d.options import Cl2dOptions
from hpcsort.errors import InputError
from hpcsort.io import ImageReader, ParticleTable, judge_images
from hpcsort.optics import ctf
from hpcsort.parallel import Communicator, ExactSum, cut_chunks, deal_chunks, raise_together, row_counts
from hpcsort.planar import PolarGrid

__all__ = ["Stock", "load_stock", "normalised"]

_CHUNK = 256
"""Particles of one chunk: every product of matrices has the shape of a chunk, whatever the number of ranks."""
_WIENER = 0.1
"""What is added to the mean square of the CTF where averages are divided by it."""


class Stock:
    """N particles dealt to ranks in chunks.

    Attributes
    ----------
    comm : all ranks.
    count : N.
    grid : polar grid of the samples.
    max_shift_px : largest shift in a search.
    images : list of float32 (n, box, box), one array for each own chunk.
    samples : list of complex64 (n, R, T / 2), for the same chunks; with a Wiener filter the rings have equal noise.
    norms : float32 (N,), norm of each particle inside the band.
    ring_power : float64 (R,), sum over all particles of their power on each ring.
    final_filter : float64 (box, box // 2 + 1) or None, by which averages are multiplied in the end.
    """

    def __init__(
        self,
        comm: Communicator,
        chunks: list[tuple[int, int]],
        images: list[npt.NDArray[np.float32]],
        grid: PolarGrid,
        max_shift_px: float,
        square_ctf: npt.NDArray[np.float64] | None,
    ) -> None:
        self.comm, self.chunks, self.images, self.grid = comm, chunks, images, grid
        self.count = chunks[-1][1]
        self.max_shift_px = max_shift_px
        dealt = deal_chunks([stop - start for start, stop in chunks], comm.size)
        self._own = dealt[comm.rank]
        self._counts = row_counts(chunks, dealt)
        self.samples = [grid.samples(block) for block in images]
        self.final_filter: npt.NDArray[np.float64] | None = None
        if square_ctf is not None:
            for block in self.samples:
                block /= np.sqrt(np.interp(grid.radii, np.arange(len(square_ctf)), square_ctf))[:, None]
            self.final_filter = 1.0 / (np.interp(_radii(grid.box_px), np.arange(len(square_ctf)), square_ctf) + _WIENER)
        parts = [np.square(np.linalg.norm(grid.spectra(block), axis=2)) for block in self.samples]
        power = self.gather(parts, np.float32, (len(grid.radii),)).astype(np.float64)
        self.norms = np.sqrt(power.sum(axis=1)).astype(np.float32)
        self.ring_power = power.sum(axis=0)

    def rows(self) -> Iterator[slice]:
        """Rows of each own chunk, in the order of `images` and `samples`."""
        for number in self._own:
            self.comm.beat()
            yield slice(*self.chunks[number])

    def gather(self, parts: Sequence[npt.NDArray], dtype: npt.DTypeLike, width: tuple[int, ...] = ()) -> npt.NDArray:
        """Join what each rank made for its own chunks, in the order of the particles, on every rank; collective."""
        own = np.concatenate([np.zeros((0, *width), dtype), *parts]).astype(dtype, copy=False)
        return self.comm.allgather_rows(own, self._counts)


def load_stock(options: Cl2dOptions, table: ParticleTable, comm: Communicator) -> Stock:
    """Read the particles once, normalise them, and correct or weight them by their CTF. Collective.

    Raises
    ------
    InputError
        For an image that is constant or has NaN or infinite pixels; on every rank alike.
    """
    assert table.box_px is not None
    box, pixel_A = table.box_px, table.pixel_size_A
    radius = options.mask_radius(box)
    grid = PolarGrid(box, radius, options.band_px(box, pixel_A))
    chunks = cut_chunks(np.ones(len(table)), _CHUNK)
    own = deal_chunks([stop - start for start, stop in chunks], comm.size)[comm.rank]
    images, error = [], None
    shells = box // 2 + 1
    square = ExactSum(shells, float(len(table)) * _largest_ctf(table))
    try:
        with ImageReader(table) as reader:
            for number in own:
                comm.beat()
                rows = np.arange(*chunks[number])
                read = reader.read(rows)
                bad = judge_images(read, rows, table)
                if bad:
                    raise InputError(f"{bad[0].describe()}; mend it or take it out of {table.source}")
                images.append(_filtered(normalised(read, radius), table, rows, options.ctf))
                if options.ctf == "wiener":
                    powers = np.square(_round_ctf(table, rows, np.arange(shells)), dtype=np.float64)
                    square.add(np.asarray(powers.sum(axis=0)))
    except Exception as caught:
        error = caught
    raise_together(comm, error)
    mean_square = square.join(comm) / len(table) if options.ctf == "wiener" else None
    return Stock(comm, chunks, images, grid, options.max_shift * box, mean_square)


def normalised(images: npt.NDArray[np.float32], radius_px: float) -> npt.NDArray[np.float32]:
    """Images (n, box, box) with mean 0 and standard deviation 1 inside a disc about the pixel ``box // 2``."""
    box = images.shape[-1]
    x = np.arange(box) - box // 2
    inside = np.hypot(x[:, None], x) <= radius_px
    pixels = images[:, inside].astype(np.float64)
    mean, deviation = pixels.mean(axis=1), pixels.std(axis=1)
    # an image that is constant inside the disc becomes zeros there, not a division by zero
    scale = 1.0 / np.where(deviation > 0, deviation, 1.0)
    return ((images - mean[:, None, None]) * scale[:, None, None]).astype(np.float32)


def _filtered(
    images: npt.NDArray[np.float32], table: ParticleTable, rows: npt.NDArray[np.int64], kind: str
) -> npt.NDArray[np.float32]:
    """Flip the phases of images, or multiply them by their CTF."""
    if kind == "none":
        return images
    box = images.shape[-1]
    ky, kx = np.meshgrid(scipy.fft.fftfreq(box, 1 / box), np.arange(box // 2 + 1), indexing="ij")
    values = _ctf(table, rows, kx, ky).reshape(len(rows), *kx.shape)
    factor = np.where(values < 0, np.float32(-1), np.float32(1)) if kind == "flip" else values
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(images) * factor, s=(box, box)), np.float32)


def _ctf(
    table: ParticleTable, rows: npt.NDArray[np.int64], px: npt.NDArray, py: npt.NDArray, astigmatic: bool = True
) -> npt.NDArray[np.float32]:
    assert table.box_px is not None
    u, v = table.defocus_u_A[rows], table.defocus_v_A[rows]
    return ctf(
        px,
        py,
        table.box_px,
        table.pixel_sizes_A[rows],
        u if astigmatic else (u + v) / 2,
        v if astigmatic else (u + v) / 2,
        table.defocus_angle_deg[rows],
        table.voltage_kV[rows],
        table.cs_mm[rows],
        table.amplitude_contrast[rows],
        phase_shift_deg=table.phase_shift_deg[rows],
        bfactor_A2=table.bfactor_A2[rows],
        scale=table.ctf_scale[rows],
    )


def _round_ctf(
    table: ParticleTable, rows: npt.NDArray[np.int64], radii: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """CTF at whole radii without its astigmatism, (n, radii)."""
    return _ctf(table, rows, radii, np.zeros_like(radii), astigmatic=False)


def _largest_ctf(table: ParticleTable) -> float:
    """Bound of the square of any CTF."""
    growth = np.exp(np.maximum(-table.bfactor_A2, 0.0) / 2.0 / np.square(2.0 * table.pixel_sizes_A))
    bound = np.nanmax(np.square(table.ctf_scale) * growth, initial=1.0)
    return float(bound) * 1.01


def _radii(box: int) -> npt.NDArray[np.float64]:
    return np.hypot(scipy.fft.fftfreq(box, 1 / box)[:, None], np.arange(box // 2 + 1))
