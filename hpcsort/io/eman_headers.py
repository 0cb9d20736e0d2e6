"""Headers of an HDF5 stack of EMAN2 as they are, and text that hpcsort has attached to the stack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from hpcsort.io.eman_hdf import header_of
from hpcsort.io.eman_write import ATTACHED
from hpcsort.io.h5 import check_stored, opened, reading
from hpcsort.io.hdf_stack import open_images

__all__ = ["read_eman_headers"]

_KIND = "an HDF5 stack of EMAN2"
_OF_PIXELS = frozenset(header_of(np.zeros((1, 1), np.float32)))


def read_eman_headers(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray], str]:
    """Read the headers that all N images have and that do not follow from their pixels.

    Returns
    -------
    headers : name without ``EMAN.`` to (N,) numbers or bytes, or (N, k) numbers; a matrix has its twelve entries.
    attached : text that `write_eman_stack` has attached; empty for none.

    Raises
    ------
    InputError
        If the file is missing, damaged or no stack.
    """
    place = Path(path)
    with reading(place, _KIND), opened(place) as file:
        images, count = open_images(place, file)
        groups = [images[str(index)].attrs for index in range(count)]
        names = [name for name in groups[0] if name.startswith("EMAN.") and not _of_pixels(name[5:])]
        headers = {name[5:]: _values([attributes.get(name) for attributes in groups]) for name in names}
        return {name: values for name, values in headers.items() if values is not None}, _attached(place, file)


def _of_pixels(name: str) -> bool:
    """Whether a header follows from the pixels, or tells how they are stored."""
    return (name in _OF_PIXELS and not name.startswith("origin_")) or name.startswith("stored_")


def _values(entries: list[Any]) -> npt.NDArray | None:
    """Values of one header as an array; None where some images lack it or have it of another kind."""
    if any(entry is None for entry in entries):
        return None
    arrays = [np.asarray(entry) for entry in entries]
    if len({(array.shape, array.dtype.kind) for array in arrays}) != 1:
        return None
    if arrays[0].dtype.kind in "SUO":
        texts = [array.reshape(-1)[0] if array.size else b"" for array in arrays]
        return np.array([text if isinstance(text, bytes) else str(text).encode() for text in texts], np.bytes_)
    stacked = np.stack(arrays).reshape(len(arrays), -1)
    if stacked.dtype.names is not None:
        kinds = {stacked.dtype[name] for name in stacked.dtype.names}
        stacked = stacked.view(kinds.pop()) if len(kinds) == 1 else stacked[:, :0]
    if stacked.dtype.kind not in "fiu" or not stacked.shape[1]:
        return None
    return stacked[:, 0] if stacked.shape[1] == 1 else stacked


def _attached(path: Path, file: h5py.File) -> str:
    dataset = file.get(ATTACHED)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "S" or dataset.shape != ():
        return ""
    check_stored(path, dataset, path.stat().st_size, "text")
    return bytes(dataset[()]).decode("utf-8", "replace")
