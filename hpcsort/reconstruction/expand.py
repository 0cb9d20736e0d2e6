"""Symmetry expansion: every particle at the poses of all symmetry mates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.geometry import relion_angles, relion_matrices
from hpcsort.io import ParticleTable, Smears
from hpcsort.io.star import HPCSORT_BLOCK
from hpcsort.reconstruction.halves import half_sets

__all__ = ["EXPANDED_FROM", "expand_symmetry"]

EXPANDED_FROM = "hpcsortExpandedFrom"
"""Column with the row (from 0) that a copy was made of, as in lists of particles."""

_POSES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_IDENTICAL = 1e-9


def expand_symmetry(table: ParticleTable, operators: npt.ArrayLike, *, seed: int = 0) -> ParticleTable:
    """Repeat each particle once for each operator, at the pose of its symmetry mate.

    A particle of pose A (volume to view) of a symmetric map R x = x looks the same at the pose A R: the copy for R
    shows at a fixed place of the volume what its original has at the mate of that place. Classifying the copies with a
    focus there finds what breaks the symmetry (symmetry expansion; Scheres, Methods Enzymol. 579 (2016) 125).

    Parameters
    ----------
    table : N particles.
    operators : float (g, 3, 3), of the point group, acting on (x, y, z) of the volume.
    seed : of the random halves, where the table has none.

    Returns
    -------
    ParticleTable
        N g particles; copies follow each other in the order of the operators. They share image, shifts, CTF, half-set
        and ``source_row``; smears are expanded likewise. The pose of the identity is kept to the bit. ``frame`` has the
        new angles, rlnRandomSubset, and the column hpcsortExpandedFrom with the row of the original, from 0. Where
        half-sets are absent all copies of a particle get the same random one. A STAR file written from it names no
        smear table.

    Raises
    ------
    ValueError
        If the operators are not rotations.
    InputError
        If the table has been expanded already.
    """
    group = np.asarray(operators, np.float64)
    if group.ndim != 3 or group.shape[1:] != (3, 3) or not len(group):
        raise ValueError(f"operators have shape (g, 3, 3), not {group.shape}")
    if not np.allclose(group @ group.transpose(0, 2, 1), np.eye(3), atol=1e-6) or (np.linalg.det(group) < 0).any():
        raise ValueError("operators must be proper rotations")
    if EXPANDED_FROM in table.frame:
        raise InputError(
            f"{table.source} has been expanded already, as its column {EXPANDED_FROM} says; sort it without symmetry"
        )
    count = len(table)
    origin = np.repeat(np.arange(count), len(group))
    mate = np.tile(np.arange(len(group)), count)
    half = half_sets(table, np.arange(count), seed) + 1
    copies = table.subset(origin)
    angles = _turned(copies.angles_deg, group, mate)
    frame = copies.frame.assign(
        **{name: angles[:, axis] for axis, name in enumerate(_POSES)},
        rlnRandomSubset=half[origin],
        **{EXPANDED_FROM: origin},
    )
    smears = copies.smears
    if smears is not None:
        smears = Smears(
            smears.first,
            _turned(smears.angles_deg, group, mate[smears.owner]),
            smears.shifts_px,
            smears.weight,
            smears.dropped,
        )
    # A smear table finds its particles by their images, which the copies share.
    blocks = {name: block for name, block in table.other_blocks.items() if name != HPCSORT_BLOCK}
    return replace(
        copies,
        angles_deg=angles,
        random_subset=half[origin],
        frame=frame,
        smears=smears,
        other_blocks=blocks,
        block_order=tuple(name for name in table.block_order if name != HPCSORT_BLOCK),
    )


def _turned(angles_deg: np.ndarray, operators: np.ndarray, mate: np.ndarray) -> np.ndarray:
    turned = relion_angles(relion_matrices(angles_deg) @ operators[mate])
    same = np.abs(operators - np.eye(3)).max(axis=(1, 2)) < _IDENTICAL
    return np.where(same[mate, None], angles_deg, turned)
