"""Lists of particles (Cluster_000.txt), as sort3d and SPHIRE write them: rows of a table from 0, one a line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError, OutputError
from hpcsort.io import ParticleTable, write_text_atomically
from hpcsort.reconstruction import read_rows

__all__ = ["classes_of_lists", "rows_in", "write_lists"]

_CORE = "Core_set.txt"


def classes_of_lists(lists: tuple[Path, ...], count: int) -> npt.NDArray[np.int64]:
    """Class of each of ``count`` rows by the first to the last list, from 1; 0 for rows on none.

    Raises
    ------
    InputError
        If a list cannot be used, or a row is on two of them.
    """
    classes = np.zeros(count, np.int64)
    for number, path in enumerate(lists, start=1):
        rows = read_rows(path, count)
        twice = rows[classes[rows] > 0]
        if twice.size:
            other = lists[classes[twice[0]] - 1]
            raise InputError(f"row {twice[0]} is on {other} and on {path}; give lists that share no particle")
        classes[rows] = number
    return classes


def rows_in(table: ParticleTable, whole: ParticleTable) -> npt.NDArray[np.int64]:
    """Rows (N,) of another table that show the same images.

    Raises
    ------
    InputError
        If an image is not in the other table, or is there twice.
    """
    index = pd.Index(_images(whole))
    if not index.is_unique:
        row = int(np.argmax(index.duplicated()))
        raise InputError(f"{whole.source}, row {row + 1}: its image is named twice, so that rows cannot be found by it")
    rows = index.get_indexer(pd.Index(_images(table)))
    if (rows < 0).any():
        row = int(np.argmax(rows < 0))
        name = table.frame["rlnImageName"].iloc[row]
        raise InputError(
            f"{table.source}, row {row + 1}: image {name} is not in {whole.source}; give the table that it was cut from"
        )
    return np.asarray(rows, np.int64)


def write_lists(
    folder: Path, rows: npt.NDArray[np.int64], classes: npt.NDArray[np.int64], *, overwrite: bool
) -> list[Path]:
    """Write Cluster_NNN.txt for class NNN + 1, and Core_set.txt for class 0; rising rows of the table.

    Raises
    ------
    OutputError
        If the folder or a file cannot be written, or a file exists and ``overwrite`` is false.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {os.strerror(error.errno or 0).lower()}") from error
    written = []
    for number in np.unique(classes).tolist():
        path = folder / (f"Cluster_{number - 1:03d}.txt" if number > 0 else _CORE)
        listed = np.sort(rows[classes == number]).tolist()
        write_text_atomically(path, "".join(f"{row}\n" for row in listed), overwrite=overwrite)
        written.append(path)
    return written


def _images(table: ParticleTable) -> list[str]:
    """Name of each image that does not depend on where its table is."""
    stacks = [os.path.realpath(path) if path.exists() else str(path) for path in table.stack_paths]
    pairs = zip(table.stack_index.tolist(), table.stack_id.tolist(), strict=True)
    return [f"{index}@{stacks[stack]}" for index, stack in pairs]
