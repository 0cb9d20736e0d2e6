"""Maps of the states: the phantom without some of its domains, or a map without spheres, or with them turned."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from hpcsort.errors import InputError, OptionError
from hpcsort.io.mrc import read_map
from hpcsort.simulation.domains import chain_weights, domain_centres, soft_ball
from hpcsort.simulation.options import SimulationOptions
from hpcsort.simulation.phantom import PHANTOM_DOMAINS, ribosome_phantom

Volume = npt.NDArray[np.float32]

_PHANTOM_BOX_PX = 64
_PHANTOM_PIXEL_A = 5.0


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
        box = options.box_px or _PHANTOM_BOX_PX
        if options.nested:
            whole = phantom_states(1, box, pixel)[0]
            return nested_states(whole, options.state_count, options.domain_share, options.seed), pixel
        return phantom_states(options.state_count, box, pixel), pixel
    volume, pixel = read_map(options.map_path)
    pixel = options.pixel_size_A or pixel
    if pixel <= 0:
        raise InputError(f"{options.map_path} has no voxel size in its header; give it with --angpix")
    volume = fit_box(volume, options.box_px or max(volume.shape))
    if not np.isfinite(volume).all() or np.ptp(volume) == 0:
        raise InputError(f"{options.map_path} holds no density (constant or not finite); give a map of a particle")
    if options.nested:
        return nested_states(volume, options.state_count, options.domain_share, options.seed), pixel
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
        mask = soft_ball(volume.shape[0], centre, radius_px)
        state = volume * (1 - mask)
        if rotate_deg:
            state = state + _turned(volume * mask, middle, centre, rotate_deg)
        states.append(np.asarray(state, np.float32))
    return states


def nested_states(volume: Volume, count: int, share: float, seed: int) -> list[Volume]:
    """Make the states of an assembly pathway: all of a map, then with one more spherical domain lost each time.

    Parameters
    ----------
    volume : ndarray, shape (box, box, box), float32
        Density [z, y, x].
    count : int
        Number of states.
    share : float
        Mass of each domain by the mass of the particle (the sum of what rises above a tenth of the map's peak).
    seed : int
        Chooses the side of the particle where the first domain lies.

    Returns
    -------
    list of ndarray, shape (box, box, box), float32
        Densities [z, y, x]; no voxel of one is larger in magnitude than in the one before.

    Raises
    ------
    OptionError
        If the particle has no room for so many domains of this mass.
    """
    return [np.asarray(volume * weight, np.float32) for weight in chain_weights(volume, count, share, seed)]


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
