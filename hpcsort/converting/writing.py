"""Particles written in any format, with the columns that it has no name for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import starfile

from hpcsort.converting.formats import CS, EMAN, OPTICS, XMIPP, Format
from hpcsort.converting.kept import FOREIGN, Fields, as_fields, entries_of, merged
from hpcsort.converting.reading import ALWAYS, TYPES, types_of
from hpcsort.errors import InputError
from hpcsort.io import (
    ImageReader,
    ParticleTable,
    as_frame,
    cryosparc_fields,
    eman_headers,
    write_cryosparc,
    write_eman_stack,
    write_xmd,
    xmipp_columns,
)
from hpcsort.io.star import Block

__all__ = ["write_cs", "write_hdf", "write_xmipp"]

_CHUNK = 256


def write_cs(path: Path, table: ParticleTable, *, overwrite: bool) -> None:
    """Write a .cs file; blocks of the STAR file other than particles and optics have no place in it."""
    fields, at_home = _own_fields(table, cryosparc_fields(table, path.parent), CS)
    fields |= {name: _plain(values) for name, values in _strange(table, CS, at_home).items()}
    write_cryosparc(path, fields, overwrite=overwrite)


def write_hdf(path: Path, table: ParticleTable, *, overwrite: bool) -> None:
    """Write an HDF5 stack of EMAN2 with copies of the images."""
    headers, at_home = _own_fields(table, eman_headers(table), EMAN)
    headers |= {name: _header(values) for name, values in _strange(table, EMAN, at_home).items()}
    blocks = _blocks(table, EMAN, at_home)
    attached = starfile.to_string(blocks, na_rep="nan").split("\n", 1)[1] if blocks else ""
    with ImageReader(table) as reader:
        write_eman_stack(path, images_of(table, reader), headers, attached=attached, overwrite=overwrite)


def write_xmipp(path: Path, table: ParticleTable, *, overwrite: bool) -> None:
    """Write a metadata file of Xmipp; optics table and other blocks follow the particles."""
    made = xmipp_columns(table, path.parent)
    fields, at_home = _own_fields(table, {str(name): entries_of(made[name]) for name in made.columns}, XMIPP)
    frame = pd.DataFrame({**fields, **_strange(table, XMIPP, at_home)})
    blocks = {name: as_frame(block) for name, block in _blocks(table, XMIPP, at_home).items()}
    first = table.block_name if table.block_name not in blocks else "particles"
    try:
        write_xmd(path, {first: frame, **blocks}, overwrite=overwrite)
    except ValueError as error:
        raise InputError(
            f"{table.source} cannot be written as {path}: {error}; rename the file or the entry"
        ) from error


def images_of(table: ParticleTable, reader: ImageReader) -> Iterator[npt.NDArray[np.float32]]:
    """Images of all particles, one after the other."""
    for start in range(0, len(table), _CHUNK):
        yield from reader.read(np.arange(start, min(start + _CHUNK, len(table))))


def _own_fields(table: ParticleTable, native: Fields, form: Format) -> tuple[Fields, bool]:
    """Fields of the format, as it has said them itself where the table comes from it; and whether it does."""
    kept = as_fields(table.frame, form.source, types_of(table.other_blocks))
    if form.key not in kept:
        return {**native, **kept}, False
    return merged(native, kept, form.groups, frozenset({*ALWAYS, "uid", "blob/shape"})), True


def _strange(table: ParticleTable, form: Format, at_home: bool) -> dict[str, npt.NDArray]:
    """Columns for which the format has no name, named as it keeps them."""
    found = {}
    types = types_of(table.other_blocks)
    for column in map(str, table.frame.columns):
        source, mark, name = column.partition(":")
        if not (mark and source in FOREIGN):
            if not (at_home and column in form.translated):
                found[f"relion{form.mark}{column}"] = entries_of(table.frame[column])
        elif source != form.source:
            typed = as_fields(table.frame[[column]], source, types)[name] if form.mark == "/" else None
            found[f"{source}{form.mark}{name}"] = entries_of(table.frame[column]) if typed is None else typed
    # Elsewhere the optics table is a block, whose groups the particles name; at home groups are made by the reader.
    if table.optics is not None and (at_home or form is CS):
        for column in map(str, table.optics.columns):
            if not (at_home and column in OPTICS):
                found[f"optics{form.mark}{column}"] = entries_of(table.optics[column])[table.optics_group]
    return found


def _blocks(table: ParticleTable, form: Format, at_home: bool) -> dict[str, Block]:
    """Blocks beside the particles, of which a table that comes from the format has no optics."""
    blocks: dict[str, Block] = {} if table.optics is None or at_home else {"optics": table.optics}
    blocks |= table.other_blocks
    types = {name: kind for name, kind in types_of(blocks).items() if not name.startswith(f"{form.source}:")}
    blocks.pop(TYPES, None)
    if types:
        blocks[TYPES] = pd.DataFrame({"hpcsortColumn": list(types), "hpcsortType": list(types.values())})
    return blocks


def _plain(values: npt.NDArray) -> npt.NDArray:
    """Array of numbers or bytes: without objects, which NumPy could only pickle."""
    return np.array([str(value).encode() for value in values.tolist()], np.bytes_) if values.dtype == object else values


def _header(values: npt.NDArray) -> npt.NDArray:
    """Header that EMAN2 can hold: 32-bit integers, floats, text."""
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    small = values.dtype.kind in "iu" and (np.abs(values.astype(np.float64)) < 2**31).all()
    return values.astype(np.int32) if small else _plain(values.astype(object))
