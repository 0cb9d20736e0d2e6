"""Writing of MRC stacks and maps: atomically, with voxel size and statistics, equal bytes for equal input."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from mrcfile.constants import MAP_ID
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import machine_stamp_from_byte_order

from hpcsort.errors import OutputError
from hpcsort.io._checks import checked_volume
from hpcsort.io.files import atomic_write

_LABEL = b"Written by hpcsort"
_DTYPES: dict[int, np.dtype] = {2: np.dtype(np.float32), 12: np.dtype(np.float16)}


def write_map(path: str | os.PathLike[str], data: npt.ArrayLike, voxel_A: float, *, overwrite: bool = False) -> None:
    """Write a 3D map as float32 MRC, atomically and with the same bytes for the same input.

    Parameters
    ----------
    path
        The file to make.
    data
        (nz, ny, nx) real values.
    voxel_A
        Voxel size in Angstrom.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists and `overwrite` is false, or cannot be written.
    ValueError
        If `data` is not 3D or is empty.
    """
    volume = checked_volume(data)
    _write(path, volume, (volume.shape[0], volume.shape[1], volume.shape[2]), voxel_A, 2, True, overwrite)


def write_stack(
    path: str | os.PathLike[str],
    images: Iterable[npt.ArrayLike],
    shape: tuple[int, int, int],
    voxel_A: float,
    dtype: npt.DTypeLike = np.float32,
    *,
    overwrite: bool = False,
) -> None:
    """Write an image stack one image at a time, atomically and with the same bytes for the same input.

    Parameters
    ----------
    path
        The file to make; RELION expects the suffix .mrcs.
    images
        (n, ny, nx) array, or an iterator of n images (ny, nx); only one is held in memory.
    shape
        (n, ny, nx).
    voxel_A
        Pixel size in Angstrom.
    dtype
        float32, or float16 (half the disk space; MRC mode 12).
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists and `overwrite` is false, cannot be written, or a value does not fit float16.
    ValueError
        If the images are not as many or not as large as `shape` says.
    """
    mode = next((mode for mode, known in _DTYPES.items() if known == np.dtype(dtype)), None)
    if mode is None:
        raise ValueError(f"stacks are written as float32 or float16, not {np.dtype(dtype)}")
    if min(shape) < 1:
        raise ValueError(f"a stack has at least one image of one pixel, not shape {shape}")
    _write(path, images, shape, voxel_A, mode, False, overwrite)


def _write(
    path: str | os.PathLike[str],
    sections: Iterable[npt.ArrayLike],
    shape: tuple[int, int, int],
    voxel_A: float,
    mode: int,
    volume: bool,
    overwrite: bool,
) -> None:
    header = _header(shape, voxel_A, mode, volume)
    # Plain writes, not a memory map: on a full disk a map kills the process where a write says what is wrong.
    with atomic_write(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        file.write(header.tobytes())
        dmin, dmax, dmean, rms = _stream(file, sections, shape, _DTYPES[mode], Path(path))
        header["dmin"], header["dmax"], header["dmean"], header["rms"] = dmin, dmax, dmean, rms
        file.seek(0)
        file.write(header.tobytes())


def _header(shape: tuple[int, int, int], voxel_A: float, mode: int, volume: bool) -> npt.NDArray:
    """Make an MRC2014 header without statistics; a stack has space group 0 and one section in its cell."""
    header = np.zeros((), dtype=HEADER_DTYPE)
    header["nz"], header["ny"], header["nx"] = shape
    header["mz"], header["my"], header["mx"] = (shape[0] if volume else 1, *shape[1:])
    for axis in "xyz":
        header["cella"][axis] = voxel_A * header["m" + axis]
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["mode"], header["ispg"], header["nversion"] = mode, int(volume), 20141
    header["map"] = MAP_ID
    header["machst"] = machine_stamp_from_byte_order()
    header["nlabl"] = 1
    header["label"][0] = _LABEL
    return header


def _stream(
    file: BinaryIO, sections: Iterable[npt.ArrayLike], shape: tuple[int, int, int], dtype: np.dtype, path: Path
) -> tuple[float, float, float, float]:
    """Append the sections to the file; returns minimum, maximum, mean and standard deviation of all pixels."""
    largest = float(np.finfo(dtype).max)
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    count = 0
    for section in sections:
        image = np.asarray(section)
        count += 1
        if count > shape[0] or image.shape != shape[1:]:
            raise ValueError(f"{path} is to hold {shape[0]} sections of {shape[1:]}; section {count} has {image.shape}")
        wide = image.astype(np.float64, copy=False)
        top = float(np.max(np.abs(wide)))
        if largest < top < math.inf:
            raise OutputError(f"section {count} of {path} has values beyond {largest:g}; write float32 or rescale it")
        file.write(np.ascontiguousarray(image, dtype=dtype).tobytes())
        high, low = max(high, float(wide.max())), min(low, float(wide.min()))
        total += float(wide.sum())
        squares += float(np.vdot(wide, wide))
    if count != shape[0]:
        raise ValueError(f"{path} is to hold {shape[0]} sections, but only {count} were given")
    mean = total / math.prod(shape)
    return low, high, mean, math.sqrt(max(squares / math.prod(shape) - mean * mean, 0.0))
