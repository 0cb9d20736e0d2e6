"""View directions: even spirals, an order that keeps neighbours together, and orientation groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from hpcsort.geometry.euler import FloatArray

IntArray = npt.NDArray[np.int64]

_PARTICLES_PER_CELL = 8
_SAMPLES_PER_DIRECTION = 64
_RELAXATIONS = 12


def view_directions(matrices: npt.ArrayLike) -> FloatArray:
    """Return the unit vectors along the beam in the frame of the volume.

    Parameters
    ----------
    matrices : array_like, shape (n, 3, 3)
        Rotations ``A``, volume to view.

    Returns
    -------
    ndarray, shape (n, 3), float64
        Third rows of the matrices, (x, y, z).
    """
    return np.array(np.asarray(matrices, dtype=np.float64).reshape(-1, 3, 3)[:, 2, :])


def spiral_directions(count: int) -> FloatArray:
    """Directions spread evenly over the sphere on one spiral from the south to the north pole.

    Saff and Kuijlaars, Math. Intelligencer 19 (1997) 5: equal steps in z, and a step in azimuth that keeps
    neighbours on the spiral at an even distance.

    Parameters
    ----------
    count : int
        Number of directions, at least 1.

    Returns
    -------
    ndarray, shape (count, 3), float64
        Unit vectors (x, y, z); consecutive rows are neighbours.
    """
    if count < 1:
        raise ValueError(f"a spiral needs at least one direction, got {count}")
    if count == 1:
        return np.array([[0.0, 0.0, 1.0]])
    z = np.linspace(-1.0, 1.0, count)
    radius = np.sqrt(1.0 - z**2)
    step = np.zeros(count)
    step[1:-1] = 3.6 / np.sqrt(count) / radius[1:-1]
    azimuth = np.cumsum(step)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)


def direction_order(matrices: npt.ArrayLike, identity: npt.ArrayLike) -> IntArray:
    """Order of particles in which neighbours look along nearly the same axis.

    A direction and its opposite cut the same plane of the transform, so both fall into one cell. The cells of a
    spiral over one hemisphere are walked in turn, and particles within a cell by in-plane angle: consecutive
    particles touch the same voxels.

    Parameters
    ----------
    matrices : array_like, shape (n, 3, 3)
        Rotations, volume to view.
    identity : array_like, shape (n,), int or str
        Unique key of each particle; breaks ties, so that the result does not depend on the order of the rows.

    Returns
    -------
    ndarray, shape (n,), int64
        Permutation: ``matrices[order]`` is sorted.
    """
    rotations = np.asarray(matrices, dtype=np.float64).reshape(-1, 3, 3)
    keys = np.asarray(identity)
    if keys.dtype == object:
        keys = keys.astype(str)
    if keys.shape != (len(rotations),):
        raise ValueError(f"{len(rotations)} rotations need as many identities, got an array of shape {keys.shape}")
    if len(rotations) == 0:
        return np.empty(0, dtype=np.int64)
    directions = view_directions(rotations)
    northern = np.where(directions[:, 2:] < 0, -directions, directions)
    cells = spiral_directions(max(2, 2 * len(rotations) // _PARTICLES_PER_CELL))
    cell = cKDTree(cells[cells[:, 2] >= -1e-12]).query(northern)[1]
    in_plane = np.arctan2(rotations[:, 1, 2], -rotations[:, 0, 2])
    return np.lexsort((keys, in_plane, cell)).astype(np.int64)


def orientation_groups(
    matrices: npt.ArrayLike, count: int, minimum: int, operators: npt.ArrayLike | None = None
) -> IntArray:
    """Orientation group of every particle.

    `count` directions are spread evenly over the asymmetric unit of the point group, halved by the mirror (a
    direction and its opposite are one group), and each particle joins the nearest. While a group has fewer than
    `minimum` particles, the smallest one is dissolved and its particles join the nearest of the others; one group
    always remains.

    Parameters
    ----------
    matrices : array_like, shape (n, 3, 3)
        Rotations, volume to view.
    count : int
        Number of directions, at least 1.
    minimum : int
        Smallest number of particles in a group.
    operators : array_like, shape (g, 3, 3), optional
        Rotations of the point group in the frame of the volume; none for C1.

    Returns
    -------
    ndarray, shape (n,), int64
        Labels 0 .. G-1 without gaps; independent of the order of the particles.
    """
    if count < 1:
        raise ValueError(f"orientation groups need at least one direction, got {count}")
    mates = _mates(operators)
    centres = _even_directions(count, mates)
    directions = view_directions(matrices)
    everyone = np.arange(len(directions))
    labels = _nearest(directions, everyone, centres, np.arange(count), mates)
    alive = np.ones(count, dtype=bool)
    sizes = np.bincount(labels, minlength=count)
    while alive.sum() > 1:
        smallest = int(np.flatnonzero(alive)[np.argmin(sizes[alive])])
        if sizes[smallest] >= minimum:
            break
        alive[smallest] = False
        members = np.flatnonzero(labels == smallest)
        labels[members] = _nearest(directions, members, centres, np.flatnonzero(alive), mates)
        sizes = np.bincount(labels, minlength=count)
    return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _mates(operators: npt.ArrayLike | None) -> FloatArray:
    """Matrices (2 g, 3, 3) that take a direction to everything equivalent to it: the group times the mirror."""
    group = np.eye(3)[None] if operators is None else np.asarray(operators, dtype=np.float64).reshape(-1, 3, 3)
    return np.concatenate([group, -group])


def _equivalent(centres: FloatArray, mates: FloatArray) -> FloatArray:
    """All mates (m, len(centres), 3) of the centres."""
    return np.asarray(np.einsum("mij,cj->mci", mates, centres))


def _nearest(
    directions: FloatArray, members: IntArray, centres: FloatArray, candidates: IntArray, mates: FloatArray
) -> IntArray:
    if members.size == 0:
        return np.empty(0, dtype=np.int64)
    equivalent = _equivalent(centres[candidates], mates)
    hit = cKDTree(equivalent.reshape(-1, 3)).query(directions[members])[1]
    return np.asarray(candidates[hit % len(candidates)], dtype=np.int64)


def _even_directions(count: int, mates: FloatArray) -> FloatArray:
    """Spread `count` directions so that their cells, counted with all mates, have nearly equal area.

    Farthest points of a dense spiral, then Lloyd's relaxation on the quotient of the sphere by the mates.
    """
    samples = spiral_directions(max(2000, _SAMPLES_PER_DIRECTION * count))
    chosen = [0]
    closeness = np.full(len(samples), -np.inf)
    for _ in range(count - 1):
        orbit = mates @ samples[chosen[-1]]
        closeness = np.maximum(closeness, (samples @ orbit.T).max(axis=1))
        # rounding keeps the choice the same on machines whose dot products differ in the last bits
        chosen.append(int(np.argmin(np.round(closeness, 9))))
    centres = samples[chosen]
    for _ in range(_RELAXATIONS):
        hit = cKDTree(_equivalent(centres, mates).reshape(-1, 3)).query(samples)[1]
        mate, owner = hit // count, hit % count
        folded = np.einsum("nji,nj->ni", mates[mate], samples)
        sums = np.stack([np.bincount(owner, folded[:, axis], minlength=count) for axis in range(3)], axis=1)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(length > 1e-9, sums / np.maximum(length, 1e-9), centres)
    return centres
