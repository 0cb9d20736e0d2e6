"""Metadata files of Xmipp (.xmd, .pos, .ctfparam): reading as STAR, writing in Xmipp's own form."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pandas as pd

from hpcsort.io.files import write_text_atomically
from hpcsort.io.star import Block, float_text, read_tables

__all__ = ["as_frame", "read_xmd", "write_xmd"]


def read_xmd(path: str | os.PathLike[str]) -> dict[str, Block]:
    """Read every block of a metadata file of Xmipp; block name to DataFrame (loop) or dict (row format).

    Raises
    ------
    InputError
        As `read_tables`; Xmipp's files are STAR files without column numbers.
    """
    return read_tables(path)


def write_xmd(path: str | os.PathLike[str], tables: Mapping[str, pd.DataFrame], *, overwrite: bool = False) -> None:
    """Write blocks as Xmipp reads them: labels without numbers, entries separated by blanks.

    Parameters
    ----------
    path
        The file to make.
    tables
        Block name to DataFrame; equal tables give equal bytes.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists and `overwrite` is false, or cannot be written.
    ValueError
        If an entry is empty or holds a blank, which Xmipp cannot read.
    """
    lines = ["# XMIPP_STAR_1 * ", "# "]
    for name, frame in tables.items():
        lines += [f"data_{name}", "loop_", *(f" _{label}" for label in frame.columns)]
        columns = [[_entry(value) for value in frame[label].tolist()] for label in frame.columns]
        widths = [max((len(entry) for entry in column), default=0) for column in columns]
        lines += [
            " " + " ".join(entry.rjust(width) for entry, width in zip(row, widths, strict=True))
            for row in zip(*columns, strict=True)
        ]
    write_text_atomically(path, "\n".join(lines) + "\n", overwrite=overwrite)


def as_frame(block: Block) -> pd.DataFrame:
    """Return a block as a table; row format becomes a table of one row."""
    return block if isinstance(block, pd.DataFrame) else pd.DataFrame({name: [value] for name, value in block.items()})


def _entry(value: object) -> str:
    text = float_text(value) if isinstance(value, float) else str(value)
    if not text or text.split() != [text]:
        raise ValueError(f"Xmipp cannot read the entry {text!r}, which is empty or holds a blank")
    return text
