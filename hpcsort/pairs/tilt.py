"""The affine relation between two micrographs of the same field at different tilts, fitted robustly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcsort.parallel import stream

__all__ = ["FEWEST", "TiltFit", "fit_tilt", "heights_px"]

FEWEST = 5
"""Fewer pairs than this fit any affine relation too well to judge it."""
_TRIPLETS = 600
_ROUNDS = 30
_TUKEY = 4.685
_OUTLIER_SIGMAS = 4.0
_SMALLEST_SIGMA_PX = 0.5
_LEAST_SPREAD = 1e-3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TiltFit:
    """Tilted = matrix @ untilted + shift, and what it says of the tilt.

    Attributes
    ----------
    matrix : (2, 2), shift : (2,)
        On coordinates (x, y) in pixels.
    tilt_deg : angle between the two views, 0 to 90, from the ratio of the singular values of the matrix.
    axis_untilted_deg, axis_tilted_deg : direction of the tilt axis in either micrograph, from x towards y; the first
        in [0, 180), the second the same direction of the same line, in (-180, 180].
    scale : stretch along the axis; 1 for equal magnification.
    rms_px : root mean square distance of the pairs that are no outliers, in pixels of the tilted micrograph.
    sigma_px : robust standard deviation along one axis.
    residuals_px : (n, 2), tilted minus predicted.
    outlier : bool (n,), pairs further away than four standard deviations in the plane, at least 2 px.
    swapped : whether the coordinates are compressed from the second micrograph to the first, so that the sides are
        exchanged.
    mirrored : whether one micrograph is the mirror image of what the tilt of the other can give.
    """

    matrix: Floats
    shift: Floats
    tilt_deg: float
    axis_untilted_deg: float
    axis_tilted_deg: float
    scale: float
    rms_px: float
    sigma_px: float
    residuals_px: Floats
    outlier: npt.NDArray[np.bool_]
    swapped: bool
    mirrored: bool


def fit_tilt(untilted_px: Floats, tilted_px: Floats) -> TiltFit | None:
    """Fit an affine relation that up to about half of the pairs may contradict.

    Starts from the least median of squares over random triplets (Rousseeuw, J. Am. Stat. Assoc. 79 (1984) 871), ends
    with iteratively reweighted least squares (Tukey's biweight). The same points give the same result on every rank.

    Parameters
    ----------
    untilted_px, tilted_px : (n, 2), coordinates (x, y) of the same particles; pixels of the same size.

    Returns
    -------
    None for fewer than five pairs, or pairs along one line.
    """
    count = len(untilted_px)
    if count < FEWEST:
        return None
    middle, target = np.median(untilted_px, axis=0), np.median(tilted_px, axis=0)
    source, aim = untilted_px - middle, tilted_px - target
    spread = np.linalg.svd(source, compute_uv=False)
    if spread[1] < _LEAST_SPREAD * spread[0] or spread[0] == 0:
        return None
    design = np.column_stack([source, np.ones(count)])
    solution = _least_median(design, aim)
    if solution is None:
        return None
    sigma = 0.0
    for _ in range(_ROUNDS):
        distance = np.linalg.norm(aim - design @ solution, axis=1)
        sigma = _sigma(distance)
        weight = np.maximum(1 - (distance / (_TUKEY * np.sqrt(2) * sigma)) ** 2, 0) ** 2
        if np.count_nonzero(weight > 1e-6) < 3:
            break
        root = np.sqrt(weight)[:, None]
        better = np.linalg.lstsq(design * root, aim * root, rcond=None)[0]
        moved = float(np.abs(better - solution).max())
        solution = better
        if moved < 1e-9:
            break
    residuals = aim - design @ solution
    distance = np.linalg.norm(residuals, axis=1)
    outlier = distance > _OUTLIER_SIGMAS * _sigma(distance)
    matrix = solution[:2].T
    shift = target + solution[2] - matrix @ middle
    return _described(matrix, shift, residuals, outlier, sigma)


def heights_px(xy_px: Floats, fit: TiltFit, centre_px: Floats) -> Floats:
    """Signed height of particles in the tilted view relative to the middle of the micrograph, up to the tilt's sign.

    Parameters
    ----------
    xy_px : (n, 2), coordinates (x, y) in the tilted micrograph.
    fit : of the pair.
    centre_px : (2,), where the defocus of the micrograph holds.

    Returns
    -------
    (n,), distance from the tilt axis, positive towards (-sin a, cos a) for the axis at a degrees, times tan(tilt).
    """
    angle = np.deg2rad(fit.axis_tilted_deg)
    distance = (xy_px - centre_px) @ np.array([-np.sin(angle), np.cos(angle)])
    return np.asarray(distance * np.tan(np.deg2rad(fit.tilt_deg)))


def _least_median(design: Floats, aim: Floats) -> Floats | None:
    """Affine map through three pairs with the smallest median distance of all."""
    count = len(design)
    rng = stream(0, "tilt fit", count)
    chosen = np.array([rng.choice(count, 3, replace=False) for _ in range(_TRIPLETS)])
    corners = design[chosen]
    area = np.abs(np.linalg.det(corners))
    usable = area > 1e-3 * np.max(area, initial=0)
    if not usable.any():
        return None
    maps = np.linalg.solve(corners[usable], aim[chosen[usable]])
    distances = np.linalg.norm(aim[None] - design[None] @ maps, axis=2)
    # of few pairs, three fit exactly: the median has to lie beyond them
    rank = min((count + 3 + 1) // 2, count - 1)
    return np.asarray(maps[np.argmin(np.partition(distances, rank, axis=1)[:, rank])])


def _sigma(distance: Floats) -> float:
    """Estimate the deviation along one axis, 0.5 px at least, from the median distance in the plane (Rayleigh)."""
    rank = min((len(distance) + 3 + 1) // 2, len(distance) - 1)
    return max(float(np.sort(distance)[rank]) / np.sqrt(2 * np.log(2)), _SMALLEST_SIGMA_PX)


def _described(
    matrix: Floats, shift: Floats, residuals: Floats, outlier: npt.NDArray[np.bool_], sigma: float
) -> TiltFit:
    _, (large, small), rows = np.linalg.svd(matrix)
    # Along the axis nothing is stretched. From untilted to tilted the other direction shrinks; if it grows, the sides
    # are exchanged, provided that the magnifications are equal.
    swapped = bool(abs(np.log(max(small, 1e-12))) < abs(np.log(max(large, 1e-12))) and large > 1.02)
    scale = float(small if swapped else large)
    axis = rows[1] if swapped else rows[0]
    if axis[1] < 0 or (axis[1] == 0 and axis[0] < 0):
        axis = -axis
    there = matrix @ axis
    kept = ~outlier
    rms = float(np.sqrt(np.mean((residuals[kept] ** 2).sum(axis=1)))) if kept.any() else float("nan")
    return TiltFit(
        matrix=matrix,
        shift=shift,
        tilt_deg=float(np.rad2deg(np.arccos(np.clip(small / max(large, 1e-12), 0, 1)))),
        axis_untilted_deg=float(np.rad2deg(np.arctan2(axis[1], axis[0]))) % 180.0,
        axis_tilted_deg=float(np.rad2deg(np.arctan2(there[1], there[0]))),
        scale=scale,
        rms_px=rms,
        sigma_px=sigma,
        residuals_px=residuals,
        outlier=outlier,
        swapped=swapped,
        mirrored=bool(np.linalg.det(matrix) < 0),
    )
