"""What every particle table has in common once it has RELION's column names, whatever file it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io._optics import MOST_PIXEL_A, OpticsGroups, aberration_notes, find_pixel_sizes, refuse_unsupported
from hpcsort.io.columns import Columns
from hpcsort.io.stacks import StackList, find_stacks

Floats = npt.NDArray[np.float64]

_POSES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_MOST_TURN_DEG = 1e6
# column, field of ParticleTable, value where the column is absent (None: it must be there)
_CTF = (
    ("rlnDefocusU", "defocus_u_A", None),
    ("rlnDefocusV", "defocus_v_A", None),
    ("rlnDefocusAngle", "defocus_angle_deg", None),
    ("rlnVoltage", "voltage_kV", None),
    ("rlnSphericalAberration", "cs_mm", None),
    ("rlnAmplitudeContrast", "amplitude_contrast", None),
    ("rlnPhaseShift", "phase_shift_deg", 0.0),
    ("rlnCtfBfactor", "bfactor_A2", 0.0),
    ("rlnCtfScalefactor", "ctf_scale", 1.0),
)
# column, least and largest value with any meaning, the rule in words
_CTF_RANGES = (
    ("rlnDefocusU", -1e6, 1e6, "a defocus in Angstrom lies within 100 um"),
    ("rlnDefocusV", -1e6, 1e6, "a defocus in Angstrom lies within 100 um"),
    ("rlnDefocusAngle", -_MOST_TURN_DEG, _MOST_TURN_DEG, "an angle in degrees is needed"),
    ("rlnVoltage", 1.0, 1e4, "a voltage in kV is positive and at most 10000"),
    ("rlnSphericalAberration", -1e3, 1e3, "spherical aberration in mm lies within 1000"),
    ("rlnAmplitudeContrast", 0.0, 1.0, "amplitude contrast lies between 0 and 1"),
    ("rlnPhaseShift", -_MOST_TURN_DEG, _MOST_TURN_DEG, "a phase in degrees is needed"),
    ("rlnCtfBfactor", -1e3, 1e6, "a B-factor in square Angstrom lies between -1000 and 1000000"),
    ("rlnCtfScalefactor", -1e6, 1e6, "a scale of the CTF lies within 1000000"),
)


def check_arguments(source: Path, datadir: str | os.PathLike[str] | None, angpix: float | None) -> None:
    """Raise InputError for a pixel size that is none and for a folder that does not exist."""
    if angpix is not None and not 0 < angpix <= MOST_PIXEL_A:
        raise InputError(
            f"pixel size {angpix} A given for {source} is not a positive number of at most {MOST_PIXEL_A:g}; correct"
            " --angpix"
        )
    if datadir is not None and not Path(datadir).is_dir():
        raise InputError(f"the folder {datadir} given for the stacks of {source} does not exist; correct --datadir")


def table_fields(
    source: Path,
    frame: pd.DataFrame,
    optics: pd.DataFrame | None,
    *,
    datadir: str | os.PathLike[str] | None,
    angpix: float | None,
    need_images: bool,
    need_poses: bool,
    need_ctf: bool,
    aliases: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Fields of a ParticleTable from N particles and their optics; all but those of STAR blocks and smears.

    Parameters
    ----------
    source
        The file, for messages and as the place from which stacks are looked for.
    frame, optics
        Particles and optics groups, columns named as RELION does.
    datadir, angpix, need_images, need_poses, need_ctf
        As `read_particles`.
    aliases
        RELION's name to the name of the column in `source`, where it differs.

    Raises
    ------
    InputError
        As `read_particles`.
    """
    groups = OpticsGroups.of(frame, optics, source)
    columns = Columns(source, frame, optics, groups.group, aliases or {})
    refuse_unsupported(columns, groups)
    ctf: dict[str, Any] = {
        name: columns.numbers(column, default, "the CTF is computed from it", need_ctf)
        for column, name, default in _CTF
    }
    if need_ctf:
        _check_ctf(ctf, columns)
    poses = [columns.numbers(name, None, "poses are needed", need_poses) for name in _POSES]
    if need_poses:
        for name, angles in zip(_POSES, poses, strict=True):
            columns.refuse(name, np.abs(angles) > _MOST_TURN_DEG, "an angle in degrees is needed")
    stacks = find_stacks(
        frame["rlnImageName"],
        source,
        Path(datadir) if datadir is not None else None,
        need_images,
        columns.shown("rlnImageName"),
    )
    pixel_sizes_A, notes = find_pixel_sizes(columns, angpix, stacks.pixel_size_A)
    box_px = _box(columns, groups, stacks.box_px, need_images)
    return {
        "angles_deg": np.stack(poses, axis=1),
        "shifts_px": _shifts(columns, pixel_sizes_A, box_px, need_poses),
        **ctf,
        "pixel_sizes_A": pixel_sizes_A,
        "box_px": box_px,
        "optics_group": groups.group,
        "optics_group_names": groups.names,
        "stack_id": stacks.stack_id,
        "stack_index": stacks.stack_index,
        "stack_paths": stacks.paths,
        "stack_names": stacks.names,
        "random_subset": columns.integers("rlnRandomSubset", 0),
        "micrograph": columns.text("rlnMicrographName"),
        "source_row": np.arange(len(frame), dtype=np.int64),
        "frame": frame,
        "optics": optics,
        "source": source,
        "notes": (*notes, *aberration_notes(columns, groups), *_repeat_note(stacks)),
    }


def _repeat_note(stacks: StackList) -> tuple[str, ...]:
    named = np.stack([stacks.stack_id, stacks.stack_index], axis=1)
    repeats = len(named) - len(np.unique(named, axis=0))
    return (f"Rows that name the image of an earlier row: {repeats}.",) if repeats else ()


def _shifts(columns: Columns, pixel_sizes_A: Floats, box_px: int | None, needed: bool) -> Floats:
    axes = []
    for axis in "XY":
        in_A = columns.numbers(f"rlnOrigin{axis}Angst", 0.0, "poses are needed", needed)
        in_px = columns.numbers(f"rlnOrigin{axis}", 0.0, "poses are needed", needed)
        name = f"rlnOrigin{axis}Angst" if columns.has(f"rlnOrigin{axis}Angst") else f"rlnOrigin{axis}"
        shift = in_A / pixel_sizes_A if name.endswith("Angst") else in_px
        if needed and box_px is not None:
            far = np.abs(shift) > box_px / 2
            shown = f"{shift[np.argmax(far)]:.4g} px are more than half the box of {box_px} px: the particle would be"
            columns.refuse(name, far, f"{shown} outside its image")
        axes.append(shift)
    return np.stack(axes, axis=1)


def _check_ctf(ctf: dict[str, Floats], columns: Columns) -> None:
    fields = {column: field for column, field, _ in _CTF}
    for column, least, most, rule in _CTF_RANGES:
        values = ctf[fields[column]]
        columns.refuse(column, (values < least) | (values > most), rule)


def _box(columns: Columns, groups: OpticsGroups, box_px: int | None, needed: bool) -> int | None:
    if not columns.has("rlnImageSize"):
        return box_px
    sizes = columns.numbers("rlnImageSize", None, "", False)
    if box_px is None:
        return int(sizes[0]) if np.all(sizes == sizes[0]) and 0 < sizes[0] < np.inf else None
    other = np.flatnonzero(np.isfinite(sizes) & (sizes != box_px))
    if other.size and needed:
        row = int(other[0])
        name = groups.names[groups.group[row]]
        raise InputError(
            f"{columns.source}, row {row + 1}, column rlnImageSize: optics group {name} states {sizes[row]:g} px but"
            f" the stack has {box_px} px; give the table that belongs to these images, pixel size included"
        )
    return box_px


def pixel_sizes(stated_A: Floats, angpix: float | None, source: Path, column: str) -> tuple[Floats, tuple[str, ...]]:
    """Pixel sizes (N,) in Angstrom of a table whose shifts are in pixels: the stated ones, or `angpix`; and notes.

    Raises
    ------
    InputError
        If a size is not positive or absurdly large and `angpix` is not given.
    """
    bad = ~((stated_A > 0) & (stated_A <= MOST_PIXEL_A))
    if angpix is None:
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"{source}, row {row + 1}, column {column}: {stated_A[row]:g} where a pixel size in Angstrom is"
                f" positive and at most {MOST_PIXEL_A:g}; give it with --angpix"
            )
        return stated_A, ()
    notes: tuple[str, ...] = ()
    if np.any(np.abs(stated_A[~bad] - angpix) > 1e-3 * angpix):
        low, high = f"{stated_A[~bad].min():.6g}", f"{stated_A[~bad].max():.6g}"
        stated = low if low == high else f"{low} to {high}"
        notes = (f"Pixel size {angpix:g} A as given replaces {stated} A of column {column}.",)
    return np.full(len(stated_A), float(angpix)), notes


def joined_optics(optics: pd.DataFrame, name: str = "rlnOpticsGroupName") -> tuple[npt.NDArray[np.int64], pd.DataFrame]:
    """Optics groups of N particles with their optics (N rows): numbers from 1 (N,), and a table of the distinct rows.

    Groups are in the order of their values; the column `name` is added, or made unique where it is there.
    """
    number = optics.groupby(list(optics.columns), dropna=False, sort=True).ngroup().to_numpy()
    distinct = optics.iloc[np.unique(number, return_index=True)[1]].reset_index(drop=True)
    numbers = np.arange(1, len(distinct) + 1)
    if name in distinct:
        repeat = distinct.groupby(name).cumcount()
        distinct[name] = [
            f"{text}_{again + 1}" if again else text for text, again in zip(distinct[name], repeat, strict=True)
        ]
    else:
        distinct.insert(0, name, [f"opticsGroup{group}" for group in numbers])
    distinct.insert(0, "rlnOpticsGroup", numbers)
    return (number + 1).astype(np.int64), distinct
