"""Optics groups, pixel size, and what a table states about the optics that sorting leaves out of account."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io._checks import shown
from hpcsort.io.columns import Columns

if TYPE_CHECKING:
    from hpcsort.io.particles import ParticleTable

_PIXEL_TOLERANCE = 1e-4
MOST_PIXEL_A = 1e4
_TILTS = ("rlnBeamTiltX", "rlnBeamTiltY")
_ABERRATIONS = (
    ("beam tilt", _TILTS, 0.0),
    ("odd aberrations", ("rlnOddZernike",), 0.0),
    ("even aberrations", ("rlnEvenZernike",), 0.0),
    ("anisotropic magnification", ("rlnMagMat00", "rlnMagMat11"), 1.0),
    ("anisotropic magnification", ("rlnMagMat01", "rlnMagMat10"), 0.0),
)


@dataclass(frozen=True, eq=False)
class OpticsGroups:
    """Each particle's optics group (N,) int64, 0-based into `names`."""

    group: npt.NDArray[np.int64]
    names: tuple[str, ...]

    @classmethod
    def of(cls, frame: pd.DataFrame, optics: pd.DataFrame | None, source: Path) -> OpticsGroups:
        """Read the groups of N particles from the particles' and the optics' column rlnOpticsGroup.

        Raises
        ------
        InputError
            If a particle's group is not in the optics table, or the column is missing from either.
        """
        if optics is None:
            if "rlnOpticsGroup" not in frame:
                return cls(np.zeros(len(frame), dtype=np.int64), ("opticsGroup1",))
            group, values = pd.factorize(frame["rlnOpticsGroup"], sort=True)
            return cls(group.astype(np.int64), tuple(f"opticsGroup{value}" for value in values))
        for block, table in (("optics", optics), ("particle", frame)):
            if "rlnOpticsGroup" not in table:
                raise InputError(
                    f"{source} has no column rlnOpticsGroup in its {block} table; add it to join the two tables"
                )
        numbers = [_number(value) for value in optics["rlnOpticsGroup"].tolist()]
        places = {number: place for place, number in enumerate(numbers)}
        if len(places) != len(numbers):
            raise InputError(
                f"{source}, column rlnOpticsGroup of data_optics: a group number occurs twice; number them anew"
            )
        group = np.array([places.get(_number(value), -1) for value in frame["rlnOpticsGroup"].tolist()], dtype=np.int64)
        lost = np.flatnonzero(group < 0)
        if lost.size:
            value = frame["rlnOpticsGroup"].iloc[int(lost[0])]
            raise InputError(
                f"{source}, row {lost[0] + 1}, column rlnOpticsGroup: group {shown(value)} is not in data_optics, which"
                f" has {shown(', '.join(numbers))}; add it there or correct the row"
            )
        named = optics["rlnOpticsGroupName"].tolist() if "rlnOpticsGroupName" in optics else numbers
        return cls(group, tuple(str(name) for name in named))


def _number(value: object) -> str:
    """Text of a group number, which one of the two tables may hold as 7 and the other as 7.000000."""
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def refuse_unsupported(columns: Columns, groups: OpticsGroups) -> None:
    """Raise InputError for CTF-premultiplied images and for subtomograms."""
    for name, rule in (
        ("rlnCtfDataAreCtfPremultiplied", "images multiplied by their CTF are not supported yet: extract them without"),
        ("rlnImageDimensionality", "only 2D images are sorted, not subtomograms: extract 2D images"),
    ):
        normal = 2.0 if name == "rlnImageDimensionality" else 0.0
        columns.refuse(name, columns.numbers(name, normal, "") != normal, rule)


def find_pixel_sizes(
    columns: Columns, angpix: float | None, header_A: float
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """Pixel size in Angstrom of each image (N,), and notes.

    In this order: `angpix`; rlnImagePixelSize; rlnDetectorPixelSize (um) x 10^4 / rlnMagnification;
    rlnDetectorPixelSize alone, then in Angstrom; `header_A`, the voxel size of the first stack (0 if unknown).

    Raises
    ------
    InputError
        If there is none.
    """
    name, sizes = _stated_pixel_sizes(columns)
    same = np.full(len(columns.frame), header_A if angpix is None else angpix, dtype=np.float64)
    if angpix is not None:
        if sizes is not None and np.any(np.abs(sizes - angpix) > 1e-3 * angpix):
            low, high = f"{sizes.min():.6g}", f"{sizes.max():.6g}"
            stated = low if low == high else f"{low} to {high}"
            return same, (f"Pixel size {angpix:g} A as given replaces {stated} A of column {name}.",)
        return same, ()
    if sizes is None:
        if 0 < header_A <= MOST_PIXEL_A:
            return same, (f"Pixel size {header_A:.6g} A is taken from the header of the stack; the table has none.",)
        raise InputError(
            f"{columns.source} has no pixel size (rlnImagePixelSize, or rlnDetectorPixelSize with rlnMagnification),"
            " nor has the header of its stack; give it with --angpix"
        )
    wrong = (sizes <= 0) | (sizes > MOST_PIXEL_A)
    columns.refuse(name, wrong, f"a pixel size in Angstrom is positive and at most {MOST_PIXEL_A:g}")
    return sizes, ()


def one_pixel_size(table: ParticleTable) -> float:
    """Return the pixel size of all particles, NaN for no particles.

    Raises
    ------
    InputError
        If the particles have different ones; names two optics groups, or rows where there is no optics table.
    """
    sizes = table.pixel_sizes_A
    if not sizes.size:
        return float("nan")
    other = np.flatnonzero(np.abs(sizes - sizes[0]) > _PIXEL_TOLERANCE * sizes[0])
    if other.size:
        row = int(other[0])
        columns = Columns(table.source, table.frame, table.optics, table.optics_group)
        name = next(name for name in ("rlnImagePixelSize", "rlnDetectorPixelSize") if columns.has(name))
        first, second = (_whose(table, place) for place in (0, row))
        raise InputError(
            f"{table.source}, column {name}: {first} has {sizes[0]:.6g} A and {second} has {sizes[row]:.6g} A;"
            " rescale the images to one pixel size, sort the groups apart, or take all as of one size with --angpix"
        )
    return float(sizes[0])


def _stated_pixel_sizes(columns: Columns) -> tuple[str, npt.NDArray[np.float64] | None]:
    if columns.has("rlnImagePixelSize"):
        return "rlnImagePixelSize", columns.numbers("rlnImagePixelSize", None, "")
    name = "rlnDetectorPixelSize"
    if not columns.has(name):
        return "", None
    sizes = columns.numbers(name, None, "")
    if columns.has("rlnMagnification"):
        magnification = columns.numbers("rlnMagnification", None, "")
        columns.refuse("rlnMagnification", magnification <= 0, "a magnification is positive")
        sizes = sizes * 1e4 / magnification
    return name, sizes


def _whose(table: ParticleTable, row: int) -> str:
    if table.optics is None:
        return f"row {table.source_row[row] + 1}"
    return f"optics group {table.optics_group_names[table.optics_group[row]]}"


def aberration_notes(columns: Columns, groups: OpticsGroups) -> tuple[str, ...]:
    """One sentence for each kind of higher-order optics that groups in use state and sorting does not apply."""
    affected: dict[str, set[int]] = {}
    for kind, names, trivial in _ABERRATIONS:
        for name in names:
            values = columns.values(name)
            if values is None:
                continue
            codes, distinct = pd.factorize(values)
            stated = np.array([_differs(str(value), trivial) for value in distinct], dtype=bool)
            members = np.unique(groups.group[(codes >= 0) & stated[codes]]).tolist()
            if members:
                affected.setdefault(kind, set()).update(members)
    return tuple(
        f"The table states {kind} for {_listed(groups, members)}; it is left out of account in sorting."
        for kind, members in affected.items()
    )


def _differs(text: str, trivial: float) -> bool:
    entries = text.strip("[]").split(",")
    try:
        return any(abs(float(entry) - trivial) > 1e-9 for entry in entries if entry.strip())
    except ValueError:
        return False


def _listed(groups: OpticsGroups, members: set[int]) -> str:
    names = ", ".join(groups.names[member] for member in sorted(members))
    return f"optics group {names}" if len(members) == 1 else f"optics groups {names}"
