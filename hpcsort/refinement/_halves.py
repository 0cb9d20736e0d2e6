"""Half-sets of a MERIDIEN refinement and their noise groups, from main000."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.refinement._text import read_whole_numbers

Ints = npt.NDArray[np.int64]

_COPY = "copy main000 again from the refinement"


@dataclass(frozen=True, eq=False)
class Halves:
    """N particles of a refinement, in ascending order of their ids.

    Attributes
    ----------
    ids : int64 (N,), places in the stack (from 0), strictly ascending.
    chunks : two int64 arrays, rows (0 to N - 1) of each half-set in the order of its chunk file.
    half : int64 (N,), 0 or 1.
    group : int64 (N,) noise group of each particle; None where the refinement has no such files.
    """

    ids: Ints
    chunks: tuple[Ints, Ints]
    half: Ints
    group: Ints | None


def read_halves(folder: Path) -> Halves:
    """Read indexes_000.txt, chunk_*_000.txt and particle_groups_*.txt of a refinement.

    Raises
    ------
    InputError
        If a file is missing or damaged, or an id is listed twice, in both chunks, in none, or unknown.
    """
    start = folder / "main000"
    indexes = start / "indexes_000.txt"
    listed = read_whole_numbers(indexes, "ids of all particles")
    ids = np.unique(listed)
    if len(ids) < len(listed):
        raise InputError(f"{indexes} lists particle {_first_repeat(listed)} twice; {_COPY}")
    paths = [start / f"chunk_{chunk}_000.txt" for chunk in range(2)]
    members = [read_whole_numbers(path, f"ids of half-set {chunk}") for chunk, path in enumerate(paths)]
    for path, chunk in zip(paths, members, strict=True):
        if len(np.unique(chunk)) < len(chunk):
            raise InputError(f"{path} lists particle {_first_repeat(chunk)} twice; {_COPY}")
        unknown = np.setdiff1d(chunk, ids)
        if unknown.size:
            raise InputError(f"{path} lists particle {unknown[0]}, which {indexes} does not; {_COPY}")
    both = np.intersect1d(members[0], members[1])
    if both.size:
        raise InputError(f"particle {both[0]} is in {paths[0]} and in {paths[1]}; {_COPY}")
    lost = np.setdiff1d(ids, np.concatenate(members))
    if lost.size:
        raise InputError(f"particle {lost[0]} of {indexes} is neither in {paths[0]} nor in {paths[1]}; {_COPY}")
    rows = (np.searchsorted(ids, members[0]), np.searchsorted(ids, members[1]))
    half = np.zeros(len(ids), np.int64)
    half[rows[1]] = 1
    return Halves(ids, rows, half, _read_groups(start, rows))


def _read_groups(start: Path, rows: tuple[Ints, Ints]) -> Ints | None:
    paths = [start / f"particle_groups_{chunk}.txt" for chunk in range(2)]
    if not any(path.exists() for path in paths):
        return None
    group = np.zeros(sum(map(len, rows)), np.int64)
    for chunk, path in enumerate(paths):
        group[rows[chunk]] = read_whole_numbers(path, f"noise groups of half-set {chunk}", len(rows[chunk]))
    return group


def _first_repeat(values: Ints) -> int:
    _, first = np.unique(values, return_index=True)
    return int(values[np.setdiff1d(np.arange(len(values)), first)[0]])
