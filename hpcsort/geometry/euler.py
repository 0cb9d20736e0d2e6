"""Euler angles and shifts of RELION, SPHIRE (EMAN2) and Xmipp, and the matrices they stand for.

Frame of everything below: ``A = Rz(psi) Ry(tilt) Rz(rot)`` maps a point of the volume (x, y, z; pixels from the
box centre ``n // 2``) to the view (x, y along the image, z along the beam), with ``Rz(t) = [[c, s, 0], [-s, c, 0],
[0, 0, 1]]`` and ``Ry(t) = [[c, 0, -s], [0, 1, 0], [s, 0, c]]``. The central section at the in-plane frequency
(kx, ky) is the volume's transform at ``A^T (kx, ky, 0)``. Angles are degrees, shifts are pixels; RELION's origins
(ox, oy) are what must be added to the position of the image content to centre it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
Alignment: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]

# |sin(tilt)| under which rot and psi are one angle; float32 matrices carry errors of about 1e-7 per entry
_POLE = 1e-6


def relion_matrices(angles_deg: npt.ArrayLike) -> FloatArray:
    """Rotation matrices of RELION's Euler angles.

    Parameters
    ----------
    angles_deg : array_like, shape (n, 3)
        Columns rot, tilt, psi in degrees.

    Returns
    -------
    ndarray, shape (n, 3, 3), float64
        ``A``: volume (x, y, z) to view (x, y, z).
    """
    rot, tilt, psi = np.deg2rad(_columns(angles_deg, 3))
    cos_rot, sin_rot, cos_tilt, sin_tilt = np.cos(rot), np.sin(rot), np.cos(tilt), np.sin(tilt)
    cos_psi, sin_psi = np.cos(psi), np.sin(psi)
    matrices = np.empty((rot.size, 3, 3))
    matrices[:, 0, 0] = cos_psi * cos_tilt * cos_rot - sin_psi * sin_rot
    matrices[:, 0, 1] = cos_psi * cos_tilt * sin_rot + sin_psi * cos_rot
    matrices[:, 0, 2] = -cos_psi * sin_tilt
    matrices[:, 1, 0] = -sin_psi * cos_tilt * cos_rot - cos_psi * sin_rot
    matrices[:, 1, 1] = -sin_psi * cos_tilt * sin_rot + cos_psi * cos_rot
    matrices[:, 1, 2] = sin_psi * sin_tilt
    matrices[:, 2, 0] = sin_tilt * cos_rot
    matrices[:, 2, 1] = sin_tilt * sin_rot
    matrices[:, 2, 2] = cos_tilt
    return matrices


def relion_angles(matrices: npt.ArrayLike) -> FloatArray:
    """RELION's Euler angles of rotation matrices; the inverse of `relion_matrices`.

    At tilt 0 and 180 only ``psi + rot`` or ``psi - rot`` is defined; there rot is returned as 0.

    Parameters
    ----------
    matrices : array_like, shape (n, 3, 3)
        Proper rotations, volume to view.

    Returns
    -------
    ndarray, shape (n, 3), float64
        rot and psi in (-180, 180], tilt in [0, 180] degrees.
    """
    a = np.asarray(matrices, dtype=np.float64).reshape(-1, 3, 3)
    sin_tilt = np.hypot(a[:, 2, 0], a[:, 2, 1])
    pole = sin_tilt < _POLE
    rot = np.where(pole, 0.0, np.arctan2(a[:, 2, 1], a[:, 2, 0]))
    # atan2 of both components stays exact near the poles, where arccos loses half of the digits
    tilt = np.arctan2(sin_tilt, a[:, 2, 2])
    psi = np.where(pole, np.arctan2(a[:, 0, 1], a[:, 1, 1]), np.arctan2(a[:, 1, 2], -a[:, 0, 2]))
    return np.rad2deg(np.stack([rot, tilt, psi], axis=1))


def sphire_to_relion(
    phi: npt.ArrayLike, theta: npt.ArrayLike, psi: npt.ArrayLike, tx: npt.ArrayLike, ty: npt.ArrayLike
) -> Alignment:
    """Alignment of an EMAN2 ``xform.projection`` (SPIDER angles) in RELION's terms.

    The 3x3 part of EMAN2's matrix equals ``A``; its translation (tx, ty) moves the centred projection onto the
    image, so the origin has the opposite sign. SPHIRE's parameter files (``params_III.txt``,
    ``refinement_parameters.txt``) hold (-tx, -ty), which is the origin itself.

    Parameters
    ----------
    phi, theta, psi : array_like, shape (n,)
        SPIDER angles in degrees.
    tx, ty : array_like, shape (n,)
        Translation of ``xform.projection`` in pixels.

    Returns
    -------
    tuple of five ndarrays, shape (n,), float64
        rot, tilt, psi in degrees, ox, oy in pixels.
    """
    angles = [_vector(x) for x in (phi, theta, psi)]
    return angles[0], angles[1], angles[2], -_vector(tx), -_vector(ty)


def relion_to_sphire(
    rot: npt.ArrayLike, tilt: npt.ArrayLike, psi: npt.ArrayLike, ox_px: npt.ArrayLike, oy_px: npt.ArrayLike
) -> Alignment:
    """Alignment in the terms of an EMAN2 ``xform.projection``; the inverse of `sphire_to_relion`.

    Returns
    -------
    tuple of five ndarrays, shape (n,), float64
        phi, theta, psi in degrees, tx, ty in pixels.
    """
    return sphire_to_relion(rot, tilt, psi, ox_px, oy_px)


def xmipp_to_relion(
    rot: npt.ArrayLike,
    tilt: npt.ArrayLike,
    psi: npt.ArrayLike,
    shift_x_px: npt.ArrayLike,
    shift_y_px: npt.ArrayLike,
    flip: npt.ArrayLike = False,
) -> Alignment:
    """Projection alignment of an Xmipp table in RELION's terms.

    Xmipp's Euler angles and its projection shifts are RELION's (RELION's code descends from Xmipp's). A flipped
    particle (image mirrored along x) shows the same density from the other side: the mirrored view is
    ``diag(-1, 1, -1) A``, that is tilt + 180, -psi, and its x shift changes sign.

    Parameters
    ----------
    rot, tilt, psi : array_like, shape (n,)
        angleRot, angleTilt, anglePsi in degrees.
    shift_x_px, shift_y_px : array_like, shape (n,)
        shiftX, shiftY in pixels.
    flip : array_like of bool, shape (n,) or scalar
        The column flip.

    Returns
    -------
    tuple of five ndarrays, shape (n,), float64
        rot, tilt, psi in degrees, ox, oy in pixels.
    """
    rot, tilt, psi, ox, oy = (_vector(x) for x in (rot, tilt, psi, shift_x_px, shift_y_px))
    mirrored = np.broadcast_to(np.asarray(flip, dtype=bool), rot.shape)
    sign = np.where(mirrored, -1.0, 1.0)
    return rot, np.where(mirrored, tilt + 180.0, tilt), sign * psi, sign * ox, oy


def relion_to_xmipp(
    rot: npt.ArrayLike, tilt: npt.ArrayLike, psi: npt.ArrayLike, ox_px: npt.ArrayLike, oy_px: npt.ArrayLike
) -> Alignment:
    """Projection alignment in Xmipp's terms (never flipped); the inverse of `xmipp_to_relion`.

    Returns
    -------
    tuple of five ndarrays, shape (n,), float64
        angleRot, angleTilt, anglePsi in degrees, shiftX, shiftY in pixels; the column flip is 0 for all.
    """
    return xmipp_to_relion(rot, tilt, psi, ox_px, oy_px)


def xmipp_2d_to_relion(
    psi: npt.ArrayLike, shift_x_px: npt.ArrayLike, shift_y_px: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Two-dimensional alignment of an Xmipp class table in RELION's terms.

    Xmipp moves image content at x to ``y = R(psi) x + s`` with ``R(psi) = [[cos, sin], [-sin, cos]]``; RELION shifts
    first and turns the other way, hence ``psi_r = -psi`` and ``o = R(psi)^T s``. RELION has no mirror in two
    dimensions: write a mirrored stack for flipped particles.

    Parameters
    ----------
    psi : array_like, shape (n,)
        anglePsi in degrees.
    shift_x_px, shift_y_px : array_like, shape (n,)
        shiftX, shiftY in pixels.

    Returns
    -------
    tuple of three ndarrays, shape (n,), float64
        psi in degrees, ox, oy in pixels.
    """
    angle, sx, sy = (_vector(x) for x in (psi, shift_x_px, shift_y_px))
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return -angle, cos * sx - sin * sy, sin * sx + cos * sy


def relion_to_xmipp_2d(
    psi: npt.ArrayLike, ox_px: npt.ArrayLike, oy_px: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Two-dimensional alignment in Xmipp's terms (never flipped); the inverse of `xmipp_2d_to_relion`.

    Returns
    -------
    tuple of three ndarrays, shape (n,), float64
        anglePsi in degrees, shiftX, shiftY in pixels.
    """
    # -psi of one program is psi of the other, and R(-psi)^T = R(psi): both directions are one formula
    return xmipp_2d_to_relion(psi, ox_px, oy_px)


def _vector(values: Any) -> FloatArray:
    return np.atleast_1d(np.asarray(values, dtype=np.float64))


def _columns(values: npt.ArrayLike, count: int) -> FloatArray:
    table = np.asarray(values, dtype=np.float64)
    if table.shape == (count,):
        table = table[None]
    if table.ndim != 2 or table.shape[1] != count:
        raise ValueError(f"expected an array of shape (n, {count}), got {table.shape}")
    return table.T
