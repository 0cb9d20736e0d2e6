"""The communicator: the same answers from every number of ranks, and from the serial twin."""

from __future__ import annotations

import os

import numpy as np
import pytest
from mpi_helpers import run_alone, run_mpi

from hpcsort.parallel import SerialComm, get_comm

# Adds 64 numbered chunks of strongly cancelling values, whoever owns them, and prints a digest.
_SUMS = """
import hashlib, sys
import numpy as np
from hpcsort.parallel import ExactSum, MpiComm, deal_chunks, get_comm, stream
comm = MpiComm(ranks_per_node=int(sys.argv[1])) if len(sys.argv) > 1 else get_comm()
large, small = ExactSum((2, 150_001), bound=1e9), ExactSum((7, 3), bound=1e9)
for chunk in deal_chunks(np.ones(64), comm.size)[comm.rank]:
    draw = stream(5, "test", chunk)
    large.add(draw.normal(size=150_001).astype(np.float32) * np.float32(10.0 ** draw.integers(-3, 6)), index=chunk % 2)
    small.add(draw.normal(size=(7, 3)) * 10.0 ** draw.integers(-3, 6))
digest = hashlib.sha256(large.join(comm).tobytes() + small.join(comm).tobytes()).hexdigest()
assert comm.allgather(digest) == [digest] * comm.size
if comm.is_root:
    print(digest)
comm.close()
"""

_EXCHANGES = """
import sys
import numpy as np
from hpcsort.errors import InputError
from hpcsort.parallel import MpiComm, chosen_ranks, get_comm, raise_together
n = int(sys.argv[1])
comm = MpiComm(ranks_per_node=int(sys.argv[2])) if len(sys.argv) > 2 else get_comm()
assert comm.size == n, comm.size
me = comm.rank
assert comm.bcast({"from": me}, root=n - 1) == {"from": n - 1}
assert comm.gather(me) == (list(range(n)) if comm.is_root else None)
assert comm.scatter([10 * r for r in range(n)] if comm.is_root else None) == 10 * me
assert comm.max(float(me)) == n - 1
assert comm.max(np.array([me, -me])).tolist() == [n - 1, 0]

whole = np.arange(3 * n * (n + 1) // 2 * 2, dtype=np.float32).reshape(-1, 3, 2)
start = me * (me - 1) // 2
mine = whole[start : start + me]  # rank r owns r rows, so rank 0 none
expected = whole[: n * (n - 1) // 2]
for counts in (None, list(range(n))):
    assert np.array_equal(comm.allgather_rows(mine, counts), expected)
    rows = comm.gather_rows(mine, counts)
    assert np.array_equal(rows, expected) if comm.is_root else rows is None
assert comm.allgather_rows(np.empty((me, 0))).shape == (n * (n - 1) // 2, 0)
assert comm.allgather_rows(np.empty((0, 4), np.int16)).shape == (0, 4)

# Some ranks on their own: a communicator like any other, and errors that they share reach those that wait.
with chosen_ranks(comm, me != 1) as part:
    assert (part is None) == (me == 1)
    if part is not None:
        assert part.allgather(me) == [r for r in range(n) if r != 1]
        assert part.sum_exact(np.ones(5))[0] == part.size
try:
    with chosen_ranks(comm, me == 0) as part:
        if part is not None:
            raise_together(part, InputError("nothing there"))
    raise AssertionError
except InputError as error:
    assert str(error) == "nothing there"

# Results above a megabyte are held once per node; what was shared stays when its siblings are forgotten.
for rows, width in ((3, 2), (400, 301), (60_000, 3)):
    every = np.arange(rows * width, dtype=np.float64).reshape(rows, width)
    cuts = [rows * r // n for r in range(n + 1)]
    joined = comm.allgather_rows(every[cuts[me] : cuts[me + 1]])
    told = comm.share(every + 1 if me == n - 1 else None, root=n - 1)
    made = comm.once_per_node(lambda: every * 2)
    assert np.array_equal(joined, every) and np.array_equal(told, every + 1) and np.array_equal(made, every * 2)
    large = every.nbytes >= 1 << 20 and max(comm.allgather(comm.node_size)) > 1
    assert all(array.flags.writeable != large for array in (joined, told, made))
    assert joined.ctypes.data % 64 == 0 or not large
    if large:
        # One rank of the node writes through a view of its own: all see it.
        comm.barrier()
        if comm.node_rank == 0:
            joined.base.base[:8] = np.float64(-1).tobytes()
        comm.barrier()
        assert joined[0, 0] == -1
    del told
    assert made[-1, -1] == every[-1, -1] * 2

for size in (0, 1, 7, 4097, 300_001):
    for dtype in (np.float64, np.int64, np.complex128):
        array = (np.arange(size) % 97 + me).astype(dtype)
        comm.sum_exact(array)
        assert np.array_equal(array, (np.arange(size) % 97) * n + n * (n - 1) // 2)
strided = np.full((5000, 3), me + 1, np.int64)
comm.sum_exact(strided[:, 1])
assert (strided[:, 1] == n * (n + 1) // 2).all() and (strided[:, ::2] == me + 1).all()

shared = comm.shared_array((7, 9), np.complex64)
assert shared.array.ctypes.data % 64 == 0 and not shared.array.flags.writeable and not shared.array.any()
for value in (1, 2):
    shared.publish(np.full((7, 9), value) if comm.is_root else None)
    assert (shared.array == value).all()
board = comm.shared_array(comm.node_size, np.int64)
board.fence()
board.writable[comm.node_rank] = me  # one copy per node: every rank sees what its neighbours wrote
board.fence()
assert board.array.tolist() == list(range(me - comm.node_rank, me - comm.node_rank + comm.node_size))
assert comm.claim() or comm.node_size > 1
comm.barrier()
shared.free()
comm.close()
again = get_comm()
assert again.bcast(3) == 3
"""


@pytest.mark.mpi
@pytest.mark.parametrize("node", [[], ["1"], ["3"]], ids=["one node", "a rank per node", "uneven nodes"])
def test_every_exchange_on_four_ranks(node: list[str]) -> None:
    done = run_mpi(4, "-c", _EXCHANGES, "4", *node)
    assert done.returncode == 0, done.stderr


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_exchange_on_few_ranks(ranks: int) -> None:
    done = run_mpi(ranks, "-c", _EXCHANGES, str(ranks))
    assert done.returncode == 0, done.stderr


@pytest.mark.mpi
def test_sums_have_the_same_bits_for_every_number_of_ranks() -> None:
    runs = [run_alone("-c", _SUMS), *(run_mpi(n, "-c", _SUMS) for n in (1, 2, 3, 4)), run_mpi(4, "-c", _SUMS, "2")]
    assert [run.returncode for run in runs] == [0] * len(runs), [run.stderr for run in runs]
    digests = {run.stdout.strip() for run in runs}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_without_an_mpi_library_the_serial_twin_serves() -> None:
    code = "from hpcsort.parallel import get_comm; print(type(get_comm()).__name__, get_comm().size)"
    done = run_alone("-c", code, env={"MPI4PY_MPIABI": "", "MPI4PY_LIBMPI": os.devnull})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["SerialComm", "1"]


def test_serial_twin_returns_what_it_is_given() -> None:
    comm = get_comm(serial=True)
    assert isinstance(comm, SerialComm)
    assert (comm.rank, comm.size, comm.node_rank, comm.node_size, comm.is_root) == (0, 1, 0, 1, True)
    assert (comm.bcast(3), comm.gather(3), comm.allgather(3), comm.scatter([3]), comm.max(3)) == (3, [3], [3], 3, 3)
    rows = np.arange(6.0).reshape(3, 2)
    joined = comm.allgather_rows(rows, [3])
    assert np.array_equal(joined, rows)
    assert not np.shares_memory(joined, rows)


def test_serial_shared_array_is_aligned_and_read_only() -> None:
    with get_comm(serial=True) as comm:
        shared = comm.shared_array((3, 5), np.float32)
        assert shared.array.ctypes.data % 64 == 0
        assert not shared.array.flags.writeable
        shared.publish(np.full((3, 5), 2.0))
        shared.fence()
        assert (shared.array == 2).all()
        with pytest.raises(ValueError, match="shape"):
            shared.publish(np.ones(5))
        shared.free()


def test_misuse_is_refused() -> None:
    comm = SerialComm()
    with pytest.raises(TypeError, match="float32"):
        comm.sum_exact(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="rank 0 holds 3 rows"):
        comm.allgather_rows(np.zeros((3, 2)), [2])
    with pytest.raises(ValueError, match="2 row counts"):
        comm.gather_rows(np.zeros((3, 2)), [3, 0])
    with pytest.raises(ValueError, match="one element per rank"):
        comm.scatter([1, 2])


def test_sums_never_keep_a_negative_zero() -> None:
    # -0.0 alone, but 0.0 + -0.0 = 0.0 on two ranks: one rank must say 0.0 as well
    assert not np.signbit(SerialComm().sum_exact(np.array([-0.0]))).any()
