"""The program cl2d: reads, classifies level by level, finds cores, averages, writes, and tells the story."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from hpcsort.checkpoints import (
    CHECKPOINTS,
    LOG,
    Job,
    JobRecord,
    hash_files,
    open_job,
    options_as_json,
    resume_run,
)
from hpcsort.cl2d.averages import average_parts
from hpcsort.cl2d.cores import find_cores, stable_members
from hpcsort.cl2d.levels import Level, class_counts, first_state, run_level
from hpcsort.cl2d.options import Cl2dOptions
from hpcsort.cl2d.outputs import (
    FinishedLevel,
    level_folder,
    run_folder,
    write_hierarchy,
    write_level,
    write_mirrored,
)
from hpcsort.cl2d.report import write_report
from hpcsort.cl2d.source import read_references, read_source
from hpcsort.cl2d.splitting import grow
from hpcsort.cl2d.state import State
from hpcsort.cl2d.stock import Stock, load_stock
from hpcsort.errors import OptionError
from hpcsort.io import ParticleTable, write_particles
from hpcsort.parallel import Communicator, StoryLog, peak_memory_of_node_GB, together
from hpcsort.report import end_with_report, write_run_record

__all__ = ["Cl2dResult", "cl2d", "resume_cl2d"]

PROGRAM = "cl2d"
_WITHOUT_EFFECT = frozenset({"checkpoint_minutes", "output_dir", "overwrite", "quiet", "resume", "watchdog_minutes"})
"""Options on which results do not depend, so that a run may go on with others."""

_FEW_REJECTED = 100
_REJECTED_PER_CLASS = 300
_REJECTED_ITERATIONS = 5


@dataclass(frozen=True)
class Cl2dResult:
    """What cl2d has made; the same on every rank.

    Attributes
    ----------
    levels : finished levels, the last one with the number of classes asked for.
    folder : of the last level.
    rejected : the same for the particles of no core, where that was asked for and they are enough.
    """

    levels: list[Level]
    folder: Path
    rejected: Cl2dResult | None = None


def cl2d(options: Cl2dOptions, comm: Communicator) -> Cl2dResult:
    """Classify particles in 2D, level by level, and write classes, cores and tables. Collective.

    Labels, averages and files have the same bytes for every number of ranks.

    Parameters
    ----------
    options : what and how.
    comm : all ranks of the run.

    Raises
    ------
    HpcsortError
        With one sentence, on every rank alike, for input, options or output that cannot be used.
    """
    with threadpool_limits(1):
        table: ParticleTable | None = None
        references: npt.NDArray[np.float32] | None = None
        with together(comm):
            if comm.is_root:
                table = read_source(options)
                if options.references is not None:
                    assert table.box_px is not None
                    references = read_references(options.references, table.box_px)
                    _check_references(options, len(references))
                going_on = options.resume and (options.output_dir / CHECKPOINTS).is_dir()
                inputs = [options.instack, *table.stack_paths, *([options.references] if options.references else [])]
                run_folder(options.output_dir).claim(inputs, replace=options.overwrite or going_on)
        table, references = comm.bcast((table, references))
        assert table is not None
        with open_job(
            comm,
            options.output_dir,
            lambda: JobRecord.of(PROGRAM, options, _WITHOUT_EFFECT, _hash_inputs(options, table)),
            resume=options.resume,
            checkpoint_minutes=options.checkpoint_minutes,
            watchdog_minutes=options.watchdog_minutes,
        ) as job:
            return _run(options, table, references, job)


def resume_cl2d(folder: Path, comm: Communicator, **changes: Any) -> Cl2dResult | None:
    """Go on with the classification in a folder; None if it has come to its end (see `resume_run`). Collective."""
    return resume_run(folder, comm, PROGRAM, Cl2dOptions, cl2d, **changes)


def _hash_inputs(options: Cl2dOptions, table: ParticleTable) -> dict[str, dict[str, Any]]:
    tables = [options.instack] if options.instack not in table.stack_paths else []
    return hash_files(tables, [*table.stack_paths, *([options.references] if options.references else [])])


def _run(
    options: Cl2dOptions, table: ParticleTable, references: npt.NDArray[np.float32] | None, job: Job
) -> Cl2dResult:
    comm, begun = job.comm, datetime.now()
    comm.enter_phase("reading")
    stock = load_stock(options, table, comm)
    # Only now is the input known to be good: an earlier run's results are not given up for less.
    with together(comm):
        if comm.is_root:
            run_folder(options.output_dir).clear(going_on=options.resume)
            job.begin()
    with StoryLog(options.output_dir / LOG, comm, options.quiet) as story:
        for note in job.notes:
            story.tell(note)
        result = _classified(options, table, references, stock, job, story)
        story.tell(
            f"The last level is in {result.folder}. Peak memory {peak_memory_of_node_GB(comm):.2f} GB on a node."
        )
        with together(comm):
            if job.record is not None:
                inputs = _hash_inputs(options, table)
                job.record.check_inputs(inputs, "while the run read it")
                write_run_record(options.output_dir, PROGRAM, options_as_json(options), inputs, comm.size, begun)
                for made in (result, result.rejected):
                    if made is not None:
                        story.tell(end_with_report(made.folder.parent, write_report))
                job.finish()
    return result


def _check_references(options: Cl2dOptions, count: int) -> None:
    if count > options.classes:
        raise OptionError(
            f"{options.references} holds {count} references, more than --classes {options.classes}; raise --classes or"
            " leave some out"
        )


def _classified(
    options: Cl2dOptions,
    table: ParticleTable,
    references: npt.NDArray[np.float32] | None,
    stock: Stock,
    job: Job,
    story: StoryLog,
) -> Cl2dResult:
    comm = job.comm
    first = options.initial_classes if references is None else len(references)
    counts = class_counts(first, options.classes)
    story.tell(
        f"{len(table)} particles of {table.box_px} px at {table.pixel_size_A:g} A, compared up to"
        f" {table.pixel_size_A * stock.grid.box_px / stock.grid.band_px:.1f} A; levels of"
        f" {', '.join(map(str, counts))} classes."
    )
    state = first_state(stock, options, references)
    done: list[FinishedLevel] = []
    for number, classes in enumerate(counts):
        run = partial(_one_level, stock, options, number, classes, state, story, job)
        level = job.journal.step(f"level {number}", run)
        state = level.state
        finished = job.journal.step("cores and averages", partial(_finished, stock, options, level, done))
        with together(comm):
            if comm.is_root:
                write_level(level_folder(options.output_dir, number), table, finished)
        story.tell(_told(finished, table))
        done.append(finished)
    with together(comm):
        if comm.is_root:
            if len(done) > 1:
                write_hierarchy(options.output_dir, done)
            if options.mirrored_stack:
                write_mirrored(options.output_dir, table, done[-1])
    result = Cl2dResult([each.level for each in done], level_folder(options.output_dir, len(done) - 1))
    if options.analyze_rejected:
        return replace(result, rejected=_rejected(options, table, done[-1], job, story))
    return result


def _one_level(
    stock: Stock, options: Cl2dOptions, number: int, classes: int, state: State, story: StoryLog, job: Job
) -> Level:
    """Run a level from the state of the one before. Collective."""
    if number:
        state = grow(stock, state, classes, options.seed)
    return run_level(stock, options, number, state, story.tell, job.journal)


def _finished(stock: Stock, options: Cl2dOptions, level: Level, before: list[FinishedLevel]) -> FinishedLevel:
    """Cores and averages of a level. Collective."""
    choices = {"classes": np.ones(stock.count, bool)}
    cores = None
    if options.core:
        cores = find_cores(stock, level.state, options)
        choices["core"] = cores.member
        if options.stable_core and level.number > options.tolerance:
            paths = [*(each.level.state.labels for each in before), level.state.labels]
            choices["stable_core"] = stable_members(paths, cores.member, options.tolerance)
    return FinishedLevel(level, cores, choices, average_parts(stock, level.state, choices, options.seed))


def _rejected(
    options: Cl2dOptions, table: ParticleTable, last: FinishedLevel, job: Job, story: StoryLog
) -> Cl2dResult | None:
    """Classify the particles of no core by themselves. Collective."""
    comm = job.comm
    rows = np.flatnonzero(~last.choices["core"])
    story.tell(f"{len(rows)} particles are in no core.")
    with together(comm):
        if comm.is_root and rows.size:
            write_particles(options.output_dir / "rejected.star", table, rows=rows, overwrite=True)
    if len(rows) <= _FEW_REJECTED:
        story.tell(f"These are too few to be classified; more than {_FEW_REJECTED} are needed.")
        return None
    changed = replace(
        options,
        output_dir=options.output_dir / "rejected",
        references=None,
        initial_classes=1,
        classes=-(-len(rows) // _REJECTED_PER_CLASS),
        iterations=_REJECTED_ITERATIONS,
        comparison="correlation",
        clustering="classical",
        core=False,
        analyze_rejected=False,
        mirrored_stack=False,
    )
    part = table.subset(rows)
    with together(comm):
        if comm.is_root:
            changed.output_dir.mkdir(exist_ok=True)
    return _classified(changed, part, None, load_stock(changed, part, comm), job, story)


def _told(done: FinishedLevel, table: ParticleTable) -> str:
    sizes = done.averages["classes"].sizes
    reached = done.averages["classes"].resolution_px
    words = [f"Level {done.level.number}: {len(sizes)} classes of {sizes.min()} to {sizes.max()} particles"]
    if (reached > 0).any():
        best = table.pixel_size_A * (table.box_px or 0) / reached[reached > 0]
        words.append(f"FRC 0.5 at {np.median(best):.1f} A in the median")
    for name, title in (("core", "in cores"), ("stable_core", "in stable cores")):
        if name in done.choices:
            words.append(f"{100 * done.choices[name].mean():.1f} % {title}")
    return "; ".join(words) + "."
