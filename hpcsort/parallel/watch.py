"""Watching the ranks: who has died, and who does not answer.

Each rank notes what it does in a slot of a small file that the ranks of its node share; a process of its own
(`_guard`) reads them there. Where a rank waits for others in a collective call it is not the one that is missed.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hpcsort.parallel import _guard
from hpcsort.parallel.comm import Communicator
from hpcsort.parallel.launch import together
from hpcsort.parallel.nodearray import NodeArray

__all__ = ["WatchedComm", "watch_ranks"]

_LONGEST_NAME = 4096
_FAREWELL_S = 2.0
_STAYING: list[subprocess.Popen[bytes]] = []
"""Guards that watch over ranks which end in disorder."""


class WatchedComm(Communicator):
    """A communicator that notes what its rank does.

    Parameters
    ----------
    comm : what it passes everything on to.
    slots : shared file of the node.
    seat : number on the node, and rank, under which it notes; those of ``comm`` by default.
    """

    def __init__(self, comm: Communicator, slots: mmap.mmap, seat: tuple[int, int] | None = None) -> None:
        self.rank, self.size = comm.rank, comm.size
        self.node_rank, self.node_size, self.host = comm.node_rank, comm.node_size, comm.host
        self._seat = seat or (comm.node_rank, comm.rank)
        self._comm, self._slots, self._beats, self._phase = comm, slots, 0, b""
        self._note()

    def enter_phase(self, name: str) -> None:
        """Say what the rank does, for a person."""
        self._phase = name.encode()
        self._note()
        self._comm.enter_phase(name)

    def beat(self) -> None:
        """Show that the rank gets on."""
        self._note()
        self._comm.beat()

    def leave(self, failed: bool) -> None:
        """Note that the rank has ended, and whether in order."""
        self._note(state=_guard.FAILED if failed else _guard.LEFT)

    def _note(self, waits: bool = False, state: int = _guard.RUNNING) -> None:
        self._beats += 1
        place, rank = self._seat
        _guard.write_slot(self._slots, place, state, rank, self._beats, waits, self._phase)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._note(waits=True)
        try:
            yield
        finally:
            self._note()

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return the object of rank `root` on every rank."""
        with self._waiting():
            return self._comm.bcast(obj, root)

    def gather(self, obj: Any) -> list[Any] | None:
        """Return the objects of all ranks on rank 0."""
        with self._waiting():
            return self._comm.gather(obj)

    def allgather(self, obj: Any) -> list[Any]:
        """Return the objects of all ranks."""
        with self._waiting():
            return self._comm.allgather(obj)

    def scatter(self, objs: Sequence[Any] | None) -> Any:
        """Return this rank's element of rank 0's list."""
        with self._waiting():
            return self._comm.scatter(objs)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        with self._waiting():
            self._comm.barrier()

    def sum_exact(self, array: NDArray[Any]) -> NDArray[Any]:
        """Add an array over all ranks in place."""
        with self._waiting():
            return self._comm.sum_exact(array)

    def max(self, value: Any) -> Any:
        """Return the largest value over ranks."""
        with self._waiting():
            return self._comm.max(value)

    def allgather_rows(self, local: NDArray[Any], counts: Sequence[int] | None = None) -> NDArray[Any]:
        """Join the rows of all ranks on every rank."""
        with self._waiting():
            return self._comm.allgather_rows(local, counts)

    def share(self, array: NDArray[Any] | None, root: int = 0) -> NDArray[Any]:
        """Return the array of rank `root` on every rank."""
        with self._waiting():
            return self._comm.share(array, root)

    def once_per_node(self, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return what one rank of each node makes."""
        with self._waiting():
            return self._comm.once_per_node(make)

    def gather_rows(self, local: NDArray[Any], counts: Sequence[int] | None = None) -> NDArray[Any] | None:
        """Join the rows of all ranks on rank 0."""
        with self._waiting():
            return self._comm.gather_rows(local, counts)

    def shared_array(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NodeArray:
        """Return an array that the ranks of the node share."""
        with self._waiting():
            return self._comm.shared_array(shape, dtype)

    def part(self, member: bool) -> Communicator | None:
        """Return a communicator of the ranks that are members; None on the others."""
        with self._waiting():
            inner = self._comm.part(member)
        if inner is None:
            return None
        watched = WatchedComm(inner, self._slots, self._seat)
        watched._phase = self._phase
        return watched

    def claim(self) -> bool:
        """Return True to the first rank of the node that asks."""
        return self._comm.claim()

    def abort(self, code: int) -> NoReturn:
        """End all ranks at once."""
        self._comm.abort(code)

    def close(self) -> None:
        """Free what the inner communicator holds."""
        self._comm.close()


@contextmanager
def watch_ranks(
    comm: Communicator, *, minutes: float, log: Path, ended: Path, lock: Path, next_step: str
) -> Iterator[WatchedComm]:
    """Watch the ranks while a block runs. Collective.

    Parameters
    ----------
    comm : of the run.
    minutes : a rank that neither gets on nor waits for so long is reported with its host and phase, and all are ended;
        0 waits for ever.
    log : a file to which the guard writes what it says on stderr.
    ended : a file that all nodes see, by which they tell each other that ranks have died; absent at first.
    lock : a file that is touched while the run lives.
    next_step : what a user does after the end of a rank, a clause.
    """
    slots, descriptor = _share_slots(comm)
    watched = WatchedComm(comm, slots)
    comm.barrier()
    guard = None
    if comm.node_rank == 0:
        paths = {"log": log, "ended": ended, "lock": lock}
        told = {"ranks": comm.node_size, "host": comm.host, "minutes": minutes, "next_step": next_step}
        guard = _start_guard(descriptor, told | {name: str(path.absolute()) for name, path in paths.items()})
    os.close(descriptor)
    try:
        yield watched
    except BaseException as error:
        watched.leave(failed=not getattr(error, "is_shared", False))
        raise
    else:
        watched.leave(failed=False)
        comm.barrier()
    finally:
        if guard is not None:
            _dismiss(guard)


def _share_slots(comm: Communicator) -> tuple[mmap.mmap, int]:
    """Map a file of one slot a rank of the node; nothing of it stays on disk."""
    size = comm.node_size * _guard.SLOT_BYTES
    name = comm.shared_array(_LONGEST_NAME, np.uint8)
    descriptor = -1
    with together(comm):
        if comm.node_rank == 0:
            descriptor, path = tempfile.mkstemp(prefix="hpcsort-")
            os.truncate(descriptor, size)
            text = np.frombuffer(os.fsencode(path), np.uint8)
            name.writable[: len(text)] = text
    name.fence()
    place = Path(os.fsdecode(name.array.tobytes().rstrip(b"\0")))
    with together(comm):
        if comm.node_rank != 0:
            descriptor = os.open(place, os.O_RDWR)
        slots = mmap.mmap(descriptor, size)
    if comm.node_rank == 0:
        place.unlink()
    name.free()
    return slots, descriptor


def _start_guard(slots: int, told: dict[str, Any]) -> subprocess.Popen[bytes]:
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", _guard.__file__, str(slots), json.dumps(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[slots],
        # Launchers kill the process groups of ranks.
        start_new_session=True,
    )
    assert guard.stdout is not None
    guard.stdout.readline()
    guard.stdout.close()
    return guard


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    """Let the guard go; it stays for a moment where other ranks of the node have not left."""
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(timeout=_FAREWELL_S)
    except subprocess.TimeoutExpired:
        _STAYING.append(guard)
