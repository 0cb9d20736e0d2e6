"""The report on smearing counts what was written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from meridien_writer import hashes_of, random_case, write_refinement

from hpcsort.io import Smears
from hpcsort.refinement import smear_note, smearing_lines, smearing_report


def test_counts_and_memory(tmp_path: Path) -> None:
    case = random_case(12, most=7)
    folder = tmp_path / "refine"
    write_refinement(folder, case, iteration=4, stack="mrcs")
    shutil.rmtree(folder / "main003" / "oldparamstructure")
    rows = smearing_report(folder)
    assert [row.iteration for row in rows] == [2, 4]
    owner = case.smears.owner
    images = len(set(zip(owner.tolist(), (hashes_of(case) // 1000).tolist(), strict=True)))
    for row in rows:
        assert (row.particles, row.window_px, row.most_smears) == (12, 14, case.smears.counts.max())
        assert np.isclose(row.mean_smears, len(owner) / 12)
        assert np.isclose(row.mean_orientations, images / 12)
        assert np.isclose(row.memory_GB, images * 14 * 14 * 4 / 1e9)
    wide = smearing_report(folder, window_px=28)
    assert np.isclose(wide[0].memory_GB, 4 * rows[0].memory_GB)


def test_poses_that_differ_in_their_shift_are_one_image(tmp_path: Path) -> None:
    case = random_case(6)
    grid = case.grid
    owner = np.repeat(np.arange(6), 4)
    angles = np.repeat(grid.refang[:6], 4, axis=0)
    moves = np.tile(grid.rshifts[:4], (6, 1)) + np.rint(case.previous_px)[owner]
    case.smears = Smears.of_lists(owner, angles, moves, np.tile([0.4, 0.3, 0.2, 0.1], 6))
    write_refinement(tmp_path / "refine", case, iteration=2, stack="mrcs")
    (row,) = smearing_report(tmp_path / "refine")
    assert (row.mean_smears, row.mean_orientations) == (4.0, 1.0)


def test_lines(tmp_path: Path) -> None:
    write_refinement(tmp_path / "refine", random_case(12), iteration=3, stack="mrcs")
    rows = smearing_report(tmp_path / "refine")
    head, *lines = smearing_lines(rows, memory_GB=2 * rows[0].memory_GB)
    assert len({len(line) for line in (head, *lines)}) == 1
    assert [line.split()[0] for line in lines] == ["2", "3"]
    assert [line.split()[-1] for line in lines] == ["50.0", "50.0"]
    assert smearing_lines([]) == ["No iteration from the second on has smears."]


def test_first_iteration_alone_has_no_rows(tmp_path: Path) -> None:
    write_refinement(tmp_path / "refine", random_case(6), iteration=1, stack="mrcs")
    assert smearing_report(tmp_path / "refine") == []


def test_note() -> None:
    smears = Smears.of_lists([0, 0, 0, 1, 2], np.zeros((5, 3)), np.zeros((5, 2)), [0.5, 0.25, 0.25, 0.9, 1.0])
    assert smear_note(smears) == (
        "Smears: mean 1.7, median 1, most 3 poses a particle; probability left out: mean 3.33 %, most 10.00 %."
    )
    assert smear_note(smears.limited(1)).startswith("Smears: mean 1.0, median 1, most 1 poses")
    assert "mean 20.00 %, most 50.00 %" in smear_note(smears.limited(1))
    assert smear_note(smears.rows([])) == "Smears: no particles."
