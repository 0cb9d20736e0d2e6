"""Stacks of images as EMAN2 and SPARX keep them: HDF5, one group an image, read like an MRC stack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.io._checks import image_places
from hpcsort.io.eman_hdf import IMAGES, check_pixels, read_pixels
from hpcsort.io.h5 import number, opened, reading

__all__ = ["HdfStack"]

_KIND = "an HDF5 stack of EMAN2"

Array = npt.NDArray[np.float32]


class HdfStack:
    """HDF5 stack of EMAN2; only the asked-for images are read from disk, with the interface of `MrcStack`.

    Images that EMAN2 has compressed to fewer bits are scaled back to their values.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    path : Path
    shape : tuple of int
        (n, ny, nx): images, rows, columns; ny and nx are those of the first image.
    voxel_A : float
        Pixel size along x in Angstrom; 0 if the header does not tell.

    Raises
    ------
    InputError
        If the file is missing, not HDF5 of EMAN2's layout, damaged, empty, or holds a map.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        with reading(self.path, _KIND), opened(self.path) as file:
            images, count = open_images(self.path, file)
            dataset = _image(self.path, images, 0)
            check_pixels(self.path, images["0"], dataset, self.path.stat().st_size)
            self.shape = (count, int(dataset.shape[0]), int(dataset.shape[1]))
            voxel_A = number(images["0"], "EMAN.apix_x", 0.0)
        self.voxel_A = voxel_A if np.isfinite(voxel_A) and voxel_A > 0 else 0.0

    def __enter__(self) -> HdfStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Array:
        """Read images in ascending file order and return them in asked order.

        Parameters
        ----------
        indices
            (k,) 0-based images, in any order, repeats allowed.

        Returns
        -------
        numpy.ndarray
            (k, ny, nx) float32, C-contiguous.

        Raises
        ------
        InputError
            If an index is outside 0 ... n - 1, or an image is missing, damaged or of another size.
        """
        n, ny, nx = self.shape
        wanted = image_places(self.path, indices, n)
        out = np.empty((wanted.size, ny, nx), dtype=np.float32)
        with reading(self.path, _KIND):
            if self._file is None:
                self._file = opened(self.path)
            images = self._file[IMAGES]
            file_bytes = self.path.stat().st_size
            for place in np.argsort(wanted, kind="stable").tolist():
                index = int(wanted[place])
                dataset = _image(self.path, images, index)
                if dataset.shape != (ny, nx):
                    raise InputError(
                        f"{self.path} has {nx} x {ny} px in its first image but {dataset.shape[1]} x"
                        f" {dataset.shape[0]} in image {index + 1}; give images of one size"
                    )
                check_pixels(self.path, images[str(index)], dataset, file_bytes)
                read_pixels(images[str(index)], dataset, out[place])
        return out

    def close(self) -> None:
        """Close the file; a later `read` opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None


def open_images(path: Path, file: h5py.File) -> tuple[h5py.Group, int]:
    """Group of the images and their number; InputError if the file has none or fewer than it says."""
    images = file.get(IMAGES)
    if not isinstance(images, h5py.Group):
        raise InputError(f"{path} has no group /{IMAGES}, so it is not a stack of EMAN2; give its STAR file instead")
    present = len(images)
    count = int(number(images, "imageid_max", present - 1)) + 1
    if not present or count < 1:
        raise InputError(f"{path} holds no image; make or copy the file again")
    if count > present:
        raise InputError(f"{path} says that it holds {count} images but has {present}; make or copy the file again")
    return images, count


def _image(path: Path, images: h5py.Group, index: int) -> h5py.Dataset:
    dataset = images.get(f"{index}/image")
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{path} lacks image {index + 1} (numbered {index} by EMAN2); make or copy the file again")
    if dataset.ndim == 3 and dataset.shape[0] != 1:
        listed = " x ".join(map(str, dataset.shape[::-1]))
        raise InputError(f"{path} holds a map of {listed} voxels where images are needed; give the particles")
    if dataset.ndim != 2 or not dataset.size:
        listed = " x ".join(map(str, dataset.shape)) or "one number"
        raise InputError(f"{path} holds {listed} and no 2D image in image {index + 1}; give a stack of images")
    return dataset
