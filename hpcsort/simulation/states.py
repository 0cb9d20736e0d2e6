"""Maps of the states: the phantom without some of its domains, or a given map without (or with turned) spheres."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.signal

from hpcsort.errors import InputError, OptionError
from hpcsort.io.mrc import read_map
from hpcsort.parallel import stream
from hpcsort.simulation.options import SimulationOptions
from hpcsort.simulation.phantom import PHANTOM_DOMAINS, ribosome_phantom

Volume = npt.NDArray[np.float32]

_PHANTOM_BOX_PX = 64
_PHANTOM_PIXEL_A = 5.0
_EDGE_PX = 3.0
_DENSE = 0.1
_ENOUGH_MASS = 0.4


def make_states(options: SimulationOptions) -> tuple[list[Volume], float]:
    """Make the map of every state.

    Parameters
    ----------
    options : SimulationOptions
        Says which map, how many states and what tells them apart.

    Returns
    -------
    maps : list of ndarray, shape (box, box, box), float32
        Densities [z, y, x], origin at voxel ``box // 2``; the first is the complete particle.
    pixel_size_A : float
        Voxel size.

    Raises
    ------
    InputError
        If the map cannot be read or has no voxel size.
    OptionError
        If so many different states cannot be made.
    """
    if options.map_path is None:
        pixel = options.pixel_size_A or _PHANTOM_PIXEL_A
        return phantom_states(options.state_count, options.box_px or _PHANTOM_BOX_PX, pixel), pixel
    volume, pixel = read_map(options.map_path)
    pixel = options.pixel_size_A or pixel
    if pixel <= 0:
        raise InputError(f"{options.map_path} has no voxel size in its header; give it with --angpix")
    volume = fit_box(volume, options.box_px or max(volume.shape))
    if not np.isfinite(volume).all() or np.ptp(volume) == 0:
        raise InputError(f"{options.map_path} holds no density (constant or not finite); give a map of a particle")
    count, radius, angle = options.state_count, options.domain_radius_px, options.rotate_deg
    return map_states(volume, count, radius, options.seed, angle), pixel


def phantom_states(count: int, box_px: int, pixel_size_A: float) -> list[Volume]:
    """Make states of the built-in particle: all of it, then without one domain each, then without two, and so on.

    Returns
    -------
    list of ndarray, shape (box, box, box), float32
        Densities [z, y, x].

    Raises
    ------
    OptionError
        If there are not so many combinations of domains.
    """
    most = 2 ** len(PHANTOM_DOMAINS)
    if count > most:
        raise OptionError(f"--states is {count}, but the built-in particle has {most} states; give fewer, or a --map")
    base, domains = ribosome_phantom(box_px, pixel_size_A)
    lacking = [names for size in range(len(domains) + 1) for names in combinations(domains, size)]
    return [
        np.asarray(base + sum(domains[name] for name in domains if name not in names), np.float32)
        for names in lacking[:count]
    ]


def map_states(volume: Volume, count: int, radius_px: float, seed: int, rotate_deg: float = 0.0) -> list[Volume]:
    """Make states of a map: all of it, then with one spherical domain lost or turned, each time another one.

    The domains lie where the sphere holds much density, as far from each other as possible.

    Parameters
    ----------
    volume : ndarray, shape (box, box, box), float32
        Density [z, y, x].
    count : int
        Number of states.
    radius_px : float
        Radius of the domains at half height of their soft edge (3 pixels wide).
    seed : int
        Chooses the side of the particle where the first domain lies.
    rotate_deg : float
        If not 0, the domain is turned by this angle about an axis through the centre of the particle and at right
        angles to the direction of the domain.

    Returns
    -------
    list of ndarray, shape (box, box, box), float32
        Densities [z, y, x].

    Raises
    ------
    OptionError
        If the particle has no room for so many different domains.
    """
    middle, centres = domain_centres(volume, count - 1, radius_px, seed)
    states = [volume]
    for centre in centres:
        mask = _soft_ball(volume.shape[0], centre, radius_px)
        state = volume * (1 - mask)
        if rotate_deg:
            state = state + _turned(volume * mask, middle, centre, rotate_deg)
        states.append(np.asarray(state, np.float32))
    return states


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
    dense = np.maximum(volume - _DENSE * np.quantile(volume, 0.999), 0.0).astype(np.float64)
    ball = _soft_ball(2 * int(np.ceil(radius_px + _EDGE_PX)) + 1, None, radius_px)
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
                f"--domain-radius {radius_px:g} leaves room for {len(chosen)} different domains in this map, not for"
                f" {count}; give a smaller radius or fewer --states"
            )
        chosen.append(candidates[np.argmax(distance)])
    return middle, np.array(chosen[:count], dtype=np.int64).reshape(-1, 3)


def fit_box(volume: npt.NDArray[np.floating], box_px: int) -> Volume:
    """Crop or pad a map with zeros so that the voxel ``n // 2`` of every axis becomes voxel ``box // 2``.

    Returns
    -------
    ndarray, shape (box, box, box), float32
        Density [z, y, x].
    """
    result = np.zeros((box_px,) * 3, np.float32)
    source, target = [], []
    for edge in volume.shape:
        shift = box_px // 2 - edge // 2
        target.append(slice(max(shift, 0), min(edge + shift, box_px)))
        source.append(slice(max(-shift, 0), min(box_px - shift, edge)))
    result[tuple(target)] = volume[tuple(source)]
    return result


def _soft_ball(edge: int, centre: npt.NDArray[np.integer] | None, radius_px: float) -> npt.NDArray[np.float64]:
    """Ball in a cube: 1 inside, a raised cosine across the edge, 0.5 at the radius."""
    origin = np.full(3, edge // 2) if centre is None else centre
    squares = [(np.arange(edge) - origin[axis]) ** 2 for axis in range(3)]
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    across = np.clip((distance - radius_px) / _EDGE_PX + 0.5, 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * across))


def _turned(
    density: npt.NDArray[np.floating],
    middle: npt.NDArray[np.float64],
    centre: npt.NDArray[np.integer],
    angle_deg: float,
) -> npt.NDArray[np.float64]:
    arm = centre - middle
    # the coordinate axis farthest from the arm makes the cross product well defined
    axis = np.cross(arm, np.eye(3)[np.argmin(np.abs(arm))])
    length = np.linalg.norm(axis)
    axis = axis / length if length > 0 else np.array([1.0, 0.0, 0.0])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(angle_deg)
    back = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return np.asarray(scipy.ndimage.affine_transform(density, back, middle - back @ middle, order=3))
