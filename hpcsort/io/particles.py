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
from hpcsort.io._assemble import check_arguments, table_fields
from hpcsort.io._checks import shown
from hpcsort.io._optics import one_pixel_size
from hpcsort.io.smear_table import read_smears
from hpcsort.io.smears import Smears
from hpcsort.io.star import HPCSORT_BLOCK, Block, read_tables, smear_table_name, smear_table_path

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


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
    smears : Smears or None
        All poses that are possible for each particle, with probabilities; None where only the best is known.
    image_scale : numpy.ndarray or None
        (N,) float64: factor that brings each image, its background normalised, to the scale of the map (the
        refinement's norm). One over it is the particle's contrast, by which its CTF is multiplied.
    noise_power : numpy.ndarray or None
        (groups, shells) float64: the refinement's noise power of each optics group in every Fourier shell of the box,
        in any common unit; 0 where unknown.
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
    smears: Smears | None = None
    image_scale: Floats | None = None
    noise_power: Floats | None = None

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
            if isinstance(value := getattr(self, field.name), np.ndarray) and field.name != "noise_power"
        }
        if self.smears is not None:
            cut["smears"] = self.smears.rows(chosen)
        return replace(self, **cut, frame=self.frame.iloc[chosen].reset_index(drop=True))


def read_particles(
    path: str | os.PathLike[str],
    *,
    datadir: str | os.PathLike[str] | None = None,
    angpix: float | None = None,
    need_images: bool = True,
    need_poses: bool = True,
    need_ctf: bool = True,
    smears: bool = True,
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
    smears
        Whether the smear table that the file names in data_hpcsort (if it does) is read.

    Returns
    -------
    ParticleTable

    Raises
    ------
    InputError
        In one sentence with file, row (1-based), column and cure.
    """
    source = Path(path)
    check_arguments(source, datadir, angpix)
    tables = read_tables(source)
    block_name, frame, optics = _choose_blocks(tables, source)
    fields = table_fields(
        source,
        frame,
        optics,
        datadir=datadir,
        angpix=angpix,
        need_images=need_images,
        need_poses=need_poses,
        need_ctf=need_ctf,
    )
    return ParticleTable(
        **fields,
        block_name=block_name,
        block_order=tuple(tables),
        other_blocks={
            name: block
            for name, block in tables.items()
            if name != block_name and not (name == "optics" and optics is not None)
        },
        smears=_find_smears(tables, frame, source, fields["box_px"]) if smears else None,
    )


def _find_smears(tables: dict[str, Block], frame: pd.DataFrame, source: Path, box_px: int | None) -> Smears | None:
    written = smear_table_name(tables)
    if written is None:
        return None
    place = smear_table_path(written, source)
    if not place.is_file():
        raise InputError(
            f"{source} names the smear table {shown(written)} in data_{HPCSORT_BLOCK}, but {place} is not there;"
            " copy it there, or remove the block to go without smears"
        )
    smears = read_smears(place, frame["rlnImageName"].tolist())
    far = np.zeros(0, np.int64) if box_px is None else smears.beyond(box_px / 2)
    if far.size:
        raise InputError(
            f"{place}, particle {frame['rlnImageName'].iloc[far[0]]}: a pose shifts the particle by more than half the"
            f" box of {box_px} px, out of its image; write the smear table again"
        )
    return smears


def _choose_blocks(tables: dict[str, Block], source: Path) -> tuple[str, pd.DataFrame, pd.DataFrame | None]:
    candidates = [name for name, block in tables.items() if name != "optics" and "rlnImageName" in block]
    if "particles" in candidates:
        candidates = ["particles"]
    if not candidates:
        blocks = shown(", ".join(f"data_{name}" for name in tables))
        raise InputError(f"{source} has no column rlnImageName in {blocks}; give the STAR file of the particles")
    if len(candidates) > 1:
        blocks = ", ".join(f"data_{name}" for name in candidates)
        raise InputError(f"{source} has several tables with a column rlnImageName ({blocks}); keep one of them")
    frame = _frame(tables[candidates[0]])
    if frame.empty:
        raise InputError(f"{source} has no rows in data_{candidates[0]}; give a table with particles")
    optics = tables.get("optics")
    return candidates[0], frame, None if optics is None else _frame(optics)


def _frame(block: Block) -> pd.DataFrame:
    return block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])
