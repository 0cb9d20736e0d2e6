"""Extractions that are ended between two pairs of micrographs, and go on: the same bytes as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from mpi_helpers import find_mpiexec, run_alone, run_mpi
from pairs_cases import digests, options_of, write_micrograph, write_set

from hpcsort.checkpoints import read_record
from hpcsort.errors import InputError, OptionError, OutputError, StoppedError
from hpcsort.pairs import extract_pairs, program, resume_pairs
from hpcsort.parallel import SerialComm

_DYING = str(Path(__file__).with_name("dying.py"))
_NEVER: dict[str, object] = {"rank": 0, "how": "fail"}
_PAIRS = 5
_PARTS = ".hpcsort_parts"
_FIRST_DONE = 7
"""Number of the note that rank 0 makes after its first pair."""


def _run(ranks: int, told: dict[str, object], *words: str) -> CompletedProcess[str]:
    """Run `hpcsort WORDS` on so many ranks, 0 without a launcher; ``told`` is what `dying` is told."""
    if ranks:
        return run_mpi(ranks, _DYING, json.dumps(told), *words, timeout_s=90.0)
    return run_alone(_DYING, json.dumps(told), *words, timeout_s=90.0)


class _Made:
    """A set of micrographs and an extraction of it that was not disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = write_set(folder, pairs=_PAIRS)
        # a note and a loss, which have to survive as well
        write_micrograph(folder / "mics/m1_t.mrc", np.full((128, 128), np.nan))
        self.words = ["extract-pairs", "--pairs", str(self.made["pairs"]), "--coordinates", str(self.made["picks"])]
        self.words += ["--box", "16", "--invert", "--ctf-tilted", str(self.made["ctf_t"]), "--phase-flip", "--quiet"]
        self.out = folder / "out"
        done = _run(0, _NEVER, *self.words, "--output", str(self.out))
        assert done.returncode == 0, done.stderr
        self.digests = digests(self.out)
        assert len(self.digests) == 18


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> _Made:
    return _Made(tmp_path_factory.mktemp("whole"))


@pytest.mark.mpi
@pytest.mark.parametrize(("ranks", "others", "name"), [(0, 3, "TERM"), (2, 0, "USR1")])
def test_a_killed_extraction_goes_on_to_the_same_bytes(whole: _Made, ranks: int, others: int, name: str) -> None:
    find_mpiexec()
    out = whole.folder / f"killed{ranks}"
    words = [*whole.words, "--output", str(out), "--resume"]
    ended = _run(ranks, {"rank": 0, "how": "kill", "note": _FIRST_DONE}, *words)
    assert ended.returncode != 0
    times = {path: path.stat().st_mtime_ns for path in (out / _PARTS).glob("*.pair")}
    assert 0 < len(times) < _PAIRS
    stopped = _run(others, {"rank": 0, "how": name, "phase": "extracting"}, *words)
    assert stopped.returncode == StoppedError.exit_code, stopped.stderr
    assert f"stopped by SIG{name}; go on with: hpcsort resume {out}" in stopped.stderr
    # what was done is not done again
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(list((out / _PARTS).glob("*.pair"))) > len(times)
    assert not (out / "tilted.star").exists()
    last = _run(0, _NEVER, *words)
    assert last.returncode == 0, last.stderr
    assert digests(out) == whole.digests
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"checkpoint", "report"}
    assert {path.name for path in (out / "checkpoint").iterdir()} == {"job.json"}


def _stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, after: int = 2) -> tuple[dict[str, Path], Path]:
    """An extraction that was stopped after some pairs, in this process."""
    made, out = write_set(folder, pairs=4), folder / "out"
    done: list[int] = []
    whole = program._worked_one

    def counted(*args: object) -> object:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(1)
        return whole(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(program, "_worked_one", counted)
        with pytest.raises(KeyboardInterrupt):
            extract_pairs(options_of(made, out), SerialComm())
    assert len(list((out / _PARTS).glob("*.pair"))) == after
    return made, out


def test_resume_of_a_folder_ends_with_the_same_bytes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, out = _stopped(tmp_path, monkeypatch)
    extract_pairs(options_of(made, tmp_path / "plain"), SerialComm())
    # damaged parts are made again
    state = sorted((out / _PARTS).glob("*.pair"))[0]
    state.write_bytes(state.read_bytes()[:-3])
    windows = out / _PARTS / "000001_tilted.raw"
    windows.write_bytes(windows.read_bytes()[:-4])
    result = resume_pairs(out, SerialComm(), checkpoint_minutes=None, watchdog_minutes=None)
    assert result is not None
    assert digests(out) == digests(tmp_path / "plain")
    assert not (out / _PARTS).exists()
    record = read_record(out)
    assert record is not None
    assert record.finished
    assert resume_pairs(out, SerialComm()) is None


def test_workers_and_ranks_may_be_others_but_results_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, out = _stopped(tmp_path, monkeypatch)
    with pytest.raises(OptionError, match="--box-px was 16 when the run began and is 12 now"):
        extract_pairs(options_of(made, out, resume=True, box_px=12), SerialComm())
    with pytest.raises(OutputError, match="holds a run that was stopped; go on with --resume"):
        extract_pairs(options_of(made, out), SerialComm())
    with pytest.raises(OptionError, match="--resume goes on with the run that --overwrite would replace"):
        options_of(made, out, resume=True, overwrite=True)
    result = extract_pairs(options_of(made, out, resume=True, workers=3), SerialComm())
    assert result is not None
    assert result.kept == 48


@pytest.mark.parametrize("what", ["micrograph", "coordinates"])
def test_inputs_that_have_changed_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    _, out = _stopped(tmp_path, monkeypatch)
    path = tmp_path / ("mics/m3_u.mrc" if what == "micrograph" else "picks/m3_u.pos")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"7" if what == "micrograph" else whole.replace(b" 000012 1 ", b" 000013 1 "))
    with pytest.raises(InputError, match=r"m3_u.* has changed since the run began"):
        resume_pairs(out, SerialComm())
    path.write_bytes(whole)
    assert resume_pairs(out, SerialComm()) is not None


def test_overwriting_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, out = _stopped(tmp_path, monkeypatch)
    result = extract_pairs(options_of(made, out, overwrite=True, box_px=12), SerialComm())
    assert result is not None
    extract_pairs(options_of(made, tmp_path / "plain", box_px=12), SerialComm())
    assert digests(out) == digests(tmp_path / "plain")


def test_a_folder_without_an_extraction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no extract-pairs that could go on"):
        resume_pairs(tmp_path, SerialComm())
