"""Tables of numbers as SPARX writes them: one row a line, columns apart by blanks, no header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MOST_BYTES = 1 << 30
_COPY = "copy it again from the refinement"


def read_bytes(path: Path, what: str, most_bytes: int) -> bytes:
    """Read a whole file that is not larger than ``most_bytes``; ``what`` says in a few words what it holds."""
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise InputError(
                f"{path} ({what}) has {size} bytes where at most {most_bytes} are sensible for this refinement; {_COPY}"
            )
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} ({what}) is missing or cannot be read; copy it from the refinement, or choose another iteration"
            " with --niter_for_sorting"
        ) from error


def read_rows(path: Path, what: str, *, columns: int, rows: int | None = None) -> Floats:
    """Read finite numbers, at least ``columns`` in each line and ``rows`` lines if told; more columns are dropped.

    Returns
    -------
    float64 (rows, columns).

    Raises
    ------
    InputError
        If the file is missing, empty, ends within a line, has other than ``rows`` rows, lines of too few columns, or
        anything that is no finite number.
    """
    try:
        text = read_bytes(path, what, _MOST_BYTES if rows is None else 4096 + 1024 * rows).decode("ascii")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} ({what}) is not a text file; {_COPY}") from error
    if not text.strip():
        raise InputError(f"{path} ({what}) is empty; {_COPY}")
    if not text.endswith("\n"):
        raise InputError(f"{path} ({what}) ends in the middle of a line; {_COPY}")
    lines = [line.split()[:columns] for line in text.splitlines() if line.strip()]
    for number, cells in enumerate(lines, start=1):
        if len(cells) < columns:
            raise InputError(
                f"{path} ({what}), row {number}, has {len(cells)} columns where at least {columns} are needed; {_COPY}"
            )
    if rows is not None and len(lines) != rows:
        raise InputError(
            f"{path} ({what}) has {len(lines)} rows where {rows} are expected, one for each particle listed in"
            f" main000; {_COPY}"
        )
    try:
        table = np.array(lines, np.float64)
    except ValueError:
        table = np.array([[_number(cell) for cell in cells] for cells in lines])
    if not np.isfinite(table).all():
        row, column = (int(place) for place in np.argwhere(~np.isfinite(table))[0])
        raise InputError(
            f"{path} ({what}), row {row + 1}, column {column + 1}: {lines[row][column][:60]!r} is not a finite number;"
            f" {_COPY}"
        )
    return table


def read_whole_numbers(path: Path, what: str, rows: int | None = None) -> Ints:
    """Read the first column as whole numbers from 0 to 2^53, int64 (rows,); errors as `read_rows`."""
    values = read_rows(path, what, columns=1, rows=rows)[:, 0]
    wrong = np.flatnonzero((values < 0) | (values != np.rint(values)) | (values > 2**53))
    if wrong.size:
        row = int(wrong[0])
        raise InputError(f"{path} ({what}), row {row + 1}: {values[row]:g} is not a whole number of 0 or more; {_COPY}")
    return values.astype(np.int64)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
