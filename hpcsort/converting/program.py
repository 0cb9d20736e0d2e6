"""Convert particles between programs, whole or in part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcsort.converting.lists import classes_of_lists, rows_in, write_lists
from hpcsort.converting.meridien import read_meridien_poses, write_meridien
from hpcsort.converting.options import ConvertOptions
from hpcsort.converting.reading import TYPES, read_whole
from hpcsort.converting.writing import images_of, write_cs, write_hdf, write_xmipp
from hpcsort.errors import InputError
from hpcsort.io import (
    ImageReader,
    ParticleTable,
    relion_name,
    table_of_frame,
    write_particles,
    write_smears,
    write_stack,
)
from hpcsort.reconstruction import select_rows
from hpcsort.refinement import read_refinement

__all__ = ["convert"]

Ints = npt.NDArray[np.int64]


def convert(options: ConvertOptions, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Read particles, take the asked-for ones, and write them in another format.

    Returns
    -------
    dict: particles, of (in the source), format, files.

    Raises
    ------
    InputError, OptionError, OutputError
        In one sentence.
    """
    form = options.format
    table = _read(options)
    for note in table.notes:
        tell(f"Note: {note}")
    rows, classes = _choose(table, options)
    whole, table = len(table), table.subset(rows)
    if classes is not None:
        table = replace(table, frame=table.frame.assign(rlnClassNumber=classes[rows]))
    if options.copy_images or form == "hdf":
        _tell_images(table, options, tell)
    if options.copy_images and form != "hdf":
        table = _with_own_stack(table, options)
    if form == "lists":
        files = _write_lists(table, rows, options)
    elif form == "meridien":
        files = write_meridien(options.target, table, overwrite=options.overwrite)
    else:
        files = _write_table(table, form, options, tell)
    if options.copy_images and form != "hdf":
        files.append(options.target.with_suffix(".mrcs"))
    tell(f"{len(table)} of {whole} particles are in {', '.join(map(str, files))}.")
    return {"particles": len(table), "of": whole, "format": form, "files": files}


def _read(options: ConvertOptions) -> ParticleTable:
    place, datadir, angpix = options.source, options.datadir, options.angpix
    if place.is_dir():
        return read_refinement(place, datadir=datadir).table
    if place.suffix.lower() == ".txt":
        return read_meridien_poses(place, options.particles, datadir=datadir, angpix=angpix)
    return read_whole(place, datadir=datadir, angpix=angpix)


def _choose(table: ParticleTable, options: ConvertOptions) -> tuple[Ints, Ints | None]:
    """Rows to keep, rising; and new classes (N,), where several lists make them."""
    classes = classes_of_lists(options.lists, len(table)) if len(options.lists) > 1 else None
    chosen = np.zeros(len(table), bool)
    if classes is None:
        chosen[select_rows(table, options.classes, options.lists[0] if options.lists else None)] = True
    else:
        chosen = classes > 0
    first, stop = options.rows
    inside = np.zeros(len(table), bool)
    inside[slice(first, stop)] = True
    rows = np.flatnonzero(chosen & inside)
    if not rows.size:
        raise InputError(f"no particle of {options.source} is in what was asked for; widen --range, or leave it out")
    return rows, classes


def _tell_images(table: ParticleTable, options: ConvertOptions, tell: Callable[[str], None]) -> None:
    if table.box_px is None:
        raise InputError(f"no stack of {table.source} was found; name the folder that holds them with --datadir")
    lost = [path for path in table.stack_paths if not path.exists()]
    if lost:
        raise InputError(f"the stack {lost[0]} was not found, so that its images cannot be copied; give --datadir")
    size = len(table) * table.box_px**2 * 4
    tell(f"{len(table)} images of {table.box_px} px are copied: {size / 1e9:.3g} GB.")


def _with_own_stack(table: ParticleTable, options: ConvertOptions) -> ParticleTable:
    """Copy the images into one MRC stack beside the target, which the table then names."""
    assert table.box_px is not None
    stack = options.target.with_suffix(".mrcs")
    shape = (len(table), table.box_px, table.box_px)
    with ImageReader(table) as reader:
        write_stack(stack, images_of(table, reader), shape, float(table.pixel_sizes_A[0]), overwrite=options.overwrite)
    frame = table.frame.assign(rlnImageName=[relion_name(row, stack.name) for row in range(len(table))])
    made = table_of_frame(options.target, frame, table.optics, angpix=options.angpix)
    return replace(
        made, block_name=table.block_name, block_order=table.block_order, other_blocks=table.other_blocks,
        smears=table.smears,
    )  # fmt: skip


def _write_lists(table: ParticleTable, rows: Ints, options: ConvertOptions) -> list[Path]:
    if options.particles is not None:
        rows = rows_in(table, read_whole(options.particles, datadir=options.datadir, angpix=options.angpix))
    named = "rlnClassNumber" in table.frame
    classes = table.frame["rlnClassNumber"].to_numpy(np.int64) if named else np.ones(len(table), np.int64)
    return write_lists(options.target, rows, classes, overwrite=options.overwrite)


def _write_table(table: ParticleTable, form: str, options: ConvertOptions, tell: Callable[[str], None]) -> list[Path]:
    target, over = options.target, options.overwrite
    if form == "star":
        return _write_star(table, target, over)
    if table.smears is not None:
        tell("Note: the smears of the refinement have no place in this format; convert to STAR to keep them.")
    blocks = [name for name in table.other_blocks if name != TYPES]
    if form == "cs" and blocks:
        tell(f"Note: {', '.join(f'data_{name}' for name in blocks)} have no place in a .cs file and are left out.")
    {"cs": write_cs, "hdf": write_hdf, "xmd": write_xmipp}[form](target, table, overwrite=over)
    return [target]


def _write_star(table: ParticleTable, target: Path, overwrite: bool) -> list[Path]:
    """Write a STAR file, and beside it the smears that a refinement has."""
    if table.smears is None:
        write_particles(target, table, overwrite=overwrite)
        return [target]
    smears = target.with_name(f"{target.stem}_smears.h5")
    write_particles(target, table, smear_table=smears.name, overwrite=overwrite)
    names = [str(name) for name in table.frame["rlnImageName"].tolist()]
    write_smears(smears, table.smears, names, overwrite=overwrite)
    return [target, smears]
