"""Sorts that are ended at random moments, and go on: the same bytes as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from mpi_helpers import find_mpiexec, run_alone, run_mpi
from sort3d_runs import digests, edit_table, simulate_small

from hpcsort.checkpoints import FolderLock
from hpcsort.errors import InputError, OptionError, OutputError, StoppedError
from hpcsort.simulation import SimulationResult

_SCRIPT = str(Path(__file__).with_name("dying.py"))
_WORDS = ("--max-groups", "2", "--depth-order", "1", "--components", "1", "--nxinit", "14", "--quiet")
_EVERY_STEP = ("--checkpoint-minutes", "0")
_PARTICLES = 180
_RUNS = 20
_QUICK = 3
"""Number of sorts that are killed: in all, and in the default run of the suite."""


def run_dying(ranks: int, told: dict[str, object], *words: str, timeout_s: float = 90.0) -> CompletedProcess[str]:
    """Run `hpcsort WORDS` on so many ranks, 0 without a launcher; ``told`` is what `dying` is told."""
    if ranks:
        return run_mpi(ranks, _SCRIPT, json.dumps(told), *words, timeout_s=timeout_s)
    return run_alone(_SCRIPT, json.dumps(told), *words, timeout_s=timeout_s)


NEVER: dict[str, object] = {"rank": 0, "how": "fail"}
"""No moment is told, so it does not fail."""


class Reference:
    """A sort that was not disturbed."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.made: SimulationResult = simulate_small(folder / "data", _PARTICLES)
        self.words = ("sort3d", "--instack", str(self.made.star), *_WORDS, *more)
        told = {"rank": 0, "how": "count", "to": str(folder / "count")}
        done = run_dying(0, told, *self.words, "--output-dir", str(folder / "out"))
        assert done.returncode == 0, done.stderr
        self.moments = int((folder / "count").read_text())
        self.out = folder / "out"
        self.digests = digests(self.out)

    def beside(self, name: str) -> Path:
        """Return a folder from which the stack is named as from the reference's."""
        return self.out.with_name(name)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(tmp_path_factory.mktemp("reference"))


def _runs() -> range:
    return range(_RUNS if os.environ.get("HPCSORT_LONG_TESTS") else _QUICK)


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.parametrize("number", _runs())
def test_a_killed_sort_goes_on_to_the_same_bytes(reference: Reference, number: int) -> None:
    find_mpiexec()
    draw = random.Random(number)
    out, ranks = reference.beside(f"killed{number}"), [0, 1, 2, 3, 4]
    begin = (*reference.words, *_EVERY_STEP, "--output-dir", str(out), "--resume")
    for _ in range(draw.choice([1, 1, 2, 3])):
        size = draw.choice(ranks)
        told = {"rank": draw.randrange(max(size, 1)), "how": "kill", "note": draw.randrange(3, reference.moments)}
        ended = run_dying(size, told, *begin)
        # The last of several deaths may have been meant for a moment that did not come any more.
        assert ended.returncode == 0 or "has died; go on with: hpcsort resume" in ended.stderr
    last = run_dying(draw.choice(ranks), NEVER, *begin)
    assert last.returncode == 0, last.stderr
    assert digests(out) == reference.digests


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.parametrize("name", ["TERM", "USR1"])
def test_a_signal_ends_a_sort_in_order(reference: Reference, name: str) -> None:
    find_mpiexec()
    out = reference.beside(name)
    told = {"rank": 1, "how": name, "phase": "generation 0"}
    ended = run_dying(2, told, *reference.words, "--output-dir", str(out))
    assert ended.returncode == StoppedError.exit_code
    assert ended.stderr.count("hpcsort: error") == 1
    assert f"stopped by SIG{name} after a checkpoint; go on with: hpcsort resume {out}" in ended.stderr
    checkpoint = out / "checkpoint"
    assert {path.name for path in checkpoint.iterdir()} == {"job.json", "steps.checkpoint"}
    # For job scripts the same command serves as well.
    last = run_dying(3, NEVER, *reference.words, "--output-dir", str(out), "--resume")
    assert last.returncode == 0, last.stderr
    assert "Going on from a checkpoint" in (out / "log.txt").read_text()
    assert digests(out) == reference.digests
    assert {path.name for path in checkpoint.iterdir()} == {"job.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "phase"),
    [
        (("--engine", "maps"), "generation 0, layer 0"),
        (("--engine", "maps", "--use-umat"), "generation 0, layer 0"),
        (("--null", "2"), "null set 2"),
        (("--auto-focus",), "ball (3)"),
    ],
)
def test_other_ways_go_on_too(tmp_path: Path, more: tuple[str, ...], phase: str) -> None:
    reference = Reference(tmp_path / "reference", *more)
    out = reference.beside("stopped")
    ended = run_dying(0, {"rank": 0, "how": "TERM", "phase": phase}, *reference.words, "--output-dir", str(out))
    assert ended.returncode == StoppedError.exit_code, ended.stderr
    last = run_dying(0, NEVER, "resume", str(out))
    assert last.returncode == 0, last.stderr
    assert digests(out) == reference.digests


def test_a_finished_sort_is_left_alone(reference: Reference) -> None:
    before = {path: path.stat().st_mtime_ns for path in reference.out.rglob("*")}
    for words in (("resume", str(reference.out)), (*reference.words, "--output-dir", str(reference.out), "--resume")):
        done = run_dying(0, NEVER, *words)
        assert done.returncode == 0, done.stderr
        assert ("has come to its end; there is nothing to do" in done.stdout) == ("--quiet" not in words)
    assert {path: path.stat().st_mtime_ns for path in reference.out.rglob("*")} == before


class _Stopped:
    """A sort that was stopped, and what its folder is asked for."""

    def __init__(self, folder: Path) -> None:
        self.made = simulate_small(folder / "data", _PARTICLES)
        self.out = folder / "out"
        self.words = ("sort3d", "--instack", str(self.made.star), *_WORDS, "--output-dir", str(self.out))
        told = {"rank": 0, "how": "TERM", "phase": "generation 0"}
        assert run_dying(0, told, *self.words).returncode == StoppedError.exit_code

    def refuses(self, kind: type[Exception], *patterns: str, words: tuple[str, ...] = ()) -> None:
        done = run_dying(0, NEVER, *(words or ("resume", str(self.out))))
        assert done.returncode == kind.exit_code, done.stdout + done.stderr  # type: ignore[attr-defined]
        assert done.stderr.count("\n") == 1, done.stderr
        for pattern in patterns:
            assert pattern in done.stderr


@pytest.fixture
def stopped(tmp_path: Path) -> _Stopped:
    return _Stopped(tmp_path)


def test_what_has_changed_is_refused_by_name(stopped: _Stopped) -> None:
    job = stopped.out / "checkpoint" / "job.json"
    text = job.read_text()
    stopped.refuses(
        OptionError, "--seed was 0 when the run began and is 3 now", words=(*stopped.words, "--resume", "--seed", "3")
    )
    job.write_text(text.replace('"seed": 0', '"seed": 4'))
    stopped.refuses(OptionError, "--seed was 0", "is 4 now")
    record = json.loads(text)
    job.write_text(text)
    content = stopped.out / "checkpoint" / "steps.checkpoint"
    whole = content.read_bytes()
    content.write_bytes(whole[:-5])
    stopped.refuses(InputError, str(content), "SHA-256", "start the run anew with --overwrite")
    content.write_bytes(whole)
    edit_table(stopped.made, rlnAnglePsi=1.0)
    stopped.refuses(InputError, str(stopped.made.star), "has changed since the run began")
    assert json.loads(job.read_text()) == record


def test_a_changed_stack_is_refused_by_name(stopped: _Stopped) -> None:
    with stopped.made.stack.open("r+b") as stack:
        stack.seek(2000)
        byte = stack.read(1)[0]
        stack.seek(2000)
        stack.write(bytes([byte ^ 1]))
    stopped.refuses(InputError, str(stopped.made.stack), "has changed since the run began")


def test_another_version_is_refused_by_name(stopped: _Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcsort.checkpoints import job
    from hpcsort.parallel import SerialComm
    from hpcsort.sort3d import resume_sort

    monkeypatch.setattr(job, "__version__", "99.0")
    with pytest.raises(InputError, match=r"begun with version .* and cannot go on with 99\.0"):
        resume_sort(stopped.out, SerialComm())


def test_a_folder_without_a_sort_is_refused(tmp_path: Path) -> None:
    done = run_dying(0, NEVER, "resume", str(tmp_path))
    assert done.returncode == InputError.exit_code
    assert f"{tmp_path} holds no run that could go on" in done.stderr


def test_a_second_sort_in_the_folder_is_refused(stopped: _Stopped) -> None:
    lock = FolderLock(stopped.out / "checkpoint" / "lock")
    stopped.refuses(OutputError, f"is in use by process {os.getpid()} on ")
    stopped.refuses(OutputError, "is in use by", words=(*stopped.words, "--overwrite"))
    assert lock.path.exists()


def test_results_do_not_depend_on_checkpoints(reference: Reference) -> None:
    out = reference.beside("kept")
    done = run_dying(0, NEVER, *reference.words, *_EVERY_STEP, "--output-dir", str(out))
    assert done.returncode == 0, done.stderr
    assert digests(out) == reference.digests
    assert done.stderr == ""
