"""HDF5 files of unknown origin: one sentence for all that can be wrong, and no memory for what they only promise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from hpcsort.errors import InputError, OutputError
from hpcsort.io._checks import seven_digits
from hpcsort.io.files import atomic_write

MAGIC = b"\x89HDF\r\n\x1a\n"
SUFFIXES = frozenset({".hdf", ".h5", ".hdf5"})
# Deflate never compresses better than 1032 to 1.
_MOST_COMPRESSION = 1100
# So well only empty data are compressed, such as most of a mask; beyond this size that is taken for an attack.
_USUAL_COMPRESSION = 100
_MOST_EMPTY_BYTES = 1 << 30
_H5PY_ERRORS = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged file into one InputError; `kind` says what was expected."""
    try:
        yield
    except InputError:
        raise
    except _H5PY_ERRORS as error:
        if not path.is_file() or not os.access(path, os.R_OK):
            raise InputError(f"{path} is not a file that can be read; check path and permissions") from error
        raise InputError(f"{path} is damaged or not {kind}; make or copy the file again") from error


def starts_as_hdf5(path: Path) -> bool:
    """Tell whether a file can be read and begins as HDF5 does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def opened(path: Path) -> h5py.File:
    """Open for reading, without a lock: network file systems may refuse one, and nothing here writes in place."""
    return h5py.File(path, "r", locking=False)


@contextmanager
def writing(path: str | os.PathLike[str], overwrite: bool) -> Iterator[h5py.File]:
    """Give a new file that appears at `path` whole or not at all; OutputError as `atomic_write`."""
    with atomic_write(path, overwrite=overwrite) as temporary:
        try:
            with h5py.File(temporary, "w") as file:
                yield file
        except RuntimeError as error:
            # HDF5 forgets the number of the error where a full disk is noticed as late as on closing.
            raise OutputError(
                f"cannot write {path}: HDF5 could not finish it; free space there, or write elsewhere"
            ) from error


def check_stored(path: Path, dataset: h5py.Dataset, file_bytes: int, of: str) -> None:
    """Refuse data that the file has no room for before memory is spent: a few bytes can promise any number.

    Parameters
    ----------
    path
        The file, for the message.
    dataset
        What is to be read.
    file_bytes
        Size of the file.
    of
        What the data are, as "bytes of voxels".

    Raises
    ------
    InputError
        If the data need more bytes than are stored, compression considered.
    """
    promised, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    ratio = _MOST_COMPRESSION if promised <= _MOST_EMPTY_BYTES else _USUAL_COMPRESSION
    if stored > file_bytes or promised > stored * (1 if dataset.chunks is None else ratio):
        raise InputError(
            f"{path} promises {promised} bytes of {of} but stores {min(stored, file_bytes)}; make or copy it again"
        )


def number(group: h5py.Group, name: str, absent: float) -> float:
    """Return a header's number, in seven digits if it is a float32; `absent` if there is none."""
    if name not in group.attrs:
        return absent
    value = np.asarray(group.attrs[name]).reshape(-1)[0]
    return seven_digits(float(value)) if value.dtype == np.float32 else float(value)


def text(group: h5py.Group, name: str) -> str:
    """Return a header's text, empty if there is none."""
    if name not in group.attrs:
        return ""
    value = np.asarray(group.attrs[name]).reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
