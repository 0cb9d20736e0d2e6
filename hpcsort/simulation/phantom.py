"""A built-in particle of the size and texture of a ribosome, made of smooth blobs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from hpcsort.errors import OptionError
from hpcsort.parallel import stream

_WIDTH_A = 250.0
_REACH = 4.0

# name, centre and semi-axes of an ellipsoid (x, y, z) in Angstrom, number of blobs
_Part = tuple[str, tuple[float, float, float], tuple[float, float, float], int]
_BODY: tuple[_Part, ...] = (
    ("large subunit", (-34.0, 0.0, 0.0), (62.0, 80.0, 84.0), 760),
    ("platform and body", (58.0, -26.0, -4.0), (34.0, 62.0, 48.0), 300),
)
_DOMAINS: tuple[_Part, ...] = (
    ("head", (64.0, 62.0, 8.0), (34.0, 34.0, 40.0), 130),
    ("protuberance", (-26.0, 92.0, -22.0), (26.0, 22.0, 24.0), 70),
    ("factor", (24.0, -30.0, 70.0), (22.0, 40.0, 22.0), 60),
    ("stalk", (-38.0, 14.0, 98.0), (14.0, 30.0, 18.0), 32),
    ("trna", (18.0, 24.0, -10.0), (12.0, 36.0, 12.0), 24),
)

PHANTOM_DOMAINS: tuple[str, ...] = tuple(part[0] for part in _DOMAINS)


def ribosome_phantom(
    box_px: int, pixel_size_A: float
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]:
    """Build two subunits of irregular texture and the domains that a state may lack.

    Parameters
    ----------
    box_px : int
        Edge of the maps.
    pixel_size_A : float
        Voxel size in Angstrom; the box must be at least 250 Angstrom wide.

    Returns
    -------
    base : ndarray, shape (box, box, box), float32
        Density [z, y, x] of what every state has, origin at voxel ``box // 2``, peak value of the order of 1.
    domains : dict of str to ndarray, shape (box, box, box), float32
        Density of each removable domain, the largest first; the whole particle is the base plus all of them.

    Raises
    ------
    OptionError
        If the box is too small for the particle.
    """
    if box_px * pixel_size_A < _WIDTH_A:
        smallest = int(np.ceil(_WIDTH_A / pixel_size_A))
        raise OptionError(
            f"--box {box_px} with pixels of {pixel_size_A:g} A is narrower than the built-in particle ({_WIDTH_A:g} A);"
            f" give --box {smallest} or more, or larger pixels"
        )
    # every part has its own stream, so that a change to one leaves the others as they are
    maps = {part[0]: _part_map(part, stream(0, "phantom", part[0]), box_px, pixel_size_A) for part in _BODY + _DOMAINS}
    base = sum((maps[part[0]] for part in _BODY), start=np.zeros((box_px,) * 3, np.float32))
    return base, {name: maps[name] for name in PHANTOM_DOMAINS}


def blob_map(
    centres_px: npt.NDArray[np.float64],
    sigmas_px: npt.NDArray[np.float64],
    masses: Iterable[float],
    box_px: int,
) -> npt.NDArray[np.float32]:
    """Sum Gaussian blobs on a grid.

    Parameters
    ----------
    centres_px : ndarray, shape (b, 3)
        Centres (x, y, z) in voxels from the origin at voxel ``box // 2``.
    sigmas_px : ndarray, shape (b,)
        Standard deviations in voxels.
    masses : iterable of b float
        Sum of each blob over all voxels.
    box_px : int
        Edge of the map.

    Returns
    -------
    ndarray, shape (box, box, box), float32
        Density [z, y, x].
    """
    density = np.zeros((box_px,) * 3)
    for centre, sigma, mass in zip(centres_px + box_px // 2, sigmas_px, masses, strict=True):
        low = np.clip(np.floor(centre - _REACH * sigma), 0, box_px).astype(int)
        high = np.clip(np.ceil(centre + _REACH * sigma) + 1, 0, box_px).astype(int)
        x, y, z = (np.exp(-0.5 * ((np.arange(low[axis], high[axis]) - centre[axis]) / sigma) ** 2) for axis in range(3))
        peak = mass / (np.sqrt(2 * np.pi) * sigma) ** 3
        density[low[2] : high[2], low[1] : high[1], low[0] : high[0]] += peak * z[:, None, None] * y[:, None] * x
    return density.astype(np.float32)


def _part_map(part: _Part, rng: np.random.Generator, box_px: int, pixel_size_A: float) -> npt.NDArray[np.float32]:
    _, centre, axes, count = part
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    places = np.asarray(centre) + direction * rng.random((count, 1)) ** (1 / 3) * np.asarray(axes)
    # narrower than 0.8 voxel a Gaussian is no longer band-limited on the grid
    sigmas = np.maximum(rng.uniform(5.0, 9.0, count) / pixel_size_A, 0.8)
    masses = rng.uniform(0.3, 1.7, count) * (14.0 / pixel_size_A) ** 3
    return blob_map(places / pixel_size_A, sigmas, masses, box_px)
