"""Checkpoint files: whole or absent, with their SHA-256 inside, the previous one kept."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

import numpy as np

from hpcsort.checkpoints.codec import pack, unpack
from hpcsort.errors import InputError
from hpcsort.io import atomic_write

__all__ = ["previous_of", "read_checkpoint", "write_checkpoint"]

_MAGIC = b"hpcsort checkpoint 1\n"
_PIECE = 1 << 22


class _Hashing:
    """A file that is written once from begin to end, and its hash."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def previous_of(path: Path) -> Path:
    """Place of the checkpoint before the last."""
    return path.with_name(f"{path.name}.previous")


def write_checkpoint(path: Path, value: Any) -> None:
    """Write a value (see `pack`); what stood at ``path`` before is kept beside it.

    The layout is a line of its own, the SHA-256 of the rest, the length of the JSON tree, the tree, and the arrays in
    NumPy's format.

    Raises
    ------
    OutputError
        The disk is full or the folder cannot be written; older checkpoints are untouched.
    """
    tree, arrays = pack(value)
    text = json.dumps([tree, len(arrays)]).encode()
    with atomic_write(path, overwrite=True) as temporary:
        with temporary.open("r+b") as file:
            file.write(_MAGIC + b"0" * 64 + b"\n")
            hashing = _Hashing(file)
            hashing.write(f"{len(text)}\n".encode() + text)
            for array in arrays:
                np.lib.format.write_array(hashing, array, allow_pickle=False)
            file.seek(len(_MAGIC))
            file.write(hashing.sha256.hexdigest().encode())
        if path.exists():
            # Until the new one takes its place, the previous one is what a run would go on from.
            os.replace(path, previous_of(path))


def read_checkpoint(path: Path) -> tuple[Any, str] | None:
    """Read the last checkpoint, or the one before where the last is damaged.

    Returns
    -------
    value, note : what was written, and a sentence if it is not the last one; None where none was ever written.

    Raises
    ------
    InputError
        There are checkpoints, but all are damaged.
    """
    wrong = []
    for place in (path, previous_of(path)):
        if not place.exists():
            continue
        try:
            value = _read(place)
        except (OSError, ValueError, KeyError, TypeError, IndexError, ImportError) as error:
            wrong.append(f"{place}: {error}")
            continue
        return value, f"{wrong[0]}; the checkpoint before it is used." if wrong else ""
    if wrong:
        raise InputError(f"no checkpoint can be read ({'; '.join(wrong)}); start the run anew with --overwrite.")
    return None


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        if file.readline(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is no checkpoint of this program")
        told = file.readline(65)
        begin = file.tell()
        digest = hashlib.sha256()
        while piece := file.read(_PIECE):
            digest.update(piece)
        if f"{digest.hexdigest()}\n".encode() != told:
            raise ValueError("its SHA-256 is not the one written in it")
        file.seek(begin)
        tree, count = json.loads(file.read(int(file.readline(32))))
        arrays = [np.lib.format.read_array(file, allow_pickle=False) for _ in range(count)]
    return unpack(tree, arrays)
