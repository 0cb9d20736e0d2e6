"""Pictures of the families: a map, all members, the tree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from scipy.cluster.hierarchy import dendrogram

from hpcsort.averages.cluster import average_tree
from hpcsort.averages.families import Family
from hpcsort.averages.merge import family_of
from hpcsort.averages.story import Findings
from hpcsort.planar import apply_poses
from hpcsort.report.style import COLOURS, colour

__all__ = ["draw_dendrogram", "draw_map", "draw_members", "map_plane"]

_COLUMNS = 8
_TILE_PX = 64
_GREY = "0.6"
_MOST_INCHES = 750.0
"""No picture has more than 65,536 pixels in a direction."""
_MOST_LEAVES = 900
"""Above, scipy's recursion may end in an error, and nobody could read the names."""

Colour = tuple[float, float, float] | str


def draw_map(findings: Findings) -> Figure:
    """Draw averages as points of a plane whose distances are nearly theirs, framed in the colours of their families."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    ax = figure.add_subplot()
    places = map_plane(findings.distance)
    place_of = {row: place for place, row in enumerate(findings.rows.tolist())}
    colours = _colours(findings)
    # as many as there are, thumbnails become smaller so that they do not hide each other
    zoom = 0.75 * np.clip(np.sqrt(40 / max(len(places), 1)), 0.35, 1.0)
    for label, family in enumerate(findings.families):
        name = f"Cluster {label} (blank)" if family.blank else f"Cluster {label}"
        if family.blank:
            ax.plot([], [], "s", color=colours[label], label=f"{name}: {len(family.members)}, not drawn")
            continue
        xy = places[[place_of[row] for row in family.members.tolist()]]
        ax.plot(xy[:, 0], xy[:, 1], "s", markersize=3, color=colours[label], label=f"{name}: {len(xy)}")
        for (x, y), tile in zip(xy, _tiles(findings, family), strict=True):
            image = OffsetImage(tile, cmap="gray", zoom=zoom * 64 / len(tile))
            frame = {"edgecolor": colours[label], "linewidth": 2.5}
            ax.add_artist(AnnotationBbox(image, (x, y), pad=0.05, bboxprops=frame))
    ax.set(xlabel="first coordinate", ylabel="second coordinate", title="Averages by distance (classical scaling)")
    ax.margins(0.08)
    columns = 1 + (len(findings.families) - 1) // 40
    figure.legend(loc="outside right upper", ncols=columns)
    return figure


def map_plane(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points (n, 2) whose distances are nearly those given, by classical scaling (Torgerson 1952)."""
    count = len(distance)
    if count < 2:
        return np.zeros((count, 2))
    squares = distance**2
    mean = squares.mean(axis=0)
    value, vector = np.linalg.eigh(-0.5 * (squares - mean - mean[:, None] + mean.mean()))
    points = np.zeros((count, 2))
    points[:, : min(2, count)] = vector[:, ::-1][:, :2] * np.sqrt(np.maximum(value[::-1][:2], 0.0))
    # the sign of an eigenvector is arbitrary
    points *= np.where(points[np.abs(points).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    return points


def draw_members(findings: Findings) -> Figure:
    """Draw all members of every family, brought onto the representative, with their scores."""
    tiles = [_tiles(findings, family) for family in findings.families]
    rows = [-(-len(some) // _COLUMNS) for some in tiles]
    edge = len(tiles[0][0])
    step_x, step_y = 1.08 * edge, 1.3 * edge
    width, height = 1.7 * edge + _COLUMNS * step_x, max(sum(rows), 1) * step_y
    scale = min(1 / edge, _MOST_INCHES / height)
    figure = Figure(figsize=(width * scale, height * scale))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    colours, top = _colours(findings), 0.0
    for label, (family, some, count) in enumerate(zip(findings.families, tiles, rows, strict=True)):
        ax.plot([-1.6 * edge] * 2, [top + 0.05 * edge, top + count * step_y - 0.05 * edge], color=colours[label], lw=6)
        ax.text(-1.5 * edge, top + 0.65 * edge, _heading(label, family), va="center", fontsize=9)
        for place, tile in enumerate(some):
            x, y = (place % _COLUMNS) * step_x, top + (place // _COLUMNS) * step_y + 0.22 * edge
            ax.imshow(tile, cmap="gray", extent=(x, x + edge, y + edge, y), aspect="auto", interpolation="nearest")
            ident = int(findings.averages.ids[family.members[place]])
            score = "" if family.blank else f": {family.scores[place]:.2f}"
            ax.text(x + edge / 2, y - 0.02 * edge, f"{ident}{score}", ha="center", va="bottom", fontsize=8)
        top += count * step_y
    ax.set(xlim=(-1.7 * edge, width - 1.7 * edge), ylim=(height, 0))
    return figure


def draw_dendrogram(findings: Findings) -> Figure:
    """Draw the tree of average linkage on the distances, the leaves coloured by family."""
    count = len(findings.rows)
    figure = Figure(figsize=(float(np.clip(0.14 * count, 6, 40)), 5), layout="constrained")
    ax = figure.add_subplot()
    ax.set(title="Average linkage on the distances", ylabel="distance")
    if 2 <= count <= _MOST_LEAVES:
        tree = dendrogram(average_tree(findings.distance), no_plot=True)
        lines = [list(zip(x, y, strict=True)) for x, y in zip(tree["icoord"], tree["dcoord"], strict=True)]
        ax.add_collection(LineCollection(lines, colors="0.3", linewidths=1))
        order = findings.rows[tree["leaves"]]
        labels, colours = family_of(findings.families, len(findings.averages.ids))[order], _colours(findings)
        ax.set(xlim=(0, 10 * count), ylim=(0, 1.05 * max(max(y) for y in tree["dcoord"]) or 1.0))
        names = [str(number) for number in findings.averages.ids[order].tolist()]
        ax.set_xticks(5 + 10 * np.arange(count), names, rotation=90, fontsize=7)
        for text, label in zip(ax.get_xticklabels(), labels.tolist(), strict=True):
            text.set_color(colours[label])
    else:
        ax.set_axis_off()
        ax.text(0.5, 0.5, f"{count} averages are too few or too many for a tree", ha="center", transform=ax.transAxes)
    return figure


def _heading(label: int, family: Family) -> str:
    count = len(family.members)
    lines = [f"Cluster {label}", f"({count} image{'s' if count > 1 else ''})"]
    if family.blank:
        lines.append("blank")
    if np.isfinite(family.stability):
        lines.append(f"stability {family.stability:.2f}")
    return "\n".join(lines)


def _tiles(findings: Findings, family: Family) -> npt.NDArray[np.float32]:
    """Members brought onto the representative, of 64 to 127 px if they are as large, from 0 to 1 each; (m, px, px)."""
    images = findings.averages.images[family.members]
    aligned = np.zeros_like(images) if family.blank else apply_poses(images, family.poses)
    bins = max(aligned.shape[-1] // _TILE_PX, 1)
    edge = aligned.shape[-1] // bins
    cut = aligned[:, : edge * bins, : edge * bins]
    small = cut.reshape(len(cut), edge, bins, edge, bins).mean(axis=(2, 4))
    low, high = (np.percentile(small, share, axis=(1, 2), keepdims=True) for share in (0.5, 99.5))
    return np.asarray(np.clip((small - low) / np.maximum(high - low, 1e-30), 0, 1), np.float32)


def _colours(findings: Findings) -> Sequence[Colour]:
    """One colour for each family, as far apart as their number allows; grey for blank averages."""
    count = len(findings.real_families)
    made: list[Colour] = [colour(family) for family in range(count)]
    if count > COLOURS:
        # darker, as yellow on white cannot be read
        made = [*map(tuple, 0.85 * colormaps["hsv"](np.arange(count) / count)[:, :3])]
    return [*made, *[_GREY] * (len(findings.families) - count)]
