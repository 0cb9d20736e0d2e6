"""Memory that the ranks of a node share and that each of them forgets when it likes.

A window of MPI can only be given back by all ranks together; these pages go with the last array that looks at them,
as arrays of one process do.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from mpi4py import MPI

_FOLDER = "/dev/shm"


def node_pages(node: MPI.Intracomm, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any] | None:
    """Return an array of zeros that exists once for all ranks of a node; collective over them.

    Parameters
    ----------
    node : the ranks of the node.
    shape, dtype : of the array, of at least one byte.

    Returns
    -------
    The array (at a page boundary), or None on every rank where the node's shared memory has no room for it.
    """
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    path = _reserve(size) if node.rank == 0 else None
    path = node.bcast(path)
    pages = _map(path, size) if path is not None else None
    mapped = all(node.allgather(pages is not None))
    if node.rank == 0 and path is not None:
        os.unlink(path)
    if not mapped or pages is None:
        return None
    return np.frombuffer(pages, kind).reshape(shape)


def _reserve(size: int) -> str | None:
    """Make a file of so many bytes in memory; None where there is no room."""
    try:
        descriptor, path = tempfile.mkstemp(prefix="hpcsort-", dir=_FOLDER)
    except OSError:
        return None
    try:
        # A file that is only declared to be so long would end the process where memory runs out.
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None
    finally:
        os.close(descriptor)
    return path


def _map(path: str, size: int) -> mmap.mmap | None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return mmap.mmap(descriptor, size)
    except OSError:
        return None
    finally:
        os.close(descriptor)
