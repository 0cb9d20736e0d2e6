"""Arrays that exist once per node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from mpi4py import MPI

_ALIGN = 64  # one cache line: a 16-byte base costs the interleaved kernels 30-45 %
_PIECE = 1 << 28  # bytes per broadcast; some MPIs fail above 2^31 items


class NodeArray(ABC):
    """An array with one copy per node, 64-byte aligned.

    Attributes
    ----------
    array : shape and dtype as asked
        Read-only view of the values; all ranks of a node see the same memory.
    writable : shape and dtype as asked
        The same memory for ranks that fill parts of it themselves: call `fence` before and after.
    """

    array: NDArray[Any]
    writable: NDArray[Any]

    @abstractmethod
    def fence(self) -> None:
        """Make the node's ranks meet here, and their writes visible to each other."""

    @abstractmethod
    def free(self) -> None:
        """Give the memory back; collective. Views taken before must not be used any more."""

    @abstractmethod
    def publish(self, values: NDArray[Any] | None = None) -> None:
        """Give every node the values of rank 0; collective over all ranks.

        Parameters
        ----------
        values : same shape, rank 0 only
            What to publish. None on rank 0 publishes what it wrote into `writable`.
        """

    def _set_views(self, writable: NDArray[Any]) -> None:
        self.writable = writable
        self.array = writable.view()
        self.array.flags.writeable = False


class SerialNodeArray(NodeArray):
    """The array of a single process."""

    def __init__(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> None:
        nbytes, shape, dtype = _measure(shape, dtype)
        self._set_views(_aligned(np.zeros(nbytes + _ALIGN, np.uint8), None, nbytes, shape, dtype))

    def fence(self) -> None:
        """Do nothing."""

    def publish(self, values: NDArray[Any] | None = None) -> None:
        """Copy the values."""
        if values is not None:
            _copy(values, self.writable)

    def free(self) -> None:
        """Drop the memory."""
        self._set_views(np.empty(0, self.writable.dtype))


class MpiNodeArray(NodeArray):
    """The array in an MPI shared-memory window, allocated by the node's first rank."""

    def __init__(
        self,
        node: MPI.Intracomm,
        leaders: MPI.Intracomm,
        shape: int | tuple[int, ...],
        dtype: DTypeLike,
        owner: list[MpiNodeArray],
    ) -> None:
        from mpi4py import MPI

        self._node, self._leaders, self._owner = node, leaders, owner
        nbytes, shape, dtype = _measure(shape, dtype)
        self._window = MPI.Win.Allocate_shared(nbytes + _ALIGN if node.rank == 0 else 0, 1, comm=node)
        memory, _ = self._window.Shared_query(0)
        raw = np.asarray(memory, np.uint8)
        # The first rank's offset serves all: every rank maps the segment at a page boundary.
        offset = node.bcast(-raw.ctypes.data % _ALIGN)
        self._set_views(_aligned(raw, offset, nbytes, shape, dtype))
        self._window.Lock_all(MPI.MODE_NOCHECK)
        if node.rank == 0:
            self.writable[...] = np.zeros((), dtype)
        self.fence()

    def fence(self) -> None:
        """Make the node's ranks meet here, and their writes visible to each other."""
        self._window.Sync()
        self._node.Barrier()
        self._window.Sync()

    def publish(self, values: NDArray[Any] | None = None) -> None:
        """Give every node the values of rank 0."""
        self.fence()  # readers of the old values are done
        if self._node.rank == 0:
            if self._leaders.rank == 0 and values is not None:
                _copy(values, self.writable)
            if self._leaders.size > 1:
                broadcast_bytes(self._leaders, self.writable)
        self.fence()

    def free(self) -> None:
        """Give the memory back; collective."""
        if self not in self._owner:
            return
        self._owner.remove(self)
        self.fence()
        self._set_views(np.empty(0, self.writable.dtype))
        self._window.Unlock_all()
        self._window.Free()


def broadcast_bytes(comm: MPI.Comm, array: NDArray[Any], root: int = 0) -> None:
    """Broadcast a contiguous array in place, in pieces that every MPI can count."""
    raw = array.reshape(-1).view(np.uint8)
    for start in range(0, raw.size, _PIECE):
        comm.Bcast(raw[start : start + _PIECE], root=root)


def _measure(shape: int | tuple[int, ...], dtype: DTypeLike) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Return the bytes, shape and dtype of an array."""
    full = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    kind = np.dtype(dtype)
    return int(np.prod(full, dtype=np.int64)) * kind.itemsize, full, kind


def _aligned(
    raw: NDArray[np.uint8], offset: int | None, nbytes: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return the aligned part of raw bytes as an array."""
    if offset is None:
        offset = -raw.ctypes.data % _ALIGN
    return raw[offset : offset + nbytes].view(dtype).reshape(shape)


def _copy(values: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy without the broadcasting that would hide a wrong shape."""
    if np.shape(values) != target.shape:
        raise ValueError(f"values of shape {np.shape(values)} for a shared array of shape {target.shape}")
    target[...] = values
