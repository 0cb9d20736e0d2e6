"""Coordinates of particles in micrographs: Xmipp .pos, STAR, EMAN1 .box, CSV."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io._checks import shown
from hpcsort.io.columns import Columns
from hpcsort.io.xmd import as_frame, read_xmd

__all__ = ["SUFFIXES", "Picks", "read_coordinate_table", "read_coordinates"]

SUFFIXES = (".pos", ".star", ".xmd", ".box", ".csv")
"""Suffixes of coordinate files, in the order in which they are looked for."""

_X = ("rlnCoordinateX", "xcoor", "x", "X", "x_px")
_Y = ("rlnCoordinateY", "ycoor", "y", "Y", "y_px")
_IDS = ("hpcsortPairId", "pairId", "pair_id", "itemId", "id", "ID")
_MICROGRAPHS = ("rlnMicrographName", "micrograph", "micrograph_name", "micName")
_AUTOMATIC = "particles_auto"
_BLANK = "particles"


@dataclass(frozen=True, eq=False)
class Picks:
    """Particles picked in one micrograph.

    Attributes
    ----------
    source : Path
        The file, for messages.
    ids : numpy.ndarray or None
        (n,) int64, unique: the same number in the other micrograph of a pair is the same particle. None where the file
        has no numbers; the order of the rows then counts.
    xy_px : numpy.ndarray
        (n, 2) float64, centres (x = column, y = row) in pixels of the picked micrograph; the centre of its first pixel
        is (0, 0).
    enabled : numpy.ndarray
        (n,) bool, false for particles that the user has switched off.
    """

    source: Path
    ids: npt.NDArray[np.int64] | None
    xy_px: npt.NDArray[np.float64]
    enabled: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.xy_px)


def read_coordinates(path: str | os.PathLike[str]) -> Picks:
    """Read the particles of one micrograph.

    The format follows the suffix: .pos and .xmd (Xmipp: itemId, enabled, xcoor, ycoor), .star (rlnCoordinateX/Y), .box
    (EMAN1: corner x, corner y, width, height; the centre is corner + width // 2), .csv (x, y, and optionally id).

    Raises
    ------
    InputError
        If the file is missing or not of its format, a coordinate is not a finite number, or an id occurs twice.
    """
    source = Path(path)
    suffix = source.suffix.lower()
    if suffix == ".box":
        return _read_box(source)
    if suffix not in SUFFIXES:
        raise InputError(
            f"{source} is no known file of coordinates; give one of the suffixes {', '.join(SUFFIXES)} to it"
        )
    return _picks(source, _read_frame(source))


def read_coordinate_table(path: str | os.PathLike[str]) -> dict[str, Picks]:
    """Read the particles of many micrographs from one STAR, .xmd or CSV table with a column of micrograph names.

    Returns
    -------
    dict
        Micrograph as written in the table to its particles, in the order of the table.

    Raises
    ------
    InputError
        As `read_coordinates`, or without a column of names.
    """
    source = Path(path)
    frame = _read_frame(source)
    column = _found(frame, _MICROGRAPHS)
    if column is None:
        raise InputError(
            f"{source} has no column rlnMicrographName; add it, or give the folder with one file for each micrograph"
        )
    names = frame[column].astype(str)
    return {str(name): _picks(source, frame[names == name]) for name in names.unique()}


def _read_frame(source: Path) -> pd.DataFrame:
    if source.suffix.lower() == ".csv":
        return _read_csv(source)
    blocks = read_xmd(source)
    named = [name for name, block in blocks.items() if len(block) and _found(as_frame(block), _X) is not None]
    if not named and any(name in blocks for name in (_BLANK, _AUTOMATIC, "")):
        # Xmipp's file of a micrograph in which nothing was picked
        return pd.DataFrame({"xcoor": [], "ycoor": []})
    if not named:
        raise InputError(f"{source} has no block with coordinates (rlnCoordinateX or xcoor); give a file of picks")
    # Picked by hand and automatically: together they are the particles of the micrograph.
    return pd.concat([as_frame(blocks[name]) for name in named], ignore_index=True)


def _read_csv(source: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(source, sep=None, engine="python", skipinitialspace=True)
    except pd.errors.EmptyDataError:
        return pd.DataFrame({"x": [], "y": []})
    except (OSError, UnicodeDecodeError, csv.Error, pd.errors.ParserError, ValueError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "not a table in UTF-8"
        raise InputError(f"{source} cannot be read ({reason}); give a CSV with the columns x and y") from error
    return frame.rename(columns=lambda name: str(name).strip())


def _read_box(source: Path) -> Picks:
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source} cannot be read as text; check path and permissions") from error
    centres = []
    for row, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            x, y, width, height = (float(word) for word in words[:4])
        except ValueError:
            raise InputError(
                f"{source}, row {row}: {shown(line.strip())!r} is not corner x, corner y, width, height; correct the"
                " row"
            ) from None
        if len(words) > 4 and words[4] in ("-1", "-2"):
            raise InputError(f"{source}, row {row}: boxes along a filament are not particles; give single boxes")
        if not np.isfinite([x, y, width, height]).all() or min(width, height) <= 0:
            raise InputError(f"{source}, row {row}: {shown(line.strip())!r} is not a box; correct or remove the row")
        centres.append((x + width // 2, y + height // 2))
    xy = np.array(centres, np.float64).reshape(-1, 2)
    return Picks(source, None, xy, np.ones(len(xy), bool))


def _picks(source: Path, frame: pd.DataFrame) -> Picks:
    x, y = _found(frame, _X), _found(frame, _Y)
    if x is None or y is None:
        raise InputError(f"{source} has no columns of coordinates (rlnCoordinateX/Y, xcoor/ycoor or x/y); add them")
    columns = Columns(source, frame, None, np.zeros(len(frame), np.int64))
    xy = np.stack([columns.numbers(name, None, "") for name in (x, y)], axis=1)
    ids = None
    name = _found(frame, _IDS)
    if name is not None:
        ids = columns.integers(name, 0)
        values, counts = np.unique(ids, return_counts=True)
        if np.any(counts > 1):
            raise InputError(
                f"{source}, column {name}: {values[np.argmax(counts > 1)]} occurs {counts.max()} times; number the"
                " particles anew, in the other micrograph of the pair alike"
            )
    return Picks(source, ids, xy, columns.numbers("enabled", 1.0, "") > 0)


def _found(frame: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in frame), None)
