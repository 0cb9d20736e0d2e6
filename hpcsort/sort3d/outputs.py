"""What a sort leaves behind: cluster files, maps, the particles' table, run.json."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hpcsort import __version__
from hpcsort.checkpoints import RunFolder
from hpcsort.io import ParticleTable, write_particles, write_smears, write_text_atomically
from hpcsort.io.star import HPCSORT_BLOCK
from hpcsort.kernels import backend, instruction_set
from hpcsort.reconstruction import EXPANDED_FROM
from hpcsort.report import PANEL_FILES, PANELS, machine
from hpcsort.sort3d._lists import write_ids
from hpcsort.sort3d.folders import write_generation_clusters
from hpcsort.sort3d.options import SortOptions

__all__ = ["run_folder", "write_clusters", "write_run", "write_table"]

_PARTITION = r"Cluster_\d{3,}\.txt|Core_set\.txt"
_BOX = (
    r"state\.json|box\.txt|changes\.csv|partition\.txt|previous_(all_indexes|NACC|NUACC)\.txt|Cluster_\d{3,}\.txt"
    r"|(half|independent_index|random_assignment)_00[01]\.txt"
)
_MINE = {
    r"\.": _PARTITION + r"|(vol_cluster\d{3,}|volume_core)((_half[12])?\.(mrc|hdf)|_fsc\.txt)|particles\.star|run\.json"
    r"|particles_smears\.h5|focus\.mrc"
    r"|anova\.(txt|csv)|null\.csv|fsc_random\.csv|report\.html|maps\.cxc"
    r"|chunk_[01]\.txt|(indexes|generation_partition|refinement_parameters|fsc_global)\.txt",
    PANELS: PANEL_FILES,
    r"generation_\d{3,}": _PARTITION
    + r"|(final_partition|indexes_next_generation|gen_rep)\.txt|(freq_cutoff|state|Tracker)\.json",
    r"generation_\d{3,}/layer\d+": r"state\.json|comparison_\d+\.txt",
    r"generation_\d{3,}/layer\d+/nbox\d+": _BOX,
}
"""Folders and the files in them that a sort writes."""
_PACKAGES = ("numpy", "scipy", "mpi4py", "h5py", "mrcfile", "starfile", "pandas")
_SMEARS = "particles_smears.h5"
_MOST_COLUMNS = 30
_DECIMALS = 6


def run_folder(path: Path) -> RunFolder:
    """Return the folder of a sort; --overwrite removes a sort's files in it and nothing else."""
    return RunFolder(path, _MINE)


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
        "machine": machine(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "inputs": inputs,
        "finished": datetime.now().isoformat(" ", "seconds"),
        **results,
    }
    write_text_atomically(folder / "run.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
