"""STAR tables: reading with checks, atomic writing, particle tables as RELION reads them back."""

from __future__ import annotations

import linecache
import os
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import starfile

from hpcsort.errors import InputError
from hpcsort.io._checks import shown
from hpcsort.io.files import write_text_atomically
from hpcsort.io.stacks import found_from, split_format

if TYPE_CHECKING:
    from hpcsort.io.particles import ParticleTable

_COMMENT = re.compile(r"\s#")

HPCSORT_BLOCK = "hpcsort"
"""Block of a STAR file for what RELION has no columns for."""
SMEAR_TABLE = "hpcsortSmearTable"
"""Its entry that names the smear table, relative to the folder of the STAR file."""

Block = pd.DataFrame | dict[str, str | int | float]


def read_tables(path: str | os.PathLike[str]) -> dict[str, Block]:
    """Read every block of a STAR file.

    Columns whose name ends in Name stay text even where every entry looks like a number; so do vectors [a,b,c].
    Other columns are numbers where every entry is one.

    Parameters
    ----------
    path
        The STAR file.

    Returns
    -------
    dict
        Block name (what follows data_) to a DataFrame (loop) or a dict (list of pairs), in file order.

    Raises
    ------
    InputError
        If the file is missing, holds no block, or has a row with too few, too many or ambiguous entries.
    """
    source = Path(path)
    columns, blocks = _check_text(source)
    if not blocks:
        raise InputError(
            f"{source} has no line that starts with data_, so it is not a STAR file; give a particle table"
        )
    as_text = [column for column in columns if column.endswith("Name")]
    try:
        with warnings.catch_warnings():
            # pandas warns of columns with mixed types; the caller names the offending row instead.
            warnings.simplefilter("ignore")
            # starfile reads through linecache, which would return the previous content of a file just rewritten.
            linecache.clearcache()
            tables: dict[str, Block] = starfile.read(source, always_dict=True, parse_as_string=as_text)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        reason = shown(" ".join(str(error).split()))
        raise InputError(f"{source} cannot be read as a STAR file ({reason}); write it again with RELION") from error
    return tables


def smear_table_name(tables: Mapping[str, Block]) -> str | None:
    """Return what the block data_hpcsort, if there is one, names as smear table."""
    block = tables.get(HPCSORT_BLOCK)
    if block is None or SMEAR_TABLE not in block or (isinstance(block, pd.DataFrame) and block.empty):
        return None
    return str(block[SMEAR_TABLE].iloc[0] if isinstance(block, pd.DataFrame) else block[SMEAR_TABLE])


def smear_table_path(written: str, source: Path) -> Path:
    """Where a smear table is that the STAR file ``source`` names: in its folder, or in that of the file it links to."""
    place, linked = source.parent / written, source.resolve().parent / written
    return linked if linked.is_file() and not place.is_file() else place


def write_tables(path: str | os.PathLike[str], tables: Mapping[str, Block], *, overwrite: bool = False) -> None:
    """Write blocks as a STAR file by write, fsync and rename; equal tables give equal bytes.

    Floats are written with up to 15 significant digits and always with a point or exponent, integers as integers.

    Parameters
    ----------
    path
        The file to make.
    tables
        Block name to DataFrame (written as loop) or dict (written as pairs).
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists and `overwrite` is false, or cannot be written.
    """
    text = starfile.to_string({name: _as_text(block) for name, block in tables.items()}, na_rep="nan")
    # The first line names the time of day; equal runs shall write equal bytes.
    body = text.split("\n", 1)[1]
    write_text_atomically(path, "# written by hpcsort\n" + body, overwrite=overwrite)


def write_particles(
    path: str | os.PathLike[str],
    table: ParticleTable,
    extra: Mapping[str, npt.NDArray] | None = None,
    *,
    rows: npt.NDArray | None = None,
    smear_table: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write particles as a STAR file that RELION and `read_particles` read, with every column of the input kept.

    Block names, the optics table and other blocks are those of the input. An image path is kept as it is when it is
    absolute, or when it leads to the same stack from the folder of the new file or one of its parents (a RELION
    project folder); otherwise it is rewritten relative to the folder of the new file. A stack that was not found
    on reading keeps its path. So does a smear table that the block data_hpcsort names, where it is found there too.

    Parameters
    ----------
    path
        The file to make.
    table
        N particles.
    extra
        Column name (such as rlnClassNumber) to N values; replaces a column of that name or is appended.
    rows
        (M,) indices or (N,) booleans: which particles to write, in which order. All if not given.
    smear_table
        Name of the smear table (see `write_smears`) of these particles, relative to the folder of the new file;
        replaces the one that the block data_hpcsort may name.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists and `overwrite` is false, or cannot be written.
    ValueError
        If a column of `extra` has not N values.
    """
    target = Path(path)
    frame = table.frame.assign(rlnImageName=image_names(table, target.parent))
    for column, values in (extra or {}).items():
        array = np.asarray(values)
        if array.shape != (len(table),):
            raise ValueError(f"column {column} has shape {array.shape} for {len(table)} particles")
        frame[column] = array
    if rows is not None:
        chosen = np.asarray(rows)
        frame = frame.iloc[np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)]
    blocks: dict[str, Block] = {}
    for name in table.block_order:
        if name == table.block_name:
            blocks[name] = frame
        elif name == "optics" and table.optics is not None:
            blocks[name] = table.optics
        else:
            blocks[name] = _moved(name, table.other_blocks[name], table, target.parent)
    if smear_table is not None:
        kept = blocks.get(HPCSORT_BLOCK, {})
        blocks[HPCSORT_BLOCK] = {**(kept if isinstance(kept, dict) else {}), SMEAR_TABLE: smear_table}
    write_tables(target, blocks, overwrite=overwrite)


def image_names(table: ParticleTable, folder: str | os.PathLike[str]) -> list[str]:
    """Return rlnImageName of each particle for a table in `folder`; see `write_particles`."""
    place = Path(folder)
    texts = {number: _path_text(table, number, place) for number in np.unique(table.stack_id).tolist()}
    old = table.frame["rlnImageName"].tolist()
    new = [texts[number] for number in table.stack_id.tolist()]
    return [
        str(name) if text is None else f"{index + 1:06d}@{text}"
        for name, text, index in zip(old, new, table.stack_index.tolist(), strict=True)
    ]


def _path_text(table: ParticleTable, number: int, folder: Path) -> str | None:
    written, found = table.stack_names[number], table.stack_paths[number]
    if os.path.isabs(written) or not found.exists():
        return None
    again = found_from(written, folder)
    if again is not None and again.samefile(found):
        return None
    # `..` is followed physically, so links in the folders are resolved; the file's own name (and suffix) stays.
    return _relative(found, folder) + split_format(written)[1]


def _relative(found: Path, folder: Path) -> str:
    return os.path.relpath(Path(os.path.realpath(found.parent)) / found.name, os.path.realpath(folder))


def _moved(name: str, block: Block, table: ParticleTable, folder: Path) -> Block:
    """Give the block for a STAR file in `folder`: its smear table, if any, is named as seen from there."""
    written = smear_table_name({name: block})
    if written is None or os.path.isabs(written):
        return block
    found, there = smear_table_path(written, table.source), folder / written
    if not found.is_file() or (there.is_file() and there.samefile(found)):
        return block
    moved = _relative(found, folder)
    return {**block, SMEAR_TABLE: moved} if isinstance(block, dict) else block.assign(**{SMEAR_TABLE: moved})


def _as_text(block: Block) -> Block:
    if isinstance(block, dict):
        return {key: float_text(value) if isinstance(value, float) else value for key, value in block.items()}
    out = block.copy()
    for column in out.columns:
        if pd.api.types.is_bool_dtype(out[column]):
            out[column] = out[column].astype(np.int64)
        elif pd.api.types.is_float_dtype(out[column]):
            out[column] = [float_text(value) for value in out[column].tolist()]
    return out


def float_text(value: float) -> str:
    """Write a number in up to 15 significant digits, with a point or exponent."""
    text = f"{value:.15g}"
    return text if any(mark in text for mark in ".en") else text + ".0"


def _check_text(path: Path) -> tuple[list[str], int]:
    """Find rows that the parser would misread without a word; returns all column names and the number of blocks."""
    columns: list[str] = []
    blocks, block = 0, ""
    width, row, state = 0, 0, "outside"
    for number, line in _lines(path):
        if line.startswith("data_"):
            if len(line.split()) > 1:
                raise InputError(
                    f"{path}, line {number}: a row must not start with data_; move another column to the front"
                )
            blocks, block, width, state = blocks + 1, line, 0, "outside"
        elif line.startswith("loop_"):
            width, row, state = 0, 0, "header"
        elif line.startswith("_") and state != "rows":
            name = line.split()[0][1:]
            if width and name in columns[-width:]:
                raise InputError(f"{path} has column {shown(name)} twice in {shown(block)}; remove one of them")
            columns.append(name)
            width += 1
        elif line and not line.startswith("#") and state in ("header", "rows"):
            state, row = "rows", row + 1
            _check_row(path, row, line, columns[-width:] if width else [])
    return columns, blocks


def _check_row(path: Path, row: int, line: str, columns: list[str]) -> None:
    if "#" in line:
        line = _COMMENT.split(line, maxsplit=1)[0]
    entries = line.split()
    if "'" in line or '"' in line:
        if any(entry.strip("\"'").count("'") for entry in entries):
            raise InputError(
                f"{path}, row {row}: an apostrophe inside a name cannot be read; rename the file or folder"
            )
        try:
            entries = shlex.split(line.replace("'", '"'))
        except ValueError:
            raise InputError(f"{path}, row {row}: a quotation mark is not closed; close or remove it") from None
    if "#" in line:
        raise InputError(
            f"{path}, row {row}: the mark # starts a comment and cannot be part of an entry; rename or remove it"
        )
    if len(entries) < len(columns):
        missing = columns[len(entries)]
        raise InputError(
            f"{path}, row {row}: {len(entries)} entries for {len(columns)} columns, so column {shown(missing)} is"
            " missing; complete or remove the row"
        )
    if len(entries) > len(columns):
        raise InputError(
            f"{path}, row {row}: {len(entries)} entries for {len(columns)} columns; quote entries with blanks"
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.strip()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file in UTF-8, so not a STAR file; give a particle table") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InputError(f"{path} cannot be read ({reason}); check path and permissions") from error
