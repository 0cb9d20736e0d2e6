"""Ranks that die or do not answer: who it was is said, all end soon, and nothing is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from mpi_helpers import find_mpiexec, run_alone, run_mpi

from hpcsort.parallel import SerialComm, watch_ranks

_WATCHED = """
import os, signal, sys, time
from pathlib import Path
from hpcsort.errors import InputError
from hpcsort.parallel import MpiComm, abort_on_error, together, watch_ranks
kind, folder, per_node = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None
comm = MpiComm(per_node)
with abort_on_error(comm):
    with watch_ranks(
        comm, minutes=0.05, log=folder / "log.txt", ended=folder / "ended", lock=folder / "lock",
        next_step="start again",
    ) as watched:
        watched.enter_phase("counting sheep")
        watched.barrier()
        if watched.rank == 1:
            if kind == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "leaves":
                os._exit(3)
            if kind == "hangs":
                time.sleep(1000)
            if kind == "is stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            if kind == "fails":
                raise InputError("row 7 is bad")
            if kind == "works":
                for _ in range(50):
                    time.sleep(0.1)
                    watched.beat()
        if kind == "fails together":
            with together(watched):
                raise InputError("row 7 is bad")
        watched.barrier()
    if comm.is_root:
        print("done")
comm.close()
"""


def _guards() -> set[int]:
    """Guard processes on this machine."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"parallel/_guard.py") for word in words):
            found.add(int(place.parent.name))
    return found


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("dies", "has died"),
        ("leaves", "has died"),
        ("hangs", "has not answered for 0.05 minutes"),
        ("is stopped", "has not answered for 0.05 minutes"),
    ],
)
def test_a_missing_rank_ends_all_with_its_name(kind: str, said: str, tmp_path: Path) -> None:
    find_mpiexec()
    (tmp_path / "lock").touch()
    start = time.monotonic()
    done = run_mpi(3, "-c", _WATCHED, kind, str(tmp_path))
    assert time.monotonic() - start < 30
    assert done.returncode != 0
    assert "done" not in done.stdout
    told = [line for line in done.stderr.splitlines() if line.startswith("hpcsort: error")]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("hpcsort: error: rank 1 (process ")
    assert f"at: counting sheep) {said}; start again" in told[0]
    assert told[0].removeprefix("hpcsort: error: ") in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "ended").exists(), "other nodes are told"


@pytest.mark.mpi
def test_ranks_of_another_node_end_too(tmp_path: Path) -> None:
    find_mpiexec()
    (tmp_path / "lock").touch()
    # Three nodes of one rank each: only that of rank 1 sees its rank stand still.
    done = run_mpi(3, "-c", _WATCHED, "is stopped", str(tmp_path), "1")
    assert done.returncode != 0
    assert done.stderr.count("rank 1 (process ") == 1


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["fails", "fails together"])
def test_an_error_is_told_once_and_not_by_the_guard(kind: str, tmp_path: Path) -> None:
    find_mpiexec()
    done = run_mpi(3, "-c", _WATCHED, kind, str(tmp_path))
    assert done.returncode == 3
    assert [line for line in done.stderr.splitlines() if "hpcsort" in line and "row 7 is bad" in line]
    assert done.stderr.count("row 7 is bad") == 1
    assert "has died" not in done.stderr
    assert not (tmp_path / "log.txt").exists()


@pytest.mark.mpi
def test_who_waits_or_works_is_left_alone_and_nothing_is_left(tmp_path: Path) -> None:
    find_mpiexec()
    memory, before = set(Path("/dev/shm").glob("*")), _guards()
    (tmp_path / "lock").touch()
    os.utime(tmp_path / "lock", (0, 0))
    env = {"TMPDIR": str(tmp_path)}
    done = run_mpi(3, "-c", _WATCHED, "works", str(tmp_path), env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert done.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}
    assert (tmp_path / "lock").stat().st_mtime > 0, "it is touched"
    assert set(Path("/dev/shm").glob("*")) <= memory
    assert _guards() <= before


def test_one_process_is_watched_as_well(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from hpcsort.parallel import SerialComm, watch_ranks\n"
        "at = Path(sys.argv[1])\n"
        "with watch_ranks(SerialComm(), minutes=1, log=at / 'log', ended=at / 'e', lock=at / 'l', next_step='go on'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = run_alone("-c", code, str(tmp_path))
    assert done.returncode == -9
    assert "at: start) has died; go on" in done.stderr


def test_an_exception_ends_the_watch_and_not_the_process(tmp_path: Path) -> None:
    before = _guards()
    paths = {name: tmp_path / name for name in ("log", "ended", "lock")}

    def fail() -> None:
        with watch_ranks(SerialComm(), minutes=1, next_step="", **paths) as watched:
            assert watched.bcast(3) == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    deadline = time.monotonic() + 10
    while _guards() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _guards() <= before
    assert not paths["log"].exists()
