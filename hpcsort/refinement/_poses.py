"""From hashes to RELION's angles and origins.

MERIDIEN's angles (phi, theta, psi) are SPIDER's and equal RELION's (rot, tilt, psi); its shifts move the content of
the image (EMAN2's ``xform.projection`` holds their negative) and equal RELION's origins. A smear's shift counts from
the image that had been moved by the *rounded* shift of the previous iteration.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.geometry import sphire_to_relion
from hpcsort.io import Smears
from hpcsort.refinement._halves import Halves
from hpcsort.refinement._structure import ROUNDINGS, Structure, read_structures
from hpcsort.refinement._text import read_rows
from hpcsort.refinement._tracker import iteration_folder

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MOST_TURN_DEG = 1e6
_TEXT_PRECISION_PX = 0.02
"""SPARX writes five digits."""


def read_smears(
    folder: Path, iteration: int, halves: Halves, delta_deg: float, final_px: Floats
) -> tuple[Smears, tuple[str, ...]]:
    """Read all poses of an iteration with their probabilities, renormalised.

    Parameters
    ----------
    folder, iteration
        The refinement.
    halves
        Its N particles.
    delta_deg
        Step of the in-plane angle.
    final_px
        float64 (N, 2), shifts of the best poses (params_III.txt), from which the rule of rounding is found.

    Returns
    -------
    smears : Smears of N particles in the order of ``halves.ids``.
    notes : sentences on what does not fit.

    Raises
    ------
    InputError
        If a file is missing or damaged, or a hash names a direction or shift that its file does not have.
    """
    place = iteration_folder(folder, iteration)
    directions = read_rows(place / "refang.txt", "directions", columns=3)
    wild = np.flatnonzero(np.abs(directions).max(axis=1) > _MOST_TURN_DEG)
    if wild.size:
        raise InputError(
            f"{place / 'refang.txt'} (directions), row {wild[0] + 1}: {np.abs(directions[wild[0]]).max():g} is no angle"
            " in degrees; copy it again from the refinement"
        )
    moves = read_rows(place / "rshifts.txt", "trial shifts", columns=2)
    before = iteration_folder(folder, iteration - 1) / f"params_{iteration - 1:03d}.txt"
    previous_px = read_rows(before, "parameters of the previous iteration", columns=5, rows=len(halves.ids))[:, 3:]
    structures = read_structures(folder, iteration, halves.chunks, halves.ids)
    for structure in structures:
        _check_hashes(place, structure, len(directions), len(moves), delta_deg)
    owner = np.concatenate([np.repeat(rows, one.counts) for rows, one in zip(halves.chunks, structures, strict=True)])
    direction, step, move = (
        np.concatenate([getattr(one, name) for one in structures]) for name in ("direction", "psi_step", "shift")
    )
    weight = np.concatenate([one.weight for one in structures])
    rounded_px, notes = _round_previous(previous_px, final_px, owner, moves[move], weight)
    phi, theta, psi = directions[direction].T
    sx, sy = (rounded_px[owner] + moves[move]).T
    rot, tilt, psi, ox, oy = sphire_to_relion(phi, theta, psi + step * delta_deg, -sx, -sy)
    angles_deg = np.stack([_within_half_turn(rot), tilt, _within_half_turn(psi)], axis=1)
    return Smears.of_lists(owner, angles_deg, np.stack([ox, oy], axis=1), weight), notes


def _check_hashes(place: Path, structure: Structure, directions: int, moves: int, delta_deg: float) -> None:
    steps = int(np.ceil(360.0 / delta_deg)) + 1
    for name, values, length, cure in (
        ("direction", structure.direction, directions, f"{place / 'refang.txt'} has {directions} rows"),
        ("in-plane step", structure.psi_step, steps, f"a turn has {steps} steps of {delta_deg:g} degrees"),
        ("shift", structure.shift, moves, f"{place / 'rshifts.txt'} has {moves} rows"),
    ):
        wrong = np.flatnonzero(values >= length)
        if wrong.size:
            pose = int(wrong[0])
            raise InputError(
                f"{place / 'oldparamstructure'}: hash {structure.hashes[pose]} names {name} {values[pose]} (from 0) but"
                f" {cure}; copy the folder {place.name} again from the refinement"
            )


def _round_previous(
    previous_px: Floats, final_px: Floats, owner: Ints, moved_px: Floats, weight: Floats
) -> tuple[Floats, tuple[str, ...]]:
    """Round the previous shifts by the rule that leads from them to the final ones.

    Steps of half a pixel are usual, and Python 2 rounded 0.5 to 1 where Python 3 rounds it to 0.
    """
    best = np.full(len(previous_px), -1)
    order = np.lexsort((weight, owner))
    best[owner[order]] = order  # the last one assigned is the likeliest
    misses = []
    for rule in ROUNDINGS:
        reached = rule(previous_px) + moved_px[best]
        misses.append(np.abs(reached - final_px).max(axis=1) > _TEXT_PRECISION_PX)
    chosen = int(np.argmin([missed.sum() for missed in misses]))
    missed = int(misses[chosen].sum())
    notes = (
        (
            f"Particles whose shift in the refinement's parameters is not that of their likeliest smear: {missed} of"
            f" {len(previous_px)}; the smears are used.",
        )
        if missed
        else ()
    )
    return ROUNDINGS[chosen](previous_px), notes


def _within_half_turn(angles_deg: Floats) -> Floats:
    return (angles_deg + 180.0) % 360.0 - 180.0
