"""Smears as MERIDIEN keeps them: oldparamstructure_P_RRR_III.json, one file for half-set P and MPI rank RRR.

Each file is a list with one record for each particle of the rank's block of the half-set, in the order of its chunk
file: ``[id, [worst similarity, sum], [[hash, probability], ...]]`` with ``hash = direction * 10^8 + in-plane step *
10^3 + shift``. The id is the particle's place in the block; records are recognised by their place, as MERIDIEN does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.refinement._tracker import iteration_folder, read_json

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_COPY = "copy it again from the refinement"
_BYTES_PER_PARTICLE = 1 << 20
"""A pose takes about 40 bytes, so this is beyond 20,000 poses for each particle."""
_SUM_TOLERANCE = 1e-3
_HASH_DIRECTION = 100_000_000
_HASH_PSI = 1000


@dataclass(frozen=True, eq=False)
class Structure:
    """Poses of one half-set, still as hashes.

    Attributes
    ----------
    counts : int64 (n,), number of poses of each particle, in the order of the chunk file.
    hashes : int64 (M,), poses of the first particle first, in the order of the file.
    weight : float64 (M,), probabilities; those of a particle sum to at most 1.
    """

    counts: Ints
    hashes: Ints
    weight: Floats

    @property
    def direction(self) -> Ints:
        """Row of refang.txt of each pose, int64 (M,)."""
        return self.hashes // _HASH_DIRECTION

    @property
    def psi_step(self) -> Ints:
        """Number of steps delta that are added to the in-plane angle of the direction, int64 (M,)."""
        return self.hashes % _HASH_DIRECTION // _HASH_PSI

    @property
    def shift(self) -> Ints:
        """Row of rshifts.txt of each pose, int64 (M,)."""
        return self.hashes % _HASH_PSI

    @property
    def orientations(self) -> int:
        """Number of different orientations, added over the particles."""
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        orientation = self.hashes // _HASH_PSI
        order = np.lexsort((orientation, owner))
        differs = (np.diff(owner[order]) != 0) | (np.diff(orientation[order]) != 0)
        return int(differs.sum()) + (len(order) > 0)


def structure_folder(folder: Path, iteration: int) -> Path:
    """Folder of the JSON files of an iteration."""
    return iteration_folder(folder, iteration) / "oldparamstructure"


def read_structures(folder: Path, iteration: int, chunks: tuple[Ints, Ints], ids: Ints) -> tuple[Structure, Structure]:
    """Read the smears of both half-sets.

    Parameters
    ----------
    folder, iteration
        The refinement.
    chunks
        Rows of ``ids`` in each half-set, in the order of its chunk file.
    ids
        int64 (N,) ids of all particles, for messages and to recognise records.

    Raises
    ------
    InputError
        If a file of a rank is missing, too large, no JSON, not of the length of the rank's block, or a record is not
        of the form above, of another particle, without a pose, or has bad probabilities.
    """
    place = structure_folder(folder, iteration)
    ranks = _count_ranks(place, iteration)
    read = []
    for half, rows in enumerate(chunks):
        paths = [_path(place, half, rank, iteration) for rank in range(ranks)]
        read.append(_read_half(paths, ids[rows]))
    return read[0], read[1]


def _path(place: Path, half: int, rank: int, iteration: int) -> Path:
    return place / f"oldparamstructure_{half}_{rank:03d}_{iteration:03d}.json"


def _count_ranks(place: Path, iteration: int) -> int:
    pattern = re.compile(rf"oldparamstructure_([01])_(\d{{3,}})_{iteration:03d}\.json")
    names = [pattern.fullmatch(entry.name) for entry in place.iterdir()] if place.is_dir() else []
    found = {(int(match[1]), int(match[2])) for match in names if match}
    if not found:
        raise InputError(
            f"{place} has no files oldparamstructure_P_RRR_{iteration:03d}.json, the smeared orientations; copy them"
            " from the refinement, or choose another iteration with --niter_for_sorting"
        )
    ranks = 1 + max(rank for _, rank in found)
    for half in range(2):
        for rank in range(ranks):
            if (half, rank) not in found:
                raise InputError(
                    f"{_path(place, half, rank, iteration)} (smears) is missing although the refinement had {ranks}"
                    " ranks at least; copy it from the refinement"
                )
    return ranks


def _read_half(paths: list[Path], ids: Ints) -> Structure:
    particles = len(ids)
    blocks = [_read_block(path, -(-particles // len(paths)) + 1) for path in paths]
    lengths = [len(block.ids) for block in blocks]
    # Python 2 rounded halves away from zero and Python 3 to the even number, so blocks of either may be met.
    expected = [np.diff(rule(particles * np.arange(len(paths) + 1) / len(paths))).tolist() for rule in ROUNDINGS]
    if lengths not in expected:
        rank = next(rank for rank, length in enumerate(lengths) if length != expected[0][rank])
        raise InputError(
            f"{paths[rank]} (smears) has {lengths[rank]} records where rank {rank} of {len(paths)} has"
            f" {expected[0][rank]:g} of the {particles} particles of its half-set; copy the files of all ranks again"
            " from the refinement"
        )
    start = 0
    for path, block in zip(paths, blocks, strict=True):
        _check_ids(path, block.ids, ids[start : start + len(block.ids)], start)
        start += len(block.ids)
    return Structure(
        *(np.concatenate([getattr(block.poses, name) for block in blocks]) for name in ("counts", "hashes", "weight"))
    )


def half_even(values: npt.ArrayLike) -> Floats:
    """Round as Python 3 does."""
    return np.rint(values)


def half_away(values: npt.ArrayLike) -> Floats:
    """Round as Python 2 did."""
    given = np.asarray(values, np.float64)
    return np.copysign(np.floor(np.abs(given) + 0.5), given)


ROUNDINGS = (half_even, half_away)


@dataclass(frozen=True, eq=False)
class _Block:
    """Poses of a rank's particles and the ids that its file tells."""

    ids: Ints
    poses: Structure


def _read_block(path: Path, particles: int) -> _Block:
    """Read the file of one rank with about so many particles; each record is checked by itself."""
    content = read_json(path, "smears", 65536 + _BYTES_PER_PARTICLE * particles)
    if not isinstance(content, list):
        raise InputError(f"{path} (smears) is no list of records; {_COPY}")
    for number, record in enumerate(content, start=1):
        fault = _fault(record)
        if fault:
            raise InputError(f"{path} (smears), record {number}, {fault}; {_COPY}")
    counts = np.array([len(record[2]) for record in content], np.int64)
    hashes = np.array([pose[0] for record in content for pose in record[2]], np.int64)
    weight = np.array([pose[1] for record in content for pose in record[2]], np.float64)
    total = np.bincount(np.repeat(np.arange(len(counts)), counts), weight, minlength=len(counts))
    wrong = np.flatnonzero((total <= 0) | (total > 1 + _SUM_TOLERANCE))
    if wrong.size:
        raise InputError(
            f"{path} (smears), record {wrong[0] + 1}, has probabilities that sum to {total[wrong[0]]:.6g}, not to a"
            f" positive number of at most 1; {_COPY}"
        )
    return _Block(np.array([record[0] for record in content], np.int64), Structure(counts, hashes, weight))


def _fault(record: Any) -> str:
    """Say what is wrong with a record, or nothing."""
    if not (isinstance(record, list) and len(record) >= 3 and _is_whole(record[0]) and isinstance(record[2], list)):
        return "is not [id, [worst, sum], [[hash, probability], ...]]"
    if not record[2]:
        return "has no pose"
    for pose in record[2]:
        if not (isinstance(pose, list) and len(pose) == 2):
            return f"holds {str(pose)[:60]} in place of [hash, probability]"
        if not _is_whole(pose[0]):
            return f"has the hash {str(pose[0])[:60]}, which is not a whole number from 0 to 2^62"
        if type(pose[1]) not in (int, float) or not 0 <= pose[1] <= 1 + _SUM_TOLERANCE:
            return f"has the probability {str(pose[1])[:60]}, which is not a number from 0 to 1"
    return ""


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _check_ids(path: Path, given: Ints, ids: Ints, start: int) -> None:
    """Accept places in the block, places in the half-set, and ids in the order of the chunk file."""
    places = np.arange(len(ids))
    if any(np.array_equal(given, allowed) for allowed in (places, places + start, ids)):
        return
    values, counts = np.unique(given, return_counts=True)
    if (counts > 1).any():
        repeated = values[counts > 1][0]
        raise InputError(f"{path} (smears) has particle {repeated} twice; {_COPY}")
    allowed = min((places, places + start, ids), key=lambda right: np.count_nonzero(right != given))
    record = int(np.flatnonzero(allowed != given)[0])
    raise InputError(
        f"{path} (smears), record {record + 1}, is of particle {given[record]} where {allowed[record]} is expected,"
        f" which is absent or misplaced; {_COPY}"
    )
