"""How much memory a sort will need on a node, before it starts, and what to do where that is too much.

benchmarks/memory.py compares the estimate with what sorts have used. Three things are not known before and assumed: the
FSC reaches the end of the band, the first number of components that is tried is enough, and there are five groups.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from hpcsort.errors import InputError
from hpcsort.io import ParticleTable
from hpcsort.parallel import Communicator, node_memory_GB, together
from hpcsort.sort3d._footprint import Footprint
from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.problem import _WIDE, _band_limit

__all__ = ["MemoryEstimate", "MemoryPlan", "estimate_memory", "plan_memory"]

_SHARED_BYTES, _RANK_BYTES = 95e6, 160e6
"""Libraries once a node; in each rank Python, what libraries need, and what its heap keeps of arrays given back."""
_TIMES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""How many times as many nodes are tried as a cure."""
_LEAST_WINDOW = 12


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one node in GB of 10^9 bytes.

    Attributes
    ----------
    ranks_on_node : number of ranks that share it.
    makers : of these, the number that make the final maps.
    groups : number of groups that the estimate assumes.
    libraries : Python, libraries and the particle table, in every rank.
    images : band-limited particles, for the subspace and for map space.
    poses : images of all poses, where they are made once.
    consensus : what reading and whitening need besides.
    learning : latents, covariances and voxel sums of all chains that learn subspaces.
    statistics : (b, M) of every particle, held once, and mixtures of them.
    volumes : class maps and scores while chains are finished in map space.
    final_maps : full-size sums and maps.
    """

    ranks_on_node: int
    makers: int
    groups: int
    libraries: float
    images: float
    poses: float
    consensus: float
    learning: float
    statistics: float
    volumes: float
    final_maps: float

    @property
    def total(self) -> float:
        """Peak: what is held throughout, and the largest of the phases that follow each other."""
        phases = self.consensus, self.learning, self.statistics, self.volumes, self.final_maps
        return self.libraries + self.images + self.poses + max(phases)

    def lines(self) -> list[str]:
        """Short table for the log."""
        names = [field.name for field in fields(self)[3:]]
        throughout, phases = names[:3], names[3:]
        largest = max(phases, key=lambda name: float(getattr(self, name)))

        def listed(chosen: list[str]) -> str:
            return ", ".join(
                f"{name.replace('_', ' ')} {getattr(self, name):.2f}{' (largest)' if name == largest else ''}"
                for name in chosen
            )

        ranks = f"{self.ranks_on_node} rank{'s' if self.ranks_on_node > 1 else ''}"
        lines = [
            f"Memory of a node with {ranks}, estimated: {self.total:.2f} GB, if the whole band is good and "
            f"{self.groups} group{'s are' if self.groups > 1 else ' is'} found.",
            f"  throughout: {listed(throughout)} GB",
            f"  one after the other: {listed(phases)} GB",
        ]
        if self.makers < self.ranks_on_node:
            lines.append(f"  final maps are made by {self.makers} of the ranks of a node, because they are large.")
        return lines


@dataclass(frozen=True)
class MemoryPlan:
    """How a sort fits into its nodes.

    Attributes
    ----------
    options : with ``compute_on_the_fly`` where the images of all poses do not fit.
    makers : number of ranks of a node that make the final maps.
    sentences : for the log.
    """

    options: SortOptions
    makers: int
    sentences: list[str]


def estimate_memory(
    table: ParticleTable,
    options: SortOptions,
    ranks: int,
    ranks_on_node: int,
    groups: int | None = None,
    reach: int | None = None,
    makers: int | None = None,
) -> MemoryEstimate:
    """Estimate the peak memory of a node.

    Parameters
    ----------
    table : particles, smears limited as they will be used.
    options : of the sort.
    ranks, ranks_on_node : in all, and on the node.
    groups : number of groups that will be found; None assumes five, or fewer where there is no room for them.
    reach : shell to which the consensus is good; None assumes the end of the band.
    makers : number of ranks of the node that make final maps; None is all.
    """
    return _Planner(table).estimate(options, ranks, ranks_on_node, groups, reach, makers)


def plan_memory(table: ParticleTable, options: SortOptions, comm: Communicator) -> MemoryPlan:
    """Decide who makes final maps, whether images of all poses are kept, and whether the sort fits. Collective.

    Raises
    ------
    InputError
        On every rank alike, if the sort does not fit even so.
    """
    on_node = int(comm.max(comm.node_size))
    has = -float(comm.max(-node_memory_GB()))
    plan: MemoryPlan | None = None
    with together(comm):
        if comm.is_root:
            plan = _Planner(table).decide(options, comm.size, on_node, has)
    decided: MemoryPlan = comm.bcast(plan)
    return decided


class _Planner:
    """Estimates for one table under several settings."""

    def __init__(self, table: ParticleTable) -> None:
        self._table = table
        self._table_bytes = _table_bytes(table)

    def estimate(
        self,
        options: SortOptions,
        ranks: int,
        ranks_on_node: int,
        groups: int | None = None,
        reach: int | None = None,
        makers: int | None = None,
    ) -> MemoryEstimate:
        """See `estimate_memory`."""
        makers = ranks_on_node if makers is None else min(makers, ranks_on_node)
        sort = Footprint.of(self._table, options, ranks, ranks_on_node, groups, reach)
        maps, on_root = sort.final_maps()
        rank = {
            "libraries": _RANK_BYTES + self._table_bytes,
            "images": sort.images(),
            "poses": sort.poses(),
            "consensus": sort.consensus(),
            "learning": sort.learning(),
            "statistics": sort.statistics(),
            "volumes": sort.volumes(),
            "final_maps": maps,
        }
        node = {name: ranks_on_node * value for name, value in rank.items()}
        node["libraries"] += _SHARED_BYTES
        node["final_maps"] = makers * maps + on_root
        return MemoryEstimate(ranks_on_node, makers, sort.groups, **{name: value / 1e9 for name, value in node.items()})

    def fitting(self, options: SortOptions, ranks: int, on_node: int, allowed: float) -> MemoryEstimate:
        """Estimate with as many ranks making final maps as memory allows; with one where it allows for none."""
        for makers in range(on_node, 0, -1):
            found = self.estimate(options, ranks, on_node, makers=makers)
            if found.total <= allowed:
                break
        return found

    def decide(self, options: SortOptions, ranks: int, on_node: int, has: float) -> MemoryPlan:
        """See `plan_memory`; ``has`` is the memory of a node in GB."""
        given = has if options.memory_per_node is None else options.memory_per_node
        allowed = max(given - options.overhead, 0.0)
        whence = "what it has" if options.memory_per_node is None else "--memory-per-node"
        limit = f"{allowed:.2f} GB may be used ({given:.2f} GB, {whence}, less {options.overhead:g} GB, --overhead)"
        found = self.fitting(options, ranks, on_node, allowed)
        if found.total <= allowed:
            last = [f"  of the node, {limit}."] if np.isfinite(allowed) else []
            return MemoryPlan(options, found.makers, [*found.lines(), *last])
        if self._table.smears is not None and not options.compute_on_the_fly:
            smaller = replace(options, compute_on_the_fly=True)
            less = self.fitting(smaller, ranks, on_node, allowed)
            if less.total <= allowed:
                switched = (
                    f"Images of all poses, made once, would take {found.total:.2f} GB on a node, of which {limit}; "
                    "they are made each time they are needed (--compute-on-the-fly)."
                )
                return MemoryPlan(smaller, less.makers, [switched, *less.lines()])
            options, found = smaller, less
        seated = f"{on_node} rank{'s' if on_node > 1 else ''}"
        raise InputError(
            f"the sort would take about {found.total:.2f} GB on a node with {seated}, of which {limit}; "
            f"{', or '.join(self._cures(options, ranks, on_node, allowed))}."
        )

    def _cures(self, options: SortOptions, ranks: int, on_node: int, allowed: float) -> list[str]:
        """Say what would make the sort fit, with numbers that do."""

        def fits(one: SortOptions, all_ranks: int, here: int) -> bool:
            return self.fitting(one, all_ranks, here, allowed).total <= allowed

        nodes, box = -(-ranks // on_node), self._table.box_px
        assert box is not None
        window = 2 * (_band_limit(options, box, options.radius_px(box), _WIDE) + 1)
        fewer = next((n for n in range(on_node - 1, 0, -1) if fits(options, n * nodes, n)), None)
        more = next((n * nodes for n in _TIMES if fits(options, n * ranks, on_node)), None)
        windows = range(window - 2, _LEAST_WINDOW - 1, -2)
        narrower = next((n for n in windows if fits(replace(options, nxinit=n), ranks, on_node)), None)
        cures = []
        if fewer is not None:
            cures.append(f"start at most {fewer} rank{'s' if fewer > 1 else ''} a node")
        if more is not None:
            cures.append(f"use {more} nodes of as many ranks")
        if narrower is not None:
            cures.append(f"give --nxinit {narrower}")
        return cures or ["use nodes with more memory, or fewer particles"]


def _table_bytes(table: ParticleTable) -> float:
    """Memory of a particle table: arrays, smears, and the input's columns."""
    parts = [value for part in (table, table.smears) if part is not None for value in vars(part).values()]
    arrays = sum(value.nbytes for value in parts if isinstance(value, np.ndarray))
    return float(arrays + table.frame.memory_usage(deep=True).sum())
