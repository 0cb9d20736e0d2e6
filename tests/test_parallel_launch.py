"""Starting with the wrong launcher, and ending together after an error."""

from __future__ import annotations

import time

import pytest
from mpi_helpers import run_alone, run_mpi

from hpcsort.errors import InputError, LaunchError
from hpcsort.parallel import SerialComm, abort_on_error, check_launch, raise_together, together

_FAIL = """
import sys
from hpcsort.errors import InputError
from hpcsort.parallel import abort_on_error, check_launch, get_comm, raise_together, together
kind, comm = sys.argv[1], get_comm()
with abort_on_error(comm):
    check_launch(comm)
    if kind == "everywhere":
        raise InputError("row 7 is bad")
    if kind == "together":
        with together(comm):
            if comm.rank > 0:
                raise InputError(f"row {comm.rank} is bad")
        print("not reached")
    if comm.rank == 1:
        if kind == "alone":
            raise InputError("row 7 is bad")
        if kind == "bug":
            [].pop()
        if kind == "interrupt":
            raise KeyboardInterrupt
        if kind == "exit":
            sys.exit(9)
    comm.barrier()
if comm.is_root:
    print("done")
"""


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("alone", 3, "hpcsort: error: row 7 is bad (rank 1 of 3)"),
        ("everywhere", 3, "hpcsort: error: row 7 is bad (rank 0 of 3)"),
        ("together", 3, "hpcsort: error: row 1 is bad"),
        ("bug", 70, "hpcsort: internal error: IndexError: pop from empty list (rank 1 of 3)"),
        ("interrupt", 130, "hpcsort: interrupted (rank 1 of 3)"),
    ],
)
def test_an_error_ends_all_ranks_with_one_message(kind: str, code: int, message: str) -> None:
    start = time.monotonic()
    done = run_mpi(3, "-c", _FAIL, kind, timeout_s=20)
    assert time.monotonic() - start < 20
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert lines.count(message) == 1, done.stderr
    assert sum("hpcsort: " in line for line in lines) == 1, done.stderr
    assert ("Traceback" in done.stderr) == (kind == "bug")
    if kind != "bug":
        assert lines == [message]
    assert done.stdout == ""


@pytest.mark.mpi
def test_exit_of_one_rank_ends_all_ranks() -> None:
    assert run_mpi(2, "-c", _FAIL, "exit", timeout_s=20).returncode == 9


@pytest.mark.mpi
def test_agreeing_launcher_is_accepted() -> None:
    done = run_mpi(2, "-c", _FAIL, "nothing")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(
    "env",
    [
        {"PMI_SIZE": "4"},
        {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
        {"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"},
    ],
)
def test_launcher_of_another_mpi_is_refused_with_the_cure(env: dict[str, str]) -> None:
    done = run_alone("-c", _FAIL, "nothing", env=env)
    assert done.returncode == LaunchError.exit_code
    assert len(done.stderr.splitlines()) == 1
    for word in ("=4", "mpiexec", "MPI4PY_LIBMPI"):
        assert word in done.stderr


def test_only_the_first_of_many_singletons_speaks() -> None:
    done = run_alone("-c", _FAIL, "nothing", env={"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"})
    assert (done.returncode, done.stderr) == (LaunchError.exit_code, "")


class _Sized(SerialComm):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


@pytest.mark.parametrize(
    ("size", "env", "is_fine"),
    [
        (1, {}, True),
        (1, {"SLURM_NTASKS": "8"}, True),  # a plain command inside an allocation
        (1, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, True),  # the batch script itself
        (1, {"PMI_SIZE": "1"}, True),
        (8, {"SLURM_NTASKS": "8", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}, True),
        (4, {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}, True),
        (8, {"PMI_SIZE": "8", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, True),
        (1, {"PMI_SIZE": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, False),
        (4, {"PMI_SIZE": "1", "OMPI_COMM_WORLD_SIZE": "4"}, True),  # mpirun started by a process of mpiexec
        (1, {"PMI_SIZE": "1", "OMPI_COMM_WORLD_SIZE": "4"}, False),
        (2, {"PMI_SIZE": "4"}, False),
    ],
)
def test_which_launches_are_refused(size: int, env: dict[str, str], is_fine: bool) -> None:
    if is_fine:
        check_launch(_Sized(size), env)
        return
    with pytest.raises(LaunchError, match=str(size)):
        check_launch(_Sized(size), env)


def test_one_rank_leaves_by_system_exit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave, abort_on_error(SerialComm()):
        raise InputError("row 7 is bad")
    assert leave.value.code == 3
    assert capsys.readouterr().err == "hpcsort: error: row 7 is bad\n"


def test_success_passes_through() -> None:
    with abort_on_error(SerialComm()):
        pass
    with pytest.raises(SystemExit) as leave, abort_on_error(SerialComm()):
        raise SystemExit(0)
    assert leave.value.code == 0


def test_together_keeps_the_kind_of_an_error() -> None:
    raise_together(SerialComm(), None)
    with pytest.raises(InputError, match="row 7"), together(SerialComm()):
        raise InputError("row 7")
    with pytest.raises(RuntimeError, match="KeyError on rank 0: 'x'"), together(SerialComm()):
        raise KeyError("x")
