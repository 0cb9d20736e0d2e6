"""Odd data that are sorted all the same: with a note where the user should know, and with the same result else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from bad_cases import COUNT, Made, copied
from mpi_helpers import find_mpiexec, run_mpi
from sort3d_runs import MAIN, digests, edit_table, simulate_small, sort_quietly

from hpcsort.io import ImageReader, read_particles, write_tables
from hpcsort.parallel import SerialComm
from hpcsort.sort3d import SortOptions, SortResult
from hpcsort.sort3d.problem import pose_problem
from hpcsort.sort3d.screen import contrast_notes
from hpcsort.sort3d.source import read_source


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return simulate_small(tmp_path_factory.mktemp("good") / "data", COUNT)


@pytest.fixture(scope="module")
def expected(good: Made, tmp_path_factory: pytest.TempPathFactory) -> SortResult:
    return sort_quietly(good.star, tmp_path_factory.mktemp("expected"))


@pytest.fixture
def made(good: Made, tmp_path: Path) -> Made:
    return copied(good, tmp_path / "data")


def _same(result: SortResult, expected: SortResult) -> None:
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.probability, expected.probability)


def _no_stamp(made: Made) -> None:
    with made.stack.open("r+b") as file:
        file.seek(212)
        file.write(bytes(4))


def _extra_columns(made: Made) -> None:
    edit_table(made, myNumber=np.arange(COUNT), myNote=["two words"] * COUNT, rlnGroupName=["nan"] * COUNT)


def _reordered_columns(made: Made) -> None:
    tables = starfile.read(made.star)
    tables["particles"] = tables["particles"][list(tables["particles"])[::-1]]
    write_tables(made.star, {name: tables[name] for name in reversed(tables)}, overwrite=True)


@pytest.mark.parametrize("change", [_no_stamp, _extra_columns, _reordered_columns])
def test_what_does_not_matter(made: Made, expected: SortResult, tmp_path: Path, change: Callable[[Made], None]) -> None:
    change(made)
    _same(sort_quietly(made.star, tmp_path / "out"), expected)
    written, given = (starfile.read(path)["particles"] for path in (tmp_path / "out" / "particles.star", made.star))
    assert set(given) <= set(written)


@pytest.mark.parametrize(("factor", "offset"), [(1e6, 0.0), (1e-6, 0.0), (1.0, 1e4)])
def test_grey_values_of_another_scale(
    made: Made, expected: SortResult, tmp_path: Path, factor: float, offset: float
) -> None:
    with mrcfile.open(made.stack, "r+") as stack:
        stack.data[5] = stack.data[5] * factor + offset
    result = sort_quietly(made.star, tmp_path / "out")
    np.testing.assert_array_equal(result.labels, expected.labels)


def test_outliers_are_left_out_on_request(made: Made, tmp_path: Path) -> None:
    with mrcfile.open(made.stack, "r+") as stack:
        stack.data[5, 12, 12] = 1e6 * stack.data[5].std()
        # As if the particle were masked: what else is wrong with a bad image does not count.
        stack.data[9, 12, 12] = 1e30
    result = sort_quietly(made.star, tmp_path / "out", skip_bad=True)
    np.testing.assert_array_equal(np.flatnonzero(result.labels < 0), [5, 9])
    assert "2 bad images are left out" in (tmp_path / "out" / "log.txt").read_text()


def test_duplicates_are_counted(made: Made, tmp_path: Path) -> None:
    tables = starfile.read(made.star)
    tables["particles"] = pd.concat([tables["particles"], tables["particles"].iloc[:5]], ignore_index=True)
    write_tables(made.star, tables, overwrite=True)
    result = sort_quietly(made.star, tmp_path / "out")
    assert "Note: Rows that name the image of an earlier row: 5." in (tmp_path / "out" / "log.txt").read_text()
    np.testing.assert_array_equal(result.labels[-5:], result.labels[:5])


def test_fewer_particles_than_groups_asked_for(good: Made, tmp_path: Path) -> None:
    result = sort_quietly(good.star, tmp_path / "out", max_groups=100, orientation_groups=100)
    assert 1 <= len(result.groups) < 10
    assert sum(group.size for group in result.groups) <= COUNT


def _notes(made: Made) -> list[str]:
    options, comm = SortOptions(instack=made.star, output_dir=made.star.parent, quiet=True), SerialComm()
    problem = pose_problem(read_source(options, comm), comm, lambda text: None)
    return contrast_notes(problem.wide.store, problem.consensus)


def test_inverted_contrast_is_said_in_words(made: Made) -> None:
    assert _notes(made) == []
    with mrcfile.open(made.stack, "r+") as stack:
        stack.data[...] *= -1
    assert ["contrast of the images seems to be inverted" in note for note in _notes(made)] == [True]
    with mrcfile.open(made.stack, "r+") as stack:
        stack.data[6:] *= -1
    assert [note.split(":")[0] for note in _notes(made)] == ["6 of 60 images show the negative of the consensus map"]


def test_paths_with_blanks_other_letters_and_links(good: Made, expected: SortResult, tmp_path: Path) -> None:
    named = copied(good, tmp_path / "Prøve 1" / "粒子 und mehr")
    link = tmp_path / "ссылка на.star"
    link.symlink_to(named.star)
    (tmp_path / "linked folder").symlink_to(named.star.parent, target_is_directory=True)
    stack = named.stack.rename(named.stack.with_name("big stack.mrcs"))
    named.stack.symlink_to(stack)
    for number, star in enumerate((named.star, link, tmp_path / "linked folder" / named.star.name)):
        out = tmp_path / f"Ergebnis {number} größer"
        _same(sort_quietly(star, out), expected)
        table = read_particles(out / "particles.star")
        with ImageReader(table) as reader, mrcfile.open(stack) as whole:
            np.testing.assert_array_equal(reader.read([0, 59]), whole.data[[0, 59]])


@pytest.mark.mpi
def test_more_ranks_than_chunks(good: Made, tmp_path: Path) -> None:
    find_mpiexec()
    more: dict[str, Any] = {"components": 1, "nxinit": 14}
    sort_quietly(good.star, tmp_path / "alone", **more)
    words = f"sort3d --instack {good.star} --output-dir {tmp_path / 'three'} --max-groups 2 --depth-order 1"
    done = run_mpi(3, "-c", MAIN, *words.split(), "--components", "1", "--nxinit", "14")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "three") == digests(tmp_path / "alone")
