"""The page of a classification: its levels, how they settled, where classes come from, and a card for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, NullFormatter

from hpcsort.cl2d.hierarchy import draw_hierarchy
from hpcsort.cl2d.outputs import FinishedLevel, class_table
from hpcsort.io import ParticleTable
from hpcsort.report import Page, grey_png

__all__ = ["write_report"]

_MOST_DRAWN = 128
"""Classes of a level up to which the hierarchy can be read as a drawing."""
_TITLES = {"core": "core", "stable_core": "stable core"}


def write_report(path: Path, table: ParticleTable, done: Sequence[FinishedLevel], *, overwrite: bool = False) -> None:
    """Write the page of all levels; classes are those of the last.

    Parameters
    ----------
    path : of the page.
    table : N particles.
    done : levels, from the first.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    last = done[-1]
    page = Page(f"{len(table)} particles in {last.level.state.classes} classes")
    for warning in _warnings(last):
        page.text(warning, "note")
    page.text(f"Images of {table.box_px} px at {table.pixel_size_A:g} A. Files of each level are in its folder.")
    page.heading("Levels")
    page.table(*_levels(table, done))
    page.text(
        "Resolution: where the correlation of the averages of two halves of a class falls below 0.5 (FRC), median of"
        " the classes. Core: particles whose junk z-score and PCA distance are in bounds; stable core: that also stay"
        " together over the levels.",
        "small",
    )
    page.picture(_convergence(done), "mean score and share of changed particles over the iterations of all levels")
    page.heading(f"Classes of level {last.level.number}")
    page.cards(_cards(table, last))
    if len(done) > 1 and last.level.state.classes <= _MOST_DRAWN:
        page.heading("Hierarchy")
        paths = [level.level.state.labels for level in done]
        page.picture(
            draw_hierarchy(paths, [level.averages["classes"].images for level in done]),
            "which classes come from which of the level before",
        )
    page.write(path, overwrite=overwrite)


def _warnings(last: FinishedLevel) -> list[str]:
    told = []
    for name, title in _TITLES.items():
        if name in last.averages:
            empty = np.flatnonzero(last.averages[name].sizes == 0) + 1
            if empty.size:
                listed = ", ".join(map(str, empty[:20].tolist())) + (", ..." if empty.size > 20 else "")
                told.append(f"No particle is in the {title} of {len(empty)} classes: {listed}.")
    blank = int((last.averages["classes"].resolution_px == 0).sum())
    if blank:
        told.append(f"{blank} classes have no resolution: too few particles, or halves that do not agree.")
    return told


def _levels(table: ParticleTable, done: Sequence[FinishedLevel]) -> tuple[list[str], list[list[object]]]:
    heads = ["level", "classes", "smallest", "largest", "resolution A", "iterations", "last changed %"]
    named = [name for name in _TITLES if any(name in level.choices for level in done)]
    rows = []
    for level in done:
        sizes = level.averages["classes"].sizes
        resolution = class_table(table, level)["resolution_A"].median()
        shares: list[object] = [
            f"{100 * level.choices[name].mean():.1f}" if name in level.choices else "-" for name in named
        ]
        reached = f"{resolution:.1f}" if np.isfinite(resolution) else "-"
        history = level.level.history
        changed = f"{100 * history[-1]['changed']:.2f}"
        rows.append([level.level.number, len(sizes), sizes.min(), sizes.max(), reached, len(history), changed, *shares])
    return [*heads, *(f"{_TITLES[name]} %" for name in named)], rows


def _convergence(done: Sequence[FinishedLevel]) -> Figure:
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    start = 0
    for level in done:
        history = level.level.history
        places = np.arange(start, start + len(history)) + 1
        left.plot(places, [entry["score"] for entry in history], "o-", markersize=3)
        right.plot(places, [max(100 * entry["changed"], 0.01) for entry in history], "o-", markersize=3)
        start += len(history)
    left.set(xlabel="iteration", ylabel="mean score")
    right.set(xlabel="iteration", ylabel="changed particles (%)", yscale="log")
    right.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    right.yaxis.set_minor_formatter(NullFormatter())
    return figure


def _cards(table: ParticleTable, last: FinishedLevel) -> list[tuple[bytes, str, list[str]]]:
    cards = []
    for image, row in zip(last.averages["classes"].images, class_table(table, last).to_dict("records"), strict=True):
        reached = f"{row['resolution_A']:.1f} A" if np.isfinite(row["resolution_A"]) else "no resolution"
        lines = [f"{row['size']} particles", reached]
        lines += [
            f"{100 * row[f'{name}_share']:.0f} % {title}" for name, title in _TITLES.items() if f"{name}_share" in row
        ]
        cards.append((grey_png(image), f"class {row['class']}", lines))
    return cards
