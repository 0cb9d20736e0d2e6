"""The stack of a refinement: found from the path in the Tracker, with the CTF from its headers or from a STAR file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

import hpcsort.io
from hpcsort.errors import InputError
from hpcsort.io import ParticleTable

Ints = npt.NDArray[np.int64]

_MRC = (".mrcs", ".mrc")


def read_stack(stored: str, folder: Path, datadir: Path | None, ids: Ints) -> ParticleTable:
    """Particles ``ids`` of the stack that the refinement was made from, with their CTF; poses are not looked at.

    Parameters
    ----------
    stored
        The path in the Tracker.
    folder
        The refinement.
    datadir
        Folder in which the stack is looked for as well.
    ids
        int64 (N,), places in the stack, from 0.

    Raises
    ------
    InputError
        If the stack or the STAR file of an MRC stack is not found, is a BDB database, has no CTF, or has not all
        the particles.
    """
    path = find_stack(stored, folder, datadir)
    star = path
    if path.suffix.lower() in _MRC:
        star = path.with_suffix(".star")
        if not star.is_file() and datadir is not None and (datadir / star.name).is_file():
            star = datadir / star.name
        if not star.is_file():
            raise InputError(
                f"the stack {path} of the refinement has no CTF in its header and there is no {star.name} beside it;"
                " put the STAR file of the same stem there, or convert the stack to EMAN2's HDF with CTF in the headers"
            )
    table = hpcsort.io.read_input(
        star, datadir=path.parent if datadir is None else datadir, need_poses=False, smears=False
    )
    place = np.arange(len(table))
    if path.suffix.lower() in _MRC:
        table, place = _of_stack(table, path, star)
    order = np.argsort(place, kind="stable")
    spot = np.searchsorted(place[order], ids)
    lost = (spot >= len(place)) | (place[order][np.minimum(spot, len(place) - 1)] != ids)
    if lost.any():
        raise InputError(
            f"particle {ids[np.argmax(lost)]} (from 0) of {folder / 'main000' / 'indexes_000.txt'} is not among the"
            f" {len(table)} particles of {star}; give the stack that the refinement was made from"
        )
    return table.subset(order[spot])


def find_stack(stored: str, folder: Path, datadir: Path | None) -> Path:
    """Where the stack is: the path as stored, from the folder around the refinement, or its name in ``datadir``."""
    named = stored.removeprefix("bdb:")
    database = named != stored
    written = Path(named.replace("#", "/") if database else named)
    names = [written.with_name(written.name + suffix) for suffix in (".hdf", ".star")] if database else [written]
    around = folder.resolve().parent
    places: list[Path] = []
    for name in names:
        places += [name, around / name]
        places += [] if datadir is None else [datadir / name.name]
    for place in places:
        if place.is_file():
            return place
    if database:
        raise InputError(
            f"the stack {stored} of the refinement is an EMAN2 BDB database, which cannot be read; convert it with"
            f" «e2proc2d.py {stored} {names[0]}» in {around}, or name the folder of the HDF file with --datadir"
        )
    raise InputError(
        f"the stack {stored} of the refinement is neither there nor in {around}; name the folder that holds"
        f" {written.name} with --datadir"
    )


def _of_stack(table: ParticleTable, path: Path, star: Path) -> tuple[ParticleTable, Ints]:
    """Rows of a STAR table whose images are in one stack, and their places in it."""
    same = [number for number, found in enumerate(table.stack_paths) if found.exists() and found.samefile(path)]
    rows = np.flatnonzero(np.isin(table.stack_id, same))
    chosen = table.subset(rows)
    values, counts = np.unique(chosen.stack_index, return_counts=True)
    if (counts > 1).any():
        image = int(values[counts > 1][0])
        raise InputError(f"{star} names image {image + 1} of {path} twice; keep one row for each image")
    return chosen, chosen.stack_index
