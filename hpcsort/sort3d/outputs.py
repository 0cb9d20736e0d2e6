"""What a sort leaves behind: cluster files, maps, the particles' table, run.json."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from hpcsort import __version__
from hpcsort.errors import OutputError
from hpcsort.io import ParticleTable, write_particles, write_text_atomically
from hpcsort.kernels import backend, instruction_set
from hpcsort.sort3d.options import SortOptions

__all__ = ["claim_folder", "clear_folder", "hash_inputs", "write_clusters", "write_run", "write_table"]

_MINE = (
    "Cluster_[0-9][0-9][0-9]*.txt",
    "vol_cluster[0-9][0-9][0-9]*.mrc",
    "vol_cluster[0-9][0-9][0-9]*_fsc.txt",
    "volume_core.mrc",
    "volume_core_half[12].mrc",
    "volume_core_fsc.txt",
    "Core_set.txt",
    "particles.star",
    "run.json",
    "log.txt",
    "generation_[0-9][0-9][0-9]/Cluster_[0-9][0-9][0-9]*.txt",
    "generation_[0-9][0-9][0-9]/Core_set.txt",
)
"""Files that a sort writes; --overwrite removes these and nothing else."""
_PACKAGES = ("numpy", "scipy", "mpi4py", "h5py", "mrcfile", "starfile", "pandas")
_HASHED_BYTES = 1 << 20


def claim_folder(folder: Path, overwrite: bool, inputs: list[Path]) -> None:
    """Make the output folder; refuse one that holds anything, unless an earlier sort is to be replaced.

    Raises
    ------
    OutputError
        If the folder cannot be made, holds files and ``overwrite`` is false, or would lose one of ``inputs``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            if not overwrite:
                raise OutputError(
                    f"the output folder {folder} is not empty; name another with --output-dir, or replace an earlier "
                    "sort with --overwrite."
                )
            needed = {path.resolve() for path in inputs}
            for path in _stale(folder):
                if path.resolve() in needed:
                    raise OutputError(
                        f"{path} is an input of this sort and --overwrite would remove it; name another folder with "
                        "--output-dir."
                    )
        with NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"cannot use the output folder {folder}: {error.strerror}; choose another.") from error


def clear_folder(folder: Path) -> None:
    """Remove an earlier sort's files, and nothing else, from a folder that `claim_folder` has passed."""
    try:
        for path in _stale(folder):
            path.unlink()
    except OSError as error:
        raise OutputError(f"cannot remove old results in {folder}: {error.strerror}; choose another folder.") from error


def _stale(folder: Path) -> list[Path]:
    return [path for pattern in _MINE for path in folder.glob(pattern)]


def write_clusters(
    folder: Path, labels: np.ndarray, core: np.ndarray, origin: list[int], include_unaccounted: bool
) -> None:
    """Write Cluster_NNN.txt, Core_set.txt and the same for every generation.

    Parameters
    ----------
    folder : of the results.
    labels : int (N,), group of every particle of the table, -1 for none.
    core : int (n,), rising rows of the unaccounted particles; bad images are not among them.
    origin : generation of each group.
    include_unaccounted : whether the last cluster of a generation's folder holds what it left over.
    """
    for group in range(len(origin)):
        _write_ids(folder / f"Cluster_{group:03d}.txt", np.flatnonzero(labels == group))
    _write_ids(folder / "Core_set.txt", core)
    for generation in sorted(set(origin)):
        place = folder / f"generation_{generation:03d}"
        place.mkdir(exist_ok=True)
        groups = [group for group, born in enumerate(origin) if born == generation]
        for number, group in enumerate(groups):
            _write_ids(place / f"Cluster_{number:03d}.txt", np.flatnonzero(labels == group))
        later = [group for group, born in enumerate(origin) if born > generation]
        left = np.union1d(core, np.flatnonzero(np.isin(labels, later)))
        _write_ids(place / "Core_set.txt", left)
        if include_unaccounted and left.size:
            _write_ids(place / f"Cluster_{len(groups):03d}.txt", left)


def _write_ids(path: Path, ids: np.ndarray) -> None:
    write_text_atomically(path, "".join(f"{index}\n" for index in ids.tolist()))


def write_table(
    folder: Path, table: ParticleTable, labels: np.ndarray, agreeing: np.ndarray, probability: np.ndarray
) -> None:
    """Write particles.star: all input columns, class (from 1; 0 unaccounted), agreement of chains and probability."""
    extra = {
        "rlnClassNumber": labels + 1,
        "hpcsortReproducibility": agreeing,
        "hpcsortGroupProbability": probability,
    }
    write_particles(folder / "particles.star", table, extra)


def hash_inputs(options: SortOptions, table: ParticleTable) -> dict[str, dict[str, Any]]:
    """SHA-256 of the STAR file and mask; of each stack its size and the hash of its first and last megabyte."""
    hashes: dict[str, dict[str, Any]] = {}
    for path in [options.instack, *([options.mask3D] if options.mask3D else [])]:
        hashes[str(path)] = {"sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    for path in table.stack_paths:
        size = path.stat().st_size
        digest = hashlib.sha256()
        with path.open("rb") as stack:
            digest.update(stack.read(_HASHED_BYTES))
            stack.seek(max(size - _HASHED_BYTES, 0))
            digest.update(stack.read(_HASHED_BYTES))
        hashes[str(path)] = {"bytes": size, "sha256_of_ends": digest.hexdigest()}
    return hashes


def write_run(folder: Path, options: SortOptions, ranks: int, inputs: dict[str, Any], results: dict[str, Any]) -> None:
    """Write run.json: options, versions, seed, input hashes, ranks, groups, times and memory."""
    record = {
        "program": "hpcsort sort3d",
        "version": __version__,
        "command": sys.argv,
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()},
        "seed": options.seed,
        "ranks": ranks,
        "kernels": {"backend": backend(), "instruction_set": instruction_set()},
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "inputs": inputs,
        **results,
    }
    write_text_atomically(folder / "run.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
