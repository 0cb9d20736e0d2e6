"""Geometry of random conical tilts: where the tilted view of a particle looks from, and what no view measures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["class_views", "tilt_rotations", "unmeasured_share"]

Floats = npt.NDArray[np.float64]

_DIRECTIONS = 4000


def class_views(psi_deg: Floats, mirror: npt.NDArray[np.bool_]) -> Floats:
    """Rotations from the map of a 2D class to the untilted views of its particles.

    The class average is the map's projection along z. An image that is rotated by psi in the plane (RELION's
    rlnAnglePsi) shows the map at Rz(psi). One that had to be mirrored, x -> -x, before it was rotated shows it from the
    other side: at Ry(180) Rz(psi), whose upper left 2 x 2 part is that mirror times the rotation.

    Parameters
    ----------
    psi_deg : float64 (n,), degrees.
    mirror : bool (n,).

    Returns
    -------
    float64 (n, 3, 3), volume (x, y, z) to view (x, y, z).
    """
    views = np.swapaxes(_about_z(psi_deg), 1, 2)
    views[mirror] = np.diag([-1.0, 1.0, -1.0]) @ views[mirror]
    return views


def tilt_rotations(tilt_deg: Floats, axis_untilted_deg: Floats, axis_tilted_deg: Floats, sign: Floats) -> Floats:
    """Rotations from untilted to tilted views.

    With the axis along e and n = (-sin, cos, 0) at right angles to it, n of the untilted view becomes cos(tilt) n +
    sign sin(tilt) z in the tilted one. z of a view points to where the underfocus grows; with the other sign the map
    becomes its mirror image.

    Parameters
    ----------
    tilt_deg : float64 (n,), angle between the views, degrees.
    axis_untilted_deg, axis_tilted_deg : float64 (n,), the same direction of the tilt axis in both micrographs, from x
        towards y.
    sign : float64 (n,), 1 where underfocus grows towards n in the tilted view, else -1.

    Returns
    -------
    float64 (n, 3, 3), untilted view (x, y, z) to tilted view (x, y, z).
    """
    angle = np.deg2rad(sign * tilt_deg)
    about_x = np.zeros((len(angle), 3, 3))
    about_x[:, 0, 0] = 1.0
    about_x[:, 1, 1] = about_x[:, 2, 2] = np.cos(angle)
    about_x[:, 2, 1] = np.sin(angle)
    about_x[:, 1, 2] = -np.sin(angle)
    return np.asarray(_about_z(axis_tilted_deg) @ about_x @ np.swapaxes(_about_z(axis_untilted_deg), 1, 2))


def unmeasured_share(rotations: Floats, radius_px: float) -> float:
    """Share of the directions of Fourier space that lie further than half a pixel from all sections.

    Parameters
    ----------
    rotations : float64 (n, 3, 3), volume to view.
    radius_px : distance from the origin in Fourier pixels at which is measured.
    """
    # evenly over half a sphere (spiral of the golden angle)
    number = np.arange(_DIRECTIONS) + 0.5
    z = 1.0 - number / _DIRECTIONS
    turn = number * np.pi * (3.0 - np.sqrt(5.0))
    points = np.column_stack([np.sqrt(1.0 - z * z) * np.cos(turn), np.sqrt(1.0 - z * z) * np.sin(turn), z])
    nearest = np.full(_DIRECTIONS, np.inf)
    for axis in rotations[:, 2]:
        np.minimum(nearest, np.abs(points @ axis), out=nearest)
    return float(np.mean(nearest * radius_px > 0.5))


def _about_z(angle_deg: Floats) -> Floats:
    """Rotations (n, 3, 3) that turn x towards y; the transpose of RELION's Rz."""
    angle = np.deg2rad(angle_deg)
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 1, 0] = np.sin(angle)
    turn[:, 0, 1] = -np.sin(angle)
    turn[:, 2, 2] = 1.0
    return turn
