"""The scripts of jobs/, filled in and submitted by `hpcsort submit`, on a real SLURM with four emulated nodes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import mpi_helpers
import pytest
from click.testing import CliRunner
from mpi_helpers import find_mpiexec, run_alone
from slurm_cluster import reason_against_slurm, slurm_cluster
from sort3d_runs import MAIN, digests, simulate_small

import hpcsort
from hpcsort.cli.submit import command as submit
from hpcsort.errors import LaunchError

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.slow,
    pytest.mark.skipif(bool(reason_against_slurm()), reason=reason_against_slurm()),
]

_SORT = ("--max-groups", "2", "--depth-order", "1", "--components", "1", "--nxinit", "14", "--checkpoint-minutes", "0")
_PARTICLES = 100
_LIMIT_S = 90.0


class Site:
    """A cluster, a project folder with a small stack, and one sort of it by one process alone."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self._variables = variables
        self.star = simulate_small(folder / "data", _PARTICLES).star
        self.environment = folder / "environment"
        self._install()
        self.alone("sort3d", "--output-dir", "alone/out", *_SORT)
        self.expected = digests(folder / "alone" / "out")

    def _install(self) -> None:
        """Make what a virtual environment would be to a script: the package that is tested, and its launcher."""
        programs = {"hpcsort": [sys.executable, "-P", "-c", MAIN], "mpiexec": [find_mpiexec()]}
        (self.environment / "bin").mkdir(parents=True)
        for name, words in programs.items():
            path = self.environment / "bin" / name
            root = shlex.quote(str(Path(hpcsort.__file__).parents[1]))
            path.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {shlex.join(words)} "$@"\n')
            path.chmod(0o755)

    def alone(self, *words: str) -> None:
        """Run hpcsort in one process, without SLURM."""
        done = run_alone("-c", MAIN, *words, "--instack", str(self.star), cwd=self.folder)
        assert done.returncode == 0, done.stderr

    def run(self, *words: str) -> str:
        """Run a command of SLURM and return what it prints."""
        done = subprocess.run(words, env=self._variables, cwd=self.folder, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def submit(self, program: str, *words: str, cwd: Path | None = None) -> str:
        """Run `hpcsort submit` and return the number of the job."""
        common = ("--environment", str(self.environment), "--memory", "1.5", "--instack", str(self.star))
        with chdir(cwd or self.folder):
            done = CliRunner(env=self._variables).invoke(submit, [program, *common, *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output.rpartition(" as job ")[2].strip(". \n")

    def state(self, job: str) -> dict[str, str]:
        """What SLURM tells of a job or of one task of an array."""
        told = self.run("scontrol", "show", "job", "--oneliner", job)
        return dict(word.split("=", 1) for word in told.split() if "=" in word)

    def await_end(self, job: str, wanted: str = "COMPLETED") -> dict[str, str]:
        _await(lambda: self.state(job)["JobState"] in {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"})
        state = self.state(job)
        log = Path(state["StdOut"])
        assert state["JobState"] == wanted, log.read_text() if log.exists() else state
        return state


def _await(reached: Callable[[], bool], every_s: float = 0.3) -> None:
    end = time.monotonic() + _LIMIT_S
    while not reached():
        assert time.monotonic() < end, f"not reached in {_LIMIT_S} s"
        time.sleep(every_s)


def _await_file(path: Path) -> None:
    """Wait for what a small job makes soon before its end."""
    _await(path.exists, every_s=0.01)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, before = tmp_path_factory.mktemp("slurm"), mpi_helpers._segments()
    with slurm_cluster(folder / "cluster") as variables:
        yield Site(folder / "project", variables)
    # a job that is cancelled leaves its segment of shared memory
    mpi_helpers._remove_orphans(before)


def test_sort3d_on_four_nodes_gives_the_bytes_of_one_process(site: Site) -> None:
    job = site.submit(
        "sort3d", "--output-dir", "srun/out", "--nodes", "4", "--tasks-per-node", "1", "--launcher", "srun --mpi=pmi2",
        *_SORT,
    )  # fmt: skip
    state = site.await_end(job)
    assert state["NumNodes"] == "4"
    out = site.folder / "srun" / "out"
    assert json.loads((out / "run.json").read_text())["ranks"] == 4
    assert digests(out) == site.expected


def test_match_on_four_nodes_with_a_scratch_copy_gives_the_bytes_of_one_process(site: Site) -> None:
    words = ("--ref", str(site.star.with_name("state_00.mrc")), "--local", "--angle-range", "4", "--shift-range", "1")
    site.alone("match", "--output", "alone/matched.star", *words)
    job = site.submit(
        "match", "--output", "srun/matched.star", "--nodes", "4", "--tasks-per-node", "1", "--launcher", "mpiexec",
        "--scratch", str(site.folder / "local disk"), *words,
    )  # fmt: skip
    copy = site.folder / "local disk" / f"hpcsort_{job}" / str(site.star.with_suffix(".mrcs")).lstrip("/")
    _await_file(copy)
    site.await_end(job)
    assert not any((site.folder / "local disk").iterdir())
    for name in ("matched.star", "matched_smears.h5"):
        assert (site.folder / "srun" / name).read_bytes() == (site.folder / "alone" / name).read_bytes()


def test_a_job_that_is_told_of_its_end_goes_on_in_the_next_to_the_same_bytes(site: Site) -> None:
    out = site.folder / "stopped" / "out"
    nodes = ("--nodes", "2", "--tasks-per-node", "1", "--launcher", "mpiexec")
    job = site.submit("sort3d", "--output-dir", "stopped/out", *nodes, *_SORT)
    _await_file(out / "checkpoint" / "job.json")
    # what SLURM sends before the time limit
    site.run("scancel", "--batch", "--signal=USR1", job)
    _await(lambda: int(site.state(job)["Restarts"]) == 1)
    site.await_end(job)
    assert "Going on from a checkpoint of" in (out / "log.txt").read_text()
    assert digests(out) == site.expected


def test_an_array_of_seeds_runs_each_in_its_folder_whatever_the_names(site: Site) -> None:
    folder = site.folder / 'it\'s my "best" #1 100% %j $HOME'
    folder.mkdir()
    job = site.submit(
        "cl2d", "--output-dir", "o u't", "--seeds", "2", "--seed", "7", "--job-name", 'a "b" \\c #d', "--launcher",
        "mpiexec", "--tasks-per-node", "1", "--classes", "2", "--initial-classes", "2", "--iterations", "1", cwd=folder,
    )  # fmt: skip
    for seed in (7, 8):
        state = site.await_end(f"{job}_{seed}")
        assert (folder / f"o u't_{job}_{seed}.out").is_file(), state
        record = json.loads((folder / "o u't" / f"seed_{seed}" / "checkpoint" / "job.json").read_text())
        assert record["finished"]
        assert record["options"]["seed"] == seed


def test_a_cancelled_job_is_not_queued_again(site: Site) -> None:
    out = site.folder / "cancelled" / "out"
    job = site.submit("sort3d", "--output-dir", str(out), "--tasks-per-node", "1", "--launcher", "mpiexec", *_SORT)
    _await_file(out / "checkpoint" / "job.json")
    site.run("scancel", job)
    site.await_end(job, "CANCELLED")
    _await(lambda: not (out / "checkpoint" / "lock").exists())
    assert site.state(job)["JobState"] == "CANCELLED"


def test_sbatch_says_itself_why_it_refuses(site: Site) -> None:
    with pytest.raises(LaunchError, match=r"sbatch refused the job: .*invalid partition specified: nowhere"):
        site.submit("sort3d", "--output-dir", "refused", "--queue", "nowhere")
    assert not (site.folder / "refused.slurm").exists()
