"""Grids of poses: HEALPix directions, in-plane angles, local lattices, and the asymmetric unit of a point group."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from hpcsort.geometry import relion_matrices, view_directions

__all__ = [
    "angles_between",
    "direction_spacing_deg",
    "distinct_rotations",
    "fold_rotations",
    "healpix_directions",
    "rotation_ball",
    "rotation_grid",
    "shift_disc",
    "turned",
]

_GENERIC = np.array([0.36, 0.22, 0.906])
"""A direction on no symmetry axis of any setting: the asymmetric unit is what lies nearer to it than to its mates."""
_EDGE = 1e-9


def direction_spacing_deg(nside: int) -> float:
    """Square root of the area of one of the 12 nside^2 cells, degrees."""
    return float(np.rad2deg(np.sqrt(4.0 * np.pi / (12.0 * nside**2))))


def healpix_directions(nside: int) -> np.ndarray:
    """Centres of the HEALPix cells in ring order.

    Gorski et al., Astrophys. J. 622 (2005) 759, equations 2 to 9: cells of equal area. ``nside`` need not be a power
    of two here.

    Returns
    -------
    float64 (12 nside^2, 3), unit vectors (x, y, z).
    """
    if nside < 1:
        raise ValueError(f"a HEALPix grid has an nside of at least 1, not {nside}")
    z, phi = [], []
    for ring in range(1, 4 * nside):
        polar = min(ring, 4 * nside - ring)
        if polar < nside:
            height = 1.0 - polar**2 / (3.0 * nside**2)
            count, offset = 4 * polar, 0.5
        else:
            height = abs(4.0 - 2.0 * ring / nside) / 3.0
            count, offset = 4 * nside, 0.5 * (1 - (ring - nside) % 2)
        z.append(np.full(count, height if ring <= 2 * nside else -height))
        phi.append(2.0 * np.pi * (np.arange(count) + offset) / count)
    heights, angles = np.concatenate(z), np.concatenate(phi)
    radius = np.sqrt(np.maximum(1.0 - heights**2, 0.0))
    return np.stack([radius * np.cos(angles), radius * np.sin(angles), heights], axis=1)


def rotation_grid(nside: int, operators: np.ndarray) -> np.ndarray:
    """Rotations over the asymmetric unit with in-plane angles in [0, 180).

    The section half a turn further is the complex conjugate, so that the other half of the circle costs nothing.

    Parameters
    ----------
    nside : of the HEALPix directions; in-plane angles are spaced as the directions are.
    operators : float (g, 3, 3), the point group. Directions up to half a spacing outside its asymmetric unit are
        kept, since the cell of a pose inside may have its centre there.

    Returns
    -------
    float64 (directions * angles, 3, 3), volume to view; angles run fastest.
    """
    spacing = direction_spacing_deg(nside)
    directions = healpix_directions(nside)
    own = directions @ _GENERIC
    for operator in operators[1:]:
        mate = operator @ _GENERIC
        inside = directions @ mate <= own + 0.5 * np.deg2rad(spacing) * np.linalg.norm(mate - _GENERIC)
        directions, own = directions[inside], own[inside]
    rot = np.rad2deg(np.arctan2(directions[:, 1], directions[:, 0]))
    tilt = np.rad2deg(np.arccos(np.clip(directions[:, 2], -1.0, 1.0)))
    count = max(1, int(np.ceil(180.0 / spacing)))
    psi = np.arange(count) * (180.0 / count)
    angles = np.stack([np.repeat(rot, count), np.repeat(tilt, count), np.tile(psi, len(rot))], axis=1)
    return relion_matrices(angles)


def rotation_ball(radius_deg: float, step_deg: float) -> np.ndarray:
    """Rotation vectors of a cubic lattice around 0, float64 (n, 3), radians, inside ``radius_deg``."""
    reach = int(np.floor(radius_deg / step_deg + _EDGE)) if radius_deg > 0 else 0
    axis = np.arange(-reach, reach + 1)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.sqrt((lattice**2).sum(axis=1)) * step_deg
    return np.asarray(np.deg2rad(lattice[length <= radius_deg + _EDGE] * step_deg), np.float64)


def shift_disc(radius_px: float, step_px: float) -> np.ndarray:
    """Shifts (x, y) of a square lattice around 0, float64 (n, 2), px, inside ``radius_px``."""
    reach = int(np.floor(radius_px / step_px + _EDGE)) if radius_px > 0 else 0
    axis = np.arange(-reach, reach + 1)
    lattice = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    length = np.sqrt((lattice**2).sum(axis=1)) * step_px
    return np.asarray(lattice[length <= radius_px + _EDGE] * step_px, np.float64)


def turned(rotations: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Turn views about their own axes: exp(w) A for A (..., 3, 3) and rotation vectors w (..., 3), radians."""
    shape = np.broadcast_shapes(rotations.shape[:-2], vectors.shape[:-1])
    flat = np.array(np.broadcast_to(vectors, (*shape, 3)).reshape(-1, 3))
    turns = Rotation.from_rotvec(flat).as_matrix().reshape(*shape, 3, 3)
    return np.asarray(turns @ rotations)


def angles_between(rotations: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Angle between rotations (..., 3, 3) in radians, (...)."""
    cosine = (np.einsum("...ij,...ij->...", rotations, others) - 1.0) / 2.0
    return np.asarray(np.arccos(np.clip(cosine, -1.0, 1.0)))


def fold_rotations(rotations: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """Replace each rotation (n, 3, 3) by its mate whose view direction lies in the asymmetric unit."""
    if len(operators) == 1 or len(rotations) == 0:
        return rotations
    # the view direction of A g is g^T d
    nearness = view_directions(rotations) @ (operators @ _GENERIC).T
    return np.asarray(rotations @ operators[np.argmax(nearness, axis=1)])


def distinct_rotations(
    rotations: np.ndarray, scores: np.ndarray, count: int, apart_deg: float, operators: np.ndarray
) -> np.ndarray:
    """Choose the best rotations that are not near a better one, symmetry mates included.

    Parameters
    ----------
    rotations, scores : float (n, 3, 3) and (n,).
    count : how many at most.
    apart_deg : smallest angle between two of them.

    Returns
    -------
    int64 (m,), the best first.
    """
    flat = rotations.reshape(-1, 9)
    limit = 1.0 + 2.0 * np.cos(np.deg2rad(apart_deg))
    mates = (rotations[:, None] @ operators[None]).reshape(-1, 9)
    traces = (flat @ mates.T).reshape(len(flat), len(flat), len(operators)).max(axis=2)
    near = traces > limit
    free = np.ones(len(flat), bool)
    chosen: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if free[index]:
            chosen.append(index)
            free &= ~near[index]
            if len(chosen) == count:
                break
    return np.asarray(chosen, np.int64)
