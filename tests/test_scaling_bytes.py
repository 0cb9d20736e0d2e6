"""Bytes of a sort: the table of its collectives is what is counted, and what crosses a network is what is sent."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from finish_cases import class_maps, even_half, nobody, opposite_states
from mpi_helpers import run_mpi
from sort3d_cases import SIZE, blobs, make_store, small_band, small_grid, two_states
from sort3d_runs import simulate_small

from hpcsort.parallel import Communicator, SerialComm
from hpcsort.sort3d.finish import Chain, refine_chains, with_junk
from hpcsort.sort3d.learning import SubspaceRun, learn_subspaces
from hpcsort.sort3d.statistics import particle_statistics

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import _scaling_count
from _scaling_bytes import (
    Line,
    expected_bytes,
    finishing,
    learning,
    network_bytes,
    read_course,
    statistics,
)
from _scaling_count import PARTICLES, SERIAL, TASKS, CountingComm, payload

_RUN = Path(_scaling_count.__file__).with_name("_scaling_run.py")
_CONSENSUS = blobs(SIZE, 9)


def _counting() -> tuple[CountingComm, Communicator]:
    counted = CountingComm(SerialComm())
    return counted, cast(Communicator, counted)


def _seen(counted: CountingComm) -> tuple[Counter[str], Counter[str]]:
    """Calls and bytes by collective."""
    calls, sizes = Counter[str](), Counter[str]()
    for (_, name), (number, size, _) in counted.calls.items():
        calls[name] += int(number)
        sizes[name] += int(size)
    return calls, sizes


def _agree(lines: list[Line], calls: Counter[str], sizes: Counter[str], among: tuple[str, ...]) -> None:
    """Calls are the table's, and arrays are to the byte."""
    for name in among:
        own = [line for line in lines if line.collective == name]
        assert calls[name] == sum(line.calls for line in own), name
        if name in ("sum_exact", "share", "allgather_rows"):
            assert sizes[name] == sum(line.calls * line.size for line in own), name


# The table against counted calls


@pytest.mark.parametrize("iterations", [2, 4])
def test_learning_sends_what_the_table_says(iterations: int) -> None:
    """Of four iterations the first is in the narrower band, of two none."""
    counted, comm = _counting()
    band = small_band(make_store(two_states(60, 1.5)[0], comm), _CONSENSUS)
    runs = [SubspaceRun(f"chain {one}", np.arange(60) % 2 == one, 3, 0.05 * band.power) for one in (0, 1)]
    assert band.store.pixel_limit > 0  # asked once in a sort
    counted.calls.clear()
    learn_subspaces(band.store, band.start(), runs, seed=1, iterations=iterations)
    lines = learning(2, 3, small_grid(), iterations)
    _agree(lines, *_seen(counted), ("sum_exact", "max", "allgather", "share", "bcast"))


@pytest.mark.parametrize("started", [False, True])
def test_finishing_sends_what_the_table_says(started: bool) -> None:
    count, classes = 40, 2
    counted, comm = _counting()
    store = replace(opposite_states(count, 1.0), comm=comm)
    maps = class_maps(np.stack([_CONSENSUS, -_CONSENSUS]))
    start = np.arange(count) % classes if started else None
    chains = [
        Chain(learns, maps, with_junk(np.ones(classes)), start) for learns in (even_half(count), ~even_half(count))
    ]
    assert store.pixel_limit > 0
    counted.calls.clear()
    refine_chains(store, chains, nobody(count), iterations=2, floor=0.02)
    lines = finishing(2, classes, small_grid(), count, 2, started=started)
    _agree(lines, *_seen(counted), ("sum_exact", "max", "allgather", "share", "bcast", "allgather_rows"))


def test_finishing_that_settles_sends_what_the_table_says() -> None:
    counted, comm = _counting()
    store = replace(opposite_states(40, 1.0), comm=comm)
    maps = class_maps(np.stack([_CONSENSUS, -_CONSENSUS]))
    chain = Chain(even_half(40), maps, with_junk(np.ones(2)))
    assert store.pixel_limit > 0
    counted.calls.clear()
    refine_chains(store, [chain], nobody(40), iterations=9, floor=0.02, until_settled=True)
    calls, sizes = _seen(counted)
    # Three arrays are shared in an iteration.
    iterations = calls["share"] // 3
    assert 1 <= iterations < 9
    lines = finishing(1, 2, small_grid(), 40, iterations)
    _agree(lines, calls, sizes, ("sum_exact", "max", "allgather", "share", "bcast", "allgather_rows"))


def test_statistics_send_what_the_table_says() -> None:
    counted, comm = _counting()
    band = small_band(make_store(two_states(50, 1.5)[0], comm), _CONSENSUS)
    run = SubspaceRun("chain", np.ones(50, bool), 3, 0.05 * band.power)
    subspaces = learn_subspaces(band.store, band.start(), [run], seed=1, iterations=1)
    counted.calls.clear()
    particle_statistics(band.store, subspaces * 2)
    _agree(statistics(2, 3, 50), *_seen(counted), ("allgather_rows", "sum_exact"))


@pytest.mark.mpi
@pytest.mark.slow
def test_a_whole_sort_sends_what_the_table_says(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "set", 200)
    out = tmp_path / "out"
    result = tmp_path / "result.json"
    words = [str(made.star), str(out), str(result), "--depth-order", "1"]
    # The script's own folder holds what it imports.
    done = run_mpi(1, str(_RUN), *words, env={"PYTHONSAFEPATH": ""})
    assert done.returncode == 0, done.stderr
    (own,) = json.loads(result.read_text())["by_rank"]
    told = expected_bytes(own["calls"], read_course(out))
    for name, tolerance in (("sum_exact", 0.02), ("allgather_rows", 0.05), ("share", 0.02)):
        assert told[name] == pytest.approx(sum(call[3] for call in own["calls"] if call[1] == name), rel=tolerance)
    assert own["blocks"] > 0
    assert min(own["local"].values()) > 0


# Counting


def test_results_pass_through_and_work_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(_scaling_count.time, "process_time", lambda: next(clock))
    counted, comm = _counting()
    comm.beat()  # the first second was serial
    assert comm.sum_exact(np.ones(3)).tolist() == [1, 1, 1]  # ends a block of one second
    comm.enter_phase("generation 0, mixtures")
    comm.beat()  # after another serial one
    comm.beat()
    assert comm.allgather(5) == [5]  # two tasks are done
    assert comm.allgather([1, 2]) == [[1, 2]]  # the best were improved, which is dealt as well
    assert comm.max(2.5) == 2.5  # the journal's question
    comm.beat()
    assert counted.local == {PARTICLES: 1, TASKS: 4, SERIAL: 3}
    assert (counted.blocks, counted.tasks) == (2, [2])
    assert counted.calls["start", "sum_exact"][:2] == [1, 24]


def test_what_is_shared_is_counted_and_what_is_made_once_per_node_is_serial(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(_scaling_count.time, "process_time", lambda: next(clock))
    counted, comm = _counting()
    array = np.arange(5, dtype=np.float32)
    assert comm.share(array) is array  # after a serial second
    assert comm.once_per_node(lambda: array) is array  # after another one; making it takes a third
    assert counted.local == {PARTICLES: 0, TASKS: 0, SERIAL: 3}
    assert counted.calls["start", "share"][:2] == [1, 20]
    assert counted.calls["start", "once_per_node"][:2] == [1, 0]


def test_payload_counts_arrays_and_views() -> None:
    assert payload(np.zeros(1000)) == pytest.approx(8000, abs=300)
    assert payload([np.zeros((20, 30))[::2], "x"]) == pytest.approx(2400, abs=300)


def test_publishing_is_counted() -> None:
    counted, comm = _counting()
    shared = comm.shared_array(7, np.float64)
    shared.publish(np.arange(7.0))
    assert shared.array[6] == 6
    assert counted.calls["start", "publish"][:2] == [1, 56]


# Bytes over the network


_COLLECTIVES = ["sum_exact", "bcast", "share", "publish", "allgather", "allgather_rows", "gather_rows", "max"]


@pytest.mark.parametrize("name", _COLLECTIVES)
def test_bytes_grow_with_nodes_and_one_node_sends_none(name: str) -> None:
    assert network_bytes(name, 100.0, 16, 1) == (0.0, 0.0)
    found = [network_bytes(name, 100.0, nodes * 4, nodes) for nodes in (1, 2, 3, 7, 50, 250)]
    for (total, path), (more, further) in itertools.pairwise(found):
        assert total < more
        assert path < further <= 200.0


def test_rows_and_maps_cross_a_network_once_for_each_other_node_whatever_the_ranks() -> None:
    for name in ("share", "allgather_rows"):
        for ranks in (3, 12, 48):
            assert network_bytes(name, 100.0, ranks, 3)[0] == pytest.approx(200.0), (name, ranks)


def test_a_sum_of_84_MB_on_four_nodes_sends_506() -> None:
    # measured on emulated nodes, loopback's counter
    assert network_bytes("sum_exact", 84.0, 2, 2)[0] == pytest.approx(169, rel=0.01)
    assert network_bytes("sum_exact", 84.0, 4, 4)[0] == pytest.approx(506, rel=0.01)


_ON_THE_WIRE = """
import numpy as np
from pathlib import Path
from hpcsort.parallel import get_comm
comm = get_comm()
counter = Path("/sys/class/net/lo/statistics/tx_bytes")
for name, call in [
    ("sum_exact", lambda: comm.sum_exact(np.zeros(10**6))),
    ("bcast", lambda: comm.bcast(np.zeros(10**6) if comm.is_root else None)),
    ("share", lambda: comm.share(np.zeros(10**6) if comm.rank == 1 else None, root=1)),
    ("allgather_rows", lambda: comm.allgather_rows(np.zeros(10**6 // comm.size))),
]:
    found = []
    for _ in range(4):
        comm.barrier()
        before = int(counter.read_text())
        comm.barrier()
        call()
        comm.barrier()
        found.append(int(counter.read_text()) - before)
        comm.barrier()
    if comm.is_root:
        print(name, min(found), flush=True)
"""


@pytest.mark.mpi
@pytest.mark.parametrize(("nodes", "ranks"), [(2, 2), (3, 3), (2, 4)])
def test_the_bytes_that_cross_emulated_nodes_are_the_models(nodes: int, ranks: int) -> None:
    if not Path("/sys/class/net/lo/statistics/tx_bytes").exists():
        pytest.skip("no counter of the loopback interface")
    emulated = {"MPIR_CVAR_NUM_CLIQUES": str(nodes), "MPIR_CVAR_CLIQUES_BY_BLOCK": "1", "UCX_TLS": "tcp,self"}
    done = run_mpi(ranks, "-c", _ON_THE_WIRE, env=emulated)
    assert done.returncode == 0, done.stderr
    seen = {name: int(size) for name, size in (line.split() for line in done.stdout.splitlines())}
    if max(seen.values()) < 1e6:
        pytest.skip("this MPI does not send by TCP between ranks of one machine")
    for name, size in seen.items():
        assert size == pytest.approx(network_bytes(name, 8e6, ranks, nodes)[0], rel=0.05), name
