"""Memory that a node has, and memory that a run has used."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from mpi_helpers import run_alone

from hpcsort.parallel import SerialComm, memory, node_memory_GB, peak_memory_GB, peak_memory_of_node_GB

_MEMINFO = "MemTotal:       1000 kB\nMemFree:         10 kB\n"


def _least(root: Path, environment: dict[str, str] | None = None) -> int:
    return min(memory._limits(root, environment or {}))


def _write(root: Path, **files: str) -> None:
    for name, text in {"proc__meminfo": _MEMINFO, **files}.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_machine_without_limits(tmp_path: Path) -> None:
    _write(tmp_path)
    assert _least(tmp_path) == 1_024_000


def test_second_version_of_control_groups_holds_at_every_level(tmp_path: Path) -> None:
    files = {
        "proc__self__cgroup": "0::/slurm/job_7/step_0\n",
        "sys__fs__cgroup__slurm__job_7__step_0__memory_DOT_max": "max\n",
        "sys__fs__cgroup__slurm__job_7__memory_DOT_max": "400000\n",
        "sys__fs__cgroup__slurm__memory_DOT_max": "500000\n",
    }
    _write(tmp_path, **files)
    assert _least(tmp_path) == 400_000


def test_first_version_of_control_groups_and_its_word_for_no_limit(tmp_path: Path) -> None:
    files = {
        "proc__self__cgroup": "9:name=systemd:/\n4:cpu,memory:/container/abc\n",
        "sys__fs__cgroup__memory__memory_DOT_limit_in_bytes": "9223372036854771712\n",
    }
    _write(tmp_path, **files)
    assert _least(tmp_path) == 1_024_000
    # inside a container its own group is mounted as the root
    _write(tmp_path, sys__fs__cgroup__memory__memory_DOT_limit_in_bytes="300000\n")
    assert _least(tmp_path) == 300_000


@pytest.mark.parametrize(
    ("environment", "bytes_"),
    [
        ({"SLURM_MEM_PER_NODE": "100"}, 100 << 20),
        ({"SLURM_MEM_PER_CPU": "20", "SLURM_CPUS_ON_NODE": "4"}, 80 << 20),
        ({"SLURM_MEM_PER_NODE": "0"}, 1024 << 20),
        ({"SLURM_MEM_PER_CPU": "20"}, 1024 << 20),
        ({"SLURM_MEM_PER_NODE": "much"}, 1024 << 20),
    ],
)
def test_what_slurm_granted(tmp_path: Path, environment: dict[str, str], bytes_: int) -> None:
    _write(tmp_path, proc__meminfo=f"MemTotal: {1 << 20} kB\n")
    assert _least(tmp_path, environment) == bytes_


def test_this_machine_has_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    assert 0 < node_memory_GB() <= machine
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    assert node_memory_GB() == pytest.approx(2**20 / 1e9)


class _Three(SerialComm):
    """Two ranks on one host and one on another, each with this process's memory times a factor."""

    def allgather(self, obj: object) -> list[object]:
        assert isinstance(obj, tuple)
        _, private, shared = obj
        return [("a", private, shared), ("b", 1.5 * private, shared), ("a", private, 0.5 * shared)]


def test_peak_of_the_fullest_node_counts_shared_memory_once() -> None:
    ballast = np.ones(10_000_000)  # 80 MB that nobody shares
    alone, three = peak_memory_of_node_GB(SerialComm()), peak_memory_of_node_GB(_Three())
    assert alone == pytest.approx(peak_memory_GB(), rel=1e-3)
    shared = memory._shared_memory_GB()
    assert three == pytest.approx(2 * (alone - shared) + shared, rel=0.02)
    assert three > alone + ballast.nbytes / 1e9


def test_what_the_parent_held_does_not_count() -> None:
    """A child of a large process is small: some systems hand the parent's peak down."""
    code = (
        "import subprocess, sys; held = b'x' * 400_000_000\n"
        "ask = 'from hpcsort.parallel.memory import peak_memory_GB; print(peak_memory_GB())'\n"
        "print(subprocess.run([sys.executable, '-c', ask], capture_output=True, text=True, check=True).stdout)\n"
    )
    ran = run_alone("-c", code)
    assert ran.returncode == 0, ran.stderr
    assert 0.01 < float(ran.stdout) < 0.35
