"""The particles of a sort, distributed over ranks in fixed blocks whose sums do not depend on the number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from hpcsort.images import BandData, SmearedData
from hpcsort.kernels import aligned_empty
from hpcsort.parallel import Communicator, ExactSum, cut_chunks, deal_chunks

__all__ = ["Block", "ParticleStore", "deal_particles", "exact_total", "sum_and_solve"]

Result = TypeVar("Result")

_MOST_POSES = 1 << 14
"""Poses of a chunk: its images are made all at once where they are not kept."""


@dataclass(frozen=True)
class Block:
    """Some consecutive particles of one rank.

    Attributes
    ----------
    local : rows of the rank's own data.
    positions : rows in the order of the whole sort (by view direction).
    """

    local: slice
    positions: slice


def deal_particles(
    count: int, comm: Communicator, cost: np.ndarray | None = None
) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Cut ``count`` ordered particles into chunks and deal them; chunks depend on ``count`` and ``cost`` alone.

    ``cost`` is the number of poses of each particle, int (count,); None for one each.

    The chunk is also the unit of float32 summation, so its size balances rounding and the cost of the exact sum
    (one pass over a volume a chunk) against having enough chunks for all ranks.
    """
    target = int(np.clip(-(-count // 24), 256, 1024))
    if cost is None:
        cost = np.ones(count)
    elif count:
        cost = cost.astype(np.float64)
        target = min(int(target * max(cost.mean(), 1.0)), _MOST_POSES)
    chunks = cut_chunks(cost, target)
    dealt = deal_chunks([cost[start:stop].sum() for start, stop in chunks], comm.size)
    return chunks, dealt


@dataclass(frozen=True)
class ParticleStore:
    """What one rank holds of all particles.

    Attributes
    ----------
    comm : communicator.
    count : number of particles of the sort.
    chunks : (start, stop) of every chunk, in sort order.
    mine : chunks of this rank, consecutive.
    data : Fourier data of this rank's particles.
    """

    comm: Communicator
    count: int
    chunks: list[tuple[int, int]]
    mine: list[int]
    data: BandData | SmearedData

    @property
    def positions(self) -> slice:
        """Particles of this rank, in sort order."""
        if not self.mine:
            return slice(0, 0)
        return slice(self.chunks[self.mine[0]][0], self.chunks[self.mine[-1]][1])

    def blocks(self) -> Iterator[Block]:
        """Blocks of this rank, in sort order."""
        first = self.positions.start
        for index in self.mine:
            start, stop = self.chunks[index]
            self.comm.beat()
            yield Block(slice(start - first, stop - first), slice(start, stop))

    def with_data(self, data: BandData | SmearedData) -> ParticleStore:
        """Return the same particles with other Fourier data (smaller band, residuals)."""
        return replace(self, data=data)

    def restricted(self, chosen: np.ndarray) -> ParticleStore:
        """Only the particles where the global bool array ``chosen`` (count,) is set; chunks shrink, owners stay."""
        before = np.concatenate([[0], np.cumsum(chosen)])
        chunks = [(int(before[start]), int(before[stop])) for start, stop in self.chunks]
        data = self.data.rows(np.flatnonzero(chosen[self.positions]))
        return replace(self, count=int(before[-1]), chunks=chunks, data=data)

    def gathered(self, local: np.ndarray) -> np.ndarray:
        """Join per-particle rows of all ranks in sort order, on every rank."""
        return self.comm.allgather_rows(local)

    def own_rows(self, gathered: np.ndarray) -> np.ndarray:
        """Return this rank's rows of what `gathered` has joined."""
        return gathered[self.positions]

    def sum_blocks(self, shape: tuple[int, ...], bound: float, fill: Callable[[Block, np.ndarray], None]) -> np.ndarray:
        """Exact sum over all blocks of all ranks of what ``fill`` adds to a zeroed float32 array.

        ``bound`` is an upper limit of the absolute value of any element of the total and the same on every rank.
        The result is float64 and has the same bits for every number of ranks.
        """
        total = ExactSum(shape, bound)
        scratch = aligned_empty(shape, np.float32)
        scratch[...] = 0
        for block in self.blocks():
            fill(block, scratch)
            total.add(scratch, clear=True)
        total.join(self.comm)
        return total.total

    def total(self, per_particle: np.ndarray) -> np.ndarray:
        """Exact sum over all particles of a rank's per-particle rows (n_local, ...), float64."""
        sums = [np.asarray(per_particle[block.local], np.float64).sum(axis=0) for block in self.blocks()]
        return exact_total(self.comm, sums, per_particle.shape[1:], len(self.chunks))

    @property
    def pixel_limit(self) -> float:
        """What no pixel of an image, nor the sum of one with a CTF, exceeds on any rank. Collective the first time."""
        known = self.__dict__.get("_pixel_limit")
        if known is None:
            known = self.largest(self.data.peak) + self.largest(self.data.ctfs) + 1.0
            # Not `cached_property`: before Python 3.12 ranks that are threads would wait for its lock and each other.
            object.__setattr__(self, "_pixel_limit", known)
        return float(known)

    def largest(self, per_particle: np.ndarray) -> float:
        """Largest absolute value over all particles and ranks."""
        own = max((float(np.abs(per_particle[block.local]).max(initial=0)) for block in self.blocks()), default=0.0)
        return float(self.comm.max(own))


def exact_total(comm: Communicator, blocks: list[np.ndarray], shape: tuple[int, ...], count: int) -> np.ndarray:
    """Sum arrays of all ranks so that the bits do not depend on who holds which; ``count`` arrays in all."""
    own = max((float(np.abs(block).max(initial=0)) for block in blocks), default=0.0)
    total = ExactSum(shape, float(comm.max(own)) * count + 1e-300)
    for block in blocks:
        total.add(block)
    total.join(comm)
    return total.total


def sum_and_solve(
    comm: Communicator, count: int, make_sum: Callable[[int], np.ndarray], solve: Callable[[int, np.ndarray], Result]
) -> list[Result | None]:
    """Make ``count`` sums one after another, and solve each on one rank. Collective.

    Parameters
    ----------
    make_sum : makes the sum of an index; collective, all ranks get it.
    solve : makes of the sum what is wanted; called on rank ``index % comm.size`` only.

    Returns
    -------
    The solutions on the rank that made them, None elsewhere. A rank holds one sum at a time, and one that it solves
    while the others solve theirs.
    """
    solved: list[Result | None] = [None] * count
    for first in range(0, count, comm.size):
        mine: np.ndarray | None = None
        for index in range(first, min(first + comm.size, count)):
            total = make_sum(index)
            if index % comm.size == comm.rank:
                mine = total
            del total
        if mine is not None:
            solved[first + comm.rank] = solve(first + comm.rank, mine)
    return solved
