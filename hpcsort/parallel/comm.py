"""The communicator of a run: all ranks of MPI, or one process that behaves like them."""

from __future__ import annotations

import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hpcsort.parallel.nodearray import NodeArray, SerialNodeArray


class Communicator(ABC):
    """What every program may ask of the other ranks; results never depend on how many there are.

    All methods are collective but `claim`, `abort`, `enter_phase` and `beat`: every rank calls them in the same order.

    Attributes
    ----------
    rank, size : int
        Number of this process and how many there are.
    node_rank, node_size : int
        The same inside the node that shares memory.
    host : str
        Name of the machine.
    """

    rank: int
    size: int
    node_rank: int
    node_size: int
    host: str

    @property
    def is_root(self) -> bool:
        """True on rank 0, which takes all decisions and writes all files."""
        return self.rank == 0

    @abstractmethod
    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return the object of rank `root` on every rank."""

    @abstractmethod
    def gather(self, obj: Any) -> list[Any] | None:
        """Return the objects of all ranks in rank order on rank 0, None elsewhere."""

    @abstractmethod
    def allgather(self, obj: Any) -> list[Any]:
        """Return the objects of all ranks in rank order on every rank."""

    @abstractmethod
    def scatter(self, objs: Sequence[Any] | None) -> Any:
        """Return to each rank its element of the list given on rank 0 (one per rank)."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every rank is here."""

    @abstractmethod
    def sum_exact(self, array: NDArray[Any]) -> NDArray[Any]:
        """Add an array over all ranks in place.

        Parameters
        ----------
        array : float64, int64 or complex128, any shape, the same on every rank
            Values whose partial sums are all exact (see `ExactSum`); then the result has the same
            bits for every number of ranks. Negative zeros become positive ones for that reason.

        Returns
        -------
        The same array.
        """

    @abstractmethod
    def max(self, value: Any) -> Any:
        """Return the largest value over ranks: elementwise for an array (a new one), else a number.

        NaN is not ordered, so it must not occur.
        """

    @abstractmethod
    def allgather_rows(self, local: NDArray[Any], counts: Sequence[int] | None = None) -> NDArray[Any]:
        """Join the rows of all ranks, in rank order, on every rank.

        Parameters
        ----------
        local : (k, ...)
            This rank's rows; k may be 0, dtype and trailing shape are the same on all ranks.
        counts : one int per rank, optional
            Rows of each rank, where the caller knows them.

        Returns
        -------
        Large results exist once per node and can only be read.
        """

    @abstractmethod
    def share(self, array: NDArray[Any] | None, root: int = 0) -> NDArray[Any]:
        """Return the array of rank `root` on every rank; large ones exist once per node and can only be read."""

    @abstractmethod
    def once_per_node(self, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return what one rank of each node makes; large arrays exist once per node and can only be read.

        ``make`` returns the same array on every rank, so that it does not matter which of them makes it.
        """

    @abstractmethod
    def gather_rows(self, local: NDArray[Any], counts: Sequence[int] | None = None) -> NDArray[Any] | None:
        """Join the rows of all ranks, in rank order, on rank 0; None elsewhere."""

    @abstractmethod
    def shared_array(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NodeArray:
        """Return a zeroed array that exists once per node, 64-byte aligned, seen by all its ranks."""

    @abstractmethod
    def part(self, member: bool) -> Communicator | None:
        """Return a communicator of the ranks that are members, in their order; None on the others. Close it."""

    @abstractmethod
    def enter_phase(self, name: str) -> None:
        """Note what this rank does, in words, for whoever watches it (see `watch_ranks`); not collective."""

    @abstractmethod
    def beat(self) -> None:
        """Note that this rank gets on with it; not collective."""

    @abstractmethod
    def claim(self) -> bool:
        """Return True to the first rank of the node that asks: it may speak about the failure."""

    @abstractmethod
    def abort(self, code: int) -> NoReturn:
        """End all ranks at once with an exit code; not collective."""

    @abstractmethod
    def close(self) -> None:
        """Free all shared arrays and communicators; collective, so never in an error path."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()


class SerialComm(Communicator):
    """One process: every exchange is with itself. The oracle of the MPI communicator."""

    def __init__(self) -> None:
        self.rank, self.size, self.node_rank, self.node_size = 0, 1, 0, 1
        self.host = socket.gethostname()

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return the object."""
        return obj

    def gather(self, obj: Any) -> list[Any] | None:
        """Return the object in a list."""
        return [obj]

    def allgather(self, obj: Any) -> list[Any]:
        """Return the object in a list."""
        return [obj]

    def scatter(self, objs: Sequence[Any] | None) -> Any:
        """Return the only element."""
        if objs is None or len(objs) != 1:
            raise ValueError("scatter needs one element per rank on rank 0")
        return objs[0]

    def barrier(self) -> None:
        """Do nothing."""

    def sum_exact(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array, with positive zeros."""
        as_words(array)
        array += 0
        return array

    def max(self, value: Any) -> Any:
        """Return the value (a copy of an array)."""
        return np.array(value) if isinstance(value, np.ndarray) else value

    def allgather_rows(self, local: NDArray[Any], counts: Sequence[int] | None = None) -> NDArray[Any]:
        """Return a copy of the rows."""
        check_counts(counts, [len(local)])
        return np.array(local)

    def share(self, array: NDArray[Any] | None, root: int = 0) -> NDArray[Any]:
        """Return the array."""
        assert array is not None
        return array

    def once_per_node(self, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return what is made."""
        return make()

    def gather_rows(self, local: NDArray[Any], counts: Sequence[int] | None = None) -> NDArray[Any] | None:
        """Return a copy of the rows."""
        return self.allgather_rows(local, counts)

    def shared_array(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NodeArray:
        """Return an array of this process."""
        return SerialNodeArray(shape, dtype)

    def part(self, member: bool) -> Communicator | None:
        """Return itself."""
        return self if member else None

    def enter_phase(self, name: str) -> None:
        """Do nothing."""

    def beat(self) -> None:
        """Do nothing."""

    def claim(self) -> bool:
        """Return True."""
        return True

    def abort(self, code: int) -> NoReturn:
        """Leave with the exit code."""
        sys.exit(code)

    def close(self) -> None:
        """Do nothing."""


def as_words(array: NDArray[Any]) -> NDArray[Any]:
    """Return a flat contiguous float64 or int64 view (a copy where the array is not contiguous)."""
    if array.dtype not in (np.float64, np.int64, np.complex128):
        raise TypeError(f"exact sums are of float64, int64 or complex128, not {array.dtype}")
    words = np.ascontiguousarray(array).reshape(-1)
    return words.view(np.float64) if array.dtype == np.complex128 else words


def check_counts(counts: Sequence[int] | None, lengths: Sequence[int | None]) -> None:
    """Refuse row counts that contradict what this rank holds."""
    if counts is None:
        return
    if len(counts) != len(lengths):
        raise ValueError(f"{len(counts)} row counts for {len(lengths)} ranks")
    for rank, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        if length is not None and count != length:
            raise ValueError(f"rank {rank} holds {length} rows where {count} were announced")
