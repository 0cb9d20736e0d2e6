"""The communicator over MPI, node first."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hpcsort.parallel.comm import Communicator, SerialComm, as_words, check_counts
from hpcsort.parallel.nodearray import MpiNodeArray, NodeArray, broadcast_bytes
from hpcsort.parallel.pages import node_pages

if TYPE_CHECKING:
    from mpi4py import MPI

_SLAB = 1 << 17  # elements each rank shows its node at a time: 1 MiB, stays in cache while it is summed
_PAGES = 1 << 20  # bytes from which results are held once per node
_SMALL = 1 << 12  # below this one Allreduce is faster than the barriers of the shared window


class MpiComm(Communicator):
    """Ranks of MPI, with the ranks of each node joined by shared memory.

    Parameters
    ----------
    ranks_per_node : int, optional
        Treat so many ranks of a machine as a node of their own (tests of the many-node paths;
        machines with several memory domains). Default: one node per machine.
    world : MPI.Comm, optional
        The ranks; COMM_WORLD by default.
    """

    def __init__(self, ranks_per_node: int | None = None, world: MPI.Comm | None = None) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._world = (MPI.COMM_WORLD if world is None else world).Dup()
        self.rank, self.size = self._world.rank, self._world.size
        self.host = socket.gethostname()
        self._node = self._world.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
        if ranks_per_node is not None:
            machine = self._node
            self._node = machine.Split(machine.rank // ranks_per_node, key=self.rank)
            machine.Free()
        self.node_rank, self.node_size = self._node.rank, self._node.size
        self._widest = max(self._world.allgather(self.node_size))
        self._leaders = self._world.Split(0 if self.node_rank == 0 else MPI.UNDEFINED, key=self.rank)
        # The leader of each rank's node, as a rank among the leaders.
        leader = self._leaders.rank if self.node_rank == 0 else None
        self._node_of: list[int] = self._world.allgather(self._node.bcast(leader))
        self.is_closed = False
        self._arrays: list[MpiNodeArray] = []
        self._claims = self.shared_array(1, np.int64)
        self._desk: NodeArray | None = None

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return the object of rank `root` on every rank."""
        return self._world.bcast(obj, root=root)

    def gather(self, obj: Any) -> list[Any] | None:
        """Return the objects of all ranks on rank 0."""
        return self._world.gather(obj, root=0)

    def allgather(self, obj: Any) -> list[Any]:
        """Return the objects of all ranks."""
        return self._world.allgather(obj)

    def scatter(self, objs: Sequence[Any] | None) -> Any:
        """Return this rank's element of rank 0's list."""
        return self._world.scatter(objs, root=0)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self._world.Barrier()

    def sum_exact(self, array: NDArray[Any]) -> NDArray[Any]:
        """Add an array over all ranks in place: in the node's window first, then between nodes."""
        words = as_words(array)
        if words.size <= _SMALL or self._widest == 1:
            for start in range(0, words.size, _SLAB * 64):
                self._world.Allreduce(self._mpi.IN_PLACE, words[start : start + _SLAB * 64])
        else:
            if self._desk is None:
                self._desk = self.shared_array((2, self.node_size, _SLAB), np.float64)
            for number, start in enumerate(range(0, words.size, _SLAB)):
                # Two desks in turn: nobody can be two slabs ahead, so what is still read is not overwritten.
                self._sum_slab(words[start : start + _SLAB], self._desk, number % 2)
            self._desk.fence()
        words += 0
        if not np.shares_memory(words, array):
            array[...] = words.view(array.dtype).reshape(array.shape)
        return array

    def _sum_slab(self, slab: NDArray[Any], desk: NodeArray, side: int) -> None:
        """Add one slab: each rank lays its own on the desk and adds one stripe of all."""
        rows = desk.writable[side].view(slab.dtype)[:, : slab.size]
        rows[self.node_rank] = slab
        desk.fence()
        start, stop = slab.size * np.arange(self.node_rank, self.node_rank + 2) // self.node_size
        stripe = rows[:, start:stop]
        for other in stripe[1:]:
            stripe[0] += other
        desk.fence()
        if self.node_size < self.size:
            if self.node_rank == 0:
                self._leaders.Allreduce(self._mpi.IN_PLACE, rows[0])
            desk.fence()
        slab[:] = rows[0]

    def max(self, value: Any) -> Any:
        """Return the largest value over ranks."""
        if isinstance(value, np.ndarray):
            result = np.array(value, order="C")
            self._world.Allreduce(self._mpi.IN_PLACE, result, op=self._mpi.MAX)
            return result
        return max(self._world.allgather(value))

    def allgather_rows(self, local: NDArray[Any], counts: Sequence[int] | None = None) -> NDArray[Any]:
        """Join the rows of all ranks on every rank."""
        local, counts = self._counted(local, counts)
        shape = (sum(counts), *local.shape[1:])
        full = self._pages(shape, local.dtype)
        if full is None:
            joined = self._join_rows(local, counts, everywhere=True)
            assert joined is not None
            return joined
        starts = np.concatenate([[0], np.cumsum(counts)])
        full[starts[self.rank] : starts[self.rank + 1]] = local
        self._node.Barrier()
        if self.node_rank == 0 and self._leaders.size > 1:
            # Consecutive ranks of a node travel together.
            edges = [rank for rank in range(self.size) if rank == 0 or self._node_of[rank] != self._node_of[rank - 1]]
            for first, last in zip(edges, [*edges[1:], self.size], strict=True):
                if starts[first] < starts[last]:
                    broadcast_bytes(self._leaders, full[starts[first] : starts[last]], root=self._node_of[first])
        return self._finished(full)

    def share(self, array: NDArray[Any] | None, root: int = 0) -> NDArray[Any]:
        """Return the array of rank `root` on every rank."""
        shape, dtype = self._world.bcast((array.shape, array.dtype) if array is not None else None, root=root)
        full = self._pages(shape, dtype)
        if full is None:
            full = np.empty(shape, dtype) if array is None or self.rank != root else np.ascontiguousarray(array)
            broadcast_bytes(self._world, full, root=root)
            return full
        if self.rank == root:
            full[...] = array
        self._node.Barrier()
        if self.node_rank == 0 and self._leaders.size > 1:
            broadcast_bytes(self._leaders, full, root=self._node_of[root])
        return self._finished(full)

    def once_per_node(self, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return what one rank of each node makes."""
        made = make() if self.node_rank == 0 else None
        shape, dtype = self._node.bcast((made.shape, made.dtype) if made is not None else None)
        full = self._pages(shape, dtype)
        if full is None:
            return make() if made is None else made
        if made is not None:
            full[...] = made
        return self._finished(full)

    def gather_rows(self, local: NDArray[Any], counts: Sequence[int] | None = None) -> NDArray[Any] | None:
        """Join the rows of all ranks on rank 0."""
        return self._join_rows(*self._counted(local, counts), everywhere=False)

    def _pages(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any] | None:
        """Return memory of the node for a large array; None where every rank is to hold its own."""
        large = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize >= _PAGES
        # Nodes of one rank share nothing; the others must agree on the way that data take.
        if not large or self._widest == 1:
            return None
        pages = node_pages(cast("MPI.Intracomm", self._node), shape, dtype)
        return pages if all(self._world.allgather(pages is not None)) else None

    def _finished(self, full: NDArray[Any]) -> NDArray[Any]:
        """Return shared memory that is complete now, for reading."""
        self._node.Barrier()
        full.flags.writeable = False
        return full

    def _counted(self, local: NDArray[Any], counts: Sequence[int] | None) -> tuple[NDArray[Any], Sequence[int]]:
        """Return contiguous rows, and how many each rank has."""
        local = np.ascontiguousarray(local)
        if counts is None:
            counts = self._world.allgather(len(local))
        check_counts(counts, [None] * self.rank + [len(local)] + [None] * (self.size - self.rank - 1))
        return local, counts

    def _join_rows(self, local: NDArray[Any], counts: Sequence[int], everywhere: bool) -> NDArray[Any] | None:
        row_shape = local.shape[1:]
        full = np.empty((sum(counts), *row_shape), local.dtype) if everywhere or self.is_root else None
        row_bytes = local.dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
        if row_bytes == 0:
            return full
        # One row is one MPI item, so that counts and displacements stay small however long the table is.
        row = self._mpi.BYTE.Create_contiguous(row_bytes).Commit()
        send = [local, len(local), row]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).tolist()
        receive = None if full is None else [full, (list(counts), starts), row]
        if everywhere:
            self._world.Allgatherv(send, receive)
        else:
            self._world.Gatherv(send, receive, root=0)
        row.Free()
        return full

    def shared_array(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NodeArray:
        """Return a zeroed array in a window of this node's shared memory."""
        node, leaders = cast("MPI.Intracomm", self._node), cast("MPI.Intracomm", self._leaders)
        array = MpiNodeArray(node, leaders, shape, dtype, self._arrays)
        self._arrays.append(array)
        return array

    def part(self, member: bool) -> Communicator | None:
        """Return a communicator of the ranks that are members; None on the others."""
        chosen = self._world.Split(0 if member else self._mpi.UNDEFINED, key=self.rank)
        if not member:
            return None
        inner = MpiComm(world=chosen)
        chosen.Free()
        return inner

    def enter_phase(self, name: str) -> None:
        """Do nothing: nobody watches."""

    def beat(self) -> None:
        """Do nothing: nobody watches."""

    def claim(self) -> bool:
        """Return True to the first rank of the node that asks."""
        # A plain flag is enough: `abort_on_error` lets the ranks ask one after another.
        if self.is_closed:
            return True
        free = self._claims.array[0] == 0
        self._claims.writable[0] = 1
        return bool(free)

    def abort(self, code: int) -> NoReturn:
        """End all ranks at once with an exit code."""
        for out in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                out.flush()
        time.sleep(0.2)  # the launcher forwards output by pipes and drops what it has not read
        # All has been said: what the MPI library adds would only push it off the screen.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        self._mpi.COMM_WORLD.Abort(code)
        os._exit(code)

    def close(self) -> None:
        """Free all shared arrays and communicators."""
        for array in list(self._arrays):
            array.free()
        for comm in (self._leaders, self._node, self._world):
            if comm != self._mpi.COMM_NULL:
                comm.Free()
        self.is_closed = True


_current: MpiComm | None = None


def get_comm(serial: bool = False) -> Communicator:
    """Return the communicator of this process.

    Parameters
    ----------
    serial : bool
        Ask for the serial twin without touching MPI.

    Returns
    -------
    MpiComm of all ranks (the same object at every call), or SerialComm when asked for or when no
    MPI library can be loaded. Whether that is what the launcher meant is `check_launch`'s question.
    """
    global _current
    if serial:
        return SerialComm()
    if _current is None or _current.is_closed:
        # The failing rank says in one sentence what is wrong; MPICH's banner would hide it.
        os.environ.setdefault("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1")
        try:
            with warnings.catch_warnings():
                # mpi4py warns of a foreign launcher; `check_launch` refuses it and names the cure.
                warnings.simplefilter("ignore", RuntimeWarning)
                from mpi4py import MPI  # noqa: F401
        except (ImportError, RuntimeError):
            return SerialComm()
        _current = MpiComm()
    return _current
