"""Pictures of maps, and a script that shows them in ChimeraX."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from PIL import Image

from hpcsort.io import read_any_map
from hpcsort.report.page import binned
from hpcsort.report.style import LESS, MORE, colour

__all__ = ["MapViews", "chimerax_script", "common_contour", "map_png", "view_map"]

_GREY = ("slices", "projections")
_EDGE = 112
"""Largest edge of a picture in pixels; larger maps are binned."""
_GAP = 3
_CONTOUR_SIGMA = 3.0


@dataclass(frozen=True, eq=False)
class MapViews:
    """A map, seen from its three axes.

    Attributes
    ----------
    slices, projections : float32 (3, edge, edge), central slices and mean projections along z, y and x; rows are y, z
        and z, columns are x, x and y.
    mean, std : of all voxels.
    """

    slices: npt.NDArray[np.float32]
    projections: npt.NDArray[np.float32]
    mean: float
    std: float


def view_map(path: Path) -> MapViews:
    """Read a map and look at it along its axes.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    volume, _ = read_any_map(path)
    mean = float(volume.mean(dtype=np.float64))
    # section by section, as a large map is not to be copied
    power = float(np.mean([np.square(section, dtype=np.float64).mean() for section in volume]))
    middle = [length // 2 for length in volume.shape]
    slices = [np.take(volume, middle[axis], axis) for axis in range(3)]
    projections = [volume.mean(axis=axis) for axis in range(3)]
    return MapViews(
        np.stack([binned(one, _EDGE) for one in slices]),
        np.stack([binned(one, _EDGE) for one in projections]),
        mean,
        max(power - mean**2, 0.0) ** 0.5,
    )


def map_png(views: MapViews, among: Mapping[str, MapViews]) -> bytes:
    """Draw slices, projections and, where there are several maps, how its projections differ from their mean.

    Grey values and colours mean the same in all maps of ``among``.
    """
    rows = [_grey(getattr(views, name), [getattr(one, name) for one in among.values()]) for name in _GREY]
    if len(among) > 1:
        mean = np.mean([one.projections for one in among.values()], axis=0)
        rows.append(_coloured(views.projections - mean, [one.projections - mean for one in among.values()]))
    edge = rows[0].shape[1]
    sheet = np.full((len(rows) * (edge + _GAP) - _GAP, 3 * (edge + _GAP) - _GAP, 3), 255, np.uint8)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            y, x = row * (edge + _GAP), column * (edge + _GAP)
            sheet[y : y + edge, x : x + edge] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="png")
    return buffer.getvalue()


def common_contour(views: Mapping[str, MapViews]) -> float:
    """Level for all maps: three standard deviations above the mean of the voxels, averaged over the maps."""
    return float(np.mean([one.mean + _CONTOUR_SIGMA * one.std for one in views.values()]))


def chimerax_script(maps: Mapping[str, Path], level: float) -> str:
    """Commands that open maps, which lie beside the script, at one contour and side by side."""
    lines = [
        "# Opens the maps of all groups in ChimeraX at one contour: open this file there.",
        f"# The level is three standard deviations above the mean of the voxels, averaged over {len(maps)} maps, which"
        " share one scale.",
    ]
    for number, path in enumerate(maps.values(), 1):
        lines.append(f"open {path.name}")
        lines.append(f"volume #{number} style surface step 1 level {level:.6g} color {colour(number - 1)}")
    lines += ["lighting soft", "tile", "view"]
    return "\n".join(lines) + "\n"


def _grey(images: npt.NDArray[np.float32], pool: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.uint8]:
    """Grey pictures (3, edge, edge, 3)."""
    low, high = np.percentile(np.stack(pool), (0.5, 99.5))
    grey = np.clip((images - low) * (255.0 / max(high - low, 1e-30)), 0, 255)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


def _coloured(images: npt.NDArray[np.float32], pool: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.uint8]:
    """Pictures (3, edge, edge, 3): white for nothing, orange for more, blue for less."""
    reach = max(float(np.percentile(np.abs(np.stack(pool)), 99.5)), 1e-30)
    strength = np.clip(images / reach, -1, 1)[..., None]
    ink = np.where(strength > 0, np.array(to_rgb(MORE)), np.array(to_rgb(LESS)))
    return np.asarray(255 * (1 - np.abs(strength) * (1 - ink)), np.uint8)
