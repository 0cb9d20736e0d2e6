"""Back-projection of particles into class volumes, and the Friedel symmetry of half volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcsort.kernels._backend import implementation
from hpcsort.kernels._checks import (
    check_array,
    check_entries,
    check_geometry,
    check_half_volume,
    check_output,
    check_particles,
)

_Float = NDArray[np.float32]


def insert_sections(
    images: NDArray[np.complex64],
    ctfs: _Float,
    rotations: _Float,
    labels: NDArray[np.int32],
    weights: _Float,
    px: _Float,
    py: _Float,
    pad: float,
    out: _Float,
    rows: NDArray[np.int32] | None = None,
) -> None:
    """Add every particle to the half volumes of its classes.

    Parameters
    ----------
    images, ctfs, rotations, px, py, pad
        As in `score_sections`.
    labels : int32 (m,)
        Class of each entry; -1 leaves it out. Without `rows` entries are particles.
    weights : float32 (m,)
        Weight w of each entry.
    out : float32 (K, 2h+1, 2h+1, h+1, 4)
        Sums to add to, as records (re, im, weight, 0); should be 64-byte aligned. Each of the eight corners of a
        pixel's point gets ``t * w * (c Re y, c Im y, c^2, 0)``, conjugated where the point's Friedel mate is the one
        stored. Finish with `complete_friedel`: ``complete_friedel(out.view(np.complex64)[..., 0], True)`` and
        ``complete_friedel(out[..., 2], False)``.
    rows : int32 (m,), optional
        Particle of each entry: one that belongs to several classes in part has an entry for each.

    Raises
    ------
    ValueError
        For wrong shapes, dtypes, labels, or points outside the volumes.
    """
    check_output("out", out, np.float32, (None, None, None, None, 4))
    half = check_half_volume("out", out.shape[1:4])
    n, pixels = check_geometry(rotations, px, py, pad, half)
    check_particles(images, ctfs, n, pixels)
    entries = check_entries(labels, rows, n, out.shape[0])
    check_array("weights", weights, np.float32, (entries,))
    implementation.insert_sections(images, ctfs, rotations, labels, weights, px, py, pad, rows, out)


def complete_friedel(volume: NDArray[Any], hermitian: bool) -> NDArray[Any]:
    """Add the Friedel mates on the plane x = 0 of inserted half volumes, in place.

    Insertion puts a pixel or its mate, whichever has x >= 0, on the half volume. Only on x = 0 do both lie inside:
    afterwards the half volume equals that of a full volume into which every pixel went together with its mate.

    Parameters
    ----------
    volume : any dtype (..., 2h+1, 2h+1, h+1)
        Half volumes [..., z, y, x]; may be a strided view of records.
    hermitian : bool
        True for transforms (the mate is conjugated), False for real weights.

    Returns
    -------
    the same array

    Raises
    ------
    ValueError
        For a shape that is no half volume, or a read-only array.
    """
    _complete(volume, lambda mate: mate.conj() if hermitian else mate)
    return volume


def complete_friedel_records(records: _Float, moments: int) -> _Float:
    """Add the Friedel mates on the plane x = 0 to the records of `backproject_moments`, in place.

    Parameters
    ----------
    records : float32 (2h+1, 2h+1, h+1, D)
        Records [re * J | im * J | weights | padding].
    moments : int
        J; floats J..2J-1 are imaginary parts and change sign in the mate.

    Returns
    -------
    the same array

    Raises
    ------
    ValueError
        For a shape that is no half volume of such records, or a read-only array.
    """
    if records.ndim != 4 or not 0 <= 2 * moments <= records.shape[3]:
        raise ValueError(f"records of shape {records.shape} cannot hold {moments} complex moments")
    signs = np.ones(records.shape[3], records.dtype)
    signs[moments : 2 * moments] = -1
    _complete(np.moveaxis(records, 3, 0), lambda mate: mate * signs[:, None, None])
    return records


def _complete(volume: NDArray[Any], mate_of: Any) -> None:
    if volume.ndim < 3:
        raise ValueError(f"volume has shape {volume.shape}; expected (..., 2h+1, 2h+1, h+1)")
    check_half_volume("volume", volume.shape[-3:])
    if not volume.flags.writeable:
        raise ValueError("volume is read-only; pass an array that can be written")
    plane = volume[..., 0]
    plane += mate_of(plane[..., ::-1, ::-1].copy())
