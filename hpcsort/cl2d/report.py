"""The page of a classification, made from its files: levels, how they settled, and a card for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from hpcsort.errors import InputError
from hpcsort.io import MrcStack
from hpcsort.report import RECORD, Report, binned, grey_png, provenance_rows, read_json, save_bytes
from hpcsort.report.style import colour, figure

__all__ = ["write_report"]

_MOST_DRAWN = 128
"""Classes of a level up to which the hierarchy can be read as a drawing."""
_EDGE, _MANY = 128, 256
"""Edge of the pictures of classes; half of it where there are more, so that the page stays small."""
_TITLES = {"core": "core", "stable_core": "stable core"}


@dataclass(frozen=True)
class _Level:
    """A level as its folder tells of it.

    Attributes
    ----------
    folder : of the level.
    number : from 0.
    particles, box_px, pixel_size_A : of the input.
    history : score and changed, a row an iteration.
    classes : class, size, resolution_A, core_size, core_share, ..., a row a class.
    """

    folder: Path
    number: int
    particles: int
    box_px: int
    pixel_size_A: float
    history: pd.DataFrame
    classes: pd.DataFrame


def write_report(folder: Path) -> Path:
    """Draw the report of a classification from the files in its folder, and return the page.

    Raises
    ------
    InputError
        If no level is there, or a file is damaged.
    OutputError
        If the report cannot be written.
    """
    levels = [_read_level(path) for path in sorted(folder.glob("level_*/level.json"))]
    if not levels:
        raise InputError(f"{folder} holds no finished level of cl2d, so there is nothing to show yet.")
    last = levels[-1]
    # particles of no core are classified inside the folder of the run that they come from
    record = folder if (folder / RECORD).is_file() else folder.parent
    report = Report(folder, f"{last.particles} particles in {len(last.classes)} classes")
    if not (record / RECORD).is_file():
        report.text(f"This is not the end of the run; go on with: hpcsort resume {folder}", "note")
    for warning in _warnings(last):
        report.text(warning, "note")
    report.text(
        f"Images of {last.box_px} px at {last.pixel_size_A:g} A. Files of each level are in its folder, level_NN."
    )
    report.heading("Levels")
    table = _level_table(levels)
    report.table(table.columns, table.astype(object).to_numpy().tolist())
    report.text(
        "Resolution: where the correlation of the averages of two halves of a class falls below 0.5 (FRC), median of"
        " the classes. Core: particles whose junk z-score and PCA distance are in bounds; stable core: that also stay"
        " together over the levels.",
        "small",
    )
    report.panel("levels", "", table=table)
    history = pd.concat([level.history.assign(level=level.number) for level in levels], ignore_index=True)
    report.panel(
        "convergence",
        "mean score and share of changed particles over the iterations of all levels",
        _convergence(history),
        history,
    )
    report.heading(f"Classes of level {last.number}")
    report.cards(_cards(report.panels, last))
    report.panel("classes", "", table=last.classes)
    drawing = folder / "hierarchy.png"
    if drawing.is_file() and len(last.classes) <= _MOST_DRAWN:
        report.heading("Hierarchy")
        report.picture(drawing, "which classes come from which of the level before")
        report.text("hierarchy.png; numbers in hierarchy.csv.", "small")
    report.heading("Provenance")
    report.facts(provenance_rows(record))
    return report.save()


def _read_level(path: Path) -> _Level:
    told = read_json(path)
    try:
        history, classes = pd.DataFrame(told["iterations"]), pd.DataFrame(told["classes"])
        classes["resolution_A"] = classes["resolution_A"].astype(np.float64)
        size = told["particles"], told["box_px"], told["pixel_size_A"]
        return _Level(path.parent, told["level"], *size, history, classes)
    except KeyError as error:
        raise InputError(f"{path} has no entry {error}, so it is not of cl2d; remove it.") from error


def _warnings(last: _Level) -> list[str]:
    told = []
    for name, title in _TITLES.items():
        if f"{name}_size" in last.classes:
            empty = last.classes.loc[last.classes[f"{name}_size"] == 0, "class"].tolist()
            if empty:
                listed = ", ".join(map(str, empty[:20])) + (", ..." if len(empty) > 20 else "")
                told.append(f"No particle is in the {title} of {len(empty)} classes: {listed}.")
    blank = int(last.classes["resolution_A"].isna().sum())
    if blank:
        told.append(f"{blank} classes have no resolution: too few particles, or halves that do not agree.")
    return told


def _level_table(levels: Sequence[_Level]) -> pd.DataFrame:
    rows = []
    for level in levels:
        sizes, resolution = level.classes["size"], level.classes["resolution_A"].median()
        row: dict[str, object] = {
            "level": level.number,
            "classes": len(sizes),
            "smallest": sizes.min(),
            "largest": sizes.max(),
            "resolution A": f"{resolution:.1f}" if np.isfinite(resolution) else "-",
            "iterations": len(level.history),
            "last changed %": f"{100 * level.history['changed'].iloc[-1]:.2f}",
        }
        for name, title in _TITLES.items():
            if f"{name}_size" in level.classes:
                row[f"{title} %"] = f"{100 * level.classes[f'{name}_size'].sum() / level.particles:.1f}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("-")


def _convergence(history: pd.DataFrame) -> Figure:
    drawn, axes = figure(10.5, 2.6, 1, 2)
    left, right = axes[0]
    for level, part in history.groupby("level"):
        style = {"marker": "o", "markersize": 3, "color": colour(int(str(level)))}
        left.plot(part.index + 1, part["score"], **style)
        right.plot(part.index + 1, np.maximum(100 * part["changed"], 0.01), label=f"level {level}", **style)
    left.set(xlabel="iteration", ylabel="mean score")
    right.set(xlabel="iteration", ylabel="changed particles (%)", yscale="log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    right.yaxis.set_minor_formatter(NullFormatter())
    right.legend(frameon=False, fontsize=8, ncols=2)
    return drawn


def _cards(panels: Path, last: _Level) -> list[tuple[bytes, str, list[str]]]:
    cards = []
    edge = _EDGE if len(last.classes) <= _MANY else _EDGE // 2
    images = _averages(last.folder / "classes.mrcs")
    for image, row in zip(images, last.classes.to_dict("records"), strict=True):
        reached = f"{row['resolution_A']:.1f} A" if np.isfinite(row["resolution_A"]) else "no resolution"
        lines = [f"{row['size']} particles", reached]
        lines += [
            f"{100 * row[f'{name}_share']:.0f} % {title}" for name, title in _TITLES.items() if f"{name}_share" in row
        ]
        picture = grey_png(binned(image, edge))
        save_bytes(panels / f"class_{row['class']:03d}.png", picture)
        cards.append((picture, f"class {row['class']}", lines))
    return cards


def _averages(path: Path) -> npt.NDArray[np.float32]:
    with MrcStack(path) as stack:
        return stack.read(np.arange(len(stack)))
