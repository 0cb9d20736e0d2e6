"""Drawings of the independent chains: where particles go, which go together, how chains settle."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcsort.report.sorting.chains import Chain, aligned_chains, coassignment
from hpcsort.report.sorting.gather import SortedRun
from hpcsort.report.style import NONE, SHADES, colour, figure

__all__ = [
    "coassignment_table", "convergence_table", "draw_coassignment", "draw_convergence", "draw_flow", "draw_held_out",
    "flow_table", "held_out_table",
]  # fmt: skip

_MOST_CHAINS = 8
_FEWEST = 0.002
"""Flows below this share of the particles are not drawn."""
_PARTS = 6
"""Parts of a group, by falling agreement, that the fine matrix tells apart."""


def flow_table(chains: list[Chain], labels: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Particles that go from each class of a chain to each of the next; the last column of the flow are the groups."""
    names, columns = _columns(chains, labels)
    rows = []
    for step, (name, following) in enumerate(pairwise(names)):
        pairs, counts = np.unique(columns[step : step + 2], axis=1, return_counts=True)
        for (first, second), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            rows.append((name, first, following, second, count))
    return pd.DataFrame(rows, columns=["from", "class", "to", "class_there", "particles"])


def draw_flow(chains: list[Chain], labels: npt.NDArray[np.int64]) -> Figure:
    """Alluvial drawing: chains from left to right, the groups last, classes in the colours of the groups they match."""
    names, columns = _columns(chains, labels)
    drawn, axes = figure(10.5, 4.2)
    ax: Axes = axes[0, 0]
    total = columns.shape[1]
    # classes without a group and no class at all come last
    order = sorted(set(columns.ravel().tolist()), key=lambda group: (group < 0, group))
    bottoms = [_bottoms(column, order, total) for column in columns]
    for place, column in enumerate(columns):
        for group in order:
            height = int((column == group).sum()) / total
            if height:
                ax.bar(place, height, 0.16, bottoms[place][group], color=_shade(group, labels), zorder=2)
                if height > 0.035:
                    middle = bottoms[place][group] + height / 2
                    ax.text(place, middle, str(group) if group >= 0 else "-", ha="center", va="center", color="white")
    for place in range(len(columns) - 1):
        _draw_ribbons(ax, place, columns[place : place + 2], bottoms[place : place + 2], order, labels)
    ax.set_xticks(range(len(names)), names)
    ax.set(xlim=(-0.2, len(names) - 0.8), ylim=(1.07, -0.01), yticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    return drawn


def coassignment_table(chains: list[Chain], labels: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Share of pairs of particles that a chain puts together, by the groups of both; the last are the unaccounted."""
    groups = int(labels.max(initial=-1)) + 1
    parts = np.where(labels >= 0, labels, groups)
    names = [*(f"group_{group}" for group in range(groups)), "unaccounted"]
    matrix = coassignment(chains, parts, groups + 1)
    return pd.DataFrame(matrix, columns=names).assign(particles_of=names)[["particles_of", *names]]


def draw_coassignment(
    table: pd.DataFrame, chains: list[Chain], labels: npt.NDArray[np.int64], agreeing: npt.NDArray[np.float64]
) -> Figure:
    """Draw the matrix of the groups, and a finer one with each group cut into parts by how chains agree on them."""
    drawn, axes = figure(10.5, 4.3, 1, 2)
    left, right = axes[0]
    coarse = table.drop(columns="particles_of").to_numpy()
    names = [*map(str, range(len(coarse) - 1)), "none"]
    shown = left.imshow(coarse, cmap=SHADES, vmin=0, vmax=1)
    left.set_xticks(range(len(names)), names)
    left.set_yticks(range(len(names)), names)
    left.set(title="groups", xlabel="group", ylabel="group")
    if len(names) <= 10:
        for (row, column), value in np.ndenumerate(coarse):
            text = f"{100 * value:.0f}" if np.isfinite(value) else ""
            left.text(column, row, text, ha="center", va="center", color="white" if value < 0.5 else "black")
    parts = _fine_parts(labels, agreeing, len(names))
    count = _PARTS * len(names)
    right.imshow(coassignment(chains, parts, count), cmap=SHADES, vmin=0, vmax=1)
    middles = np.arange(len(names)) * _PARTS + (_PARTS - 1) / 2
    right.set_xticks(middles, names)
    right.set_yticks(middles, names)
    right.set(title="groups, those that chains agree on first", xlabel="group")
    drawn.colorbar(shown, ax=axes, label="pairs put together", format=lambda value, _: f"{100 * value:.0f} %")
    return drawn


def convergence_table(run: SortedRun) -> pd.DataFrame:
    """Agreement of chains and boxes, and particles that changed their class, in one table."""
    return pd.concat([run.boxes.assign(kind="agreement"), run.changes.assign(kind="changes")], ignore_index=True)


def draw_convergence(run: SortedRun) -> Figure:
    """Particles that change their class over the iterations of each chain, and agreement from layer to layer."""
    both = len(run.changes) > 0
    drawn, axes = figure(10.5 if both else 6.5, 3.2, 1, 2 if both else 1)
    if both:
        steps = run.changes[run.changes["layer"] == 0]
        for (_, box, chain), part in steps.groupby(["generation", "box", "chain"]):
            style = "-" if chain == 0 else "--"
            axes[0, 0].plot(
                part["iteration"], part["changed_percent"], style, marker="o", markersize=3, color=colour(int(str(box)))
            )
        axes[0, 0].set(xlabel="iteration", ylabel="particles that changed their class (%)")
        axes[0, 0].set_yscale("symlog", linthresh=0.1)
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
    right = axes[0, -1]
    stages: dict[str, list[tuple[int, float]]] = {}
    for row in run.boxes.sort_values(["generation", "layer", "what"], ascending=[True, True, False]).itertuples():
        kind = "chains" if str(row.what).startswith("chains") else "boxes"
        stages.setdefault(f"layer {row.layer}\n{kind}", []).append((int(str(row.generation)), float(str(row.ari))))
    for place, points in enumerate(stages.values()):
        for generation in sorted({number for number, _ in points}):
            values = [value for number, value in points if number == generation]
            spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(1)
            label = f"generation {generation}" if place == 0 else None
            right.plot(place + spread, values, "o", color=colour(generation), label=label)
    right.set_xticks(range(len(stages)), list(stages))
    right.set(ylabel="adjusted Rand index", ylim=(min(0, run.boxes["ari"].min()), 1.05), xlim=(-0.5, len(stages) - 0.5))
    if run.boxes["generation"].nunique() > 1:
        right.legend(frameon=False)
    return drawn


def held_out_table(run: SortedRun) -> pd.DataFrame:
    """Held-out log-likelihood by number of new groups, before and after finishing in map space."""
    rows = []
    for told in run.run.get("held_out", []):
        for stage in ("before_finishing", "after_finishing"):
            for classes, gain in told[stage].items():
                rows.append((told["generation"], stage, int(classes), gain, int(classes) == told["chosen"]))
    return pd.DataFrame(rows, columns=["generation", "stage", "groups", "held_out", "chosen"])


def draw_held_out(table: pd.DataFrame) -> Figure:
    """One curve a generation and stage."""
    drawn, axes = figure(6.5, 2.8)
    ax = axes[0, 0]
    for (generation, stage), part in table.groupby(["generation", "stage"]):
        after = stage == "after_finishing"
        name = f"generation {generation}, {'after' if after else 'before'} finishing in map space"
        style = {"marker": "s", "linestyle": "-"} if after else {"marker": "o", "linestyle": "--"}
        ax.plot(part["groups"], part["held_out"], markersize=4, color=colour(int(str(generation))), label=name, **style)
        ax.plot(*part.loc[part["chosen"], ["groups", "held_out"]].to_numpy().T, "o", markersize=11, fillstyle="none",
                color="#333333")  # fmt: skip
    ax.set(xlabel="new groups", ylabel="log-likelihood a particle")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=8)
    return drawn


def _columns(chains: list[Chain], labels: npt.NDArray[np.int64]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Names and labels, (chains + 1, n), of the first chains and the groups for the particles that they sorted."""
    aligned = aligned_chains(chains[:_MOST_CHAINS], labels)
    columns = np.vstack([aligned, labels])
    return [*(chain.name for chain in chains[:_MOST_CHAINS]), "groups"], columns[:, (aligned > -2).all(axis=0)]


def _bottoms(column: npt.NDArray[np.int64], order: list[int], total: int) -> dict[int, float]:
    """Where each class of a column begins; a little room is left between them."""
    gap = 0.06 / max(len(order), 1)
    found, height = {}, 0.0
    for group in order:
        found[group] = height
        size = int((column == group).sum())
        height += size / total + (gap if size else 0.0)
    return found


def _draw_ribbons(
    ax: Axes,
    place: int,
    pair: npt.NDArray[np.int64],
    bottoms: list[dict[int, float]],
    order: list[int],
    labels: npt.NDArray[np.int64],
) -> None:
    """Draw the flows between two columns as bands that bend smoothly."""
    total = pair.shape[1]
    along = np.linspace(0, 1, 30)
    bend = along * along * (3 - 2 * along)
    used = [dict(side) for side in bottoms]
    for first in order:
        for second in order:
            width = int(((pair[0] == first) & (pair[1] == second)).sum()) / total
            start, end = used[0][first], used[1][second]
            used[0][first] += width
            used[1][second] += width
            if width > _FEWEST:
                low = start + (end - start) * bend
                ax.fill_between(place + 0.08 + 0.84 * along, low, low + width, color=_shade(first, labels), alpha=0.45,
                                linewidth=0)  # fmt: skip


def _shade(group: int, labels: npt.NDArray[np.int64]) -> str:
    """Colour of a group; classes that match none are dark."""
    return "#555555" if group > labels.max(initial=-1) else colour(group) if group >= 0 else NONE


def _fine_parts(labels: npt.NDArray[np.int64], agreeing: npt.NDArray[np.float64], groups: int) -> npt.NDArray[np.int64]:
    """Cut each group, the unaccounted being the last, into equal parts by falling agreement."""
    own = np.where(labels >= 0, labels, groups - 1)
    parts = np.empty(len(labels), np.int64)
    for group in range(groups):
        members = np.flatnonzero(own == group)
        ranked = members[np.argsort(-agreeing[members], kind="stable")]
        parts[ranked] = group * _PARTS + np.arange(len(ranked)) * _PARTS // max(len(ranked), 1)
    return parts
