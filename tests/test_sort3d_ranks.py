"""The same groups and the same bytes on any ranks, in any order of rows, and for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_chunks
import starfile
from mpi_helpers import find_mpiexec, run_mpi
from sort3d_runs import break_images, digests, simulate_small, sort_quietly

from hpcsort.errors import InputError
from hpcsort.geometry import direction_order, relion_matrices
from hpcsort.io import read_particles, write_tables
from hpcsort.partitions import purities
from hpcsort.sort3d import loading

_SHORT = {"components": 1, "nxinit": 14}
"""A small band and one map, on top of what `sort_quietly` asks for; as words for the command line:"""
_WORDS = ("--max-groups", "2", "--depth-order", "1", "--components", "1", "--nxinit", "14")


def _command(star: Path, out: Path, *more: str) -> tuple[str, ...]:
    files = ("--instack", str(star), "--output-dir", str(out))
    return str(Path(small_chunks.__file__)), "sort3d", *files, *_WORDS, *more


@pytest.fixture
def in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "deal_particles", small_chunks.deal_small_chunks)


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "ranks"),
    [({}, (1, 2, 3, 4, 7)), ({"engine": "maps"}, (2,)), ({"independence": "starts"}, (2,))],
)
@pytest.mark.usefixtures("in_small_chunks")
def test_files_do_not_depend_on_the_ranks(options: dict[str, str], ranks: tuple[int, ...], tmp_path: Path) -> None:
    find_mpiexec()
    # Three chunks, so that one of four ranks has none.
    made = simulate_small(tmp_path / "data", 3 * small_chunks.CHUNK)
    sort_quietly(made.star, tmp_path / "out0", **_SHORT, **options)
    expected = digests(tmp_path / "out0")
    assert {
        "Cluster_000.txt", "Core_set.txt", "particles.star", "anova.csv", "anova.txt", "vol_cluster001_half1.mrc",
        "refinement_parameters.txt", "generation_000/Tracker.json", "generation_000/gen_rep.txt",
        "generation_000/layer0/comparison_0.txt", "generation_000/layer0/nbox1/independent_index_001.txt",
    } <= set(expected)  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    for size in ranks:
        done = run_mpi(size, *_command(made.star, tmp_path / f"out{size}", *words))
        assert done.returncode == 0, done.stderr
        assert digests(tmp_path / f"out{size}") == expected
        run = json.loads((tmp_path / f"out{size}" / "run.json").read_text())
        assert run["ranks"] == size
        assert f", {size} rank" in done.stdout


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.usefixtures("in_small_chunks")
def test_files_do_not_depend_on_how_much_is_dealt_at_a_time(tmp_path: Path) -> None:
    find_mpiexec()
    made = simulate_small(tmp_path / "data", 3 * small_chunks.CHUNK)
    sort_quietly(made.star, tmp_path / "out0", **_SHORT)
    expected = digests(tmp_path / "out0")
    for number, deal in enumerate(("3,0", "0,3", "1,2", "2,1"), 1):
        done = run_mpi(2, *_command(made.star, tmp_path / f"out{number}"), env={"HPCSORT_TEST_DEAL": deal})
        assert done.returncode == 0, done.stderr
        assert digests(tmp_path / f"out{number}") == expected, deal


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 150)
    first = sort_quietly(made.star, tmp_path / "first", **_SHORT)
    order = np.random.default_rng(0).permutation(150)
    tables = starfile.read(made.star)
    tables["particles"] = tables["particles"].iloc[order].reset_index(drop=True)
    shuffled = made.star.with_name("shuffled.star")
    write_tables(shuffled, tables)
    second = sort_quietly(shuffled, tmp_path / "second", **_SHORT)
    np.testing.assert_array_equal(second.labels, first.labels[order])
    np.testing.assert_array_equal(second.agreeing, first.agreeing[order])
    np.testing.assert_allclose(second.probability, first.probability[order])
    np.testing.assert_allclose(second.junk, first.junk[order])


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 200)
    first, again = (sort_quietly(made.star, tmp_path / name, **_SHORT) for name in ("first", "again"))
    np.testing.assert_array_equal(again.labels, first.labels)
    # The table names its images from where it lies.
    assert digests(tmp_path / "again") == digests(tmp_path / "first")
    other = sort_quietly(made.star, tmp_path / "other", seed=9, **_SHORT)
    assert (other.probability != first.probability).any()
    assert purities(pd.read_csv(made.truth).state, other.labels).min() >= 0.9


@pytest.mark.mpi
def test_an_image_that_only_the_last_rank_reads_ends_all_ranks(tmp_path: Path) -> None:
    find_mpiexec()
    made = simulate_small(tmp_path / "data", 3 * small_chunks.CHUNK)
    table = read_particles(made.star)
    names = np.array([f"particles.mrcs@{index:09d}" for index in table.stack_index])
    last = int(direction_order(relion_matrices(table.angles_deg), names)[-1])
    break_images(made, nan=[last])
    done = run_mpi(3, *_command(made.star, tmp_path / "out"), timeout_s=60)
    assert done.returncode == InputError.exit_code
    lines = [line for line in done.stderr.splitlines() if line.startswith("hpcsort")]
    assert len(lines) == 1, done.stderr
    assert f"STAR row {last + 1}" in lines[0]
    assert "Traceback" not in done.stderr
