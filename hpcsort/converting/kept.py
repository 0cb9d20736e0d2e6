"""What one format has no name for, kept in another under its source's name, in a form from which it comes back.

A converted file holds the translation and, beside it, the columns of its source whole. Read again, a column of the
source is used where it still says what the translation says, and the translation where that was changed.

In tables (STAR, .xmd) and headers a kept column is named ``source:name``, in .cs files ``source/name``; sources are
``relion`` (particles), ``optics`` (RELION's optics table), ``cs``, ``eman`` and ``xmipp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote, unquote_to_bytes

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError

__all__ = ["FOREIGN", "Fields", "Group", "as_columns", "as_fields", "entries_of", "merged", "same_values", "type_name"]

FOREIGN = ("cs", "eman", "xmipp")
"""Sources whose columns stand in a RELION table as ``source:name``."""
_SAFE = "/:@,+-_.~[]()=<>|*!;&^"
_EMPTY = "%00"
_RELATIVE, _ABSOLUTE = 2e-6, 1e-5

Fields = dict[str, npt.NDArray]
Group = tuple[tuple[str, ...], Callable[[Fields, Fields], bool]]
"""Fields that mean one thing together, and whether kept and translated ones say the same."""


def type_name(values: npt.NDArray) -> str:
    """Name of the type of a field (N, ...) without blanks, which NumPy reads."""
    shape = f"({','.join(map(str, values.shape[1:]))},)" if values.ndim > 1 else ""
    return f"{shape}{values.dtype.str}"


def as_columns(fields: Mapping[str, npt.NDArray]) -> dict[str, npt.NDArray | list[str]]:
    """Fields of N rows as entries of a table.

    Numbers stay numbers (a float32 becomes the shortest decimal number that it is the nearest to), vectors are written
    ``[a,b]``, and text without blanks and quotes (percent-encoded, as in web addresses).
    """
    return {name: _column(values) for name, values in fields.items()}


def as_fields(frame: pd.DataFrame, source: str, types: Mapping[str, str]) -> Fields:
    """Fields of a source that a table keeps: those named ``source:name``, with the types that are told.

    Without one (another program has dropped the table of types) numbers with a point are float32. Xmipp's labels have
    no types: they are what a table holds.

    Raises
    ------
    InputError
        If an entry is not of its type.
    """
    fields: Fields = {}
    for column in frame.columns:
        prefix, mark, name = str(column).partition(":")
        if mark and prefix == source:
            if source == "xmipp":
                fields[name] = entries_of(frame[column])
                continue
            try:
                fields[name] = _values(frame[column], types.get(str(column)))
            except (ValueError, OverflowError, TypeError) as error:
                raise InputError(
                    f"column {column} holds what is not of its type {types.get(str(column), 'number')}; remove it"
                ) from error
    return fields


def merged(native: Fields, kept: Fields, groups: Sequence[Group], made: frozenset[str] = frozenset()) -> Fields:
    """Join what a source has said itself with a translation of the table as it is now.

    Parameters
    ----------
    native
        Translation.
    kept
        Fields of the source; they give names, order and types.
    groups
        Fields that are compared together; all others are compared one by one.
    made
        Fields that a translation always has, which are not added where the source had none.
    """
    out = dict(kept)
    grouped = {name for names, _ in groups for name in names}
    singles: list[Group] = [((name,), _agree_on(name)) for name in native if name not in grouped]
    for names, agree in (*groups, *singles):
        here = [name for name in names if name in native]
        if not any(name in kept for name in names):
            out |= {name: native[name] for name in here if name not in made}
        elif here and not agree(kept, native):
            out |= {name: _cast(native[name], kept.get(name)) for name in here}
    return out


def same_values(one: npt.NDArray, two: npt.NDArray) -> bool:
    """Whether two fields are equal within the precision of float32; text is compared as text."""
    if one.shape != two.shape:
        return False
    if one.dtype.kind in "fiub" and two.dtype.kind in "fiub":
        if one.dtype.kind != "f" and two.dtype.kind != "f":
            return bool((one == two).all())
        return bool(np.isclose(one.astype(float), two.astype(float), _RELATIVE, _ABSOLUTE, equal_nan=True).all())
    return _texts(one) == _texts(two)


def _agree_on(name: str) -> Callable[[Fields, Fields], bool]:
    return lambda kept, native: same_values(kept[name], native[name])


def _cast(values: npt.NDArray, like: npt.NDArray | None) -> npt.NDArray:
    numeric = like is not None and like.dtype.kind in "fiu" and values.dtype.kind == like.dtype.kind
    return values.astype(like.dtype) if like is not None and numeric else values


def _texts(values: npt.NDArray) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]


def _column(values: npt.NDArray) -> npt.NDArray | list[str]:
    if values.dtype.kind in "SU":
        return [quote(text, safe=_SAFE) or _EMPTY for text in values.tolist()]
    if values.dtype.kind == "b":
        return values.astype(np.int64)
    shortest = values.astype(str) if values.dtype.kind == "f" or values.ndim > 1 else values
    if values.ndim > 1:
        return [f"[{','.join(row)}]" for row in shortest.reshape(len(values), -1).tolist()]
    return shortest.astype(np.float64) if values.dtype.kind == "f" else values


def _values(column: pd.Series, kind: str | None) -> npt.NDArray:
    entries = column.tolist()
    if kind is None:
        kind = _guessed(column)
    shape, _, base = kind.rpartition(")")
    dtype = np.dtype(base)
    if shape:
        rows = np.array([str(entry).strip("[]").split(",") for entry in entries]).astype(dtype)
        return rows.reshape(len(rows), *map(int, shape.strip("(,").split(",")))
    if dtype.kind in "SU":
        texts = np.array([unquote_to_bytes(str(entry)).rstrip(b"\0") for entry in entries], np.bytes_)
        found = texts if dtype.kind == "S" else np.char.decode(texts, "utf-8")
        return found.astype(np.result_type(found, dtype))
    if dtype.kind == "f":
        return pd.to_numeric(column).to_numpy(np.float64).astype(dtype)
    return np.array([int(entry) for entry in entries]).astype(dtype)


def entries_of(column: pd.Series) -> npt.NDArray:
    """Entries of a table's column: numbers, or objects of str."""
    return column.to_numpy() if pd.api.types.is_numeric_dtype(column) else column.astype(str).to_numpy(object)


def _guessed(column: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(column):
        return "<f4" if column.dtype.kind == "f" else column.to_numpy().dtype.str
    entries = [str(entry) for entry in column.tolist()]
    if not all(entry.startswith("[") for entry in entries):
        return "|S1"
    # Numbers that are not whole are written with a point, an exponent, or as nan or inf.
    return "(-1,)<f4" if any(set(entry) & set(".en") for entry in entries) else "(-1,)<i8"
