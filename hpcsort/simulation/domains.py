"""Spherical domains of a map: where they lie, and which of them take a given share of the mass one after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.optimize
import scipy.signal

from hpcsort.errors import OptionError
from hpcsort.parallel import stream

Volume = npt.NDArray[np.float32]

_EDGE_PX = 3.0
_DENSE = 0.1
_ENOUGH_MASS = 0.4


def domain_centres(
    volume: Volume, count: int, radius_px: float, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Choose the centres of spherical domains: far apart and full of density.

    Returns
    -------
    middle : ndarray, shape (3,), float64
        Centre of mass (z, y, x) in voxels from the corner.
    centres : ndarray, shape (count, 3), int64
        Centres of the domains (z, y, x) in voxels from the corner.

    Raises
    ------
    OptionError
        If two of them would be closer than half a radius.
    """
    dense = dense_part(volume)
    ball = soft_ball(2 * int(np.ceil(radius_px + _EDGE_PX)) + 1, None, radius_px)
    mass = scipy.signal.fftconvolve(dense, ball, mode="same")
    candidates = np.argwhere((dense > 0) & (mass >= _ENOUGH_MASS * mass.max()))
    middle = np.asarray(scipy.ndimage.center_of_mass(dense))
    side = stream(seed, "domains").standard_normal(3)
    chosen = [candidates[np.argmax((candidates - middle) @ side)]]
    distance = np.full(len(candidates), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(candidates - chosen[-1], axis=1))
        if distance.max() < max(1.0, radius_px / 2):
            raise OptionError(
                f"domains of {radius_px:.3g} pixels leave room for {len(chosen)} different ones in this map, not for"
                f" {count}; give smaller ones (--domain-radius or, with --nested, --domain-share) or fewer --states"
            )
        chosen.append(candidates[np.argmax(distance)])
    return middle, np.array(chosen[:count], dtype=np.int64).reshape(-1, 3)


def dense_part(volume: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return what rises above a tenth of the map's peak (its 0.999 quantile); "mass" is the sum of this."""
    return np.maximum(volume - _DENSE * np.quantile(volume, 0.999), 0.0).astype(np.float64)


def chain_weights(volume: Volume, count: int, share: float, seed: int) -> list[npt.NDArray[np.float64]]:
    """Weights of the states of an assembly pathway: each lacks one more spherical domain of the same mass.

    The domains lie as far from each other as possible, as those of `domain_centres`; each has the radius at which it
    takes `share` of the particle's mass from what the domains before it have left.

    Parameters
    ----------
    volume : ndarray, shape (box, box, box), float32
        Density [z, y, x].
    count : int
        Number of states.
    share : float
        Mass of a domain by the mass of the particle; mass is the sum of the `dense_part`.
    seed : int
        Chooses the side of the particle where the first domain lies.

    Returns
    -------
    list of ndarray, shape (box, box, box), float64
        From 0 to 1; the first is 1 everywhere, and no voxel of one is larger than in the one before.

    Raises
    ------
    OptionError
        If the particle has no room for so many domains of this mass.
    """
    mass = dense_part(volume)
    wanted = share * mass.sum()
    radius = np.cbrt(0.75 / np.pi * share * np.count_nonzero(mass))
    _, centres = domain_centres(volume, count - 1, radius, seed)
    weights = [np.ones(volume.shape)]
    for number, centre in enumerate(centres, start=1):
        distance = _distance(volume.shape[0], centre)
        left = weights[-1] * mass
        if left.sum() <= wanted:
            raise OptionError(
                f"--domain-share {share:g} leaves nothing of the particle after {number - 1} domains, but"
                f" {count - 1} are needed; give a smaller share or fewer --states"
            )
        there = left > 0
        far, density = distance[there], left[there]
        fitted = scipy.optimize.brentq(
            lambda r, far=far, density=density: density @ _inside(far, r) - wanted, -_EDGE_PX, far.max() + _EDGE_PX
        )
        weights.append(weights[-1] * (1 - _inside(distance, fitted)))
    return weights


def soft_ball(edge: int, centre: npt.NDArray[np.integer] | None, radius_px: float) -> npt.NDArray[np.float64]:
    """Ball in a cube: 1 inside, a raised cosine across the edge (3 pixels wide), 0.5 at the radius."""
    return _inside(_distance(edge, np.full(3, edge // 2) if centre is None else centre), radius_px)


def _distance(edge: int, origin: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    squares = [(np.arange(edge) - origin[axis]) ** 2 for axis in range(3)]
    return np.asarray(np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2]))


def _inside(distance: npt.NDArray[np.float64], radius_px: float) -> npt.NDArray[np.float64]:
    across = np.clip((distance - radius_px) / _EDGE_PX + 0.5, 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * across))
