"""Agreement of particles with the sections of many maps, and with their own class without themselves."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from hpcsort.kernels._backend import implementation
from hpcsort.kernels._checks import (
    check_array,
    check_entries,
    check_geometry,
    check_half_volume,
    check_interleaved,
    check_particles,
    prepare_output,
)

_Float = NDArray[np.float32]
_Complex = NDArray[np.complex64]


def score_sections(
    interleaved: _Float,
    count: int,
    images: _Complex,
    ctfs: _Float,
    rotations: _Float,
    px: _Float,
    py: _Float,
    pad: float,
    out: tuple[_Float, _Float] | None = None,
) -> tuple[_Float, _Float]:
    """Compare every particle with the section of every map.

    Parameters
    ----------
    interleaved : float32 (2h+1, 2h+1, h+1, 2, L)
        Maps as laid out by `interleave`.
    count : int
        Number of maps K among the L lanes.
    images : complex64 (n, P)
        Whitened Fourier pixels y.
    ctfs : float32 (n, P)
        Whitened CTF c.
    rotations : float32 (n, 3, 3)
        A with view (x, y, z) = A @ volume (x, y, z).
    px, py : float32 (P,)
        Integer frequencies of the half plane's pixels.
    pad : float
        Padding of the volumes.
    out : pair of float32 (n, K), optional
        Receives cross and power.

    Returns
    -------
    cross, power : float32 (n, K)
        ``sum_p c Re(conj(P_k) y)`` and ``sum_p c^2 |P_k|^2``; ``|y - c P_k|^2 = |y|^2 - 2 cross + power``.

    Raises
    ------
    ValueError
        For wrong shapes, dtypes, or points outside the volumes.
    """
    half = check_interleaved(interleaved, count)
    n, pixels = check_geometry(rotations, px, py, pad, half)
    check_particles(images, ctfs, n, pixels)
    cross = prepare_output("out[0]", out[0] if out else None, np.float32, (n, count))
    power = prepare_output("out[1]", out[1] if out else None, np.float32, (n, count))
    implementation.score_sections(interleaved, count, images, ctfs, rotations, px, py, pad, cross, power)
    return cross, power


def pack_ridge(volumes: _Complex, ridge: _Float, out: _Float | None = None) -> _Float:
    """Join class maps and their ridge weights into the records that `leave_one_out_gains` reads.

    Parameters
    ----------
    volumes : complex64 (K, 2h+1, 2h+1, h+1)
        Class maps [class, z, y, x].
    ridge : float32 (K, 2h+1, 2h+1, h+1)
        1 / (W_k + prior), zero where nothing was observed.
    out : float32 (K, 2h+1, 2h+1, h+1, 4), optional
        Receives the result.

    Returns
    -------
    float32 (K, 2h+1, 2h+1, h+1, 4)
        Records (re, im, ridge, 0).
    """
    check_array("volumes", volumes, np.complex64, (None, None, None, None))
    check_half_volume("volumes", volumes.shape[1:])
    check_array("ridge", ridge, np.float32, volumes.shape)
    out = prepare_output("out", out, np.float32, (*volumes.shape, 4))
    implementation.pack_ridge(volumes, ridge, out)
    return out


def leave_one_out_gains(
    volumes: _Complex | _Float,
    ridge: _Float | None,
    labels: NDArray[np.int32],
    factors: _Float,
    images: _Complex,
    ctfs: _Float,
    rotations: _Float,
    px: _Float,
    py: _Float,
    pad: float,
    out: _Float | None = None,
    *,
    rows: NDArray[np.int32] | None = None,
    change: bool = False,
) -> _Float:
    """Return each particle's log-likelihood gain from its own class map with its own contribution removed.

    A particle is part of its class map and therefore prefers it. At a voxel the map is B / (W + prior); leaving the
    particle out divides its residual by 1 - h, where h is the leverage, its own share of the voxel's weight
    (the Sherman-Morrison identity of ridge regression; exact where one pixel of a particle meets one voxel).

    Parameters
    ----------
    volumes : complex64 (K, 2h+1, 2h+1, h+1), or float32 (K, 2h+1, 2h+1, h+1, 4)
        Class maps, or the result of `pack_ridge` (then `ridge` is None), which saves the packing in each call.
    ridge : float32 (K, 2h+1, 2h+1, h+1) or None
        1 / (W_k + prior), zero where nothing was observed.
    labels : int32 (m,)
        Own class of each entry; -1 gives a gain of zero. Without `rows` entries are particles.
    factors : float32 (m,)
        Particle weight times leverage scale.
    images, ctfs, rotations, px, py, pad
        As in `score_sections`.
    out : float32 (m,), optional
        Receives the result.
    rows : int32 (m,), optional
        Particle of each entry: one that belongs to several classes in part has an entry for each.
    change : bool
        Return by how much the gain differs from that with the own contribution left in.

    Returns
    -------
    float32 (m,)
        ``sum_p |y|^2 - |r|^2`` with ``r = (y - c P) / (1 - min(h, 0.9))`` and
        ``h = factor * c^2 * sum over corners of t^2 * ridge`` (t: trilinear weight); with `change`
        ``sum_p |y - c P|^2 - |r|^2``.

    Raises
    ------
    ValueError
        For wrong shapes, dtypes, labels, or points outside the volumes.
    """
    if ridge is None:
        check_array("volumes", volumes, np.float32, (None, None, None, None, 4))
        half = check_half_volume("volumes", volumes.shape[1:4])
        records = cast(_Float, volumes)
    else:
        records = pack_ridge(cast(_Complex, volumes), ridge)
        half = volumes.shape[3] - 1
    n, pixels = check_geometry(rotations, px, py, pad, half)
    check_particles(images, ctfs, n, pixels)
    entries = check_entries(labels, rows, n, records.shape[0])
    check_array("factors", factors, np.float32, (entries,))
    gains = prepare_output("out", out, np.float32, (entries,))
    implementation.leave_one_out_gains(
        records, labels, factors, images, ctfs, rotations, px, py, pad, rows, change, gains
    )
    return gains
