"""The two sides of a linear subspace of maps: projections of particles onto it (E step) and its update (M step)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcsort.kernels._backend import implementation
from hpcsort.kernels._checks import (
    check_array,
    check_geometry,
    check_half_volume,
    check_interleaved,
    check_output,
    check_particles,
    prepare_output,
)

_MOST_MAPS = 64
_Float = NDArray[np.float32]
_Complex = NDArray[np.complex64]


def section_moments(
    interleaved: _Float,
    count: int,
    images: _Complex,
    ctfs: _Float,
    rotations: _Float,
    px: _Float,
    py: _Float,
    pad: float,
    out: tuple[_Float, _Float] | None = None,
    rows: NDArray[np.int32] | None = None,
) -> tuple[_Float, _Float]:
    """Return the normal equations of each particle in the basis of J maps.

    Parameters
    ----------
    interleaved : float32 (2h+1, 2h+1, h+1, 2, L)
        Maps as laid out by `interleave`.
    count : int
        Number of maps J among the L lanes, at most 64.
    images, ctfs, rotations, px, py, pad
        As in `score_sections`.
    out : pair of float32 (n, J) and (n, J(J+1)/2), optional
        Receives linear and gram.
    rows : int32 (m,), optional
        Only these particles, in this order; n is then m in the results.

    Returns
    -------
    linear : float32 (n, J)
        ``sum_p c Re(conj(P_a) y)``.
    gram : float32 (n, J(J+1)/2)
        ``sum_p c^2 Re(conj(P_a) P_b)`` for b <= a at index a(a+1)/2 + b.

    Raises
    ------
    ValueError
        For wrong shapes, dtypes, too many maps, or points outside the volumes.
    """
    half = check_interleaved(interleaved, count)
    if count > _MOST_MAPS:
        raise ValueError(f"count {count} is above {_MOST_MAPS}, the most maps section_moments takes")
    n, pixels = check_geometry(rotations, px, py, pad, half, rows)
    check_particles(images, ctfs, n, pixels)
    n = n if rows is None else len(rows)
    linear = prepare_output("out[0]", out[0] if out else None, np.float32, (n, count))
    gram = prepare_output("out[1]", out[1] if out else None, np.float32, (n, count * (count + 1) // 2))
    implementation.section_moments(interleaved, count, images, ctfs, rotations, px, py, pad, rows, linear, gram)
    return linear, gram


def moment_record_length(moments: int, weights: int) -> int:
    """Return D, the floats per voxel that `backproject_moments` needs: 2J + Q rounded up to a multiple of 16."""
    return -(-(2 * moments + weights) // 16) * 16


def backproject_moments(
    images: _Complex,
    ctfs: _Float,
    rotations: _Float,
    z: _Float,
    q: _Float,
    px: _Float,
    py: _Float,
    pad: float,
    out: _Float,
    rows: NDArray[np.int32] | None = None,
) -> None:
    """Add particles, weighted by their moments, to a half volume of records.

    Parameters
    ----------
    images, ctfs, rotations, px, py, pad
        As in `score_sections`.
    z : float32 (n, J)
        First moments of each particle's coordinates.
    q : float32 (n, Q)
        Weights of the squared CTF, for example the packed second moments.
    out : float32 (2h+1, 2h+1, h+1, D)
        Sums to add to; D is `moment_record_length` or a larger multiple of 16; should be 64-byte aligned
        (`aligned_empty`). A record is [re * J | im * J | Q weights | padding]; each of the eight corners gets
        ``t * (c Re(y) z, c Im(y) z, c^2 q, 0)``. Finish with `complete_friedel_records`.
    rows : int32 (m,), optional
        Only these particles, in this order; z and q are then of length m.

    Notes
    -----
    Particles are added in groups of two, counted from the first: the sums of a batch are the same bits every time, but
    a batch cut elsewhere rounds differently. Order particles by view direction: neighbours then share voxels.

    Raises
    ------
    ValueError
        For wrong shapes, dtypes, or points outside the volume.
    """
    check_output("out", out, np.float32, (None, None, None, None))
    half = check_half_volume("out", out.shape[:3])
    n, pixels = check_geometry(rotations, px, py, pad, half, rows)
    check_particles(images, ctfs, n, pixels)
    n = n if rows is None else len(rows)
    check_array("z", z, np.float32, (n, None))
    check_array("q", q, np.float32, (n, None))
    if out.shape[3] % 16 or out.shape[3] < moment_record_length(z.shape[1], q.shape[1]):
        raise ValueError(
            f"out has {out.shape[3]} floats per voxel; J = {z.shape[1]} and Q = {q.shape[1]} need a multiple of 16 "
            f"of at least {moment_record_length(z.shape[1], q.shape[1])}"
        )
    implementation.backproject_moments(images, ctfs, rotations, z, q, px, py, pad, rows, out)
