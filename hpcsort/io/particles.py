"""Particle tables: RELION STAR 3.0, 3.1 and 5 as arrays with one meaning each, checked before any heavy work."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io._columns import Columns
from hpcsort.io._optics import OpticsGroups, aberration_notes, find_pixel_sizes, one_pixel_size, refuse_unsupported
from hpcsort.io.stacks import StackList, find_stacks
from hpcsort.io.star import Block, read_tables

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_POSES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
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


@dataclass(frozen=True, eq=False)
class ParticleTable:
    """N particles: poses, CTF, where the images are, and the table they came from.

    Attributes
    ----------
    angles_deg : numpy.ndarray
        (N, 3) float64: rot, tilt, psi in RELION's convention. NaN where poses were not needed and are absent.
    shifts_px : numpy.ndarray
        (N, 2) float64: shift of the content along x, y that centres it (RELION's origins), in pixels of the image,
        whose size is each particle's own.
    defocus_u_A, defocus_v_A, defocus_angle_deg, phase_shift_deg : numpy.ndarray
        (N,) float64. As the following three, NaN where the CTF was not needed and is absent.
    voltage_kV, cs_mm, amplitude_contrast : numpy.ndarray
        (N,) float64.
    bfactor_A2, ctf_scale : numpy.ndarray
        (N,) float64; 0 and 1 where absent.
    pixel_sizes_A : numpy.ndarray
        (N,) float64: pixel size of each image; optics groups may differ.
    box_px : int or None
        Size of the square images; None when no stack could be opened and the table does not tell.
    optics_group : numpy.ndarray
        (N,) int64, 0-based place in `optics_group_names`.
    optics_group_names : tuple of str
        In the order of the optics table.
    stack_id, stack_index : numpy.ndarray
        (N,) int64: which of `stack_paths`, and which image of it (0-based).
    stack_paths : list of Path
        Where the stacks were found.
    stack_names : list of str
        The same stacks as written in the table.
    random_subset : numpy.ndarray
        (N,) int64: half-set 1 or 2; 0 where absent.
    micrograph : numpy.ndarray
        (N,) object array of str; empty where absent.
    source_row : numpy.ndarray
        (N,) int64: 0-based row in the file; kept by `subset`.
    frame : pandas.DataFrame
        Every input column, untouched.
    optics : pandas.DataFrame or None
        Optics table (RELION 3.1 and later).
    block_name : str
        Name of the particle block (what follows data_).
    block_order : tuple of str
        Names of all blocks in file order.
    other_blocks : dict
        Blocks that are neither particles nor optics.
    source : Path
        The STAR file.
    notes : tuple of str
        What the file states and sorting leaves out of account, in plain sentences.
    """

    angles_deg: Floats
    shifts_px: Floats
    defocus_u_A: Floats
    defocus_v_A: Floats
    defocus_angle_deg: Floats
    phase_shift_deg: Floats
    voltage_kV: Floats
    cs_mm: Floats
    amplitude_contrast: Floats
    bfactor_A2: Floats
    ctf_scale: Floats
    pixel_sizes_A: Floats
    box_px: int | None
    optics_group: Ints
    optics_group_names: tuple[str, ...]
    stack_id: Ints
    stack_index: Ints
    stack_paths: list[Path]
    stack_names: list[str]
    random_subset: Ints
    micrograph: npt.NDArray[np.object_]
    source_row: Ints
    frame: pd.DataFrame
    optics: pd.DataFrame | None
    block_name: str
    block_order: tuple[str, ...]
    other_blocks: dict[str, Block]
    source: Path
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.stack_index)

    @property
    def pixel_size_A(self) -> float:
        """Pixel size of all images (NaN for no particles); InputError where optics groups differ."""
        return one_pixel_size(self)

    def subset(self, rows: npt.ArrayLike) -> ParticleTable:
        """Take particles by (M,) indices (any order, repeats allowed) or an (N,) boolean mask."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64).reshape(-1)
        cut: dict[str, Any] = {
            field.name: value[chosen]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return replace(self, **cut, frame=self.frame.iloc[chosen].reset_index(drop=True))


def read_particles(
    path: str | os.PathLike[str],
    *,
    datadir: str | os.PathLike[str] | None = None,
    angpix: float | None = None,
    need_images: bool = True,
    need_poses: bool = True,
    need_ctf: bool = True,
) -> ParticleTable:
    """Read a RELION STAR file of version 3.0 (one table of any name), 3.1 or 5 (optics and particles).

    All columns and stack headers are checked; no image is read.

    Parameters
    ----------
    path
        The STAR file.
    datadir
        Folder under which stacks are looked for as well.
    angpix
        Pixel size in Angstrom for a table that does not tell; where the table differs, `angpix` holds, and a note
        says so.
    need_images
        Whether absent or broken stacks are an error.
    need_poses
        Whether absent angles are an error; if not they are NaN, and bad values too.
    need_ctf
        The same for the CTF.

    Returns
    -------
    ParticleTable

    Raises
    ------
    InputError
        In one sentence with file, row (1-based), column and cure.
    """
    source = Path(path)
    if angpix is not None and not (np.isfinite(angpix) and angpix > 0):
        raise InputError(f"pixel size {angpix} A given for {source} is not a positive number; correct --angpix")
    if datadir is not None and not Path(datadir).is_dir():
        raise InputError(f"the folder {datadir} given for the stacks of {source} does not exist; correct --datadir")
    tables = read_tables(source)
    block_name, frame, optics = _choose_blocks(tables, source)
    groups = OpticsGroups.of(frame, optics, source)
    columns = Columns(source, frame, optics, groups.group)
    refuse_unsupported(columns, groups)

    ctf = {
        name: columns.numbers(column, default, "the CTF is computed from it", need_ctf)
        for column, name, default in _CTF
    }
    if need_ctf:
        _check_ctf(ctf, columns)
    poses = [columns.numbers(name, None, "poses are needed", need_poses) for name in _POSES]

    stacks = find_stacks(frame["rlnImageName"], source, Path(datadir) if datadir is not None else None, need_images)
    pixel_sizes_A, notes = find_pixel_sizes(columns, angpix, stacks.pixel_size_A)
    return ParticleTable(
        angles_deg=np.stack(poses, axis=1),
        shifts_px=_shifts(columns, pixel_sizes_A, need_poses),
        **ctf,
        pixel_sizes_A=pixel_sizes_A,
        box_px=_box(columns, groups, stacks.box_px, need_images),
        optics_group=groups.group,
        optics_group_names=groups.names,
        stack_id=stacks.stack_id,
        stack_index=stacks.stack_index,
        stack_paths=stacks.paths,
        stack_names=stacks.names,
        random_subset=columns.integers("rlnRandomSubset", 0),
        micrograph=columns.text("rlnMicrographName"),
        source_row=np.arange(len(frame), dtype=np.int64),
        frame=frame,
        optics=optics,
        block_name=block_name,
        block_order=tuple(tables),
        other_blocks={
            name: block
            for name, block in tables.items()
            if name != block_name and not (name == "optics" and optics is not None)
        },
        source=source,
        notes=(*notes, *aberration_notes(columns, groups), *_repeat_note(stacks)),
    )


def _choose_blocks(tables: dict[str, Block], source: Path) -> tuple[str, pd.DataFrame, pd.DataFrame | None]:
    candidates = [name for name, block in tables.items() if name != "optics" and "rlnImageName" in block]
    if "particles" in candidates:
        candidates = ["particles"]
    if not candidates:
        blocks = ", ".join(f"data_{name}" for name in tables)
        raise InputError(f"{source} has no column rlnImageName in {blocks}; give the STAR file of the particles")
    if len(candidates) > 1:
        blocks = ", ".join(f"data_{name}" for name in candidates)
        raise InputError(f"{source} has several tables with a column rlnImageName ({blocks}); keep one of them")
    frame = _frame(tables[candidates[0]])
    if frame.empty:
        raise InputError(f"{source} has no rows in data_{candidates[0]}; give a table with particles")
    doubled = frame.columns[frame.columns.duplicated()]
    if len(doubled):
        raise InputError(f"{source} has column {doubled[0]} twice in data_{candidates[0]}; remove one of them")
    optics = tables.get("optics")
    return candidates[0], frame, None if optics is None else _frame(optics)


def _frame(block: Block) -> pd.DataFrame:
    return block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])


def _repeat_note(stacks: StackList) -> tuple[str, ...]:
    named = np.stack([stacks.stack_id, stacks.stack_index], axis=1)
    repeats = len(named) - len(np.unique(named, axis=0))
    return (f"Rows that name the image of an earlier row: {repeats}.",) if repeats else ()


def _shifts(columns: Columns, pixel_sizes_A: Floats, needed: bool) -> Floats:
    axes = []
    for axis in "XY":
        in_A = columns.numbers(f"rlnOrigin{axis}Angst", 0.0, "poses are needed", needed)
        in_px = columns.numbers(f"rlnOrigin{axis}", 0.0, "poses are needed", needed)
        axes.append(in_A / pixel_sizes_A if columns.has(f"rlnOrigin{axis}Angst") else in_px)
    return np.stack(axes, axis=1)


def _check_ctf(ctf: dict[str, Floats], columns: Columns) -> None:
    columns.refuse("rlnVoltage", ctf["voltage_kV"] <= 0, "a voltage in kV is positive")
    contrast = ctf["amplitude_contrast"]
    columns.refuse("rlnAmplitudeContrast", (contrast < 0) | (contrast > 1), "amplitude contrast lies between 0 and 1")


def _box(columns: Columns, groups: OpticsGroups, box_px: int | None, needed: bool) -> int | None:
    if not columns.has("rlnImageSize"):
        return box_px
    sizes = columns.numbers("rlnImageSize", None, "", False)
    if box_px is None:
        return int(sizes[0]) if np.all(sizes == sizes[0]) and sizes[0] > 0 else None
    other = np.flatnonzero(np.isfinite(sizes) & (sizes != box_px))
    if other.size and needed:
        row = int(other[0])
        name = groups.names[groups.group[row]]
        raise InputError(
            f"{columns.source}, row {row + 1}, column rlnImageSize: optics group {name} states {sizes[row]:g} px but"
            f" the stack has {box_px} px; give the table that belongs to these images, pixel size included"
        )
    return box_px
