"""Reading of one micrograph: MRC of any mode, TIFF."""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hpcsort.errors import InputError
from hpcsort.io import MrcStack

__all__ = ["SUFFIXES", "MicrographHeader", "read_header", "read_micrograph"]

_TIFF = (".tif", ".tiff")
SUFFIXES = (".mrc", ".mrcs", ".map", *_TIFF)
"""Suffixes of micrographs in a folder."""

_MODES = frozenset({"L", "I;16", "I;16L", "I;16B", "I", "F"})
_ONE_AT_A_TIME = threading.Lock()
_PILLOW_ERRORS = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, ArithmeticError, MemoryError,
    struct.error,
)  # fmt: skip
# Deflate never compresses better than 1032 to 1, and a pixel has one byte at least.
_MOST_PIXELS_A_BYTE = 1100


@dataclass(frozen=True)
class MicrographHeader:
    """What a file says of a micrograph without its pixels being read.

    Attributes
    ----------
    nx, ny : columns and rows.
    pixel_A : pixel size in A, 0 if the file does not tell.
    """

    nx: int
    ny: int
    pixel_A: float


def read_header(path: Path) -> MicrographHeader:
    """Read size and pixel size of a micrograph.

    Raises
    ------
    InputError
        If the file is missing, broken, holds several images or colours.
    """
    if path.suffix.lower() in _TIFF:
        with _opened(path) as image:
            return MicrographHeader(image.width, image.height, 0.0)
    with MrcStack(path) as stack:
        count, ny, nx = stack.shape
        if count != 1:
            raise InputError(f"{path} holds {count} images; give micrographs of one image, movies summed up")
        return MicrographHeader(nx, ny, stack.voxel_A)


def read_micrograph(path: Path) -> npt.NDArray[np.float32]:
    """Read a micrograph as float32 (ny, nx), row 0 first in the file.

    Raises
    ------
    InputError
        As `read_header`.
    """
    if path.suffix.lower() in _TIFF:
        with _opened(path) as image:
            return np.array(image, dtype=np.float32)
    with MrcStack(path) as stack:
        return np.asarray(stack.read([0])[0])


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Give the image of a TIFF; whatever Pillow raises on a broken file becomes one InputError."""
    # A micrograph of a large camera is no attack by decompression; what the file has no room for is.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with path.open("rb") as file:
            # A broken file makes Pillow warn before it refuses; filters of warnings belong to all threads.
            with _ONE_AT_A_TIME, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(file)
                frames = getattr(image, "n_frames", 1)
            if frames != 1 or image.mode not in _MODES:
                what = f"{frames} images" if frames != 1 else f"pixels of kind {image.mode}"
                raise InputError(f"{path} holds {what}; give one image of grey values, or MRC")
            if image.width * image.height > _MOST_PIXELS_A_BYTE * path.stat().st_size:
                raise InputError(f"{path} promises {image.width} x {image.height} px; make or copy the file again")
            yield image
    except _PILLOW_ERRORS as error:
        raise InputError(
            f"{path} cannot be read as TIFF; check path and permissions, or make the file again as MRC"
        ) from error
