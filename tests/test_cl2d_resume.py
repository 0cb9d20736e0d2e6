"""A classification that is killed or stopped goes on to the same bytes, and its page shows what was found."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from cl2d_cases import Views, make_views
from mpi_helpers import find_mpiexec
from test_resume import NEVER, run_dying

from hpcsort.errors import OptionError, StoppedError

_WORDS = ("--classes", "4", "--initial-classes", "2", "--iterations", "4", "--quiet", "--robust", "--analyze-rejected")
_EVERY_STEP = ("--checkpoint-minutes", "0")


def _digests(out: Path) -> dict[str, str]:
    found = {path for path in out.rglob("*") if path.is_file() and path.parent.name != "checkpoint"}
    # log, record and pages tell times and ranks
    results = sorted(path for path in found if path.name not in {"log.txt", "run.json", "report.html"})
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in results}


class _Reference:
    def __init__(self, folder: Path) -> None:
        # Three chunks, so that ranks have some.
        self.views: Views = make_views(folder, 530, 3, snr=0.5, seed=5)
        self.folder = folder
        self.words = ("cl2d", "--instack", str(self.views.stack.with_suffix(".star")), *_WORDS)
        told = {"rank": 0, "how": "count", "to": str(folder / "count")}
        done = run_dying(0, told, *self.words, "--output-dir", str(folder / "out"))
        assert done.returncode == 0, done.stderr
        self.moments = int((folder / "count").read_text())
        self.digests = _digests(folder / "out")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> _Reference:
    return _Reference(tmp_path_factory.mktemp("cl2d"))


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_a_killed_classification_goes_on_to_the_same_bytes(reference: _Reference, number: int) -> None:
    find_mpiexec()
    draw = random.Random(number)
    out = reference.folder / f"killed{number}"
    begin = (*reference.words, *_EVERY_STEP, "--output-dir", str(out), "--resume")
    for size in (2, 0):
        told = {"rank": draw.randrange(max(size, 1)), "how": "kill", "note": draw.randrange(3, reference.moments)}
        ended = run_dying(size, told, *begin)
        assert ended.returncode == 0 or "has died; go on with: hpcsort resume" in ended.stderr
    last = run_dying(3, NEVER, *begin)
    assert last.returncode == 0, last.stderr
    assert _digests(out) == reference.digests


@pytest.mark.slow
def test_a_signal_ends_it_in_order_and_resume_goes_on(reference: _Reference) -> None:
    out = reference.folder / "stopped"
    ended = run_dying(0, {"rank": 0, "how": "TERM", "phase": "level 1"}, *reference.words, "--output-dir", str(out))
    assert ended.returncode == StoppedError.exit_code, ended.stderr
    assert (out / "level_00" / "particles.star").exists()
    changed = run_dying(0, NEVER, *reference.words, "--output-dir", str(out), "--resume", "--seed", "3")
    assert changed.returncode == OptionError.exit_code
    assert "--seed was 0 when the run began and is 3 now" in changed.stderr
    last = run_dying(0, NEVER, "resume", str(out))
    assert last.returncode == 0, last.stderr
    assert _digests(out) == reference.digests
    assert {path.name for path in (out / "checkpoint").iterdir()} == {"job.json"}
    again = run_dying(0, NEVER, "resume", str(out))
    assert "has come to its end; there is nothing to do" in again.stdout


def test_the_page_has_a_card_for_each_class(reference: _Reference) -> None:
    out = reference.folder / "out"
    page = (out / "report.html").read_text()
    told = json.loads((out / "level_01" / "level.json").read_text())
    assert page.count("<div class='card'>") == len(told["classes"]) == 4
    for row in told["classes"]:
        assert f"<b>class {row['class']}</b><br>{row['size']} particles" in page
    assert "<h2>Hierarchy</h2>" in page
