"""What a sort leaves behind: cluster files, maps, the particles' table, run.json."""

from __future__ import annotations

import json
import platform
import re
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from hpcsort import __version__
from hpcsort.checkpoints import FOLDER as CHECKPOINTS
from hpcsort.errors import OutputError
from hpcsort.io import ParticleTable, write_particles, write_smears, write_text_atomically
from hpcsort.io.star import HPCSORT_BLOCK
from hpcsort.kernels import backend, instruction_set
from hpcsort.reconstruction import EXPANDED_FROM
from hpcsort.sort3d._lists import write_ids
from hpcsort.sort3d.folders import write_generation_clusters
from hpcsort.sort3d.options import SortOptions

__all__ = ["claim_folder", "clear_folder", "write_clusters", "write_run", "write_table"]

_PARTITION = r"Cluster_\d{3,}\.txt|Core_set\.txt"
_BOX = (
    r"state\.json|box\.txt|partition\.txt|previous_(all_indexes|NACC|NUACC)\.txt|Cluster_\d{3,}\.txt"
    r"|(half|independent_index|random_assignment)_00[01]\.txt"
)
_MINE = {
    r"\.": _PARTITION
    + r"|(vol_cluster\d{3,}|volume_core)((_half[12])?\.(mrc|hdf)|_fsc\.txt)|particles\.star|run\.json|log\.txt"
    r"|particles_smears\.h5|focus\.mrc"
    r"|anova\.(txt|csv)|null\.csv"
    r"|chunk_[01]\.txt|(indexes|generation_partition|refinement_parameters|fsc_global)\.txt",
    r"generation_\d{3,}": _PARTITION
    + r"|(final_partition|indexes_next_generation|gen_rep)\.txt|(freq_cutoff|state|Tracker)\.json",
    r"generation_\d{3,}/layer\d+": r"state\.json|comparison_\d+\.txt",
    r"generation_\d{3,}/layer\d+/nbox\d+": _BOX,
    # Not the lock, which is that of the run that asks.
    CHECKPOINTS: r"job\.json|steps\.checkpoint(\.previous)?",
}
"""Folders and the files in them that a sort writes; --overwrite removes these and nothing else."""
_UNFINISHED = r"(\.[0-9a-f]{12}\.)?"
"""What stands before the name of a file that was being written when the machine stopped."""
_PACKAGES = ("numpy", "scipy", "mpi4py", "h5py", "mrcfile", "starfile", "pandas")
_SMEARS = "particles_smears.h5"
_MOST_COLUMNS = 30
_DECIMALS = 6


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


def clear_folder(folder: Path, going_on: bool = False) -> None:
    """Remove an earlier sort's files, and nothing else, from a folder that `claim_folder` has passed.

    Folders that a sort makes go with them, unless something else lies in them. A sort that goes on (``going_on``) keeps
    its log and its checkpoints.
    """
    try:
        for path in _stale(folder):
            if not (going_on and (path.parent.name == CHECKPOINTS or path == folder / "log.txt")):
                path.unlink()
        for place in reversed(_folders(folder)):
            if place != folder and not any(place.iterdir()):
                place.rmdir()
    except OSError as error:
        raise OutputError(f"cannot remove old results in {folder}: {error.strerror}; choose another folder.") from error


def _stale(folder: Path) -> list[Path]:
    found = []
    for place in _folders(folder):
        names = re.compile(f"{_UNFINISHED}({_names_in(place, folder)})")
        # A folder of that name is not one of the sort's files; a link to one is no folder of ours to look into.
        found += [path for path in sorted(place.iterdir()) if names.fullmatch(path.name) and not path.is_dir()]
    return found


def _folders(folder: Path) -> list[Path]:
    """Return the folder and those in it that a sort makes, each before those inside it."""
    found = [folder]
    for place in found:
        inner = (path for path in sorted(place.iterdir()) if path.is_dir() and not path.is_symlink())
        found += [path for path in inner if _names_in(path, folder)]
    return found


def _names_in(place: Path, folder: Path) -> str:
    """Pattern of the files that a sort writes in one of its folders; empty for others."""
    inside = place.relative_to(folder).as_posix()
    return next((names for pattern, names in _MINE.items() if re.fullmatch(pattern, inside)), "")


def write_clusters(
    folder: Path, labels: np.ndarray, core: np.ndarray, origin: list[int], include_unaccounted: bool | None = None
) -> None:
    """Write Cluster_NNN.txt and Core_set.txt.

    Parameters
    ----------
    folder : of the results.
    labels : int (N,), group of every particle of the table, -1 for none.
    core : int (n,), rising rows of the unaccounted particles; bad images are not among them.
    origin : generation of each group.
    include_unaccounted : if given, the same files are written for every generation, and this says whether the last
        cluster there is what it left over.
    """
    for group in range(len(origin)):
        write_ids(folder / f"Cluster_{group:03d}.txt", np.flatnonzero(labels == group))
    write_ids(folder / "Core_set.txt", core)
    for generation in sorted(set(origin)) if include_unaccounted is not None else []:
        members = [np.flatnonzero(labels == group) for group, born in enumerate(origin) if born == generation]
        later = [group for group, born in enumerate(origin) if born > generation]
        left = np.union1d(core, np.flatnonzero(np.isin(labels, later)))
        write_generation_clusters(folder / f"generation_{generation:03d}", members, left, bool(include_unaccounted))


def write_table(
    folder: Path,
    table: ParticleTable,
    labels: np.ndarray,
    agreeing: np.ndarray,
    probability: np.ndarray,
    probabilities: np.ndarray | None = None,
    junk: np.ndarray | None = None,
) -> None:
    """Write particles.star: all input columns, class (from 1; 0 unaccounted), agreement of chains and probability.

    Parameters
    ----------
    folder : of the results.
    table : N particles.
    labels : int (N,), group of each particle, -1 unaccounted.
    agreeing : float (N,), share of the chains that agree on the particle.
    probability : float (N,), of the particle's group.
    probabilities : float (N, groups), of every group, unaccounted particles' too; zeros where nothing is known. Written
        as hpcsortLikeliestGroup (from 1; 0 unknown) and, for the first 30 groups, to six decimals as
        hpcsortProbability001 and so on.
    junk : float (N,), probability that the particle is none of the groups, written as hpcsortJunkProbability.
    """
    extra: dict[str, np.ndarray] = {
        "rlnClassNumber": labels + 1,
        "hpcsortReproducibility": agreeing,
        "hpcsortGroupProbability": probability,
    }
    if probabilities is not None:
        known = np.nan_to_num(probabilities)
        likeliest = known.argmax(axis=1) + 1 if known.shape[1] else np.zeros(len(labels), np.int64)
        extra["hpcsortLikeliestGroup"] = np.where(known.max(axis=1, initial=0.0) > 0, likeliest, 0)
        for group in range(min(probabilities.shape[1], _MOST_COLUMNS)):
            extra[f"hpcsortProbability{group + 1:03d}"] = probabilities[:, group].round(_DECIMALS)
    if junk is not None:
        extra["hpcsortJunkProbability"] = junk.round(_DECIMALS)
    # Columns of an earlier sort of the same table would pass for this one's.
    old = [name for name in table.frame.columns if name.startswith("hpcsort") and name not in {*extra, EXPANDED_FROM}]
    bare = replace(table, frame=table.frame.drop(columns=old))
    write_particles(folder / "particles.star", bare, extra, smear_table=_write_smears(folder, table))


def _write_smears(folder: Path, table: ParticleTable) -> str | None:
    """Write the smears of a refinement beside particles.star; those that the input names in a file stay there."""
    names = table.frame["rlnImageName"]
    # Symmetry mates share an image, by which poses are found again; the poses of the originals are in the input.
    if table.smears is None or HPCSORT_BLOCK in table.other_blocks or not names.is_unique:
        return None
    write_smears(folder / _SMEARS, table.smears, names.tolist())
    return _SMEARS


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
