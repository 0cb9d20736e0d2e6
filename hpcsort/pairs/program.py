"""The program extract-pairs: ranks share the micrograph pairs, rank 0 joins and writes."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hpcsort.checkpoints import CHECKPOINTS, Job, open_job, options_as_json, read_record, resume_run
from hpcsort.errors import InputError, StoppedError
from hpcsort.pairs.extract import ExtractedPair, extract_pair
from hpcsort.pairs.options import PairOptions
from hpcsort.pairs.outputs import claim_output, write_outputs
from hpcsort.pairs.parts import Parts
from hpcsort.pairs.plan import Loss, Plan, PlannedPair, make_plan
from hpcsort.pairs.report import keep_panels, write_report
from hpcsort.pairs.resume import PROGRAM, record_of
from hpcsort.parallel import Communicator, Progress, deal_chunks, together
from hpcsort.report import end_with_report, write_run_record

__all__ = ["PairsResult", "extract_pairs", "resume_pairs"]

_PICTURED = 12
"""Micrograph pairs shown in the report, and as many more among those with a warning."""
_PICTURES_KEPT = 200
"""Of pairs beyond this, pictures are not kept, as rank 0 holds them all."""


@dataclass(frozen=True)
class PairsResult:
    """What extract-pairs has written.

    Attributes
    ----------
    untilted, tilted : STAR files of equal rows.
    pairs : every micrograph pair that was worked on.
    losses : what is not in the result, and why.
    kept : number of pairs of particles.
    """

    untilted: Path
    tilted: Path
    pairs: list[ExtractedPair]
    losses: list[Loss]
    kept: int


def extract_pairs(
    options: PairOptions, comm: Communicator, tell: Callable[[str], None] = lambda text: None
) -> PairsResult | None:
    """Cut pairs of particles from untilted and tilted micrographs and write them. Collective.

    Every micrograph pair is worked on by one rank and in the same way, so that the files have the same bytes for every
    number of ranks and workers.

    Parameters
    ----------
    options : what and how.
    comm : all ranks of the run.
    tell : gets one sentence after the other on rank 0.

    Returns
    -------
    The result on rank 0, None elsewhere.

    Raises
    ------
    HpcsortError
        With one sentence, on every rank alike, for input, options or output that cannot be used.
    """
    with threadpool_limits(1):
        planned: Plan | None = None
        with together(comm):
            if comm.is_root:
                planned = make_plan(options)
                claim_output(options, _inputs(options, planned))
        plan: Plan = comm.bcast(planned)
        with open_job(
            comm,
            options.output,
            lambda: record_of(options, plan),
            resume=options.resume,
            checkpoint_minutes=0.0,  # every pair is kept when it is done
            watchdog_minutes=options.watchdog_minutes,
        ) as job:
            return _extract(options, plan, job, tell)


def resume_pairs(folder: Path, comm: Communicator, **changes: Any) -> PairsResult | None:
    """Go on with the extraction in a folder; None if it has come to its end (see `resume_run`). Collective."""

    def run(options: PairOptions, comm: Communicator) -> PairsResult | None:
        return extract_pairs(options, comm, lambda text: None if options.quiet else print(text))

    return resume_run(folder, comm, PROGRAM, PairOptions, run, "output", **changes)


def _extract(options: PairOptions, plan: Plan, job: Job, tell: Callable[[str], None]) -> PairsResult | None:
    """Extract in a folder that is this run's own."""
    comm, parts, begun = job.comm, Parts(options.output, options.box_px), datetime.now()
    found: dict[int, ExtractedPair] = {}
    with together(comm):
        if job.record is not None:
            tell(_story(options, plan))
            found = _begin(options, plan, job, parts)
            if found:
                tell(f"Going on from {len(found)} micrograph pairs that are done.")
    missing = comm.bcast([place for place, pair in enumerate(plan.pairs) if pair.number not in found])
    done = _worked(options, [plan.pairs[place] for place in missing], parts, job)
    result = None
    with together(comm):
        if done is not None:
            found |= {pair.plan.number: pair for pair in done}
            pairs = [found[pair.number] for pair in plan.pairs]
            result = _finish(options, plan, pairs, parts)
            assert job.record is not None
            known = {"listed": plan.listed, "pixel_size_A": plan.pixel_A * options.downsample}
            write_run_record(
                options.output, PROGRAM, options_as_json(options), job.record.inputs, comm.size, begun, known
            )
            parts.remove()
            tell(_ending(options, result))
            if options.report:
                tell(end_with_report(options.output, lambda _: _report(options, pairs)))
            job.finish()
    return result


def _begin(options: PairOptions, plan: Plan, job: Job, parts: Parts) -> dict[int, ExtractedPair]:
    """Write what the run is; returns the pairs that an earlier run has left, by their number."""
    known = read_record(options.output) if options.resume else None
    assert job.record is not None
    if known is not None:
        known.check(job.record)
    parts.begin(going_on=known is not None)
    job.begin()
    pairs = {pair.number: parts.find(pair) for pair in plan.pairs}
    return {number: pair for number, pair in pairs.items() if pair is not None}


def _inputs(options: PairOptions, plan: Plan) -> list[Path]:
    given = (options.pairs, *options.coordinates, options.ctf_untilted, options.ctf_tilted)
    return [*(path for path in given if path), *(side.path for pair in plan.pairs for side in pair.sides)]


def _worked(options: PairOptions, missing: list[PlannedPair], parts: Parts, job: Job) -> list[ExtractedPair] | None:
    """Extract pairs, this rank's share here; all of them on rank 0."""
    comm = job.comm
    weights = [sum(side.shape[0] * side.shape[1] for side in pair.sides) for pair in missing]
    mine = [missing[number] for number in deal_chunks(weights, comm.size)[comm.rank]]
    own: list[ExtractedPair] = []
    signal = ""
    comm.enter_phase("extracting")
    with together(comm), Progress(_label(comm), len(mine), comm, options.quiet) as bar:
        for pair in _each(options, mine, parts):
            own.append(pair)
            comm.beat()
            bar.step()
            signal = job.stop()
            if signal:
                break
    signal = comm.max(signal)
    if signal:
        raise StoppedError(f"stopped by {signal}; {job.next_step}")
    gathered = comm.gather(own)
    return None if gathered is None else [pair for share in gathered for pair in share]


def _label(comm: Communicator) -> str:
    return "micrograph pair" if comm.size == 1 else "micrograph pair of the first rank"


def _each(options: PairOptions, mine: list[PlannedPair], parts: Parts) -> Iterator[ExtractedPair]:
    def work(plan: PlannedPair) -> ExtractedPair:
        return _worked_one(options, plan, parts)

    if options.workers == 1:
        yield from map(work, mine)
        return
    with ThreadPoolExecutor(options.workers) as pool:
        try:
            yield from pool.map(work, mine)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _worked_one(options: PairOptions, plan: PlannedPair, parts: Parts) -> ExtractedPair:
    """Extract one pair and put it on disk, as all windows of a run need not fit in memory."""
    pair, windows = extract_pair(plan, options, pictures=options.report)
    shown = plan.number < _PICTURED or (pair.notes and plan.number < _PICTURES_KEPT)
    pair = pair if shown else replace(pair, pictures=None)
    parts.keep(pair, windows)
    return pair


def _finish(options: PairOptions, plan: Plan, pairs: list[ExtractedPair], parts: Parts) -> PairsResult:
    losses = [*plan.losses, *(loss for pair in pairs for loss in pair.losses)]
    kept = sum(len(pair.kept) for pair in pairs)
    if not kept:
        # going on would end here again
        parts.remove()
        shutil.rmtree(options.output / CHECKPOINTS, ignore_errors=True)
        told = "; ".join(f"{loss.micrograph}: {loss.reason}, {loss.particles}" for loss in losses[:4])
        raise InputError(f"no pair of particles is whole on both sides ({told}); try --borders fill or a smaller --box")
    write_outputs(options, plan, pairs, losses, parts)
    return PairsResult(options.output / "untilted.star", options.output / "tilted.star", pairs, losses, kept)


def _report(options: PairOptions, pairs: list[ExtractedPair]) -> Path:
    keep_panels(options, pairs, _pictured(pairs))
    return write_report(options.output)


def _pictured(pairs: list[ExtractedPair]) -> list[ExtractedPair]:
    suspicious = [pair for pair in pairs if pair.pictures is not None and pair.plan.number >= _PICTURED][:_PICTURED]
    return [pair for pair in pairs if pair.plan.number < _PICTURED] + suspicious


def _story(options: PairOptions, plan: Plan) -> str:
    particles = sum(len(pair.ids) for pair in plan.pairs)
    size = f"{plan.pixel_A:g} A" if options.downsample == 1 else f"{plan.pixel_A * options.downsample:g} A"
    return (
        f"{particles} pairs of particles in {len(plan.pairs)} of {plan.listed} pairs of micrographs; windows of"
        f" {options.box_px} px at {size}."
    )


def _ending(options: PairOptions, result: PairsResult) -> str:
    lines = []
    fits = [pair.fit for pair in result.pairs if pair.fit is not None]
    for pair in result.pairs:
        if pair.fit is not None:
            fit = pair.fit
            lines.append(
                f"{pair.plan.key}: tilt {fit.tilt_deg:.2f} degrees about {fit.axis_untilted_deg:.1f} degrees"
                f" ({fit.axis_tilted_deg:.1f} in the tilted), residual {fit.rms_px:.2f} px,"
                f" {int(fit.outlier.sum())} of {len(fit.outlier)} pairs outlying; {len(pair.kept)} kept."
            )
    lines += [f"Note: {note}" for pair in result.pairs for note in pair.notes]
    for reason, count in lost_by_reason(result.losses).items():
        lines.append(f"Lost: {count} ({reason}).")
    if fits:
        lines.append(f"Median tilt {np.median([fit.tilt_deg for fit in fits]):.2f} degrees.")
    lines.append(f"{result.kept} pairs written to {options.output}.")
    return "\n".join(lines)


def lost_by_reason(losses: list[Loss]) -> dict[str, str]:
    """Losses added up: reason and side to numbers of particles and micrographs."""
    particles: dict[str, int] = defaultdict(int)
    places: dict[str, set[str]] = defaultdict(set)
    for loss in losses:
        reason = f"{loss.reason.partition(':')[0]}, {loss.side}"
        particles[reason] += loss.particles
        places[reason].add(loss.micrograph)
    told = {}
    for reason, names in places.items():
        count, where = particles[reason], f"{len(names)} micrograph{'' if len(names) == 1 else 's'}"
        told[reason] = f"{count} pair{'' if count == 1 else 's'} in {where}" if count else where
    return told
