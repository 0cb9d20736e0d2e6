"""Real-space masks: as users give them, made of spheres, softened, and from the variance of difference maps."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from scipy.optimize import brentq
from scipy.stats import chi2

from hpcsort.errors import InputError
from hpcsort.io import read_any_map

__all__ = [
    "check_mask",
    "focus_from_variance",
    "read_mask",
    "soft_sphere",
    "soften",
    "sphere_mask",
]

_TOLERANCE = 1e-3
_VOXEL_TOLERANCE = 0.01
# Some programs write 1 where they do not know the voxel size.
_UNKNOWN_VOXELS_A = (0.0, 1.0)

_SMOOTHING = 1 / 24
"""Width (standard deviation) of the smoothing of local variances in units of the box edge."""
_LOW, _MIDDLE = 0.1, 0.4
"""Quantiles of the smoothed variance that are taken as noise: what differs fills less than half of a mask."""
_FREEDOM = (0.5, 1e5)
"""Degrees of freedom that the noise's variance may have."""
_CHANCE = 0.01
"""Probability that noise alone exceeds its limit anywhere in the mask, if its quantiles were exact."""
_MARGIN = 1.5
"""Factor on the limit's distance from the mean: few patches of noise fit into a mask, which leaves quantiles vague."""
_REACH = 2.0
"""Distance in widths of the smoothing within which parts of a focus belong together."""


def soft_sphere(distance: np.ndarray, radius: float, edge: float) -> np.ndarray:
    """Soft spherical mask: 1 inside ``radius``, a raised cosine of width ``edge`` beyond it, 0 outside.

    Parameters
    ----------
    distance : distance of each voxel from the centre, any unit.
    radius, edge : in the same unit; ``edge`` > 0.
    """
    position = np.clip((distance - radius) / edge, 0.0, 1.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * position), np.float32)


def sphere_mask(box: int, centre_px: Sequence[float], radius_px: float, edge_px: float) -> np.ndarray:
    """Soft spherical mask anywhere in a box.

    Parameters
    ----------
    box : edge of the box in voxels.
    centre_px : position (x, y, z) of the sphere in voxels from the voxel ``box // 2``.
    radius_px : inside which the mask is 1.
    edge_px : width of the raised cosine beyond it; 0 for a binary mask.

    Returns
    -------
    float32 (box, box, box), [z, y, x].

    Raises
    ------
    ValueError
        If the radius is not positive, the edge negative, or the sphere holds no voxel of the box.
    """
    if not radius_px > 0 or not edge_px >= 0 or len(centre_px) != 3:
        raise ValueError(f"no sphere has a centre of {list(centre_px)}, a radius of {radius_px} and an edge {edge_px}")
    axis = np.arange(box) - box // 2
    x, y, z = (axis - position for position in centre_px)
    distance = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
    mask = soft_sphere(distance, radius_px, edge_px) if edge_px else (distance <= radius_px).astype(np.float32)
    if not mask.any():
        raise ValueError(f"a sphere of {radius_px} px at {list(centre_px)} lies outside the box of {box} px")
    return mask


def soften(mask: np.ndarray, edge_px: float) -> np.ndarray:
    """Give a mask a soft edge outside: a raised cosine of the distance to the nearest voxel of at least one half.

    Parameters
    ----------
    mask : (z, y, x), values 0 to 1, binary or soft; voxels of at least one half become 1, no voxel becomes less.
    edge_px : width of the edge in voxels; 0 for none.

    Returns
    -------
    float32 of the same shape.

    Raises
    ------
    ValueError
        If no voxel reaches one half, or the edge is negative.
    """
    if not edge_px >= 0:
        raise ValueError(f"the edge of a mask is 0 px or wider, not {edge_px}")
    inside = mask >= 0.5
    if not inside.any():
        raise ValueError("an empty mask has no edge")
    if edge_px == 0:
        return np.maximum(mask, inside, dtype=np.float32)
    distance = scipy.ndimage.distance_transform_edt(~inside)
    return np.maximum(mask, soft_sphere(distance, 0.0, edge_px), dtype=np.float32)


def focus_from_variance(
    maps: np.ndarray,
    mask: np.ndarray,
    *,
    differences: bool = False,
    share: float = 0.9,
    edge_px: float | None = None,
) -> np.ndarray | None:
    """Find where maps differ: the smallest soft mask that holds most of the excess of their local variance.

    The variance between the maps is smoothed. What differs fills less than half of the mask, so lower quantiles tell
    the noise, whose smoothed variance is a chi-square of some degrees of freedom; what noise reaches by chance
    anywhere in the mask does not count. The voxels that hold ``share`` of the excess are dilated by the width of
    the smoothing, which blurred them, and get a soft edge. Parts apart from the rest that hold less than half of what
    is left out are dropped.

    Parameters
    ----------
    maps : float (J, z, y, x), class maps (two at least).
    mask : float (z, y, x), of the particle, 0 to 1; noise is measured and a focus allowed where it is above one half.
    differences : the maps (one at least) are differences from a consensus already, so that their mean counts too.
    share : of the excess variance that the focus holds, above 0 and at most 1.
    edge_px : width of the soft edge; the width of the smoothing if not given.

    Returns
    -------
    float32 (z, y, x), 0 to 1; None where no variance exceeds the noise.

    Raises
    ------
    ValueError
        For shapes that do not belong together, a share out of range, or an empty mask.
    """
    if maps.ndim != 4 or maps.shape[1:] != mask.shape or len(maps) < 2 - differences:
        raise ValueError(f"maps of shape {maps.shape} and a mask of shape {mask.shape} make no focus")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"the share of the variance that a focus holds lies above 0 and up to 1, not at {share}")
    allowed = mask > 0.5
    if not allowed.any():
        raise ValueError("an empty mask has no focus")
    width = _SMOOTHING * max(mask.shape)
    centre = 0.0 if differences else maps.mean(axis=0, dtype=np.float64)
    variance = np.zeros(mask.shape)
    for volume in maps:
        variance += (volume - centre) ** 2
    # Of the mask's inside alone: what lies beside it must not leak in.
    smoothed, part = (scipy.ndimage.gaussian_filter(field, width) for field in (variance * allowed, 1.0 * allowed))
    smoothed = np.maximum(smoothed, 0.0) / np.maximum(part, 1e-6)
    mean, limit = _noise_of(smoothed[allowed], width)
    excess = np.where(allowed & (smoothed > limit), smoothed - mean, 0.0)
    core = _largest_parts(_holding(excess, share), excess, (1.0 - share) / 2, width)
    if not core.any():
        return None
    near = scipy.ndimage.distance_transform_edt(~core) <= width
    return soften((near & allowed).astype(np.float32), width if edge_px is None else edge_px)


def check_mask(data: np.ndarray, box: int, name: str) -> np.ndarray:
    """Check the values of a mask and return it clipped to [0, 1], float32 (box, box, box).

    Parameters
    ----------
    data : of the mask.
    box : edge of the images in pixels.
    name : of the mask in messages.

    Raises
    ------
    InputError
        If it has another size, values that are NaN or outside 0 to 1, or is empty.
    """
    if data.shape != (box,) * 3:
        size = " x ".join(str(edge) for edge in reversed(data.shape))
        raise InputError(
            f"mask {name} has {size} voxels but the images have {box} px; crop or pad it to {box} x {box} x {box}"
        )
    bad = int(np.count_nonzero(~np.isfinite(data)))
    if bad:
        raise InputError(f"mask {name} has {bad} voxels that are NaN or infinite; make the mask again")
    low, high = float(data.min()), float(data.max())
    if low < -_TOLERANCE or high > 1.0 + _TOLERANCE:
        raise InputError(
            f"mask {name} has values from {low:.4g} to {high:.4g} where 0 (outside) to 1 (inside) is needed;"
            " scale or threshold it"
        )
    if high <= 0.5:
        raise InputError(
            f"mask {name} is empty: its largest value is {high:.4g} where the inside is 1; make the mask again"
        )
    return np.clip(data, 0.0, 1.0, dtype=np.float32)


def read_mask(path: str | os.PathLike[str], box: int, voxel_A: float) -> np.ndarray:
    """Read a binary or soft mask that belongs to particles of a box.

    Parameters
    ----------
    path : map (z, y, x) as MRC, or HDF5 of EMAN2, centre at ``box // 2``; 1 inside the mask, 0 outside, anything
        between at the edge.
    box : edge of the images in pixels.
    voxel_A : pixel size of the images; a voxel size of 0 or 1 in the mask's header counts as not stated.

    Returns
    -------
    float32 (box, box, box), values in [0, 1].

    Raises
    ------
    InputError
        If the file is no map of this size and sampling, has values that are NaN or outside 0 to 1, or is empty.
    """
    data, stated_A = read_any_map(path)
    matches = stated_A in _UNKNOWN_VOXELS_A or abs(stated_A - voxel_A) <= _VOXEL_TOLERANCE * voxel_A
    if data.shape == (box,) * 3 and not matches:
        raise InputError(
            f"mask {path} has voxels of {stated_A:.5g} A but the images have pixels of {voxel_A:.5g} A;"
            " resample the mask, or correct the voxel size in its header"
        )
    return check_mask(data, box, str(path))


def _noise_of(smoothed: np.ndarray, width: float) -> tuple[float, float]:
    """Mean of the noise's smoothed variance, and what it exceeds nowhere but by chance, from the lower quantiles."""
    low, middle = np.maximum(np.quantile(smoothed, [_LOW, _MIDDLE]), 0.0)
    if not low > 0:
        return float(middle), float(middle)

    def misfit(log_freedom: float) -> float:
        noise = chi2(np.exp(log_freedom))
        return float(np.log(noise.ppf(_MIDDLE) / noise.ppf(_LOW)) - np.log(middle / low))

    least, most = np.log(_FREEDOM)
    if misfit(least) <= 0:
        freedom = _FREEDOM[0]
    else:
        freedom = _FREEDOM[1] if misfit(most) >= 0 else float(np.exp(brentq(misfit, least, most)))
    noise = chi2(freedom)
    unit = middle / noise.ppf(_MIDDLE)
    places = max(smoothed.size / (2.0 * max(width, 0.5)) ** 3, 1.0)
    return float(unit * freedom), float(unit * (freedom + _MARGIN * (noise.isf(_CHANCE / places) - freedom)))


def _holding(excess: np.ndarray, share: float) -> np.ndarray:
    """Fewest voxels that hold a share of the excess; those of equal excess all together."""
    ranked = np.sort(excess, axis=None)[::-1]
    held = np.cumsum(ranked)
    if not held[-1] > 0:
        return np.zeros(excess.shape, bool)
    return excess >= ranked[np.searchsorted(held, share * held[-1])]


def _largest_parts(core: np.ndarray, excess: np.ndarray, least: float, width: float) -> np.ndarray:
    """Drop parts, joined where they lie close together, that hold less than a share of the whole excess."""
    if not core.any():
        return core
    near = scipy.ndimage.distance_transform_edt(~core) <= _REACH * width / 2
    parts, count = scipy.ndimage.label(near)
    held = np.bincount(parts.ravel(), (excess * core).ravel(), count + 1)
    return np.asarray(core & (held >= least * held.sum())[parts])
