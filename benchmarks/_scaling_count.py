"""A communicator that counts: calls, bytes and seconds of every collective, and the CPU time between them."""

from __future__ import annotations

import pickle
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from hpcsort.parallel import Communicator
from hpcsort.parallel.nodearray import NodeArray

__all__ = ["PARTICLES", "SERIAL", "TASKS", "CountingComm", "payload"]

PARTICLES, TASKS, SERIAL = "particles", "tasks", "serial"
"""Kinds of work between collectives: over a rank's own particles, over tasks that are dealt whole (fits of mixtures),
and what every rank repeats or rank 0 does alone."""
_ARRAYS = ("sum_exact", "allgather_rows", "gather_rows")
_OBJECTS = ("gather", "allgather", "scatter", "max")
_EMPTY = ("barrier",)


def payload(obj: Any) -> int:
    """Bytes of an object as MPI sends it, pickled; arrays are not copied for it."""
    buffers: list[pickle.PickleBuffer] = []
    head = len(pickle.dumps(obj, protocol=5, buffer_callback=buffers.append))
    return head + sum(buffer.raw().nbytes for buffer in buffers)


class CountingComm:
    """Passes everything on to a communicator, and counts.

    Parameters
    ----------
    comm : of the run.

    Attributes
    ----------
    calls : (phase, collective) -> [calls, bytes that this rank gives, seconds within them, waiting included].
    local : kind of work -> CPU seconds of this rank outside collectives.
    blocks : blocks of particles that this rank has worked on.
    tasks : tasks of this rank in every fit of mixtures.

    Notes
    -----
    A rank says `beat` before each block of particles and each task, so work from a `beat` to the next call is that of
    the block or the task, and work after a collective is serial, as is what is made once per node.
    """

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self.calls: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0.0])
        self.local = dict.fromkeys((PARTICLES, TASKS, SERIAL), 0.0)
        self.blocks, self.tasks = 0, list[int]()
        self._phase, self._kind, self._fits_mixtures = "start", SERIAL, False
        self._mark = time.process_time()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._comm, name)
        if name in _ARRAYS:
            return lambda array, *counts: self._count(name, array.nbytes, lambda: method(array, *counts))
        if name in _OBJECTS:
            return lambda obj: self._count(name, payload(obj), lambda: method(obj))
        if name in _EMPTY:
            return lambda: self._count(name, 0, method)
        return method

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Count the bytes of rank `root`."""
        size = payload(obj) if self._comm.rank == root else 0
        return self._count("bcast", size, lambda: self._comm.bcast(obj, root))

    def share(self, array: NDArray[Any] | None, root: int = 0) -> Any:
        """Count the bytes of rank `root`."""
        size = array.nbytes if array is not None and self._comm.rank == root else 0
        return self._count("share", size, lambda: self._comm.share(array, root))

    def once_per_node(self, make: Callable[[], NDArray[Any]]) -> Any:
        """Count the call, which stays within the node, and the CPU time of what is made."""

        def made() -> NDArray[Any]:
            self._mark = time.process_time()
            array = make()
            self._lap()
            return array

        return self._count("once_per_node", 0, lambda: self._comm.once_per_node(made))

    def shared_array(self, *shape: Any) -> NodeArray:
        """Return a node-shared array whose `publish` is counted."""
        array = self._comm.shared_array(*shape)
        publish = array.publish
        size = array.array.nbytes if self._comm.is_root else 0
        array.publish = lambda values=None: self._count("publish", size, lambda: publish(values))  # type: ignore[method-assign]
        return array

    def enter_phase(self, name: str) -> None:
        """Note what the following calls belong to."""
        self._phase = name
        if name.split(", ")[-1].startswith("mixtures"):
            self._fits_mixtures = True
            self.tasks.append(0)
        self._comm.enter_phase(name)

    def beat(self) -> None:
        """Begin a block of particles or a task."""
        self._lap()
        if self._fits_mixtures:
            self._kind = TASKS
            self.tasks[-1] += 1
        else:
            self._kind = PARTICLES
            self.blocks += 1
        self._comm.beat()

    def _count(self, name: str, size: int, call: Callable[[], Any]) -> Any:
        self._lap()
        # The journal's question after a step is the first `max` after mixtures were fitted; until then all is tasks.
        self._fits_mixtures = self._fits_mixtures and name != "max"
        self._kind = self._kind if self._fits_mixtures else SERIAL
        start = time.perf_counter()
        result = call()
        kept = self.calls[self._phase, name]
        kept[0] += 1
        kept[1] += size
        kept[2] += time.perf_counter() - start
        self._mark = time.process_time()
        return result

    def _lap(self) -> None:
        now = time.process_time()
        self.local[self._kind] += now - self._mark
        self._mark = now
