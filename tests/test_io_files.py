"""A written file is whole or absent, and nothing that exists is replaced unasked."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hpcsort.errors import OutputError
from hpcsort.io import atomic_write, write_text_atomically


def test_file_appears_with_its_content_and_no_temporary_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "classes.star"
    with atomic_write(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".star"
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert os.listdir(tmp_path) == ["classes.star"]


def test_an_error_leaves_the_old_file_and_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target, overwrite=True) as temporary:
            temporary.write_text("half")
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_existing_file_is_refused_unless_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text_atomically(target, "first")
    with pytest.raises(OutputError, match=r"a\.txt exists already; .*--overwrite"):
        write_text_atomically(target, "second")
    assert target.read_text() == "first"
    write_text_atomically(target, "third", overwrite=True)
    assert target.read_text() == "third"


def test_file_that_appears_while_writing_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    def write() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("mine")
            target.write_text("theirs")

    with pytest.raises(OutputError, match="exists already"):
        write()
    assert target.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match="exists already"):
        write_text_atomically(tmp_path / "a.txt", "x")


def test_missing_folder_and_folder_as_target(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder .*nowhere does not exist; create it"):
        write_text_atomically(tmp_path / "nowhere" / "a.txt", "x")
    with pytest.raises(OutputError, match="it is a folder"):
        write_text_atomically(tmp_path, "x", overwrite=True)


def test_full_disk_is_told_in_a_sentence(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic_write(tmp_path / "a.txt"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"cannot write .*a\.txt: no space left"):
        fill()
    assert os.listdir(tmp_path) == []


def test_errors_about_other_files_pass_through(tmp_path: Path) -> None:
    def read_elsewhere() -> None:
        with atomic_write(tmp_path / "a.txt"):
            raise PermissionError(errno.EACCES, "denied", "other.mrcs")

    with pytest.raises(PermissionError, match=r"other\.mrcs"):
        read_elsewhere()
