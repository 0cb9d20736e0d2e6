"""Maps as EMAN2 and SPARX keep them: HDF5 with one dataset an image and the header as attributes of its group.

The layout is that of EMAN2 (Tang et al., J. Struct. Biol. 157, 38-46, 2007): ``/MDF/images`` has the number of its
last image as attribute ``imageid_max``, ``/MDF/images/0`` the header as attributes ``EMAN.*``, and
``/MDF/images/0/image`` the voxels.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.io._checks import checked_volume, cubic_voxel
from hpcsort.io.h5 import check_stored, number, opened, reading, writing

__all__ = ["read_hdf_map", "write_hdf_map"]

IMAGES = "MDF/images"
_EM_FLOAT = 7
"""EMAN2's number for float32 data."""
_STATISTICS = ("minimum", "maximum", "mean", "sigma", "mean_nonzero", "sigma_nonzero", "square_sum")

Array = npt.NDArray[np.float32]


def write_hdf_map(
    path: str | os.PathLike[str], data: npt.ArrayLike, voxel_A: float, *, overwrite: bool = False
) -> None:
    """Write a 3D map as EMAN2 would, atomically and with the same bytes for the same input.

    Parameters
    ----------
    path
        The file to make; EMAN2 expects the suffix .hdf.
    data
        (nz, ny, nx) real values, written as float32.
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
    volume = np.ascontiguousarray(checked_volume(data), np.float32)
    with writing(path, overwrite) as file:
        _fill(file, volume, voxel_A)


def read_hdf_map(path: str | os.PathLike[str]) -> tuple[Array, float]:
    """Read a 3D map that EMAN2, SPARX or `write_hdf_map` has written.

    Maps that EMAN2 has compressed to fewer bits are scaled back to their values.

    Returns
    -------
    data : numpy.ndarray
        (nz, ny, nx) float32.
    voxel_A : float
        Voxel size in Angstrom; 0 if the header does not tell.

    Raises
    ------
    InputError
        If the file is missing, not HDF5 of EMAN2's layout, damaged, not one 3D map of real numbers, or its voxel
        sizes along the three axes differ by more than 1 %.
    """
    place = Path(path)
    with reading(place, "an HDF5 map of EMAN2"), opened(place) as file:
        return _read(place, file, place.stat().st_size)


def read_pixels(group: h5py.Group, dataset: h5py.Dataset, out: Array) -> None:
    """Read `dataset` into `out` of its shape; values that EMAN2 has compressed to fewer bits are scaled back."""
    dataset.read_direct(out)
    bits = int(number(group, "EMAN.stored_renderbits", 0))
    if bits > 0 and dataset.dtype.kind == "u":
        low, high = (number(group, f"EMAN.stored_render{end}", 0.0) for end in ("min", "max"))
        out *= np.float32((high - low) / (2**bits - 1))
        out += np.float32(low)


def check_pixels(path: Path, group: h5py.Group, dataset: h5py.Dataset, file_bytes: int) -> None:
    """Refuse what is no real-space image or map of the size that its header says, and more than the file can hold.

    Raises
    ------
    InputError
        With the file, what it holds and the cure.
    """
    if dataset.dtype.kind not in "fui" or number(group, "EMAN.is_complex", 0):
        raise InputError(f"{path} holds values of type {dataset.dtype}, complex or none; give a real-space map")
    axes = "zyx"[-dataset.ndim :]
    told = tuple(int(number(group, f"EMAN.n{axis}", size)) for axis, size in zip(axes, dataset.shape, strict=True))
    if told != dataset.shape:
        raise InputError(
            f"{path} has a header of {told} voxels along {', '.join(axes)} for data of {dataset.shape};"
            " make or copy it again"
        )
    check_stored(path, dataset, file_bytes, "voxels")


def _fill(file: h5py.File, volume: Array, voxel_A: float) -> None:
    images = file.create_group(IMAGES)
    images.attrs.create("imageid_max", np.zeros(1, np.int32))
    add_image(images, 0, volume, {f"apix_{axis}": np.float64(voxel_A) for axis in "xyz"})


def add_image(images: h5py.Group, number: int, data: Array, headers: Mapping[str, Any]) -> None:
    """Add an image (ny, nx) or map (nz, ny, nx), float32, with the header that EMAN2 gives it and further ``headers``.

    Headers are named without ``EMAN.``; values are numbers, vectors, records, str or bytes.
    """
    group = images.create_group(str(number))
    group.create_dataset("image", data=data)
    for name, value in sorted({**header_of(data), **headers}.items()):
        if isinstance(value, str | bytes):
            _write_string(group, f"EMAN.{name}", value if isinstance(value, bytes) else value.encode())
        else:
            # EMAN2 reads numbers from arrays of one element.
            group.attrs.create(f"EMAN.{name}", np.atleast_1d(value))


def header_of(data: Array) -> dict[str, Any]:
    """Header that follows from the pixels alone: attribute -> value of the type that EMAN2 writes."""
    volume = data.reshape(-1, *data.shape[-2:])
    nz, ny, nx = volume.shape
    whole = {
        "nx": nx, "ny": ny, "nz": nz, "datatype": _EM_FLOAT, "is_complex": 0, "is_complex_ri": 1, "is_complex_x": 0,
        "changecount": 0, "all_int": int(np.array_equal(volume, np.rint(volume))),
    }  # fmt: skip
    return {
        "HostEndian": sys.byteorder,
        "ImageEndian": sys.byteorder,
        **{name: np.int32(value) for name, value in whole.items()},
        **{f"origin_{axis}": np.float32(0) for axis in "xyz"},
        **dict(zip(_STATISTICS, map(np.float32, _statistics(volume)), strict=True)),
    }


def _statistics(volume: Array) -> tuple[float, ...]:
    """Values of `_STATISTICS`; standard deviations are those of a sample."""
    total, squares = float(volume.sum(dtype=np.float64)), float(np.einsum("zyx,zyx->", volume, volume, dtype=float))
    spreads: list[float] = []
    for count in (volume.size, int(np.count_nonzero(volume))):
        mean = total / max(count, 1)
        spreads += [mean, math.sqrt(max(squares - total * mean, 0.0) / max(count - 1, 1))]
    return (float(volume.min()), float(volume.max()), *spreads, squares)


def _write_string(group: h5py.Group, name: str, value: bytes) -> None:
    """Write a C string with its end mark, without which EMAN2 reads on beyond it; h5py's own strings have none."""
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(value) + 1)
    attribute = h5py.h5a.create(group.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.array(value, f"S{len(value) + 1}"), mtype=kind)


def _read(path: Path, file: h5py.File, file_bytes: int) -> tuple[Array, float]:
    images = file.get(IMAGES)
    if not isinstance(images, h5py.Group):
        raise InputError(f"{path} has no group /{IMAGES}, so it is not a map of EMAN2; convert it to MRC")
    if not isinstance(images.get("0/image"), h5py.Dataset):
        raise InputError(f"{path} holds no image 0; make or copy the file again")
    if number(images, "imageid_max", 0) > 0:
        raise InputError(f"{path} holds {int(number(images, 'imageid_max', 0)) + 1} images; give a file of one map")
    group, dataset = images["0"], images["0/image"]
    if dataset.ndim != 3 or not dataset.size:
        listed = " x ".join(map(str, dataset.shape)) or "one number"
        raise InputError(f"{path} holds {listed} and no 3D map; give a map of three axes")
    check_pixels(path, group, dataset, file_bytes)
    voxel_A = cubic_voxel(path, [number(group, f"EMAN.apix_{axis}", 0.0) for axis in "xyz"])
    data = np.empty(dataset.shape, np.float32)
    read_pixels(group, dataset, data)
    return data, voxel_A
