"""What a run tells people."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from hpcsort.errors import OutputError
from hpcsort.parallel import Progress, SerialComm, Stage, StoryLog, peak_memory_GB


class _Second(SerialComm):
    def __init__(self) -> None:
        super().__init__()
        self.rank, self.size = 1, 2


def test_story_goes_to_the_file_and_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("Read 7 particles.", "Two\nlines."):
        with StoryLog(tmp_path / "log.txt") as log:
            log.tell(text)
    story = (tmp_path / "log.txt").read_text()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", line) for line in story.splitlines()] == [
        "Read 7 particles.",
        "Two",
        "lines.",
    ]
    assert capsys.readouterr().out == story


def test_quiet_and_other_ranks_print_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StoryLog(tmp_path / "log.txt", quiet=True) as log:
        log("Only in the file.")
    with StoryLog(tmp_path / "none.txt", comm=_Second()) as log:
        log("Nowhere.")
    with Progress("iteration", 1, comm=_Second()) as progress:
        progress.step()
    with Progress("iteration", 1, quiet=True) as progress:
        progress.step()
    assert capsys.readouterr().out == ""
    assert "Only" in (tmp_path / "log.txt").read_text()
    assert not (tmp_path / "none.txt").exists()


def test_log_file_that_cannot_be_written_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another folder"):
        StoryLog(tmp_path / "no" / "log.txt")


def test_progress_prints_plain_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("iteration", 100) as progress:
        for step in range(100):
            progress.step(note=f"{step} % changed")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"iteration 100 of 100, \d+ s: 99 % changed", lines[0])
    with Progress("iteration", 3, interval_s=0) as progress:
        progress.step()
        progress.step(2)
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "iteration 1 of 3",
        "iteration 3 of 3",
    ]


def test_progress_moves_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress("iteration", 2) as progress:
        progress.step(2, note="0 % changed")
    assert "2/2" in capsys.readouterr().out


def test_stages_add_up() -> None:
    times: dict[str, float] = {}
    for _ in range(2):
        with Stage("wait", times):
            time.sleep(0.01)
    with Stage("nothing", times):
        pass
    assert list(times) == ["wait", "nothing"]
    assert times["wait"] >= 0.02 > times["nothing"] >= 0


def test_peak_memory_grows_with_what_is_used() -> None:
    before = peak_memory_GB()
    assert 0.01 < before < 1000
    held = bytearray(300_000_000)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_memory_GB(SerialComm()) >= min(before, 0.3)
    assert peak_memory_GB() >= 0.3
