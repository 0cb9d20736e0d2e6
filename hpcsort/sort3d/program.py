"""The program sort3d: reads, sorts, reconstructs, writes, and tells the story."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hpcsort.checkpoints import CHECKPOINTS, Job, open_job, resume_run
from hpcsort.io import write_map
from hpcsort.parallel import (
    Communicator,
    Progress,
    Stage,
    StoryLog,
    chosen_ranks,
    peak_memory_of_node_GB,
    together,
)
from hpcsort.reconstruction import GroupMaps, reconstruct_groups
from hpcsort.report import end_with_report
from hpcsort.sort3d.autofocus import ball_places, find_focus
from hpcsort.sort3d.engine import FINISH_ITERATIONS
from hpcsort.sort3d.generations import Sorting, sort_generations
from hpcsort.sort3d.learning import SUBSPACE_ITERATIONS
from hpcsort.sort3d.memory import plan_memory
from hpcsort.sort3d.null import null_distribution, null_survey, solve_by_survey, weigh_survey
from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.outputs import run_folder
from hpcsort.sort3d.problem import Problem, pose_problem
from hpcsort.sort3d.random_groups import random_curves, write_random_curves
from hpcsort.sort3d.results import Group, core_rows, describe_groups, particles_by_row, write_results
from hpcsort.sort3d.resume import PROGRAM, hash_inputs, record_of
from hpcsort.sort3d.sizes import smallest_group
from hpcsort.sort3d.source import Source, read_source
from hpcsort.sort3d.support import NullLevels, Support, carried_over, null_lines, supported
from hpcsort.volumes import resample_map

__all__ = ["Group", "SortResult", "resume_sort", "sort3d"]


@dataclass(frozen=True)
class SortResult:
    """Result of a sort.

    Attributes
    ----------
    labels : int64 (N,), group of each particle in the order of the table, -1 unaccounted.
    agreeing : float64 (N,), share of the chains that agree on the particle.
    probability : float64 (N, groups), probability of each group, unaccounted particles included.
    junk : float64 (N,), probability that the image is junk.
    groups : one entry a group; known on rank 0, empty elsewhere.
    seconds : wall time of each stage.
    """

    labels: np.ndarray
    agreeing: np.ndarray
    probability: np.ndarray
    junk: np.ndarray
    groups: list[Group]
    seconds: dict[str, float]


def sort3d(options: SortOptions, comm: Communicator) -> SortResult:
    """Sort a particle stack into reproducible groups and write them to ``options.output_dir``. Collective.

    Parameters
    ----------
    options : what to sort and how.
    comm : all ranks of the run.

    Raises
    ------
    HpcsortError
        With one sentence, on every rank alike, for input, options or output that cannot be used.
    """
    folder = options.output_dir
    with threadpool_limits(1):
        source = read_source(options, comm)
        with together(comm):
            if comm.is_root:
                going_on = options.resume and (folder / CHECKPOINTS).is_dir()
                inputs = [options.source, *source.options.masks(), *source.table.stack_paths]
                run_folder(folder).claim(inputs, replace=options.overwrite or going_on)
        with open_job(
            comm,
            folder,
            lambda: record_of(options, source.table),
            resume=options.resume,
            checkpoint_minutes=options.checkpoint_minutes,
            watchdog_minutes=options.watchdog_minutes,
        ) as job:
            return _sort(source, job)


def resume_sort(folder: Path, comm: Communicator, **changes: Any) -> SortResult | None:
    """Go on with the sort in a folder; None if it has come to its end (see `resume_run`). Collective."""
    return resume_run(folder, comm, PROGRAM, SortOptions, sort3d, **changes)


def _sort(source: Source, job: Job) -> SortResult:
    """Sort in a folder that is this run's own."""
    options, comm, folder = source.options, job.comm, source.options.output_dir
    seconds: dict[str, float] = {}
    told: list[str] = []
    screen = StoryLog(None, comm, options.quiet)

    def tell_early(text: str) -> None:
        screen(text)
        told.append(text)

    _tell_input(tell_early, source, comm)
    for note in job.notes:
        tell_early(note)
    plan = plan_memory(source.table, options, comm)
    for sentence in plan.sentences:
        tell_early(sentence)
    comm.enter_phase("reading and consensus")
    with Stage("reading and consensus", seconds):
        problem = pose_problem(replace(source, options=plan.options), comm, tell_early, job.journal)
    # Only now is the input known to be good: an earlier sort's results are not given up for less.
    with together(comm):
        if comm.is_root:
            run_folder(folder).clear(going_on=options.resume)
            job.begin()
    with StoryLog(folder / "log.txt", comm, quiet=True) as story:
        for text in told:
            story(text)
    with StoryLog(folder / "log.txt", comm, options.quiet) as tell:
        result = _run(problem, job, plan.makers, tell, seconds)
    with together(comm):
        if comm.is_root:
            job.finish()
    return result


def _tell_input(tell: Callable[[str], None], source: Source, comm: Communicator) -> None:
    options, table = source.options, source.table
    tell(
        f"sort3d of {options.source}: {len(table)} particles of {table.box_px} px at {table.pixel_size_A:g} A, "
        f"{comm.size} rank{'s' if comm.size > 1 else ''}, seed {options.seed}."
    )
    for note in source.notes:
        tell(f"Note: {note}")


def _run(problem: Problem, job: Job, makers: int, tell: StoryLog, seconds: dict[str, float]) -> SortResult:
    options, comm = problem.options, problem.comm
    if options.auto_focus:
        problem = _focused(problem, tell, seconds)
    with (
        Stage("sorting", seconds),
        Progress("iteration", expected_steps(options.depth_order), comm, options.quiet) as progress,
    ):
        sorting = sort_generations(problem, tell, progress)
    null = _against_null(problem, sorting, tell, seconds) if options.null else None
    particles = particles_by_row(problem, sorting)
    labels = particles.labels
    comm.enter_phase("final maps")
    with Stage("final maps", seconds), chosen_ranks(comm, comm.node_rank < makers) as part:
        maps, random_fsc = _final_maps(problem, part, labels, sorting) if part is not None else (None, [])
    resolutions = [group.resolution_A for group in maps or []]
    groups = describe_groups(sorting, labels, resolutions) if comm.is_root else []
    memory = peak_memory_of_node_GB(comm)
    warnings: list[str] = []
    with together(comm):
        if job.record is not None:
            comm.enter_phase("writing results")
            job.record.check_inputs(hash_inputs(options, problem.table), "while the run read it")
            inputs = job.record.inputs
            warnings = write_results(problem, sorting, particles, maps or [], groups, seconds, memory, null, inputs)
            write_random_curves(options.output_dir, random_fsc, problem.table.box_px or 0, problem.table.pixel_size_A)
    for warning in warnings:
        tell(f"Warning: {warning}")
    _tell_end(tell, sorting, labels, groups, seconds, memory)
    comm.enter_phase("report")
    with together(comm):
        if comm.is_root:
            tell(end_with_report(options.output_dir, _write_report))
    return SortResult(labels, particles.agreeing, particles.probability, particles.junk, groups, seconds)


def _focused(problem: Problem, tell: StoryLog, seconds: dict[str, float]) -> Problem:
    with (
        Stage("focus", seconds),
        Progress("focus", len(ball_places(problem.narrow.region)), problem.comm, problem.options.quiet) as progress,
    ):
        problem, focus = find_focus(problem, tell, lambda note: progress.step(1, note))
    box, voxel_A = problem.table.box_px, problem.table.pixel_size_A
    with together(problem.comm):
        if problem.comm.is_root and focus is not None:
            assert box is not None
            whole = np.clip(resample_map(focus, box), 0.0, 1.0).astype(np.float32)
            write_map(problem.options.output_dir / "focus.mrc", whole, voxel_A, overwrite=True)
    return problem


def _against_null(
    problem: Problem, sorting: Sorting, tell: StoryLog, seconds: dict[str, float]
) -> tuple[NullLevels, Support]:
    """Sort simulated sets of one state as well, and test the groups against what is found there. Collective."""
    groups, sets = len(sorting.origin), problem.options.null
    classes = max(groups, 2)
    with (
        Stage("null sets", seconds),
        Progress("null set", sets, problem.comm, problem.options.quiet) as progress,
    ):
        found = null_survey(problem, classes)
        gain, stable, scores = weigh_survey(problem, found, classes)
        levels = null_distribution(
            problem, sets, classes, solve_by_survey, found.spread, step=lambda note: progress.step(1, note)
        )
    support = carried_over(supported(levels, gain, scores), stable, sorting.labels, groups)
    for line in null_lines(levels, support):
        tell(line)
    return levels, support


def expected_steps(depth_order: int) -> int:
    """Estimate the iterations of two generations and a look into five groups: for the progress line."""
    learned, finished = SUBSPACE_ITERATIONS + 1, FINISH_ITERATIONS
    first = 2 * learned + 4 * finished + (depth_order - 1) * finished
    return first + 5 * learned + learned + 2 * finished


def _wants_core_map(options: SortOptions, core: int, count: int) -> bool:
    least = options.num_core_set if options.num_core_set is not None else max(100, smallest_group(count))
    return core >= least


def _final_maps(
    problem: Problem, comm: Communicator, labels: np.ndarray, sorting: Sorting
) -> tuple[list[GroupMaps] | None, list[np.ndarray]]:
    """Reconstruct all groups, and the core set as the last where it is large enough; then random groups' FSC."""
    options, table = problem.options, problem.table
    assert table.box_px is not None
    groups = [np.flatnonzero(labels == group) for group in range(len(sorting.origin))]
    core = core_rows(problem, labels)
    half = np.zeros(len(table), np.int64)
    half[problem.rows] = problem.half
    reconstruct = partial(
        reconstruct_groups,
        comm,
        table,
        half=half,
        radius_px=options.radius_px(table.box_px),
        mask=problem.mask,
        symmetry=options.operators(),
    )
    maps = reconstruct([*groups, core] if _wants_core_map(options, len(core), problem.count) else groups)
    # Of one group there is nothing random to draw: it is all there is.
    random = random_curves(groups, problem.rows, half, options.seed, reconstruct) if len(groups) > 1 else []
    return maps, random


def _write_report(folder: Path) -> Path:
    # imported late: drawing takes a second to load, which only rank 0 needs
    from hpcsort.report.sorting import write_sort_report

    return write_sort_report(folder)


def _tell_end(
    tell: Callable[[str], None],
    sorting: Sorting,
    labels: np.ndarray,
    groups: list[Group],
    seconds: dict[str, float],
    memory: float,
) -> None:
    count, accounted = len(labels), int((labels >= 0).sum())
    tell(f"{len(groups)} group{'s' if len(groups) != 1 else ''}, {accounted} of {count} particles accounted for.")
    tell("group   size  generation  reproducibility %   by chance %        p  resolution A")
    for index, group in enumerate(groups):
        tell(
            f"{index:5d} {group.size:6d} {group.generation:11d} {100 * group.reproducibility:18.1f}"
            f" {100 * group.chance_mean:6.1f} +- {100 * group.chance_std:4.1f} {group.p:8.2g}"
            f" {group.resolution_A:13.1f}"
        )
    spent = ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items())
    tell(f"Time: {spent}. Largest memory of a node: {memory:.2f} GB. Generations: {len(sorting.generations)}.")
