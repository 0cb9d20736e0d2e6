"""Shifts of particles whose orientation is known, by cross-correlation with projections of half-maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy.fft

from hpcsort.geometry import relion_matrices
from hpcsort.images import BandData, load_band
from hpcsort.io import ImageReader, ParticleTable
from hpcsort.kernels import extract_sections
from hpcsort.parallel import Communicator, cut_chunks, deal_chunks, row_counts, together
from hpcsort.reconstruction.groups import GroupMaps
from hpcsort.volumes import BandGrid, last_shell_above, soft_sphere

__all__ = ["centre_images"]

Floats = npt.NDArray[np.float64]

_CHUNK = 64
_PAD = 2
_EDGE_PX = 5.0
_LOWEST_BAND = 4
_SEEN = 0.143


def centre_images(
    comm: Communicator,
    table: ParticleTable,
    half: npt.NDArray[np.int64],
    maps: GroupMaps | None,
    *,
    radius_px: int,
    start_px: Floats,
    limit_px: float,
) -> Floats:
    """Find the shift of each image that makes it fit the map of its own half best. Collective.

    Projections are filtered by the FSC of the halves, and images weighted by one over their power in each shell. What
    all shifts of a half have in common with a shift of its map is taken out, so that the halves stay together.

    Parameters
    ----------
    comm : all ranks.
    table : N particles with poses; where they are now.
    half : int (N,), 0 or 1.
    maps : with halves, on rank 0; elsewhere None.
    radius_px : of the particle.
    start_px : float64 (N, 2), shifts about which is searched.
    limit_px : how far from there, in pixels.

    Returns
    -------
    float64 (N, 2), the same bits on all ranks and for any number of them.
    """
    box = table.box_px
    assert box is not None
    band = 0
    if maps is not None and maps.fsc is not None:
        band = int(np.clip(last_shell_above(maps.fsc, _SEEN), _LOWEST_BAND, box // 2 - 1))
    grid = BandGrid(box, comm.bcast(band), _PAD)
    shared = comm.shared_array((2, *grid.fourier_shape), np.complex64)
    if maps is not None:
        shared.writable[:] = _references(grid, maps, radius_px)
    shared.publish()
    rotations = relion_matrices(table.angles_deg)
    chunks = cut_chunks(np.ones(len(table)), _CHUNK)
    dealt = deal_chunks([stop - first for first, stop in chunks], comm.size)
    own = [np.zeros((0, 2))]
    with together(comm), ImageReader(table) as reader:
        for first, stop in (chunks[number] for number in dealt[comm.rank]):
            comm.beat()
            rows = np.arange(first, stop)
            data = load_band(
                replace(table, shifts_px=start_px), rows, rotations[rows], grid.radius, reader.read,
                particle_radius_px=radius_px,
            )  # fmt: skip
            own.append(start_px[rows] + _best_shifts(data, shared.array, half[rows], box, limit_px))
    found = comm.allgather_rows(np.concatenate(own), row_counts(chunks, dealt))
    shared.free()
    for which in (0, 1):
        rows = np.flatnonzero(half == which)
        found[rows] -= _common(rotations[rows], found[rows] - start_px[rows])
    return found


def _references(grid: BandGrid, maps: GroupMaps, radius_px: int) -> npt.NDArray[np.complex64]:
    """Both half-maps as Fourier volumes, masked, filtered to what the FSC of the halves promises of each."""
    assert maps.half1 is not None
    assert maps.half2 is not None
    assert maps.fsc is not None
    mask = soft_sphere(grid.distance * grid.size, radius_px, _EDGE_PX)
    weight = np.sqrt(np.clip(maps.fsc, 0.0, 1.0)).astype(np.float32)
    weight[0] = 1.0
    volumes = grid.to_fourier(np.stack([maps.half1 * mask, maps.half2 * mask]))
    return np.asarray(volumes * grid.shell_fill(weight), np.complex64)


def _best_shifts(
    data: BandData, volumes: npt.NDArray[np.complex64], half: npt.NDArray[np.int64], box: int, limit_px: float
) -> Floats:
    """Shifts (n, 2) as (x, y) in pixels that centre images best, at most ``limit_px`` from 0."""
    sections = np.empty_like(data.images)
    for which in (0, 1):
        chosen = half == which
        sections[chosen] = extract_sections(
            volumes[which], np.ascontiguousarray(data.rotations[chosen]), data.px, data.py, _PAD
        )
    power = np.mean(np.abs(data.images) ** 2, axis=0, dtype=np.float64)
    count = np.bincount(data.shell)
    level = np.bincount(data.shell, power) / np.maximum(count, 1)
    weight = (1.0 / np.maximum(level, 1e-30))[data.shell].astype(np.float32)
    spectrum = np.zeros((len(data), box, box // 2 + 1), np.complex64)
    ky, kx = data.py.astype(np.int64) % box, data.px.astype(np.int64)
    # conjugate of the image times its expectation: its transform is their correlation by the image's shift
    spectrum[:, ky, kx] = np.conj(data.images) * sections * data.ctfs * weight
    # of the column kx = 0 the data hold one half
    opposite = kx == 0
    spectrum[:, -ky[opposite] % box, 0] = np.conj(spectrum[:, ky[opposite], 0])
    correlation = scipy.fft.irfft2(spectrum, s=(box, box))
    return np.array([_peak(one, limit_px) for one in correlation]).reshape(-1, 2)


def _peak(correlation: npt.NDArray[np.float32], limit_px: float) -> Floats:
    """Place (x, y) of the highest value within the limit of the origin, between pixels by a parabola each way."""
    box = len(correlation)
    offset = np.fft.fftfreq(box, 1.0 / box)
    inside = offset[:, None] ** 2 + offset**2 <= limit_px**2
    y, x = np.unravel_index(int(np.argmax(np.where(inside, correlation, -np.inf))), correlation.shape)
    column, row = correlation[:, x], correlation[y]
    return np.array([offset[x] + _vertex(row, int(x)), offset[y] + _vertex(column, int(y))])


def _vertex(line: npt.NDArray[np.float32], place: int) -> float:
    before, top, after = (float(line[(place + step) % len(line)]) for step in (-1, 0, 1))
    bend = before - 2.0 * top + after
    # at the rim of the search the neighbour may be higher
    return 0.0 if bend >= 0 else float(np.clip((before - after) / (2.0 * bend), -0.5, 0.5))


def _common(rotations: Floats, moved_px: Floats) -> Floats:
    """Part (n, 2) of shifts that one shift of the map in space explains, by least squares."""
    design = rotations[:, :2].reshape(-1, 3)
    shift = np.linalg.lstsq(design, moved_px.reshape(-1), rcond=None)[0]
    return np.asarray((design @ shift).reshape(-1, 2))
