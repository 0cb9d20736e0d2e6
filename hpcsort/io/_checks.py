"""Checks that every map and stack format needs, whatever the bytes look like on disk."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError

_MOST_SHOWN = 500


def shown(value: object) -> str:
    """Return a value from a file as it can stand in a message: without control characters and not endless."""
    text = "".join(mark if mark.isprintable() else "?" for mark in str(value)[: _MOST_SHOWN + 1])
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "..."


def checked_volume(data: npt.ArrayLike) -> npt.NDArray:
    """Return `data` as an array (nz, ny, nx); ValueError if it has not three axes of at least one voxel."""
    volume = np.asarray(data)
    if volume.ndim != 3 or not volume.size:
        raise ValueError(f"a map has three axes of at least one voxel, not shape {volume.shape}")
    return volume


def cubic_voxel(path: str | os.PathLike[str], voxels_A: Sequence[float]) -> float:
    """Voxel size in Angstrom from those along x, y, z; 0 if the header does not tell.

    Raises
    ------
    InputError
        If they differ by more than 1 %.
    """
    if min(voxels_A) > 0 and max(voxels_A) > 1.01 * min(voxels_A):
        listed = ", ".join(f"{size:.4g}" for size in voxels_A)
        raise InputError(f"{path} has voxels of {listed} A along x, y, z; resample the map to cubic voxels")
    return voxels_A[0] if math.isfinite(voxels_A[0]) and voxels_A[0] > 0 else 0.0


def seven_digits(value: float) -> float:
    """Take a float32 for the decimal number it stands for, so that 13.1 A does not come back as 13.10000038."""
    return float(f"{value:.7g}") if math.isfinite(value) else float(value)


def image_places(path: str | os.PathLike[str], indices: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """Return (k,) 0-based places in a stack of `count` images; InputError if one is outside."""
    wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
    outside = wanted[(wanted < 0) | (wanted >= count)]
    if outside.size:
        raise InputError(
            f"image {outside[0] + 1} does not exist in {path}, which holds 1 to {count}; correct the table"
        )
    return wanted
