"""What befalls a sort: errors on one rank, a full disk, inputs that change; one message, no hang, checkpoints whole."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from mpi_helpers import find_mpiexec, run_alone
from sort3d_runs import digests
from test_resume import NEVER, Reference, run_dying

from hpcsort.checkpoints import read_checkpoint
from hpcsort.errors import InputError, OutputError

_EVERY_STEP = ("--checkpoint-minutes", "0")
_PHASES = [
    "reading and consensus",
    "generation 0, subspaces",
    "generation 0, mixtures",
    "generation 0, finishing",
    "generation 0, layer 0",
    "generation 0, within group 0",
    "probabilities",
    "final maps",
    "writing results",
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(tmp_path_factory.mktemp("faults"))


def _whole(out: Path) -> bool:
    """Whether the checkpoints of a folder can be read, the last among them."""
    found = read_checkpoint(out / "checkpoint" / "steps.checkpoint")
    return found is None or found[1] == ""


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.parametrize("how", ["fail", "kill"])
@pytest.mark.parametrize("phase", _PHASES if os.environ.get("HPCSORT_LONG_TESTS") else _PHASES[2::3])
def test_a_fault_of_one_rank_in_any_phase(reference: Reference, phase: str, how: str) -> None:
    find_mpiexec()
    # Only the first rank writes.
    rank = 0 if phase == "writing results" else 1
    out = reference.beside(f"{how}-{phase}".replace(" ", "-").replace(",", ""))
    begin = (*reference.words, *_EVERY_STEP, "--output-dir", str(out))
    start = time.monotonic()
    ended = run_dying(2, {"rank": rank, "how": how, "phase": phase}, *begin)
    assert time.monotonic() - start < 60
    assert ended.returncode == (70 if how == "fail" else 9), ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith("hpcsort")]
    assert len(lines) == 1, ended.stderr
    if how == "fail":
        assert re.fullmatch(
            rf"hpcsort: internal error: .*ZeroDivisionError.*: made for the test( \(rank {rank} of 2\))?",
            lines[0],
        )
    else:
        assert "has died; go on with: hpcsort resume" in lines[0]
        assert f"at: {phase}" in lines[0]
    assert _whole(out)
    last = run_dying(2, NEVER, *begin, "--resume")
    assert last.returncode == 0, last.stderr
    assert digests(out) == reference.digests


def test_a_full_disk_is_told_and_older_checkpoints_stay(reference: Reference) -> None:
    out = reference.beside("full")
    words = (*reference.words, *_EVERY_STEP, "--output-dir", str(out))
    # Smaller than a checkpoint, larger than the log.
    code = (
        "import resource, runpy, sys; from mpi4py import MPI\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = str(Path(__file__).with_name("dying.py"))
    done = run_alone("-c", code, script, json.dumps(NEVER), *words, timeout_s=100)
    assert done.returncode == OutputError.exit_code, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "cannot write" in done.stderr
    assert "file too large; free space" in done.stderr
    assert _whole(out)
    last = run_dying(0, NEVER, "resume", str(out))
    assert last.returncode == 0, last.stderr
    assert digests(out) == reference.digests


@pytest.mark.skipif(os.geteuid() == 0, reason="a folder without permission to write stops everyone but root")
def test_a_folder_that_cannot_be_written_is_told(reference: Reference) -> None:
    out = reference.beside("locked")
    out.mkdir(mode=0o500)
    done = run_dying(0, NEVER, *reference.words, "--output-dir", str(out))
    assert done.returncode == OutputError.exit_code
    assert f"cannot use the output folder {out}" in done.stderr


@pytest.mark.parametrize("place", ["a file", "a file system that takes no folders"])
def test_an_output_folder_that_cannot_be_is_told(reference: Reference, place: str) -> None:
    out = reference.made.star / "out" if place == "a file" else Path("/proc/hpcsort-out")
    done = run_dying(0, NEVER, *reference.words, "--output-dir", str(out))
    assert done.returncode == OutputError.exit_code
    assert f"cannot use the output folder {out}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


_MEDDLED = """
import sys, shutil, os
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
kind, victim = sys.argv.pop(1), Path(sys.argv.pop(1))
import small_chunks
from hpcsort.sort3d import loading, generations
weigh = generations._weigh
def meddle(*args):
    weigh(*args)
    if kind == "changes":
        with victim.open("r+b") as file:
            file.seek(1500)
            file.write(b"other")
    else:
        victim.rename(victim.with_suffix(".gone"))
generations._weigh = meddle
loading.deal_particles = small_chunks.deal_small_chunks
from hpcsort.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["changes", "vanishes"])
def test_an_input_that_is_meddled_with_during_the_run(tmp_path: Path, kind: str) -> None:
    reference = Reference(tmp_path)
    out, stack = reference.beside(kind), reference.made.stack
    whole = stack.read_bytes()
    words = (*reference.words, *_EVERY_STEP, "--output-dir", str(out))
    done = run_alone("-c", _MEDDLED, str(Path(__file__).parent), kind, str(stack), *words, timeout_s=100)
    assert done.returncode == InputError.exit_code, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert str(stack) in done.stderr
    assert not (out / "particles.star").exists(), "no result is made of two inputs"
    stack.unlink(missing_ok=True)
    stack.write_bytes(whole)
    last = run_dying(0, NEVER, "resume", str(out))
    assert last.returncode == 0, last.stderr
    assert digests(out) == reference.digests
