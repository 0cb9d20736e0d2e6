"""The program cluster-averages: rank 0 works, as all of it takes less than a minute; the others wait."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
from threadpoolctl import threadpool_limits

from hpcsort.averages.cluster import Partition, choose_partition
from hpcsort.averages.evidence import FamilyTest, judge_one_family
from hpcsort.averages.families import blank_family, make_families
from hpcsort.averages.options import AveragesOptions
from hpcsort.averages.outputs import claim_output, write_outputs
from hpcsort.averages.prepare import find_blank, prepare
from hpcsort.averages.read import Averages, read_averages
from hpcsort.averages.report import write_report
from hpcsort.averages.similarity import Similarity, block_count, compare_all
from hpcsort.averages.stability import cluster_stability
from hpcsort.averages.story import Findings, clamped_bounds
from hpcsort.checkpoints import hash_files, options_as_json
from hpcsort.errors import OptionError
from hpcsort.parallel import Communicator, Progress, together
from hpcsort.report import end_with_report, write_run_record

__all__ = ["cluster_averages", "find_families"]

PROGRAM = "cluster-averages"


def cluster_averages(
    options: AveragesOptions, comm: Communicator, tell: Callable[[str], None] = lambda text: None
) -> Findings | None:
    """Group class averages into families of like views, and write them. Collective.

    Parameters
    ----------
    options : what and how.
    comm : all ranks of the run.
    tell : gets one sentence after the other on rank 0.

    Returns
    -------
    The findings on rank 0, None elsewhere.

    Raises
    ------
    HpcsortError
        With one sentence, on every rank alike, for input, options or output that cannot be used.
    """
    findings, begun = None, datetime.now()
    with threadpool_limits(1), together(comm):
        if comm.is_root:
            averages = read_averages(
                options.averages,
                options.particles,
                angpix=options.angpix,
                datadir=options.datadir,
                with_particles=options.extract != "averages",
            )
            if averages.particles is None and options.extract in ("classes", "both"):
                raise OptionError(
                    f"--extract {options.extract} needs particles, which {options.averages} does not tell; name their"
                    " STAR file with --particles, or give --extract averages"
                )
            claim_output(options, averages)
            findings = find_families(averages, options)
            write_outputs(options, findings)
            inputs = hash_files([], averages.sources)
            write_run_record(options.output_dir, PROGRAM, options_as_json(options), inputs, comm.size, begun)
            for line in [*_ending(findings), end_with_report(options.output_dir, write_report)]:
                tell(line)
    return findings


def find_families(averages: Averages, options: AveragesOptions) -> Findings:
    """Find the families of averages; bounds, similarity, threads, seed and quietness are those of the options."""
    blank = find_blank(averages.images)
    rows, notes = np.flatnonzero(~blank), []
    if blank.any():
        notes.append(f"{_counted(int(blank.sum()), 'average')} blank or not finite: set apart in a cluster.")
    families = []
    best, distance = Partition("none", np.zeros(0, np.int64), float("nan")), np.zeros((0, 0))
    tried: list[Partition] = []
    test: FamilyTest | None = None
    if len(rows):
        prepared = prepare(averages.images[rows])
        with Progress("block of averages", block_count(len(rows)), quiet=options.quiet) as bar:
            similarity = compare_all(prepared, options.similarity, options.workers, bar.step)
        distance = similarity.distance
        if len(rows) >= 3:
            reference = int(distance.sum(axis=0).argmin())
            onto = similarity.poses_onto(np.arange(len(rows)), reference)
            test = judge_one_family(prepared, onto, reference, options.seed)
        best, tried, more = _chosen(similarity, test, options)
        notes += more
        stability = cluster_stability(distance, best.labels, best.method, options.seed)
        families = make_families(rows, prepared, similarity, best, stability)
    if blank.any():
        families.append(blank_family(np.flatnonzero(blank)))
    return Findings(averages, families, best, tried, test, rows, distance, tuple(notes))


def _chosen(
    similarity: Similarity, test: FamilyTest | None, options: AveragesOptions
) -> tuple[Partition, list[Partition], list[str]]:
    """Partition, all that were scored, and notes."""
    count = len(similarity.score)
    low, high, notes = clamped_bounds(options.min_clusters, options.max_clusters, count)
    single = Partition("none", np.zeros(count, np.int64), float("nan"))
    if count < 3:
        notes.append(f"{_counted(count, 'average')} cannot be divided by silhouettes: one family.")
        return single, [], notes
    best, tried = single, list[Partition]()
    if high >= 2:
        best, tried = choose_partition(similarity.distance, max(low, 2), high, options.seed)
    alike = test is not None and test.one_family
    if alike and low == 1:
        notes.append("The averages differ no more than noisy copies of one view: one family.")
        return single, tried, notes
    if alike:
        notes.append(
            f"The averages differ no more than noisy copies of one view, yet at least {low} families were asked for;"
            " --min-clusters 1 allows one."
        )
    return best, tried, notes


def _ending(findings: Findings) -> list[str]:
    best, sizes = findings.best, [len(family.members) for family in findings.real_families]
    lines = list(findings.notes)
    text = f"{len(findings.rows)} averages in {_families(len(sizes))}"
    if len(sizes) > 1:
        text += f" by {best.method}, mean silhouette {best.silhouette:.3f}"
    lines.append(f"{text}; sizes {', '.join(map(str, sizes))}." if sizes else "Nothing but blank averages.")
    return lines


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _families(count: int) -> str:
    return "1 family" if count == 1 else f"{count} families"
