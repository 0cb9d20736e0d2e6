"""Which particles of a table a reconstruction is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcsort.errors import InputError, OptionError
from hpcsort.io import ParticleTable

__all__ = ["read_rows", "select_rows"]

_CLASS = "rlnClassNumber"
_MOST_TOLD = 12


def select_rows(table: ParticleTable, classes: Sequence[int] = (), listing: Path | None = None) -> np.ndarray:
    """Rows of the particles of any of the classes that are on the list as well, rising; all if neither is given.

    Parameters
    ----------
    table : N particles.
    classes : numbers in the column rlnClassNumber.
    listing : file of row numbers, see `read_rows`.

    Raises
    ------
    InputError
        If the table has no classes, the list cannot be used, or nothing is left.
    OptionError
        If a class is not in the table.
    """
    chosen = np.ones(len(table), bool)
    if listing is not None:
        chosen[:] = False
        chosen[read_rows(listing, len(table))] = True
    if classes:
        chosen &= np.isin(_class_numbers(table, classes), np.asarray(classes))
    rows = np.flatnonzero(chosen)
    if not rows.size:
        raise InputError(
            f"no particle of {table.source} is both in class {','.join(map(str, classes))} and on {listing};"
            " give a class and a list that belong together, or one of them"
        )
    return rows


def read_rows(path: Path, count: int) -> np.ndarray:
    """Read a list of particles: row numbers from 0, one a line, as in Cluster_000.txt.

    Parameters
    ----------
    path : of the list.
    count : number of rows of the table.

    Returns
    -------
    int64 (n,), in the order of the list, none twice, each from 0 to count - 1.

    Raises
    ------
    InputError
        If the file cannot be read, is empty, or a line is no such number; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "error").lower() if isinstance(error, OSError) else "it is not text"
        raise InputError(f"the list {path} cannot be read: {reason}; correct --list") from error
    seen: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        word = line.strip()
        if not word:
            continue
        # Python refuses to read numbers of thousands of digits.
        if not (word.isascii() and word.isdigit() and len(word) < 19):
            raise InputError(f"{path}, line {number}: {word[:40]!r} is not a row number; give one from 0 a line")
        row = int(word)
        if row >= count:
            raise InputError(
                f"{path}, line {number}: row {row} is not in the table, which has rows 0 to {count - 1};"
                " give the list and the table of the same sort"
            )
        if row in seen:
            raise InputError(f"{path}, line {number}: row {row} is on line {seen[row]} already; remove one of them")
        seen[row] = number
    if not seen:
        raise InputError(f"the list {path} is empty; give one row number a line")
    return np.fromiter(seen, np.int64)


def _class_numbers(table: ParticleTable, classes: Sequence[int]) -> np.ndarray:
    if _CLASS not in table.frame:
        raise InputError(f"{table.source} has no column {_CLASS}; leave out --class, or give a table with classes")
    # A class number is written as an integer by all, but kept as text or a float by some readers.
    numbers = np.asarray(table.frame[_CLASS], np.float64)
    present, sizes = np.unique(numbers, return_counts=True)
    for wanted in classes:
        if wanted not in present:
            told = ", ".join(f"{number:g} ({size})" for number, size in zip(present[:_MOST_TOLD], sizes, strict=False))
            more = " ..." if len(present) > _MOST_TOLD else ""
            raise OptionError(
                f"--class {wanted} is not in column {_CLASS} of {table.source}, which holds {told}{more};"
                " give one of these"
            )
    return numbers
