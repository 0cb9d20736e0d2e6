"""A refinement that is written from known poses, smears, norms and spectra is read back as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from meridien_writer import Case, random_case, write_refinement

from hpcsort.errors import InputError, OptionError
from hpcsort.geometry import relion_matrices
from hpcsort.io import ImageReader, read_particles, write_particles
from hpcsort.refinement import Refinement, read_refinement
from hpcsort.refinement._structure import half_away, half_even


def check_round_trip(case: Case, found: Refinement) -> None:
    table, smears = found.table, found.table.smears
    assert smears is not None
    np.testing.assert_array_equal(smears.first, case.smears.first)
    np.testing.assert_allclose(smears.weight, case.smears.weight, atol=1e-6)
    np.testing.assert_allclose(smears.dropped, case.smears.dropped, atol=1e-6)
    np.testing.assert_allclose(smears.shifts_px, case.smears.shifts_px, atol=1e-6)
    given, read = relion_matrices(case.smears.angles_deg), relion_matrices(smears.angles_deg)
    np.testing.assert_allclose(read, given, atol=1e-6)
    np.testing.assert_allclose(relion_matrices(table.angles_deg), given[case.smears.first[:-1]], atol=1e-6)
    np.testing.assert_allclose(table.shifts_px, case.smears.shifts_px[case.smears.first[:-1]], atol=1e-6)
    np.testing.assert_array_equal(table.random_subset, case.half + 1)
    assert table.image_scale is not None
    np.testing.assert_allclose(table.image_scale, np.array(case.mean_norms)[case.half] / case.norm, atol=1e-6)
    np.testing.assert_array_equal(table.optics_group, case.group)
    assert table.noise_power is not None
    shells = case.images.shape[1] // 2 + 1
    inverse = case.inverse_noise[:, :shells]
    known = inverse > 0
    np.testing.assert_allclose(table.noise_power[known] * inverse[known], 1.0, atol=1e-6)
    assert not table.noise_power[~known].any()
    assert len(table.optics_group_names) == len(table.noise_power)
    np.testing.assert_allclose(found.fsc, case.fsc, atol=1e-6)
    np.testing.assert_array_equal(table.source_row.size, len(case))
    np.testing.assert_array_equal(ImageReader(table).read(np.arange(len(table))), case.images[case.ids])
    np.testing.assert_allclose(table.defocus_u_A, case.ctf["u"][case.ids], atol=1e-3)
    np.testing.assert_allclose(table.defocus_v_A, case.ctf["v"][case.ids], atol=1e-3)
    turn = np.exp(2j * np.deg2rad(table.defocus_angle_deg - case.ctf["angle"][case.ids]))
    np.testing.assert_allclose(turn, 1.0, atol=1e-5)


@pytest.mark.parametrize("stack", ["hdf", "mrcs"])
@pytest.mark.parametrize("ranks", [1, 3, 9])
def test_everything_comes_back(tmp_path: Path, stack: str, ranks: int) -> None:
    case = random_case(13, spare=4)
    write_refinement(tmp_path / "refine", case, ranks=ranks, stack=stack)
    found = read_refinement(tmp_path / "refine")
    check_round_trip(case, found)
    assert (found.symmetry, found.radius_px, found.mask, found.iteration) == ("c2", 6, None, 3)
    assert (found.pixel_size_A, found.delta_deg, found.box_px, found.window_px) == (3.0, 7.5, 16, 14)
    assert found.notes == ()
    assert found.table.notes == ()


@pytest.mark.parametrize("rounding", [half_even, half_away])
def test_halves_are_rounded_as_the_refinement_did(tmp_path: Path, rounding: Callable[[np.ndarray], np.ndarray]) -> None:
    case = random_case(12)
    moved = case.smears.shifts_px - np.rint(case.previous_px)[case.smears.owner]
    case.previous_px[:4] = [[0.5, -0.5], [2.5, 1.5], [-1.5, -2.5], [1.5, 0.5]]
    object.__setattr__(case.smears, "shifts_px", moved + rounding(case.previous_px)[case.smears.owner])
    case.rounding = rounding
    write_refinement(tmp_path / "refine", case, stack="mrcs", block_rounding=rounding)
    found = read_refinement(tmp_path / "refine")
    check_round_trip(case, found)
    assert found.table.notes == ()


def test_records_may_be_called_by_the_ids(tmp_path: Path) -> None:
    case = random_case(11, spare=3)
    write_refinement(tmp_path / "refine", case, stack="mrcs", record_ids="id")
    check_round_trip(case, read_refinement(tmp_path / "refine"))


def test_best_iteration_is_the_default(tmp_path: Path) -> None:
    case = random_case(7)
    write_refinement(tmp_path / "refine", case, iteration=4, best=2, stack="mrcs")
    assert read_refinement(tmp_path / "refine").iteration == 2
    assert read_refinement(tmp_path / "refine", iteration=4).iteration == 4
    (tmp_path / "refine" / "main004" / "params_004.txt").unlink()
    (tmp_path / "refine" / "main003" / "Tracker_003.json").write_text(
        (tmp_path / "refine" / "main003" / "Tracker_003.json").read_text().replace('"best": 2', '"best": 3')
    )
    assert read_refinement(tmp_path / "refine").iteration == 3, "iteration 4 is not complete"
    with pytest.raises(OptionError, match=r"--niter_for_sorting 9 .* choose one of 1, 2, 3"):
        read_refinement(tmp_path / "refine", iteration=9)
    with pytest.raises(OptionError, match="--niter_for_sorting 0 is not an iteration"):
        read_refinement(tmp_path / "refine", iteration=0)


def test_noise_of_an_earlier_iteration_and_none(tmp_path: Path) -> None:
    case = random_case(8)
    folder = tmp_path / "refine"
    write_refinement(folder, case, stack="mrcs")
    (folder / "main003" / "bckgnoise.hdf").unlink()
    found = read_refinement(folder)
    check_round_trip(case, found)
    assert found.table.notes == ("Noise spectra are those of iteration 2: iteration 3 has no bckgnoise.hdf.",)
    for path in folder.glob("main*/bckgnoise.hdf"):
        path.unlink()
    with pytest.raises(InputError, match="--notapplybckgnoise"):
        read_refinement(folder)
    without = read_refinement(folder, apply_noise=False).table
    assert without.noise_power is None
    assert without.optics_group_names == ("og1",)


def test_one_noise_group_needs_no_group_files(tmp_path: Path) -> None:
    case = random_case(8)
    case.inverse_noise = case.inverse_noise[:1]
    case.group[:] = 0
    folder = tmp_path / "refine"
    write_refinement(folder, case, stack="mrcs")
    for path in folder.glob("main000/particle_groups_*.txt"):
        path.unlink()
    check_round_trip(case, read_refinement(folder))


def test_a_refinement_without_norms(tmp_path: Path) -> None:
    folder = tmp_path / "refine"
    write_refinement(folder, random_case(8), stack="mrcs")
    tracker = folder / "main003" / "Tracker_003.json"
    tracker.write_text(tracker.read_text().replace('"nnxo"', '"nonorm": true, "nnxo"'))
    assert read_refinement(folder).table.image_scale is None


def test_stack_and_mask_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(8)
    folder = tmp_path / "refine"
    stack = write_refinement(folder, case, stack="mrcs")
    tracker = folder / "main003" / "Tracker_003.json"
    tracker.write_text(tracker.read_text().replace('"mask3D": null', '"mask3D": "masks/m.mrc"'))
    found = read_refinement(folder)
    assert found.mask is None
    assert "masks/m.mrc" in found.notes[0]
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "m.mrc").touch()
    found = read_refinement(folder)
    assert found.mask == tmp_path / "masks" / "m.mrc"
    assert found.notes == ()
    elsewhere = tmp_path / "data"
    elsewhere.mkdir()
    stack.rename(elsewhere / stack.name)
    with pytest.raises(InputError, match=r"particles.mrcs with --datadir"):
        read_refinement(folder)
    with pytest.raises(InputError, match=r"no particles.star beside it"):
        read_refinement(folder, datadir=elsewhere)
    stack.with_suffix(".star").rename(elsewhere / "particles.star")
    check_round_trip(case, read_refinement(folder, datadir=elsewhere))
    monkeypatch.chdir(elsewhere)
    check_round_trip(case, read_refinement(folder))


def test_a_database_is_read_once_it_is_converted(tmp_path: Path) -> None:
    case = random_case(8)
    folder = tmp_path / "refine"
    stack = write_refinement(folder, case, stack="hdf")
    tracker = folder / "main003" / "Tracker_003.json"
    tracker.write_text(tracker.read_text().replace('"particles.hdf"', '"bdb:Particles#stack"'))
    with pytest.raises(InputError, match=r"e2proc2d.py bdb:Particles#stack Particles/stack.hdf"):
        read_refinement(folder)
    (tmp_path / "Particles").mkdir()
    stack.rename(tmp_path / "Particles" / "stack.hdf")
    check_round_trip(case, read_refinement(folder))


def test_likeliest_poses_are_written_out(tmp_path: Path) -> None:
    case = random_case(9, spare=2)
    write_refinement(tmp_path / "refine", case, stack="mrcs")
    table = read_refinement(tmp_path / "refine").table
    write_particles(tmp_path / "out.star", table)
    again = read_particles(tmp_path / "out.star")
    np.testing.assert_allclose(again.angles_deg, table.angles_deg, atol=1e-9)
    np.testing.assert_allclose(again.shifts_px, table.shifts_px, atol=1e-9)
    np.testing.assert_array_equal(again.random_subset, table.random_subset)


def test_shifts_that_do_not_fit_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "refine"
    write_refinement(folder, random_case(9), stack="mrcs")
    path = folder / "main003" / "params_003.txt"
    lines = [line.split() for line in path.read_text().splitlines()]
    lines[4][3] = "9.25"
    path.write_text("".join(" ".join(line) + "\n" for line in lines))
    notes = read_refinement(folder).table.notes
    assert notes == (
        "Particles whose shift in the refinement's parameters is not that of their likeliest smear: 1 of 9;"
        " the smears are used.",
    )
