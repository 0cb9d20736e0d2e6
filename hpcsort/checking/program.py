"""Check an input: what was understood, what is wrong with it, what a sort of it takes, and the command for it."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcsort.checking.agreement import BAND, Agreement, measure_agreement
from hpcsort.checking.costs import Cost, measure_speed, predict_costs, predict_disk_GB
from hpcsort.checking.findings import FAULT, FINE, NOTE, WARNING, Finding
from hpcsort.checking.images import Sample, look_at_images, read_sample
from hpcsort.checking.options import CheckOptions
from hpcsort.checking.tables import (
    look_at_ctf,
    look_at_duplicates,
    look_at_optics,
    look_at_poses,
    look_at_shifts,
    look_at_stacks,
)
from hpcsort.errors import InputError, OptionError
from hpcsort.geometry import point_group
from hpcsort.io import ImageReader, ParticleTable, format_of, read_input
from hpcsort.parallel import SerialComm, node_memory_GB
from hpcsort.sort3d import SortOptions
from hpcsort.sort3d.source import read_source

__all__ = ["CheckResult", "check"]

_KINDS = {"star": "RELION's STAR", "cs": "cryoSPARC's .cs", "hdf": "EMAN2's HDF", "xmd": "Xmipp's .xmd"}
_TOLD_ABOVE = "Rows that name the image"
_FEWEST = 40
_FEW = 200
"""Images below which agreement with poses cannot be told for sure."""


@dataclass(frozen=True)
class CheckResult:
    """What a check has found.

    Attributes
    ----------
    findings : in the order in which they are told.
    costs : predictions by number of ranks; empty where the input cannot be sorted.
    disk_GB : size of the results, NaN where the input cannot be sorted.
    command : to run next; empty where the input cannot be sorted.
    """

    findings: tuple[Finding, ...]
    costs: tuple[Cost, ...]
    disk_GB: float
    command: str

    @property
    def usable(self) -> bool:
        """Whether a sort would take the input."""
        return all(finding.level != FAULT for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return what scripts read."""
        return {
            "usable": self.usable,
            "findings": [asdict(finding) for finding in self.findings],
            "costs": [asdict(cost) for cost in self.costs],
            "disk_GB": self.disk_GB,
            "command": self.command,
        }


def check(options: CheckOptions) -> CheckResult:
    """Look at an input as a sort would, and further.

    Raises
    ------
    InputError
        If the file cannot be read as particles at all.
    OptionError
        If an option cannot be used.
    """
    operators = point_group(options.sym)
    sorting = SortOptions(
        output_dir=Path("sorted"),
        instack=options.source,
        refinement_dir=options.refinement_dir,
        radius=options.radius,
        sym=options.sym,
        datadir=options.datadir,
        angpix=options.angpix,
    )
    table, sorting, notes, refusal = _read(options, sorting)
    findings = [
        _particles(table, options),
        look_at_stacks(table),
        *look_at_optics(table),
        look_at_poses(table, operators),
        look_at_shifts(table),
        *look_at_ctf(table),
        *look_at_duplicates(table),
        *(Finding("table", NOTE, note) for note in notes if not note.startswith(_TOLD_ABOVE)),
    ]
    sample, read_s = None, 0.0
    if refusal:
        if all(finding.level != FAULT for finding in findings):
            findings.append(Finding("sort", FAULT, f"A sort refuses this input: {refusal}"))
    elif all(finding.level != FAULT for finding in findings):
        sample, read_s, seen = _look_inside(table, sorting)
        findings += seen
    if any(finding.level == FAULT for finding in findings):
        return CheckResult(tuple(findings), (), float("nan"), "")
    costs = predict_costs(table, sorting, measure_speed(read_s))
    told, ranks = _advice(costs, sorting)
    size = options.source.stat().st_size if options.source is not None else 0
    command = _command(options, ranks, skip_bad=sample is not None and bool(sample.bad))
    return CheckResult((*findings, told), tuple(costs), predict_disk_GB(table, size), command)


def _read(options: CheckOptions, sorting: SortOptions) -> tuple[ParticleTable, SortOptions, tuple[str, ...], str]:
    """Read the input as a sort does; where that refuses it, read what can be read, and tell the refusal last."""
    try:
        source = read_source(sorting, SerialComm())
    except (InputError, OptionError) as error:
        if options.source is None:
            raise
        table = read_input(
            options.source, datadir=options.datadir, angpix=options.angpix, need_images=False, need_poses=False,
            need_ctf=False, smears=False,
        )  # fmt: skip
        return table, sorting, table.notes, str(error)
    return source.table, source.options, source.notes, ""


def _particles(table: ParticleTable, options: CheckOptions) -> Finding:
    kind = "a refinement by MERIDIEN" if options.source is None else f"{_KINDS[format_of(options.place)]} format"
    halves = np.bincount(table.random_subset, minlength=3)[1:3].tolist()
    told = f", in half-sets of {halves[0]:,} and {halves[1]:,}" if all(halves) else ", without half-sets"
    level = FINE if len(table) >= _FEWEST else FAULT
    few = "" if level == FINE else f" That is too few to sort: at least {_FEWEST} are needed."
    return Finding("particles", level, f"{len(table):,} in {kind}{told}.{few}", {"particles": len(table)})


def _look_inside(table: ParticleTable, options: SortOptions) -> tuple[Sample | None, float, list[Finding]]:
    """Read a sample of images; returns it, the seconds for an image, and what was found."""
    assert table.box_px is not None
    radius = options.radius_px(table.box_px)
    with ImageReader(table) as reader:
        start = time.perf_counter()
        try:
            sample = read_sample(table, reader, radius)
        except InputError as error:
            return None, 0.0, [Finding("images", FAULT, str(error))]
        seconds = (time.perf_counter() - start) / len(sample.rows)
        found = look_at_images(table, sample)
        if len(sample.good) < _FEWEST:
            text = f"Only {len(sample.good)} of the images looked at are good; a sort needs at least {_FEWEST}."
            return sample, seconds, [*found, Finding("images", FAULT, text)]
        agreement = measure_agreement(table, sample.good, reader.read, radius)
    return sample, seconds, [*found, *_look_at_agreement(agreement, table)]


def _look_at_agreement(seen: Agreement, table: ParticleTable) -> list[Finding]:
    figures = {name: value for name, value in asdict(seen).items() if name != "better"}
    scale = f"correlation with their map {seen.correlation:.3f}, with poses dealt out at random {seen.shuffled:.3f}"
    if seen.better:
        text = (
            f"The images fit clearly better if {seen.better}: the poses are in another convention than RELION's, or"
            f" belong to other images ({scale}). Sort only after the table is right."
        )
        return [Finding("agreement", WARNING, text, figures | {"better": seen.better})]
    if not seen.sure:
        few = seen.images < _FEW
        cause = "so few images cannot tell whether poses are right" if few else (
            "poses, CTF or pixel size are wrong or in another convention, or the images show nothing"
        )  # fmt: skip
        text = f"The images do not agree with their poses more than with random ones ({scale}): {cause}."
        return [Finding("agreement", NOTE if few else WARNING, text, figures)]
    text = (
        f"The images agree with their poses, {seen.z:.0f} standard errors above random ones ({scale}); the map of"
        f" {seen.images:,} images reaches {seen.resolution_A:.0f} A"
    )
    edge = "" if seen.resolution_A > 1.02 * _finest(table) else ", the end of the band that was looked at"
    found = [Finding("agreement", FINE, f"{text}{edge}.", figures)]
    if seen.dark:
        text = (
            "The map is darker inside than outside: the contrast of the images is inverted. Sorting works the same, and"
            " maps come out dark; multiply the images by -1 for bright ones."
        )
        found.append(Finding("contrast", WARNING, text))
    else:
        found.append(Finding("contrast", FINE, "Particles are brighter than the solvent, as a sort expects."))
    if seen.negative:
        text = (
            f"{seen.negative} of {seen.images:,} images surely show the negative of the map: their contrast is"
            " inverted, or their pose is wrong. Bring all images to one contrast."
        )
        found.append(Finding("contrast", WARNING, text, {"negative": seen.negative}))
    return found


def _finest(table: ParticleTable) -> float:
    """Resolution at the end of the band that is looked at."""
    assert table.box_px is not None
    return table.box_px * float(table.pixel_sizes_A[0]) / min(BAND, table.box_px // 2 - 1)


def _advice(costs: list[Cost], options: SortOptions) -> tuple[Finding, int]:
    """Whether the sort fits this machine, and with how many ranks."""
    has, cores = node_memory_GB(), len(os.sched_getaffinity(0))
    fitting = [cost.ranks for cost in costs if cost.memory_GB + options.overhead <= has]
    figures = {"memory_GB": has if np.isfinite(has) else None, "cores": cores}
    if not fitting:
        text = (
            f"This machine has {has:.1f} GB, too little for a sort even on one rank ({costs[0].memory_GB:.1f} GB and"
            f" {options.overhead:g} GB for others); use a larger one, or several nodes."
        )
        return Finding("machine", WARNING, text, figures), 1
    ranks = max(rank for rank in fitting if rank <= max(cores, 1))
    known = f"{has:.1f} GB" if np.isfinite(has) else "unknown memory"
    text = f"This machine has {cores} core{'s' * (cores > 1)} and {known}: up to {max(fitting)} ranks fit into memory."
    return Finding("machine", FINE, text, figures), ranks


def _command(options: CheckOptions, ranks: int, skip_bad: bool) -> str:
    words = ["mpiexec", "-n", str(ranks)] if ranks > 1 else []
    words += ["hpcsort", "sort3d"]
    words += ["--instack", str(options.source)] if options.source else ["--refinement-dir", str(options.refinement_dir)]
    words += ["--output-dir", "sorted"]
    words += [] if options.radius is None else ["--radius", str(options.radius)]
    words += [] if options.sym == "c1" else ["--sym", options.sym]
    words += [] if options.datadir is None else ["--datadir", str(options.datadir)]
    words += [] if options.angpix is None else ["--angpix", f"{options.angpix:g}"]
    words += ["--skip-bad"] * skip_bad
    return shlex.join(words)
