"""Point groups of rotations in RELION's settings."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from hpcsort.errors import OptionError
from hpcsort.geometry.euler import FloatArray

_GOLDEN = (1.0 + np.sqrt(5.0)) / 2.0
_MAXIMUM_FOLD = 360


def point_group(name: str) -> FloatArray:
    """Rotations of a point group, the identity first.

    Settings are RELION's: Cn has its axis along z; Dn has in addition a two-fold axis along x; T has a three-fold
    axis along z and a two-fold axis along (0, sqrt(2/3), sqrt(1/3)); O has four-fold axes along x, y and z. I and
    I2 have two-fold axes along x, y and z and a five-fold axis along (0.526, 0, 0.851); I1 is I2 turned by 90 degrees
    about y; I3 and I4 have a five-fold axis along z and a two-fold axis along (-0.526, 0, 0.851) and (0.526, 0, 0.851).

    Parameters
    ----------
    name : str
        Cn, Dn, T, O, I, I1, I2, I3 or I4 in upper or lower case.

    Returns
    -------
    ndarray, shape (g, 3, 3), float64
        Operators acting on (x, y, z) in the frame of the volume; a map of this symmetry is the same after each.

    Raises
    ------
    OptionError
        If the name is none of these.
    """
    label = name.strip().upper()
    match = re.fullmatch(r"([CD])([1-9]\d*)", label)
    if match and int(match[2]) <= _MAXIMUM_FOLD:
        fold = int(match[2])
        cyclic = np.stack([_turn((0.0, 0.0, 1.0), 360.0 * k / fold) for k in range(fold)])
        return cyclic if match[1] == "C" else np.concatenate([cyclic, cyclic @ _turn((1.0, 0.0, 0.0), 180.0)])
    generators = _generators(label)
    if generators is None:
        raise OptionError(
            f"symmetry {name!r} is not a point group this program knows: give Cn or Dn with n from 1 to "
            f"{_MAXIMUM_FOLD}, T, O, I1, I2, I3 or I4 (I means I2)"
        )
    return _close(generators)


def _generators(label: str) -> list[FloatArray] | None:
    if label == "T":
        return [_turn((0.0, 0.0, 1.0), 120.0), _turn((0.0, np.sqrt(2.0), 1.0), 180.0)]
    if label == "O":
        return [_turn((0.0, 0.0, 1.0), 90.0), _turn((1.0, 1.0, 1.0), 120.0)]
    if label in ("I", "I2"):
        return [_turn((0.0, 0.0, 1.0), 180.0), _turn((1.0, 0.0, _GOLDEN), 72.0)]
    if label == "I1":
        return [_turn((1.0, 0.0, 0.0), 180.0), _turn((_GOLDEN, 0.0, -1.0), 72.0)]
    if label in ("I3", "I4"):
        return [_turn((0.0, 0.0, 1.0), 72.0), _turn((-1.0 if label == "I3" else 1.0, 0.0, _GOLDEN), 180.0)]
    return None


def _turn(axis: tuple[float, float, float], angle_deg: float) -> FloatArray:
    """Rotation about an axis (x, y, z) by Rodrigues' formula."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.deg2rad(angle_deg)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross)


def _close(generators: list[FloatArray]) -> npt.NDArray[np.float64]:
    """All products of the generators, in the order in which a breadth-first search meets them."""
    group = [np.eye(3)]
    fresh = list(group)
    while fresh:
        products = [left @ right for left in fresh for right in generators]
        fresh = []
        for product in products:
            if min(np.abs(known - product).max() for known in group) > 1e-6:
                group.append(product)
                fresh.append(product)
    return np.stack(group)
