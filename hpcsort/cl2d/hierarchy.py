"""Which classes of one level come from which of the level before: table and drawing."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["draw_hierarchy", "hierarchy_rows", "hierarchy_text"]

_SHOWN_SHARE = 0.1
"""Smaller flows between classes are not drawn."""

Labels = npt.NDArray[np.int64]


def hierarchy_rows(paths: Sequence[Labels]) -> list[dict[str, int | float]]:
    """Overlaps of classes of consecutive levels, a row for each pair of classes with common particles.

    Parameters
    ----------
    paths : int64 (N,) for each level, the labels; -1 for particles that are left out.
    """
    rows: list[dict[str, int | float]] = []
    for level, (upper, lower) in enumerate(pairwise(paths)):
        both = (upper >= 0) & (lower >= 0)
        pairs, counts = np.unique(np.stack([upper[both], lower[both]]), axis=1, return_counts=True)
        sizes = [np.bincount(labels[labels >= 0]) for labels in (upper, lower)]
        for (parent, child), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            rows.append(
                {
                    "level": level,
                    "class": parent + 1,
                    "next_class": child + 1,
                    "particles": count,
                    "percent_of_class": round(100.0 * count / int(sizes[0][parent]), 2),
                    "percent_of_next": round(100.0 * count / int(sizes[1][child]), 2),
                }
            )
    return rows


def hierarchy_text(paths: Sequence[Labels]) -> str:
    """Overlaps as plain text: where each class goes, then where each class of the next level comes from."""
    rows = hierarchy_rows(paths)
    lines: list[str] = []
    for level in range(len(paths) - 1):
        of_level = [row for row in rows if row["level"] == level]
        for words, own, other, percent in (
            ("goes to", "class", "next_class", "percent_of_class"),
            ("comes from", "next_class", "class", "percent_of_next"),
        ):
            here, there = (level, level + 1) if own == "class" else (level + 1, level)
            for number in sorted({int(row[own]) for row in of_level}):
                flows = sorted((row for row in of_level if row[own] == number), key=lambda row: -row[percent])
                size = sum(int(row["particles"]) for row in flows)
                told = ", ".join(f"class {int(row[other])} ({row[percent]:.1f} %)" for row in flows)
                lines.append(f"Level {here} class {number} ({size} particles) {words} level {there}: {told}")
            lines.append("")
        lines.append("-" * 60)
    return "\n".join(lines) + "\n"


def draw_hierarchy(paths: Sequence[Labels], averages: Sequence[npt.NDArray[np.float32]]) -> bytes:
    """Draw the tree of classes as PNG: averages, a column for each level, lines as wide as the flow of particles."""
    order = _order(paths, [len(images) for images in averages])
    tallest = max(len(images) for images in averages)
    width, height = 1.6 + 1.9 * len(paths), 0.8 + 0.55 * tallest
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.5, len(paths) - 0.5), ylim=(1.0, 0.0), xticks=range(len(paths)), yticks=[])
    axes.set_xticklabels([f"level {level}: {len(images)}" for level, images in enumerate(averages)])
    heights = [(np.argsort(places) + 0.5) / len(places) for places in order]
    for row in hierarchy_rows(paths):
        share = row["percent_of_next"] / 100
        if share < _SHOWN_SHARE:
            continue
        level = int(row["level"])
        ends = heights[level][int(row["class"]) - 1], heights[level + 1][int(row["next_class"]) - 1]
        axes.plot([level, level + 1], ends, color="#4575b4", alpha=0.6, linewidth=0.3 + 3 * share, zorder=1)
    half = 0.42 / tallest
    # square, whatever the units of either axis
    half_across = half * height * len(paths) / width
    for level, images in enumerate(averages):
        for image, middle in zip(images, heights[level], strict=True):
            place = (level - half_across, level + half_across, middle + half, middle - half)
            axes.imshow(image, cmap="gray", extent=place, aspect="auto", zorder=2)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    out = BytesIO()
    # without the version of matplotlib the same run gives the same bytes
    FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()


def _order(paths: Sequence[Labels], counts: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Order of the classes of each level in which the lines cross little: by where their particles were before."""
    orders = [np.arange(counts[0])]
    for level in range(1, len(paths)):
        place = np.argsort(orders[-1])[np.maximum(paths[level - 1], 0)]
        both = (paths[level] >= 0) & (paths[level - 1] >= 0)
        total = np.bincount(paths[level][both], place[both], counts[level])
        size = np.bincount(paths[level][both], minlength=counts[level])
        orders.append(np.argsort(total / np.maximum(size, 1), kind="stable"))
    return orders
