"""Small synthetic problems for the tests of sort3d: smooth phantoms, exact sections, ranks that are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from small_chunks import deal_small_chunks

from hpcsort.checkpoints import no_journal
from hpcsort.images import BandData, half_plane
from hpcsort.optics import ctf
from hpcsort.parallel import Communicator, SerialComm
from hpcsort.simulation import SectionMaker
from hpcsort.sort3d import SortOptions
from hpcsort.sort3d.problem import Band
from hpcsort.sort3d.statistics import Statistics
from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import NUISANCES, nuisance_maps
from hpcsort.sort3d.task import Task
from hpcsort.volumes import BandGrid, soft_sphere

SIZE, RADIUS = 24, 7
"""Edge of the maps and band limit of the synthetic problems."""


def small_grid() -> BandGrid:
    return BandGrid(SIZE, RADIUS)


def blobs(size: int, seed: int, count: int = 12, spread: float = 5.0, width: float = 2.0) -> np.ndarray:
    """Density [z, y, x] of Gaussian blobs around the centre at size // 2."""
    draw = np.random.default_rng(seed)
    axis = np.arange(size) - size // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((size,) * 3)
    for cx, cy, cz in draw.uniform(-spread, spread, (count, 3)) * 0.8:
        height = draw.uniform(0.5, 1.5)
        volume += height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * width**2))
    return volume.astype(np.float32)


def views(count: int, seed: int) -> np.ndarray:
    return np.asarray(Rotation.random(count, random_state=np.random.default_rng(seed)).as_matrix())


def exact_sections(volume: np.ndarray, rotations: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Sections in the units of the kernels, by a method that shares no code with them."""
    maker, (px, py) = SectionMaker(volume), half_plane(radius)
    return np.stack([maker.section(matrix, px, py) for matrix in rotations]) / len(volume)


def transfer(count: int, seed: int, radius: int = RADIUS, size: int = SIZE) -> np.ndarray:
    """CTFs of some defoci, float32 (count, P)."""
    px, py = half_plane(radius)
    defocus = np.random.default_rng(seed).uniform(8000, 20000, count)
    same = np.ones(count)
    return np.asarray(
        ctf(px, py, size, 10.0 * same, defocus, defocus - 300.0, 20.0 * same, 300.0 * same, 2.7 * same, 0.1 * same),
        np.float32,
    )


def noise(count: int, seed: int, radius: int = RADIUS) -> np.ndarray:
    """White noise of variance 1 a complex pixel."""
    draw, pixels = np.random.default_rng(seed), half_plane(radius)[0].size
    return (draw.normal(size=(count, pixels)) + 1j * draw.normal(size=(count, pixels))) / np.sqrt(2)


def band_data(images: np.ndarray, ctfs: np.ndarray, rotations: np.ndarray, radius: int = RADIUS) -> BandData:
    px, py = half_plane(radius)
    return BandData(
        px=px,
        py=py,
        images=np.ascontiguousarray(images, np.complex64),
        ctfs=np.ascontiguousarray(ctfs, np.float32),
        rotations=np.ascontiguousarray(rotations, np.float32),
        groups=np.zeros(len(images), np.int64),
        radius=radius,
    )


def make_store(data: BandData, comm: Communicator | None = None) -> ParticleStore:
    """Store of one rank's share of ``data``, which holds all particles, in several chunks."""
    comm = comm or SerialComm()
    chunks, dealt = deal_small_chunks(len(data), comm)
    store = ParticleStore(comm, len(data), chunks, dealt[comm.rank], data)
    return store.with_data(data.rows(store.positions))


class ThreadComm(SerialComm):
    """One of several ranks that are threads of this process."""

    def __init__(self, rank: int, shared: list[Any], barrier: threading.Barrier) -> None:
        super().__init__()
        self.rank, self.size = rank, len(shared)
        self._shared, self._barrier = shared, barrier

    def allgather(self, obj: Any) -> list[Any]:
        self._shared[self.rank] = obj
        self._barrier.wait()
        told = list(self._shared)
        self._barrier.wait()
        return told

    def bcast(self, obj: Any, root: int = 0) -> Any:
        return self.allgather(obj)[root]

    def sum_exact(self, array: np.ndarray) -> np.ndarray:
        parts = self.allgather(array.copy())
        # Backwards: an exact sum must not mind.
        array[...] = sum(parts[::-1])
        return array

    def max(self, value: Any) -> Any:
        return max(self.allgather(value))

    def allgather_rows(self, local: np.ndarray, counts: Sequence[int] | None = None) -> np.ndarray:
        return np.concatenate(self.allgather(local))

    def share(self, array: np.ndarray | None, root: int = 0) -> np.ndarray:
        told: np.ndarray = self.allgather(array)[root]
        return told


def on_ranks(ranks: int, work: Callable[[Communicator], Any]) -> list[Any]:
    """Run ``work(comm)`` on so many threads and return what each of them returned."""
    shared, barrier = [None] * ranks, threading.Barrier(ranks, timeout=60)
    results: list[Any] = [None] * ranks
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadComm(rank, shared, barrier))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return results


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle between two real arrays."""
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def lump(place: tuple[float, float, float], height: float = 1.0, width: float = 1.8) -> np.ndarray:
    """One Gaussian at (x, y, z) voxels from the centre, float32 [z, y, x]."""
    axis = np.arange(SIZE) - SIZE // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance2 = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
    return np.asarray(height * np.exp(-distance2 / (2 * width**2)), np.float32)


def small_band(store: ParticleStore, consensus: np.ndarray) -> Band:
    """Band of residuals from a known map, on the small grid."""
    grid = small_grid()
    mask = soft_sphere(grid.distance, 0.4, 0.06)
    power = np.maximum(grid.shell_mean(np.abs(grid.to_fourier(consensus)) ** 2), 1e-6)
    power[0], power[-1] = power[1], power[-2]
    blank = Band(store, grid, mask, mask, np.zeros((NUISANCES, *grid.fourier_shape), np.complex64), power)
    maps = nuisance_maps(grid, consensus, mask) * blank.start().spread[:, None, None, None]
    return replace(blank, fixed=grid.to_fourier(maps.astype(np.float32)))


def small_task(
    data: BandData,
    consensus: np.ndarray,
    comm: Communicator | None = None,
    *,
    known: np.ndarray | None = None,
    empty: np.ndarray | None = None,
    floors: tuple[float, ...] = (0.05,),
    told: list[str] | None = None,
    **options: Any,
) -> Task:
    """Task of sorting residuals, with what the engines ask of its problem."""
    store, count = make_store(data, comm), len(data)
    band = small_band(store, consensus)
    given = {"components": 2, "seed": 5} | options
    problem = SimpleNamespace(
        journal=no_journal(),
        options=SortOptions(instack=Path("x.star"), output_dir=Path("out"), **given),
        comm=store.comm,
        count=count,
        image=np.arange(count),
        table=SimpleNamespace(box_px=SIZE),
        narrow=band,
        wide=band,
        orientation=np.zeros(count, np.int64),
        empty=np.zeros(count) if empty is None else empty,
    )
    hear = told.append if told is not None else (lambda note: None)
    return Task(problem, 0, np.full(count, -1) if known is None else known, floors, hear)  # type: ignore[arg-type]


def two_states(count: int, strength: float, seed: int = 0) -> tuple[BandData, np.ndarray]:
    """Residuals of two states from their mean, which differ by `DIFFERENCE` times ``strength``, and the states."""
    rotations, ctfs = views(count, seed + 3), transfer(count, seed + 4)
    state = np.random.default_rng(seed + 5).permutation(count) % 2
    signal = (state - 0.5)[:, None] * strength * exact_sections(DIFFERENCE, rotations)
    return band_data(ctfs * signal + noise(count, seed + 6), ctfs, rotations), state


DIFFERENCE = lump((4.0, -3.0, 2.0), 1.2)
"""What the second of `two_states` has and the first lacks."""


CENTRES = np.array([[3.0, 0.0], [-3.0, 1.0], [0.0, -3.0]])
"""Where `seen_at_centres` has its particles."""


def seen_at_centres(
    sizes: tuple[int, ...], seed: int = 0, sharpness: float = 4.0, centres: np.ndarray = CENTRES
) -> tuple[Statistics, np.ndarray]:
    """Particles at points of a plane, each seen with a precision of its own, and their true classes."""
    draw = np.random.default_rng(seed)
    state = np.repeat(np.arange(len(sizes)), sizes)
    root = np.sqrt(sharpness) * (np.eye(2) + 0.3 * draw.normal(size=(len(state), 2, 2)))
    precision = root @ root.transpose(0, 2, 1)
    linear = np.einsum("nab,nb->na", precision, centres[state]) + np.einsum(
        "nab,nb->na", root, draw.normal(size=(len(state), 2))
    )
    return Statistics(linear, precision), state
