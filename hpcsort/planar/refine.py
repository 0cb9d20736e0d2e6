"""Angles and shifts between the points of the search grid, by Newton's method on the exact correlation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcsort.planar.polar import PolarGrid, Samples
from hpcsort.planar.poses import PlanarPoses

__all__ = ["align_spectra", "refine_poses"]

_BLOCK = 64


def align_spectra(grid: PolarGrid, samples: Samples, poses: PlanarPoses) -> Samples:
    """Rotational spectra of images in the frame of their references, exact within the band.

    Parameters
    ----------
    grid : of the samples.
    samples : complex64 (n, R, T / 2), of the images.
    poses : of the n images.

    Returns
    -------
    complex64 (n, R, M + 1).
    """
    spectra = grid.spectra(grid.shifted(samples, poses.shift_px))
    np.conjugate(spectra, out=spectra, where=poses.mirror[:, None, None])
    spectra *= _turn(grid, poses.psi_deg)[:, None]
    return spectra


def refine_poses(
    grid: PolarGrid,
    samples: Samples,
    references: Samples,
    poses: PlanarPoses,
    max_shift_px: float,
    *,
    steps: int = 2,
) -> tuple[PlanarPoses, npt.NDArray[np.float32]]:
    """Refine poses of images against one reference each.

    Parameters
    ----------
    grid : of images and references.
    samples : complex64 (n, R, T / 2), of the images.
    references : complex64 (n, R, T / 2), of the reference of each.
    poses : where to start, within half a step of the search grid.
    max_shift_px : shifts do not become longer than this.
    steps : Newton steps; each goes at most one step of the search grid far.

    Returns
    -------
    poses : PlanarPoses
    score : float32 (n,), correlation coefficient inside the band; never below that of the start.
    """
    parts, scores = [], []
    for start in range(0, len(poses), _BLOCK):
        rows = slice(start, start + _BLOCK)
        part, score = _refined(grid, samples[rows], references[rows], poses.rows(rows), max_shift_px, steps)
        parts.append(part)
        scores.append(score)
    if not parts:
        return poses, np.zeros(0, np.float32)
    psi, shift, mirror = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("psi_deg", "shift_px", "mirror")
    )
    return PlanarPoses(psi, shift, mirror), np.concatenate(scores)


def _refined(
    grid: PolarGrid, samples: Samples, references: Samples, poses: PlanarPoses, max_shift_px: float, steps: int
) -> tuple[PlanarPoses, npt.NDArray[np.float32]]:
    weight = np.sqrt(grid.radii / grid.angles).astype(np.float32)[:, None]
    norms = np.linalg.norm(samples * weight, axis=(1, 2))
    norms = norms * np.linalg.norm(references * weight, axis=(1, 2))
    factor = 1.0 / np.maximum(norms, np.finfo(np.float32).tiny)
    conjugate = (references * weight**2).conj()
    furthest = np.array([2 * np.pi / grid.angles, *[grid.box_px / (2.0 * grid.band_px)] * 2])
    best = current = poses
    best_value = np.full(len(samples), -np.inf)
    for step in range(steps + 1):
        if step < steps:
            value, slope, curve = _derivatives(grid, samples, conjugate, current)
        else:
            value = _inner_products(grid, align_spectra(grid, samples, current), conjugate)
        better = value > best_value
        best_value = np.where(better, value, best_value)
        best = PlanarPoses(
            np.where(better, current.psi_deg, best.psi_deg),
            np.where(better[:, None], current.shift_px, best.shift_px),
            poses.mirror,
        )
        if step < steps:
            current = _stepped(current, _newton(slope, curve, furthest), max_shift_px)
    return best, (best_value * factor).astype(np.float32)


def _inner_products(grid: PolarGrid, spectra: Samples, conjugate: Samples) -> npt.NDArray[np.float64]:
    """Inner products of aligned spectra and the conjugates of the references' samples, float64 (n,)."""
    return np.asarray(np.einsum("nrt,nrt->n", grid.from_spectra(spectra), conjugate).real, np.float64)


def _derivatives(
    grid: PolarGrid, samples: Samples, conjugate: Samples, poses: PlanarPoses
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Inner product, its slope (n, 3) and curvature (n, 3, 3) in angle (radians) and shift in the reference's frame."""
    spectra = align_spectra(grid, samples, poses)
    order = np.arange(grid.orders, dtype=np.float32)
    by_angle = np.complex64(-1j) * order
    turned = grid.from_spectra(np.stack([spectra, spectra * by_angle, spectra * by_angle**2]))
    turned *= conjugate
    kx, ky = grid.frequencies * np.float32(2 * np.pi / grid.box_px)
    factors = np.stack([np.ones_like(kx), kx, ky, kx * kx, kx * ky, ky * ky]).reshape(6, -1)
    sums = turned.reshape(3, len(samples), -1) @ factors.T.astype(np.complex64)
    plain, once, twice = sums.astype(np.complex128)
    value = plain[:, 0].real
    # a shift s multiplies by exp(-i k.s), so each derivative along it brings -i k
    slope = np.stack([once[:, 0].real, plain[:, 1].imag, plain[:, 2].imag], axis=1)
    curve = np.empty((len(samples), 3, 3))
    curve[:, 0, 0] = twice[:, 0].real
    curve[:, 0, 1] = curve[:, 1, 0] = once[:, 1].imag
    curve[:, 0, 2] = curve[:, 2, 0] = once[:, 2].imag
    curve[:, 1, 1], curve[:, 2, 2] = -plain[:, 3].real, -plain[:, 5].real
    curve[:, 1, 2] = curve[:, 2, 1] = -plain[:, 4].real
    return value, slope, curve


def _newton(
    slope: npt.NDArray[np.float64], curve: npt.NDArray[np.float64], furthest: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Take steps (n, 3) uphill, no longer than `furthest`; curvatures of the wrong sign count by their size."""
    scaled = curve * furthest[:, None] * furthest
    values, vectors = np.linalg.eigh(scaled)
    size = np.maximum(np.abs(values), 1e-6 * np.abs(values).max(axis=1, keepdims=True) + 1e-300)
    along = np.einsum("nij,ni->nj", vectors, slope * furthest) / size
    step = np.einsum("nij,nj->ni", vectors, along)
    longest = np.maximum(np.abs(step).max(axis=1, keepdims=True), 1.0)
    return step / longest * furthest


def _stepped(poses: PlanarPoses, step: npt.NDArray[np.float64], max_shift_px: float) -> PlanarPoses:
    """Turn by step[0] and move by step[1:] in the frame of the reference."""
    psi = poses.psi_deg + np.rad2deg(step[:, 0])
    turned = PlanarPoses(psi, poses.shift_px, poses.mirror)
    offsets = turned.offsets_px + step[:, 1:]
    length = np.hypot(*offsets.T)
    offsets *= np.minimum(1.0, max_shift_px / np.maximum(length, 1e-12))[:, None]
    shift = np.einsum("nji,nj->ni", turned.matrices, offsets)
    return PlanarPoses(psi, shift, poses.mirror)


def _turn(grid: PolarGrid, psi_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.complex64]:
    """exp(-i m psi), (n, M + 1)."""
    angle = np.outer(-np.deg2rad(psi_deg % 360.0), np.arange(grid.orders)).astype(np.float32)
    turn = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=turn.real)
    np.sin(angle, out=turn.imag)
    return turn
