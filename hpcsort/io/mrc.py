"""MRC stacks and maps: reading of every real-valued mode, section by section; writing."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import numpy.typing as npt
from mrcfile.dtypes import HEADER_DTYPE

from hpcsort.errors import InputError
from hpcsort.io._checks import cubic_voxel, image_places, seven_digits
from hpcsort.io._mrc_write import write_map, write_stack

__all__ = ["MrcStack", "read_map", "write_map", "write_stack"]

_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", 101: "u1"}
_REFUSED_MODES = {3: "complex 16-bit integers", 4: "complex numbers"}
_IMOD_STAMP = 1146047817

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Layout:
    """Where the pixels of an MRC file are and what they mean; all from the header."""

    shape: tuple[int, int, int]
    mode: int
    dtype: np.dtype
    offset: int
    voxel_A: tuple[float, float, float]
    axes: tuple[int, int, int]

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Shape of the array on disk: mode 101 packs two pixels into a byte and starts each row in a new byte."""
        n, ny, nx = self.shape
        return (n, ny, (nx + 1) // 2) if self.mode == 101 else self.shape

    @property
    def end(self) -> int:
        """Size in bytes that the file must have at least."""
        return self.offset + math.prod(self.stored_shape) * self.dtype.itemsize


class MrcStack:
    """MRC stack, map or single image; only the asked-for sections are read from disk.

    Modes 0 (int8; unsigned where IMOD says so), 1 (int16), 2 (float32), 6 (uint16), 12 (float16) and 101 (4 bits)
    in either byte order are read; the byte order is taken from the values in the header, so a wrong or absent machine
    stamp does no harm. A file that is longer than its header says is accepted.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    path : Path
    shape : tuple of int
        (n, ny, nx): sections, rows, columns. A single image is a stack of one.
    voxel_A : float
        Pixel size along x in Angstrom; 0 if the header does not tell.
    dtype : numpy.dtype
        Type on disk, with its byte order.

    Raises
    ------
    InputError
        If the file is missing, empty, not MRC, shorter than its header says, or of complex numbers.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._layout = _read_layout(self.path)
        self.shape = self._layout.shape
        self.voxel_A = self._layout.voxel_A[0]
        self.dtype = self._layout.dtype
        self._descriptor: int | None = None

    def __enter__(self) -> MrcStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Array:
        """Read sections in ascending file order and return them in asked order.

        Parameters
        ----------
        indices
            (k,) 0-based sections, in any order, repeats allowed.

        Returns
        -------
        numpy.ndarray
            (k, ny, nx) float32, C-contiguous, native byte order.

        Raises
        ------
        InputError
            If an index is outside 0 ... n - 1, or the file can no longer be read or has become shorter.
        """
        n, ny, nx = self.shape
        wanted = image_places(self.path, indices, n)
        out = np.empty((wanted.size, ny, nx), dtype=np.float32)
        stored = np.empty(self._layout.stored_shape[1:], self._layout.dtype)
        for place in np.argsort(wanted, kind="stable"):
            if stored.dtype == np.float32:
                self._read_section(int(wanted[place]), out[place])
                continue
            self._read_section(int(wanted[place]), stored)
            if self._layout.mode == 101:
                _unpack_nibbles(stored, out[place])
            else:
                out[place] = stored
        return out

    def close(self) -> None:
        """Close the file; a later `read` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()

    def _read_section(self, index: int, out: npt.NDArray) -> None:
        """Read one section as it is stored; a memory map would count as memory, and an error in it end the process."""
        place = self._layout.offset + index * out.nbytes
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY)
            count = os.preadv(self._descriptor, [out.view(np.uint8).data], place)
        except OSError as error:
            raise InputError(
                f"{self.path}, image {index + 1} cannot be read ({os.strerror(error.errno or 0).lower()}); "
                "check the disk and start again."
            ) from error
        if count < out.nbytes:
            raise InputError(
                f"{self.path} ends within image {index + 1}: it has become shorter since its header was read; leave "
                "it alone while it is used, and start again."
            )


def read_map(path: str | os.PathLike[str]) -> tuple[Array, float]:
    """Read a 3D map with its axes in the order z, y, x whatever their order in the file.

    Returns
    -------
    data : numpy.ndarray
        (nz, ny, nx) float32.
    voxel_A : float
        Voxel size in Angstrom; 0 if the header does not tell.

    Raises
    ------
    InputError
        As `MrcStack`, and if the voxel sizes along the three axes differ by more than 1 %.
    """
    stack = MrcStack(path)
    voxel_A = cubic_voxel(path, stack._layout.voxel_A)
    data = stack.read(np.arange(len(stack)))
    # The file's axes are (section, row, column); `axes` says which of x=1, y=2, z=3 its columns, rows, sections are.
    by_name = {axis: place for place, axis in zip((2, 1, 0), stack._layout.axes, strict=True)}
    data = data.transpose([by_name[axis] for axis in (3, 2, 1)])
    return np.ascontiguousarray(data), voxel_A


def _read_layout(path: Path) -> _Layout:
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_DTYPE.itemsize)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({os.strerror(error.errno or 0).lower()}); check path and permissions"
        ) from error
    if len(raw) < HEADER_DTYPE.itemsize:
        raise InputError(f"{path} has {size} bytes, less than the 1024 of an MRC header; make or copy the file again")
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    layouts = [layout for order in orders if (layout := _interpret(raw, order)) is not None]
    if not layouts:
        raise InputError(f"{path} ({size} bytes) is not an MRC file: its header names no known mode; convert it to MRC")
    # In the wrong byte order small dimensions turn into huge ones; mode 0 looks the same in both orders.
    layout = min(layouts, key=lambda candidate: math.prod(candidate.shape))
    if layout.mode in _REFUSED_MODES:
        raise InputError(
            f"{path} holds {_REFUSED_MODES[layout.mode]} (mode {layout.mode}); give real-space images or maps"
        )
    if size < layout.end:
        raise InputError(
            f"{path} is truncated or not MRC: its header promises {layout.end} bytes, found {size};"
            " make or copy the file again"
        )
    return layout


def _interpret(raw: bytes, order: Literal["<", ">"]) -> _Layout | None:
    header = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order))[0]
    mode = int(header["mode"])
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    extra = int(header["nsymbt"])
    if (mode not in _DTYPES and mode not in _REFUSED_MODES) or min(shape) < 1 or extra < 0:
        return None
    dtype = np.dtype(_DTYPES.get(mode, "f4")).newbyteorder(order)
    words = np.frombuffer(raw, dtype=np.dtype("i4").newbyteorder(order))
    if mode == 0 and words[38] == _IMOD_STAMP and not words[39] & 1:
        dtype = np.dtype("u1")
    voxel = tuple(_voxel(header["cella"][axis], header["m" + axis]) for axis in "xyz")
    axes = tuple(int(header[name]) for name in ("mapc", "mapr", "maps"))
    if sorted(axes) != [1, 2, 3]:
        axes = (1, 2, 3)
    offset = HEADER_DTYPE.itemsize + extra
    return _Layout(shape, mode, dtype, offset, (voxel[0], voxel[1], voxel[2]), (axes[0], axes[1], axes[2]))


def _voxel(cell_A: float, samples: int) -> float:
    size = float(cell_A) / int(samples) if samples > 0 else 0.0
    return seven_digits(size) if math.isfinite(size) and size > 0 else 0.0


def _unpack_nibbles(packed: npt.NDArray[np.uint8], out: Array) -> None:
    """Spread bytes (ny, (nx + 1) // 2) over pixels (ny, nx); the low half of a byte is the left pixel (IMOD)."""
    out[:, 0::2] = packed & 0x0F
    out[:, 1::2] = (packed >> 4)[:, : out.shape[1] // 2]
