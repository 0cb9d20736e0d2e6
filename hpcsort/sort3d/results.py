"""What is written at the end of a sort: lists, tables, maps, generations, statistics, run.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcsort.reconstruction import GroupMaps, write_group_maps
from hpcsort.sort3d.covariates import write_group_statistics
from hpcsort.sort3d.folders import write_generations, write_master_files
from hpcsort.sort3d.generations import Sorting
from hpcsort.sort3d.outputs import write_clusters, write_run, write_table
from hpcsort.sort3d.problem import Problem
from hpcsort.sort3d.support import NullLevels, Support, write_null

__all__ = ["Group", "Particles", "core_rows", "describe_groups", "particles_by_row", "write_results"]


@dataclass(frozen=True)
class Group:
    """A reproducible group.

    Attributes
    ----------
    size : number of particles.
    generation : in which it was found, from 0.
    reproducibility, chance_mean, chance_std, p : Jaccard score of independent chains against chance.
    resolution_A : of its final map, FSC 0.143.
    """

    size: int
    generation: int
    reproducibility: float
    chance_mean: float
    chance_std: float
    p: float
    resolution_A: float


@dataclass(frozen=True)
class Particles:
    """What is known of each particle, by the row of the table; bad images have zeros."""

    labels: np.ndarray
    agreeing: np.ndarray
    probability: np.ndarray
    junk: np.ndarray


def particles_by_row(problem: Problem, sorting: Sorting) -> Particles:
    """Put what the sort knows in the order of the table."""
    count = len(problem.table)
    labels, agreeing, junk = np.full(count, -1, np.int64), np.zeros(count), np.zeros(count)
    probability = np.zeros((count, sorting.probability.shape[1]))
    labels[problem.rows] = sorting.labels
    agreeing[problem.rows] = sorting.agreeing
    probability[problem.rows] = sorting.probability
    junk[problem.rows] = sorting.junk
    return Particles(labels, agreeing, probability, junk)


def core_rows(problem: Problem, labels: np.ndarray) -> np.ndarray:
    """Return the rising table rows of unaccounted particles whose images are good."""
    return np.sort(problem.rows[labels[problem.rows] < 0])


def describe_groups(sorting: Sorting, labels: np.ndarray, resolutions: list[float]) -> list[Group]:
    """Join sizes, statistics and resolutions of all groups."""
    return [
        Group(
            int((labels == index).sum()), sorting.origin[index], sorting.reproducibility[index],
            sorting.chance_mean[index], sorting.chance_std[index], sorting.p[index], resolutions[index],
        )
        for index in range(len(sorting.origin))
    ]  # fmt: skip


def write_results(
    problem: Problem,
    sorting: Sorting,
    particles: Particles,
    maps: list[GroupMaps],
    groups: list[Group],
    seconds: dict[str, float],
    memory: float,
    null: tuple[NullLevels, Support] | None,
    inputs: dict[str, dict[str, Any]],
) -> list[str]:
    """Write all results into the output folder; rank 0.

    Returns
    -------
    Warnings about the groups, one sentence each.
    """
    options, table = problem.options, problem.table
    folder = options.output_dir
    labels = particles.labels
    write_clusters(folder, labels, core_rows(problem, labels), sorting.origin)
    own = [labels == index for index in range(len(groups))]
    probability = np.where(labels >= 0, particles.probability.max(axis=1, initial=0.0), 0.0)
    for index, members in enumerate(own):
        probability[members] = particles.probability[members, index]
    write_table(folder, table, labels, particles.agreeing, probability, particles.probability, particles.junk)
    for index, group_maps in enumerate(maps):
        stem = f"vol_cluster{index:03d}" if index < len(groups) else "volume_core"
        write_group_maps(folder, stem, group_maps, table.pixel_size_A, map_format=options.map_format)
    write_generations(
        folder,
        sorting.generations,
        problem.rows,
        include_unaccounted=options.include_unaccounted,
        frequencies=[table.pixel_size_A / group.resolution_A for group in groups],
        seed=options.seed,
    )
    fsc = problem.consensus.fsc[: problem.consensus.grid.radius + 1]
    write_master_files(folder, table, problem.rows, problem.half, fsc, labels, core_has_map=len(maps) > len(groups))
    warnings = write_group_statistics(folder, table, problem.rows, labels[problem.rows], options.operators())
    results: dict[str, Any] = {
        "particles": len(table),
        "accounted": int((labels >= 0).sum()),
        "bad_images": [image.describe() for image in problem.bad],
        "warnings": warnings,
        "null": None if null is None else write_null(folder, *null),
        "groups": [{key: _plain(value) for key, value in vars(group).items()} for group in groups],
        "held_out": [
            {
                "generation": generation.number,
                "before_finishing": generation.held,
                "after_finishing": generation.finished,
                "chosen": generation.classes,
            }
            for generation in sorting.generations
        ],
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "peak_memory_GB_of_a_node": round(memory, 3),
    }
    write_run(folder, options, problem.comm.size, inputs, results)
    return warnings


def _plain(value: float) -> float | None:
    """JSON has no infinity: an unknown resolution is null."""
    return value if np.isfinite(value) else None
