"""Running a few lines of Python on several MPI ranks, without leaving anything behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import hpcsort

_SHM = Path("/dev/shm")
_ROOT = Path(hpcsort.__file__).resolve().parents[1]


def find_mpiexec() -> str:
    """Path of the launcher that belongs to this Python; skips the test where there is none."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("no mpiexec beside this Python or on the PATH")
    pytest.importorskip("mpi4py")
    return found


def run_mpi(
    ranks: int, *arguments: str, timeout_s: float = 60.0, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` (for example "-c", code) on so many ranks and return its output and exit code."""
    return _run([find_mpiexec(), "-n", str(ranks), sys.executable, *arguments], timeout_s, env, cwd)


def run_alone(
    *arguments: str, timeout_s: float = 60.0, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` without a launcher."""
    return _run([sys.executable, *arguments], timeout_s, env, cwd)


def _run(
    command: Sequence[str], timeout_s: float, env: Mapping[str, str] | None, cwd: Path | None
) -> subprocess.CompletedProcess[str]:
    before = _segments()
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        # The package that the tests imported, not the one in the working folder that may lack its compiled kernels.
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", **(env or {})},
        start_new_session=True,  # its own process group, so that a time-out ends it and nothing else
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{' '.join(command[:4])} ... did not end within {timeout_s} s\n{out}\n{err}")
    finally:
        _remove_orphans(before)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _segments() -> set[Path]:
    return set(_SHM.glob("mpich_shm_*")) if _SHM.is_dir() else set()


def _remove_orphans(before: set[Path]) -> None:
    """Remove the segments that an aborted run left: new, ours, and mapped by no process any more."""
    new = _segments() - before
    if not new:
        return
    time.sleep(0.3)  # a run beside this one maps its segment directly after making it
    mapped = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:
            continue
        mapped |= {segment for segment in new if segment.name in text}
    for segment in new - mapped:
        try:
            if segment.stat().st_uid == os.getuid():
                segment.unlink()
        except FileNotFoundError:
            pass
