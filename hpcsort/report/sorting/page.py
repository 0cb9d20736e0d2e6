"""The page of a sort: warnings, groups, and what speaks for them."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from hpcsort.io import write_text_atomically
from hpcsort.report.page import Report, save_bytes
from hpcsort.report.provenance import provenance_rows
from hpcsort.report.sorting import agreement, quality
from hpcsort.report.sorting.gather import FoundGroup, SortedRun, gather_sort
from hpcsort.report.sorting.maps import MapViews, chimerax_script, common_contour, map_png, view_map
from hpcsort.report.sorting.warnings import find_warnings

__all__ = ["SCRIPT", "write_sort_report"]

SCRIPT = "maps.cxc"
_LAST_LINES = 20


def write_sort_report(folder: Path) -> Path:
    """Draw the report of a sort from the files in its folder, and return the page.

    Writes report.html, the panels in report/ and maps.cxc, in place of older ones.

    Raises
    ------
    InputError
        If the folder holds no sort, or a file in it is damaged.
    OutputError
        If the report cannot be written.
    """
    run = gather_sort(folder)
    report = Report(folder, _title(run))
    warnings = find_warnings(run)
    for sentence in warnings:
        report.text(sentence, "note")
    if not warnings:
        report.text("No warnings.")
    report.text(_summary(run))
    if not run.run:
        report.heading("What it told last")
        for line in run.log[-_LAST_LINES:]:
            report.text(line, "small")
    if run.groups:
        _show_groups(report, run)
    if run.fsc:
        _show_fsc(report, run)
    if run.particles is not None and run.groups:
        _show_particles(report, run)
    if len(run.boxes):
        report.heading("Convergence")
        words = (
            "Agreement (adjusted Rand index: 0 by chance, 1 in full) of the two chains of each box, and of neighbouring"
            " boxes, from layer to layer."
        )
        if len(run.changes):
            words = (
                f"Left: particles that change their class; a colour a box, its chains drawn and dashed. Right: {words}"
            )
        report.text(words, "small")
        drawn = agreement.draw_convergence(run)
        report.panel("convergence", "agreement of the chains", drawn, agreement.convergence_table(run))
    held = agreement.held_out_table(run)
    if len(held):
        report.heading("Number of groups")
        report.text("Log-likelihood of particles that a chain has not seen; the ring marks what was chosen.", "small")
        report.panel("number_of_groups", "held-out likelihood", agreement.draw_held_out(held), held)
    if run.anova is not None and (run.anova["test"] == "rest").any():
        _show_effects(report, run.anova)
    report.heading("Provenance")
    report.facts(provenance_rows(folder))
    return report.save()


def _title(run: SortedRun) -> str:
    if not run.run:
        return "A sort that has not come to its end"
    count = len(run.groups)
    return f"{run.run['accounted']} of {run.run['particles']} particles in {count} group{'' if count == 1 else 's'}"


def _summary(run: SortedRun) -> str:
    options = run.run.get("options", {})
    source = options.get("instack") or options.get("refinement_dir")
    first = next((line for line in run.log if line.startswith("sort3d of ")), "")
    return first or (f"sort3d of {source}." if source else "")


def _show_groups(report: Report, run: SortedRun) -> None:
    report.heading("Groups")
    views = {name: view_map(path) for name, path in run.maps.items() if name != "core"}
    report.cards([_card(report, group, views) for group in run.groups], wide=True)
    differing = " Last row: what projections have more (orange) or less (blue) than the mean of the groups."
    report.text(
        "First row: central slices across z, y and x; second row: projections along them; black and white mean the same"
        f" in all groups.{differing if len(views) > 1 else ''} Agreement: mean share of the independent chains that put"
        " a particle of the group where its group is (purity of the two-way match). Reproducibility: particles that"
        " independent chains share, of all that either has in the group (Jaccard); below it what random groups of the"
        " same sizes share.",
        "small",
    )
    report.panel("groups", "", table=pd.DataFrame([vars(group) for group in run.groups]))
    if views:
        level = common_contour(views)
        write_text_atomically(report.folder / SCRIPT, chimerax_script(run.maps, level), overwrite=True)
        report.text(f"{SCRIPT} opens all maps in ChimeraX at one contour, {level:.3g}.", "small")


def _card(report: Report, group: FoundGroup, views: dict[str, MapViews]) -> tuple[bytes | None, str, list[str]]:
    name = f"group {group.number}"
    picture = None
    if name in views:
        picture = map_png(views[name], views)
        save_bytes(report.panels / f"group_{group.number:03d}.png", picture)
    against = f"{100 * group.chance_mean:.1f} +- {100 * group.chance_std:.1f} % by chance, p {group.p:.2g}"
    return picture, name, [
        f"{group.size} particles, {100 * group.share:.1f} %",
        f"resolution {_number(group.resolution_A, '.1f', ' A')}",
        f"agreement {_number(100 * group.purity, '.1f', ' %')}",
        f"reproducibility {100 * group.reproducibility:.1f} %",
        against,
    ]  # fmt: skip


def _show_fsc(report: Report, run: SortedRun) -> None:
    report.heading("Resolution")
    words = "FSC between the half-maps of each group."
    if run.random_fsc:
        words += (
            " Grey: random particles, as many as are in the group; where differences between the groups cost"
            " resolution, the curves of the groups lie above."
        )
    report.text(words, "small")
    report.panel("fsc", "FSC curves of the groups", quality.draw_fsc(run), quality.fsc_table(run))


def _show_particles(report: Report, run: SortedRun) -> None:
    particles = run.particles
    assert particles is not None
    report.heading("Views")
    report.text(
        "View directions of the particles of each group on the sphere (Mollweide); 1 is what even views have.", "small"
    )
    drawn = quality.draw_views(particles, len(run.groups))
    report.panel("views", "view directions", drawn, quality.views_table(particles, len(run.groups)))
    for generation in sorted({chain.generation for chain in run.chains}):
        chains = [chain for chain in run.chains if chain.generation == generation]
        after = f" of generation {generation}" if run.chains[-1].generation else ""
        tail = f"_{generation:03d}" if generation else ""
        report.heading(f"Independent chains{after}")
        report.text(
            "Where particles go from chain to chain: the two chains of a box learn from disjoint halves. Colours and"
            " numbers are those of the groups that the classes match; - is no class.",
            "small",
        )
        flow = agreement.draw_flow(chains, particles.labels)
        report.panel(f"flow{tail}", "flow of particles", flow, agreement.flow_table(chains, particles.labels))
        table = agreement.coassignment_table(chains, particles.labels)
        report.text("How often a chain puts two particles into one class, by the groups of both.", "small")
        drawn = agreement.draw_coassignment(table, chains, particles.labels, particles.agreeing)
        report.panel(f"coassignment{tail}", "co-assignment of pairs of particles", drawn, table)
    report.heading("Confidence")
    report.text(
        "Left: particles by the probability of their likeliest group. Right: the share of the independent chains that"
        " agree on such particles; below the dotted line probabilities claim more than chains agree on.",
        "small",
    )
    table = quality.confidence_table(particles)
    report.panel("confidence", "confidence and calibration", quality.draw_confidence(table), table)


def _show_effects(report: Report, anova: pd.DataFrame) -> None:
    report.heading("What else the groups differ in")
    report.text(
        "Per cent of a group's particles that would have to be exchanged to make it as the others in that quantity:"
        " above 33, and significant, the sort warns. All tests are in anova.txt and anova.csv.",
        "small",
    )
    table = quality.effects_table(anova)
    report.panel("anova", "other differences of the groups", quality.draw_effects(table), table)


def _number(value: float, form: str, unit: str) -> str:
    return f"{value:{form}}{unit}" if math.isfinite(value) else "unknown"
