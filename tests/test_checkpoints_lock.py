"""One run at a time in a folder."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from mpi_helpers import run_alone

from hpcsort.checkpoints import FolderLock, lock
from hpcsort.errors import OutputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    return tmp_path / "run" / "checkpoint" / "lock"


def _rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_in_use_is_refused_by_name(path: Path) -> None:
    lock = FolderLock(path)
    with pytest.raises(OutputError, match=rf"{path.parent.parent} is in use by process {os.getpid()} on .* since 20"):
        FolderLock(path)
    lock.release()
    FolderLock(path).release()
    assert not path.exists()


def test_the_lock_of_a_process_that_has_ended_is_stale(path: Path) -> None:
    code = "import sys, pathlib; from hpcsort.checkpoints import FolderLock; FolderLock(pathlib.Path(sys.argv[1]))"
    assert run_alone("-c", code, str(path)).returncode == 0
    assert path.exists()
    FolderLock(path).release()
    assert list(path.parent.iterdir()) == []


def test_another_process_of_the_same_number_is_not_the_holder(path: Path) -> None:
    FolderLock(path)
    _rewrite(path, process_start="1")
    FolderLock(path).release()


def test_another_host_holds_it_as_long_as_it_touches_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_STALE_S", 4.0)
    FolderLock(path)
    _rewrite(path, host="elsewhere")
    touching = threading.Timer(1.5, os.utime, [path])
    touching.start()
    with pytest.raises(OutputError, match="on elsewhere since"):
        FolderLock(path)
    touching.join()
    start = time.monotonic()
    FolderLock(path).release()
    assert time.monotonic() - start > 1.0, "nobody has touched it any more"


def test_a_lock_that_goes_away_is_not_waited_for(path: Path) -> None:
    FolderLock(path)
    _rewrite(path, host="elsewhere")
    releasing = threading.Timer(0.5, path.unlink)
    releasing.start()
    FolderLock(path).release()
    releasing.join()


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"pid": "x"}'])
def test_a_lock_that_cannot_be_read_is_respected_while_it_is_touched(path: Path, text: str) -> None:
    path.write_text(text)
    touching = threading.Timer(0.3, os.utime, [path])
    touching.start()
    with pytest.raises(OutputError, match=f"remove {path} if that run is gone"):
        FolderLock(path)
    touching.join()
    os.utime(path, (0, 0))
    FolderLock(path).release()


def test_a_folder_that_cannot_be_written_is_said(path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        FolderLock(path.parent / "none" / "lock")
