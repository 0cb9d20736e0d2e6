"""How drawings look: colours that colour-blind people can tell apart, sizes, plain axes."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLOURS", "LESS", "MORE", "NONE", "SHADES", "colour", "figure", "plain"]

NONE = "#c8c8c8"
"""Colour of what belongs to no group."""
LESS, MORE = "#0072b2", "#d55e00"
"""Colours of what is below and above a mean."""
SHADES = "cividis"
"""Map of colours from little to much."""
_INK = "#333333"
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f00", "#332288")
"""Okabe & Ito (2008); an olive and an indigo for their yellow and black, which paper and ink hide."""
COLOURS = len(_COLOURS)


def colour(group: int) -> str:
    """Colour of a group; groups from the ninth on share those of the first, and -1 is that of no group."""
    return _COLOURS[group % COLOURS] if group >= 0 else NONE


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, npt.NDArray[Any]]:
    """Return a figure of so many inches and its axes (rows, columns)."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    axes: npt.NDArray[Any] = drawn.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        plain(ax)
    return drawn, axes


def plain(ax: Axes) -> None:
    """Leave no more lines around the axes than are needed."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_INK)
    ax.tick_params(colors=_INK)
