"""Merged averages, and particles brought from the frame of their average into that of its family."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcsort.averages.families import Family
from hpcsort.averages.read import Averages, Particles
from hpcsort.planar import PlanarPoses, apply_poses

__all__ = ["family_of", "merge_averages", "merged_poses"]


def family_of(families: list[Family], count: int) -> npt.NDArray[np.int64]:
    """Label of the family of each of the averages, int64 (count,)."""
    labels = np.full(count, -1, np.int64)
    for label, family in enumerate(families):
        labels[family.members] = label
    return labels


def merge_averages(averages: Averages, families: list[Family]) -> npt.NDArray[np.float32]:
    """Means of the aligned averages of each family, weighted by the sizes of their classes; (families, box, box).

    Where all classes of a family are empty each counts the same. Blank averages are zero.
    """
    out = np.zeros((len(families), *averages.images.shape[1:]), np.float32)
    for image, family in zip(out, families, strict=True):
        if family.blank:
            continue
        weight = averages.sizes[family.members]
        weight = weight if weight.sum() > 0 else np.ones(len(weight))
        aligned = apply_poses(averages.images[family.members], family.poses)
        image[:] = np.tensordot(weight / weight.sum(), aligned.astype(np.float64), axes=1)
    return out


def merged_poses(
    averages: Averages, particles: Particles, families: list[Family]
) -> tuple[npt.NDArray[np.int64], PlanarPoses]:
    """Families of particles, and their poses in the frame of the representatives.

    The pose of a particle in its average is followed by that of the average in its family.

    Returns
    -------
    labels : int64 (N,); -1 for particles of no class.
    poses : of all N particles, shifts in pixels of the averages; as they were for those of no class or a blank one.
    """
    count = len(averages.ids)
    member_psi, member_shift, member_mirror = np.zeros(count + 1), np.zeros((count + 1, 2)), np.zeros(count + 1, bool)
    for family in families:
        member_psi[family.members] = family.poses.psi_deg
        member_shift[family.members] = family.poses.shift_px
        member_mirror[family.members] = family.poses.mirror
    order = np.argsort(averages.ids)
    place = np.searchsorted(averages.ids[order], particles.class_ids)
    # the last entry, no move, is that of particles of no class
    row = np.where(particles.class_ids > 0, order[np.minimum(place, count - 1)], count)
    labels = np.append(family_of(families, count), -1)[row]
    steps = PlanarPoses(member_psi, member_shift, member_mirror).rows(row)
    return labels, particles.poses.then(steps)
