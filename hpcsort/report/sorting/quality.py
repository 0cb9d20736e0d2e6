"""Drawings of what the groups are worth: FSC curves, views, confidence, other differences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from hpcsort.report.sorting.gather import Particles, SortedRun
from hpcsort.report.style import NONE, SHADES, colour, figure

__all__ = [
    "confidence_table",
    "draw_confidence",
    "draw_effects",
    "draw_fsc",
    "draw_views",
    "effects_table",
    "fsc_table",
    "views_table",
]

_THRESHOLD = 0.143
_ACROSS = 4
_BINS = 20
_MOST_TICKS = 6
_SOUTH_NORTH = 36
"""Bins of view directions from pole to pole; twice as many go round."""


def fsc_table(run: SortedRun) -> pd.DataFrame:
    """FSC of all groups, and of random groups of their sizes, in a column each."""
    first = next(iter(run.fsc.values()))
    columns: dict[str, object] = {"shell": first["shell"], "resolution_A": first["resolution_A"]}
    for name, table in run.fsc.items():
        columns[name.replace(" ", "_")] = table["fsc"]
        number = _number(name)
        if number in run.random_fsc:
            columns[f"random_{number}"] = run.random_fsc[number]
    return pd.DataFrame(columns)


def draw_fsc(run: SortedRun) -> Figure:
    """Curves of the groups, one axes each, over that of random particles, as many as are in the group."""
    across, down = _grid(len(run.fsc))
    drawn, axes = figure(2.6 * across, 0.4 + 2.3 * down, down, across)
    for ax, (name, table) in zip(axes.flat, run.fsc.items(), strict=False):
        number = _number(name)
        frequency = 1.0 / table["resolution_A"].to_numpy()
        random = run.random_fsc.get(number)
        if random is not None:
            ax.fill_between(frequency, 0, random, color=NONE, alpha=0.7, linewidth=0)
        ax.plot(frequency, table["fsc"], color=colour(number) if number >= 0 else "#777777", linewidth=1.8)
        ax.axhline(_THRESHOLD, color="#333333", linewidth=0.8, linestyle=":")
        ax.set(ylim=(-0.1, 1.05), xlim=(0, frequency[-1]), title=name)
        _label_resolutions(ax, frequency[-1])
    for ax in axes.flat[len(run.fsc) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("FSC")
    return drawn


def draw_views(particles: Particles, groups: int) -> Figure:
    """Density of the view directions of each group over the sphere, in Mollweide's projection; 1 is even."""
    across, down = _grid(groups)
    drawn, axes = figure(2.4 * across + 0.9, 0.3 + 1.45 * down, down, across)
    maps = [_sphere(particles.directions[particles.labels == group]) for group in range(groups)]
    norm = Normalize(0, max(2.0, float(np.nanpercentile(np.stack(maps), 99))))
    for group, (ax, density) in enumerate(zip(axes.flat, maps, strict=False)):
        shown = ax.imshow(density, extent=(-2, 2, -1, 1), cmap=SHADES, norm=norm, interpolation="nearest")
        ax.set_title(f"group {group}, {int((particles.labels == group).sum())} particles", fontsize=9)
    for ax in axes.flat:
        ax.set_axis_off()
    drawn.colorbar(shown, ax=axes, shrink=0.9, label="density", pad=0.01, aspect=15 * down)
    return drawn


def views_table(particles: Particles, groups: int) -> pd.DataFrame:
    """Particles of each group in 12 x 24 bins of equal area on the sphere."""
    edges = np.linspace(-1, 1, 13), np.linspace(-180, 180, 25)
    longitude = np.rad2deg(np.arctan2(particles.directions[:, 1], particles.directions[:, 0]))
    columns = {}
    for group in range(groups):
        own = particles.labels == group
        columns[f"group_{group}"] = np.histogram2d(particles.directions[own, 2], longitude[own], edges)[0].ravel()
    latitude, turn = (np.rad2deg(np.arcsin(edges[0])), edges[1])
    south, west = (grid.ravel() for grid in np.meshgrid(latitude[:-1], turn[:-1], indexing="ij"))
    north, east = (grid.ravel() for grid in np.meshgrid(latitude[1:], turn[1:], indexing="ij"))
    places = {"latitude_from": south, "latitude_to": north, "longitude_from": west, "longitude_to": east}
    return pd.DataFrame(places | columns).astype(dict.fromkeys(columns, np.int64))


def confidence_table(particles: Particles) -> pd.DataFrame:
    """Particles by the probability of their likeliest group, and how many chains agree on them."""
    known = particles.likeliest >= 0
    said, agreed = particles.probability[known], particles.agreeing[known]
    accounted = particles.labels[known] >= 0
    place = np.minimum((said * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    with np.errstate(invalid="ignore"):
        columns = {
            "from": np.arange(_BINS) / _BINS,
            "to": np.arange(1, _BINS + 1) / _BINS,
            "particles": counts,
            "accounted": np.bincount(place, accounted, _BINS).astype(np.int64),
            "mean_probability": np.bincount(place, said, _BINS) / counts,
            "mean_agreement": np.bincount(place, agreed, _BINS) / counts,
        }
    return pd.DataFrame(columns)


def draw_confidence(table: pd.DataFrame) -> Figure:
    """Histogram of the probabilities, and the agreement of the chains against them."""
    drawn, axes = figure(10.5, 3.2, 1, 2)
    left, right = axes[0]
    middle = (table["from"] + table["to"]) / 2
    left.bar(middle, table["particles"], 0.9 / _BINS, color=NONE, label="unaccounted")
    left.bar(middle, table["accounted"], 0.9 / _BINS, color=colour(0), label="in a group")
    left.set(xlabel="probability of the likeliest group", ylabel="particles", yscale="symlog", xlim=(0, 1))
    left.legend(frameon=False, loc="upper left")
    right.plot([0, 1], [0, 1], color="#333333", linewidth=0.8, linestyle=":")
    sizes = 12 + 150 * np.sqrt(table["particles"] / max(table["particles"].max(), 1))
    right.scatter(table["mean_probability"], table["mean_agreement"], sizes, color=colour(0), alpha=0.8, linewidths=0)
    right.set(xlim=(0, 1.03), ylim=(0, 1.05), xlabel="mean probability", ylabel="chains that agree")
    return drawn


def effects_table(anova: pd.DataFrame) -> pd.DataFrame:
    """Share of each group's particles that would have to be exchanged, by quantity: the rows "rest" of anova.csv."""
    rest = anova[anova["test"] == "rest"]
    return pd.DataFrame(
        {
            "quantity": rest["quantity"],
            "group": rest["group"].astype(np.int64),
            "moved": rest["effect"],
            "p": rest["p_holm"],
        }
    )


def draw_effects(table: pd.DataFrame) -> Figure:
    """Quantities down, groups across, the share to be exchanged in each cell."""
    cells = table.pivot(index="quantity", columns="group", values="moved")
    drawn, axes = figure(min(2.2 + 0.75 * cells.shape[1], 10.5), 1.0 + 0.4 * len(cells))
    ax = axes[0, 0]
    shown = ax.imshow(cells.to_numpy(), cmap=SHADES, vmin=0, vmax=0.5, aspect="auto")
    ax.set_xticks(range(cells.shape[1]), cells.columns)
    ax.set_yticks(range(len(cells)), cells.index)
    ax.set_xlabel("group")
    for (row, column), value in np.ndenumerate(cells.to_numpy()):
        ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color="white" if value < 0.25 else "black")
    drawn.colorbar(shown, ax=ax, label="moved", ticks=[0, 0.25, 0.5], format=lambda value, _: f"{100 * value:.0f} %")
    return drawn


def _grid(count: int) -> tuple[int, int]:
    """Columns and rows of so many drawings."""
    across = min(count, _ACROSS)
    return across, -(-count // across)


def _number(name: str) -> int:
    return int(name.removeprefix("group ")) if name.startswith("group ") else -1


def _label_resolutions(ax: Axes, highest: float) -> None:
    """Name frequencies by their resolution in A."""
    ticks = np.linspace(0, highest, _MOST_TICKS - 1)[1:]
    ax.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    ax.set_xlabel("resolution (A)")


def _sphere(directions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Density of unit vectors (n, 3) as a Mollweide picture, north up; NaN outside the globe.

    Counted in bins of equal areas and smoothed by a von Mises-Fisher kernel that takes in thirty particles or so.
    """
    longitude = np.arctan2(directions[:, 1], directions[:, 0])
    limits = ((-1, 1), (-np.pi, np.pi))
    counts, sines, turns = np.histogram2d(directions[:, 2], longitude, (_SOUTH_NORTH, 2 * _SOUTH_NORTH), limits)
    sine, turn = np.meshgrid((sines[1:] + sines[:-1]) / 2, (turns[1:] + turns[:-1]) / 2, indexing="ij")
    cosine = np.sqrt(1 - sine**2)
    centres = np.stack([cosine * np.cos(turn), cosine * np.sin(turn), sine], axis=-1).reshape(-1, 3)
    kernel = np.exp(np.clip(len(directions) / 30, 4, 130) * (centres @ centres.T - 1))
    density = (kernel @ counts.ravel() / kernel.sum(axis=1) * counts.size / max(len(directions), 1)).reshape(
        counts.shape
    )
    y, x = np.mgrid[1:-1:121j, -2:2:241j]
    theta = np.arcsin(y)
    row = (((2 * theta + np.sin(2 * theta)) / np.pi + 1) / 2 * _SOUTH_NORTH).astype(np.int64)
    across = x / (2 * np.maximum(np.cos(theta), 1e-9))
    column = ((np.clip(across, -1, 1) + 1) * _SOUTH_NORTH).astype(np.int64)
    inside = density[np.minimum(row, _SOUTH_NORTH - 1), np.minimum(column, 2 * _SOUTH_NORTH - 1)]
    return np.where(np.abs(across) <= 1, inside, np.nan)
