"""One measured sort, started by scaling.py on every rank: ``python _scaling_run.py STAR OUT RESULT [options]``.

Rank 0 writes RESULT, a JSON file: times, counts and bytes of all collectives, and what the same ranks reach in memory
bandwidth, latency and reduction.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, cast

# First of all: MPICH sends SLURM's pmi2 what lies behind its address in memory, which must still be zeros.
import mpi4py.MPI  # noqa: F401
import numpy as np
from _scaling_count import CountingComm
from scipy.linalg.blas import daxpy

from hpcsort.parallel import Communicator, abort_on_error, get_comm
from hpcsort.sort3d import SortOptions, sort3d

_TRIAD = 1 << 23
_REDUCED = 1 << 20
_REPEATS, _CALLS = 7, 30


def _probe(comm: Communicator) -> dict[str, float]:
    """Memory bandwidth of a node with all its ranks at work (bytes/s), seconds of a small exchange and of a sum.

    The fastest of some repeats each: other work on the machine only slows.
    """
    x, y = np.ones(_TRIAD), np.ones(_TRIAD)
    speeds, sums, small = [], [], []
    words = np.zeros(_REDUCED)
    for _ in range(_REPEATS):
        comm.barrier()
        start = time.perf_counter()
        daxpy(x, y, a=0.5)  # y += a x: two reads, one write
        speeds.append(24.0 * _TRIAD / (time.perf_counter() - start))
        comm.barrier()
        start = time.perf_counter()
        comm.sum_exact(words)
        sums.append(time.perf_counter() - start)
        comm.barrier()
        start = time.perf_counter()
        for _ in range(_CALLS):
            comm.max(0.0)
        small.append((time.perf_counter() - start) / _CALLS)
    triad = sum(comm.allgather(max(speeds))) / _nodes(comm)
    return {"triad": triad, "exchange_s": min(small), "sum_s": min(sums), "sum_bytes": words.nbytes}


def _nodes(comm: Communicator) -> int:
    return sum(rank == 0 for rank in comm.allgather(comm.node_rank))


def _is_crowded(comm: Communicator) -> bool:
    """Whether a machine has more ranks than cores: such times tell nothing."""
    hosts = comm.allgather(comm.host)
    return any(comm.allgather(hosts.count(comm.host) > (os.cpu_count() or 1)))


def _sent(comm: Communicator, interface: str | None) -> dict[str, int]:
    """Bytes that the interface of each kernel (network namespace) has sent so far."""
    if interface is None:
        return {}
    counter = Path("/sys/class/net") / interface / "statistics/tx_bytes"
    place = f"{comm.host} {os.stat('/proc/self/ns/net').st_ino}"
    return dict(comm.allgather((place, int(counter.read_text()))))


def _measure(comm: Communicator, asked: argparse.Namespace) -> dict[str, Any]:
    options = SortOptions(
        instack=asked.star, output_dir=asked.out, depth_order=asked.depth_order, overwrite=True, quiet=True
    )
    comm.barrier()
    before = _sent(comm, asked.interface)
    counted = CountingComm(comm)
    start = time.perf_counter()
    result = sort3d(options, cast(Communicator, counted))
    seconds = time.perf_counter() - start
    after = _sent(comm, asked.interface)
    own = {
        "local": counted.local,
        "blocks": counted.blocks,
        "tasks": counted.tasks,
        "calls": [[phase, name, *kept] for (phase, name), kept in counted.calls.items()],
    }
    return {
        "ranks": comm.size,
        "nodes": _nodes(comm),
        "crowded": _is_crowded(comm),
        "depth_order": asked.depth_order,
        "particles": len(result.labels),
        "seconds": seconds,
        "sorting": result.seconds["sorting"],
        "sent": sum(count - before[place] for place, count in after.items()) if after else None,
        "probe": _probe(comm),
        "by_rank": comm.allgather(own),
    }


def main() -> None:
    """Sort, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("star", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--depth-order", type=int, default=2)
    parser.add_argument("--interface", help="network interface whose counter of sent bytes is read")
    asked = parser.parse_args()
    comm = get_comm()
    with abort_on_error(comm):
        found = _measure(comm, asked)
        if comm.is_root:
            asked.result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
