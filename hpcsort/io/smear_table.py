"""Smear tables: the poses that are possible for each particle, in an HDF5 file beside the STAR file.

Datasets ``image_name`` (N, UTF-8), ``first`` (N + 1, int64), ``angles_deg`` (M, 3), ``shifts_px`` (M, 2), ``weight``
(M) and ``dropped`` (N), as in `Smears`; attributes ``format`` and ``version``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io._checks import shown
from hpcsort.io.h5 import check_stored, number, opened, reading, text, writing
from hpcsort.io.smears import Smears

__all__ = ["read_smears", "write_smears"]

_FORMAT, _VERSION = "hpcsort smear table", 1
_KIND = "a smear table of hpcsort"
_NUMBERS = ("first", "angles_deg", "shifts_px", "weight", "dropped")
_TOLERANCE = 1e-6
_MOST_PARTS = 8
_MOST_DIGITS = 18


def write_smears(
    path: str | os.PathLike[str],
    smears: Smears,
    names: Sequence[str],
    *,
    overwrite: bool = False,
    attributes: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write a smear table, atomically and with the same bytes for the same input.

    Parameters
    ----------
    path
        The file to make.
    smears
        Poses of N particles.
    names
        (N,) rlnImageName of each, all different.
    overwrite
        Whether an existing file may be replaced.
    attributes
        Further attributes of the file, such as the reference that the images were matched to.

    Raises
    ------
    InputError
        If a name occurs twice: the particle's poses could not be found again.
    OutputError
        If the file exists and `overwrite` is false, or cannot be written.
    ValueError
        If the names are not as many as the particles.
    """
    listed = [str(name) for name in names]
    if len(listed) != len(smears):
        raise ValueError(f"{len(listed)} names for smears of {len(smears)} particles")
    repeated = np.flatnonzero(pd.Index(listed, dtype=object).duplicated())
    if repeated.size:
        raise InputError(
            f"image {listed[repeated[0]]} occurs twice (row {repeated[0] + 1}), so that a smear table {path} could not"
            " tell its particles apart; remove repeated rows from the particle table"
        )
    encoded = [name.encode("utf-8") for name in listed]
    width = max((len(name) for name in encoded), default=1)
    with writing(path, overwrite) as file:
        file.attrs["format"], file.attrs["version"] = _FORMAT, np.int64(_VERSION)
        for key, value in sorted((attributes or {}).items()):
            file.attrs[key] = value
        kind = h5py.string_dtype("utf-8", max(width, 1))
        file.create_dataset("image_name", data=np.array(encoded, kind), track_times=False)
        for name in _NUMBERS:
            file.create_dataset(name, data=getattr(smears, name), track_times=False)


def read_smears(path: str | os.PathLike[str], names: Sequence[str]) -> Smears:
    """Read the smears of the particles `names`, in their order.

    Particles are found by their image's name, so that subsets and other orders of a STAR file find theirs. Where a
    name as such is not in the table (a STAR file that was written to another folder names its stacks differently),
    number and the last parts of the stack's path decide, as many as agree, provided that they are unambiguous.

    Parameters
    ----------
    path
        The file.
    names
        (n,) rlnImageName of each particle, repeats allowed.

    Raises
    ------
    InputError
        If the file is missing, damaged or no smear table, a dataset is missing or of the wrong shape, values are NaN,
        probabilities are negative or do not sum to 1, or a particle is not in the table.
    """
    place = Path(path)
    with reading(place, _KIND), opened(place) as file:
        written, numbers = _read(place, file, place.stat().st_size)
    smears = _checked(place, written, numbers)
    return smears.rows(_find(place, written, [str(name) for name in names]))


def _read(path: Path, file: h5py.File, file_bytes: int) -> tuple[list[str], dict[str, npt.NDArray]]:
    told = text(file, "format")
    if told != _FORMAT:
        raise InputError(
            f"{path} is not a smear table (its attribute format is {told!r}, not {_FORMAT!r}); give the file that"
            " hpcsort match wrote beside its STAR file"
        )
    if (version := number(file, "version", 0)) != _VERSION:
        raise InputError(
            f"{path} is a smear table of version {version:g}, but version {_VERSION} is read; update hpcsort"
        )
    arrays: dict[str, npt.NDArray] = {}
    for name in ("image_name", *_NUMBERS):
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{path} has no dataset {name}; write the smear table again")
        kinds = {"image_name": "S", "first": "iu"}.get(name, "fiu")
        if dataset.dtype.kind not in kinds or dataset.shape is None:
            raise InputError(f"{path}, dataset {name}: values of type {dataset.dtype}; write the smear table again")
        if dataset.size:
            check_stored(path, dataset, file_bytes, f"dataset {name}")
        arrays[name] = np.asarray(dataset[()])
    particles, poses = arrays["image_name"].size, arrays["weight"].size
    shapes = {"image_name": (particles,), "first": (particles + 1,), "angles_deg": (poses, 3), "shifts_px": (poses, 2)}
    for name, array in arrays.items():
        expected = shapes.get(name, (poses,) if name == "weight" else (particles,))
        if array.shape != expected:
            raise InputError(
                f"{path}, dataset {name}: shape {array.shape} where {expected} belongs to {particles} particles with"
                f" {poses} poses; write the smear table again"
            )
    return [name.decode("utf-8") for name in arrays.pop("image_name").tolist()], arrays


def _checked(path: Path, names: list[str], numbers: Mapping[str, npt.NDArray]) -> Smears:
    first = numbers["first"].astype(np.int64)
    if first[0] != 0 or first[-1] != len(numbers["weight"]) or (np.diff(first) < 1).any():
        raise InputError(
            f"{path}, dataset first: its values do not share out the {len(numbers['weight'])} poses, at least one to"
            " each particle; write the smear table again"
        )
    smears = Smears(first, *(numbers[name].astype(np.float64) for name in _NUMBERS[1:]))
    owner = smears.owner
    for name in _NUMBERS[1:]:
        values = getattr(smears, name)
        finite = np.isfinite(values)
        bad = ~(finite.all(axis=1) if finite.ndim > 1 else finite)
        _refuse(path, name, names, bad if name == "dropped" else _any_of(bad, owner, len(names)), "NaN or infinite")
    _refuse(path, "weight", names, _any_of(smears.weight < 0, owner, len(names)), "negative")
    _refuse(path, "dropped", names, (smears.dropped < -_TOLERANCE) | (smears.dropped > 1), "not between 0 and 1")
    sums = np.bincount(owner, smears.weight, minlength=len(names))
    off = np.flatnonzero(np.abs(sums - 1) > _TOLERANCE)
    if off.size:
        raise InputError(
            f"{path}, dataset weight, particle {shown(names[off[0]])}: probabilities sum to {sums[off[0]]:.6g} and not"
            " to 1; write the smear table again"
        )
    return smears


def _any_of(bad: npt.NDArray[np.bool_], owner: npt.NDArray[np.int64], particles: int) -> npt.NDArray[np.bool_]:
    return np.bincount(owner[bad], minlength=particles) > 0


def _refuse(path: Path, dataset: str, names: list[str], bad: npt.NDArray[np.bool_], fault: str) -> None:
    if bad.any():
        name = names[int(np.argmax(bad))]
        raise InputError(f"{path}, dataset {dataset}, particle {shown(name)}: a value is {fault}; write it again")


def _find(path: Path, written: list[str], names: list[str]) -> npt.NDArray[np.int64]:
    """Row of each of `names` in the table."""
    index = pd.Index(written, dtype=object)
    if not index.is_unique:
        twice = written[int(np.argmax(index.duplicated()))]
        raise InputError(f"{path}, dataset image_name: {twice} occurs twice; write the smear table again")
    rows = index.get_indexer(pd.Index(names, dtype=object)).astype(np.int64)
    if (rows >= 0).all():
        return rows
    for parts in range(_MOST_PARTS, 0, -1):
        rows = _by_tail(written, names, rows, parts)
    # Two stacks of the particle table must not have become one of the smear table.
    pairs = {(_stack(name), _stack(written[row])) for name, row in zip(names, rows.tolist(), strict=True) if row >= 0}
    counts = [Counter(pair[side] for pair in pairs) for side in (0, 1)]
    shared = {stack for side in counts for stack, count in side.items() if count > 1}
    lost = [
        place
        for place, (name, row) in enumerate(zip(names, rows.tolist(), strict=True))
        if row < 0 or _stack(name) in shared or _stack(written[row]) in shared
    ]
    if lost:
        raise InputError(
            f"{path} has no particle {shown(names[lost[0]])} (row {lost[0] + 1} of the particle table, and"
            f" {len(lost) - 1} more); give the particle table that the smear table was written with, or a subset of it"
        )
    return rows


def _by_tail(written: list[str], names: list[str], rows: npt.NDArray[np.int64], parts: int) -> npt.NDArray[np.int64]:
    """Fill in rows that are -1 where number and the last ``parts`` parts of the path occur once in the table."""
    places: dict[str, int] = {}
    for place, name in enumerate(written):
        key = _tail(name, parts)
        places[key] = -1 if key in places else place
    missing = np.flatnonzero(rows < 0).tolist()
    filled = rows.copy()
    filled[missing] = [places.get(_tail(names[place], parts), -1) for place in missing]
    return filled


def _tail(name: str, parts: int) -> str:
    before, _, after = name.rpartition("@")
    number = str(int(before)) if before.isdecimal() and len(before) < _MOST_DIGITS else before
    return f"{number}@{'/'.join(after.split('/')[-parts:])}"


def _stack(name: str) -> str:
    return name.rpartition("@")[2]
