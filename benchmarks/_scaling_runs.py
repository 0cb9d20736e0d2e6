"""One measured sort, condensed for the model."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from types import SimpleNamespace
from typing import Any, cast

from _scaling_bytes import Course, expected_bytes
from _scaling_count import PARTICLES, SERIAL, TASKS

from hpcsort.parallel import Communicator
from hpcsort.sort3d.store import deal_particles

__all__ = ["Run", "largest_share", "run_of"]

_BYTES_A_PIXEL = 12
"""A complex64 pixel and its float32 CTF."""


@dataclass(frozen=True)
class Run:
    """One measured sort.

    Attributes
    ----------
    ranks, nodes, particles, pixels : of the sort; Fourier pixels of a particle.
    depth : layer 0 of the tree has 2^depth boxes of two chains.
    seconds, sorting : wall time of all, and between reading and the final maps.
    work : kind of work -> CPU seconds: of the rank that has most (particles, tasks), of rank 0 (serial).
    blocks : blocks of particles that all ranks have visited.
    tasks : tasks of all ranks in every fit of mixtures.
    calls : collectives.
    expected, counted : payload by collective, by the model's table and counted.
    triad : bytes/s of a node with all its ranks at work.
    exchange_s, sum_s, sum_bytes : a small exchange, and a sum of so many bytes, of the same ranks.
    sent : bytes over the network interface, None if not watched.
    crowded : a machine had more ranks than cores; its times are not used.
    """

    ranks: int
    nodes: int
    particles: int
    pixels: int
    depth: int
    seconds: float
    sorting: float
    work: dict[str, float]
    blocks: int
    tasks: list[int]
    calls: int
    expected: dict[str, float]
    counted: dict[str, float]
    triad: float
    exchange_s: float
    sum_s: float
    sum_bytes: float
    sent: int | None = None
    crowded: bool = False

    @property
    def per_node(self) -> int:
        """Ranks of a node."""
        return ceil(self.ranks / self.nodes)

    @property
    def chains(self) -> int:
        """Chains of the widest layer."""
        return 2 << self.depth

    @property
    def busy(self) -> float:
        """CPU seconds of the longest way through the run, waiting left out."""
        return sum(self.work.values())

    @property
    def streamed(self) -> float:
        """Bytes of images and CTFs that all passes read, at most: every block is taken to use all its particles."""
        chunks, _ = _deal(self.particles, 1)
        return self.blocks * self.particles / len(chunks) * self.pixels * _BYTES_A_PIXEL


def run_of(result: dict[str, Any], course: Course) -> Run:
    """Condense what `_scaling_run.py` wrote."""
    ranks, probe = result["by_rank"], result["probe"]
    counted: dict[str, float] = {}
    for number, rank in enumerate(ranks):
        for _, name, _, size, _ in rank["calls"]:
            if number == 0 or name != "sum_exact":
                counted[name] = counted.get(name, 0.0) + size
    expected = expected_bytes(ranks[0]["calls"], course)
    for name in ("max", "allgather"):
        expected[name] = expected.get(name, 0.0) * len(ranks)
    work = {kind: max(rank["local"][kind] for rank in ranks) for kind in (PARTICLES, TASKS)}
    return Run(
        ranks=len(ranks),
        nodes=result["nodes"],
        particles=result["particles"],
        pixels=course.pixels,
        depth=course.depth,
        seconds=result["seconds"],
        sorting=result["sorting"],
        work={**work, SERIAL: ranks[0]["local"][SERIAL]},
        blocks=sum(rank["blocks"] for rank in ranks),
        tasks=[sum(one) for one in zip(*(rank["tasks"] for rank in ranks), strict=True)],
        calls=sum(int(call[2]) for call in ranks[0]["calls"]),
        expected=expected,
        counted=counted,
        triad=probe["triad"],
        exchange_s=probe["exchange_s"],
        sum_s=probe["sum_s"],
        sum_bytes=probe["sum_bytes"],
        sent=result["sent"],
        crowded=result["crowded"],
    )


def largest_share(particles: int, ranks: int) -> float:
    """Largest share of the particles that one of the ranks is dealt."""
    chunks, dealt = _deal(particles, ranks)
    return max(sum(chunks[index][1] - chunks[index][0] for index in own) for own in dealt) / particles


def _deal(particles: int, ranks: int) -> tuple[list[tuple[int, int]], list[list[int]]]:
    return deal_particles(particles, cast(Communicator, SimpleNamespace(size=ranks)))
