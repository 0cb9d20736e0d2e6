"""Small synthetic problems for the tests of sort3d: smooth phantoms, exact sections, ranks that are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from hpcsort.images import BandData, half_plane
from hpcsort.optics import ctf
from hpcsort.parallel import Communicator, SerialComm
from hpcsort.simulation import SectionMaker
from hpcsort.sort3d.store import ParticleStore, deal_particles
from hpcsort.volumes import BandGrid

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
    """Store of one rank's share of ``data``, which holds all particles."""
    comm = comm or SerialComm()
    chunks, dealt = deal_particles(len(data), comm)
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
