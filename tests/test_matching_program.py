from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from match_cases import BOX, PIXEL_A, make_particles, truth_of
from mpi_helpers import run_alone, run_mpi
from sort3d_cases import blobs

from hpcsort.errors import InputError, OptionError, OutputError
from hpcsort.geometry import point_group, relion_matrices
from hpcsort.io import read_input, write_map, write_tables
from hpcsort.io.star import read_tables
from hpcsort.matching import MatchOptions, match
from hpcsort.matching.grids import angles_between
from hpcsort.parallel import SerialComm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_particles(tmp_path_factory.mktemp("match"), 60)


def options(folder: Path, output: Path, **changed: object) -> MatchOptions:
    given = {
        "instack": folder / "blind.star",
        "references": (folder / "state_00.mrc",),
        "output": output,
        "healpix_order": 2,
        "quiet": True,
    }
    return MatchOptions(**(given | changed))  # type: ignore[arg-type]


def errors(folder: Path, star: Path) -> tuple[np.ndarray, np.ndarray]:
    """Angles (degrees) and distances (px) of the best poses from the truth."""
    table = read_input(star)
    angles, origins = truth_of(folder)
    turn = angles_between(relion_matrices(table.angles_deg), relion_matrices(angles))
    return np.rad2deg(turn), np.hypot(*(table.shifts_px - origins).T)


def test_a_global_search_finds_the_poses_and_what_it_writes_is_read_back(folder: Path, tmp_path: Path) -> None:
    result = match(options(folder, tmp_path / "out.star"), SerialComm())
    turn, distance = errors(folder, tmp_path / "out.star")
    assert np.median(turn) < 1.5 * np.rad2deg(result.plan.finest.turn)
    assert np.median(distance) < 0.2
    assert (turn > 15).mean() < 0.1
    table = read_input(tmp_path / "out.star")
    assert table.smears is not None
    assert result.smears is not None
    np.testing.assert_allclose(table.smears.weight, result.smears.weight)
    best = table.smears.first[:-1]
    np.testing.assert_allclose(table.angles_deg, table.smears.angles_deg[best], atol=1e-5)
    np.testing.assert_allclose(table.shifts_px, table.smears.shifts_px[best], atol=1e-5)
    np.testing.assert_allclose(np.add.reduceat(table.smears.weight, best), 1.0)
    assert table.smears.dropped.max() <= 0.001 + 1e-9
    kept = read_tables(folder / "blind.star")["particles"]
    written = read_tables(tmp_path / "out.star")["particles"]
    for name in kept:
        if name != "rlnImageName":
            np.testing.assert_array_equal(written[name], kept[name])
    assert (written["rlnClassNumber"] == 1).all()
    assert (written["rlnLogLikeliContribution"] > 0).all()
    assert written["rlnMaxValueProbDistribution"].between(0, 1).all()


def test_a_local_search_improves_given_poses_and_stays_near_them(folder: Path, tmp_path: Path) -> None:
    given = folder / "particles.star"
    match(
        options(
            folder,
            tmp_path / "out.star",
            instack=given,
            local=True,
            healpix_order=None,
            angle_range_deg=8.0,
            shift_range_px=1.5,
        ),
        SerialComm(),
    )
    before, shift_before = errors(folder, given)
    after, shift_after = errors(folder, tmp_path / "out.star")
    assert np.median(after) < 0.7 * np.median(before)
    assert np.median(shift_after) < 0.7 * np.median(shift_before)
    old, new = read_input(given), read_input(tmp_path / "out.star")
    moved = angles_between(relion_matrices(old.angles_deg), relion_matrices(new.angles_deg))
    assert np.rad2deg(moved).max() < 10.0
    assert np.hypot(*(old.shifts_px - new.shifts_px).T).max() < 2.0


def test_smears_can_be_limited(folder: Path, tmp_path: Path) -> None:
    few = match(options(folder, tmp_path / "few.star", max_smears=3), SerialComm()).smears
    half = match(options(folder, tmp_path / "half.star", cumulative=0.5), SerialComm()).smears
    assert few is not None
    assert half is not None
    assert few.counts.max() == 3
    assert few.dropped.max() > 0.01
    assert (half.dropped <= 0.5 + 1e-9).all()


def test_of_several_references_each_particle_gets_its_own(tmp_path: Path) -> None:
    folder = make_particles(tmp_path, 40, snr=4.0, states=2, seed=5)
    references = (folder / "state_00.mrc", folder / "state_01.mrc")
    result = match(options(folder, tmp_path / "out.star", references=references), SerialComm())
    state = np.loadtxt(folder / "truth.csv", delimiter=",", skiprows=1)[:, 0]
    assert (result.reference == state).mean() > 0.9
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1.0)
    written = read_tables(tmp_path / "out.star")["particles"]
    np.testing.assert_array_equal(written["rlnClassNumber"] - 1, result.reference)
    np.testing.assert_allclose(written["hpcsortReferenceProbability2"], result.probabilities[:, 1], atol=1e-6)


def test_a_symmetric_particle_is_searched_in_its_asymmetric_unit(tmp_path: Path) -> None:
    folder = make_particles(tmp_path, 24, seed=6, fourfold=True)
    result = match(options(folder, tmp_path / "out.star", sym="c4"), SerialComm())
    angles, _ = truth_of(folder)
    mates = relion_matrices(angles)[:, None] @ point_group("c4")
    found = relion_matrices(read_input(tmp_path / "out.star").angles_deg)[:, None]
    turn = np.rad2deg(angles_between(np.broadcast_to(found, mates.shape), mates).min(axis=1))
    assert np.median(turn) < 1.5 * np.rad2deg(result.plan.finest.turn)
    # of the four mates one is listed, so that its probability is whole
    assert result.smears is not None
    assert result.smears.dropped.max() < 0.001 + 1e-9
    every = match(options(folder, tmp_path / "c1.star"), SerialComm())
    assert len(result.plan.start.rotations) < 0.5 * len(every.plan.start.rotations)


def test_reference_and_noise_may_have_any_scale(folder: Path, tmp_path: Path) -> None:
    from hpcsort.io import read_map

    data, pixel = read_map(folder / "state_00.mrc")
    write_map(tmp_path / "scaled.mrc", 300.0 * data, pixel)
    plain = match(options(folder, tmp_path / "a.star"), SerialComm())
    scaled = match(options(folder, tmp_path / "b.star", references=(tmp_path / "scaled.mrc",)), SerialComm())
    np.testing.assert_allclose(scaled.model.amplitude * 300.0, plain.model.amplitude, rtol=0.02)
    np.testing.assert_allclose(plain.model.amplitude[:, 1:5], 1.0, atol=0.15)
    # the simulator's noise has variance 1
    np.testing.assert_allclose(plain.model.sigma[0, 3:], 1.0, atol=0.1)
    np.testing.assert_allclose(scaled.scores, plain.scores, rtol=0.02)


def test_a_larger_box_of_the_reference_is_the_same_map(folder: Path, tmp_path: Path) -> None:
    from hpcsort.io import read_map

    data, pixel = read_map(folder / "state_00.mrc")
    wide = np.zeros((31, 31, 31), np.float32)
    low = 31 // 2 - BOX // 2
    wide[low : low + BOX, low : low + BOX, low : low + BOX] = data
    write_map(tmp_path / "wide.mrc", wide, pixel)
    plain = match(options(folder, tmp_path / "a.star"), SerialComm())
    other = match(options(folder, tmp_path / "b.star", references=(tmp_path / "wide.mrc",)), SerialComm())
    np.testing.assert_allclose(other.scores, plain.scores, rtol=1e-4)


_CODE = """
import sys
from pathlib import Path
from hpcsort.matching import MatchOptions, match, program
from hpcsort.parallel import get_comm
program._CHUNK = 4
folder, output = map(Path, sys.argv[1:])
reference = folder / "state_00.mrc"
options = MatchOptions(folder / "blind.star", (reference,), output, healpix_order=1, resolution_A=40, quiet=True)
match(options, get_comm())
"""


@pytest.mark.mpi
def test_results_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    folder = make_particles(tmp_path, 17)
    written = []
    for ranks in (1, 2, 3):
        out = tmp_path / str(ranks) / "out.star"
        out.parent.mkdir()
        done = run_mpi(ranks, "-c", _CODE, str(folder), str(out))
        assert done.returncode == 0, done.stderr
        with h5py.File(out.with_name("out_smears.h5")) as file:
            written.append((out.read_bytes(), {name: file[name][()].tobytes() for name in file}))
    assert written[1] == written[0]
    assert written[2] == written[0]


@pytest.mark.mpi
def test_fewer_particles_than_ranks(tmp_path: Path) -> None:
    folder = make_particles(tmp_path, 1)
    done = run_mpi(2, "-c", _CODE, str(folder), str(folder / "o.star"))
    assert done.returncode == 0, done.stderr
    assert len(read_input(folder / "o.star")) == 1


def test_the_command_takes_its_options_and_tells_what_it_does(folder: Path, tmp_path: Path) -> None:
    words = ["--instack", folder / "blind.star", "--ref", folder / "state_00.mrc", "--output", tmp_path / "o.star"]
    more = ["--global", "--angular-step", 20, "--max-smears", 5, "--resolution", 40, "--sym", "c1", "--mask", 10]
    code = "from hpcsort.cli.match import command; command()"
    done = run_alone("-c", code, *map(str, [*words, *more]))
    assert done.returncode == 0, done.stderr
    assert "60 particles matched" in done.stdout
    assert (tmp_path / "o_smears.h5").exists()


def test_images_without_ctf(folder: Path, tmp_path: Path) -> None:
    tables = read_tables(folder / "blind.star")
    ctf = [name for name in tables["particles"] if name.startswith("rlnDefocus")]
    (tmp_path / "set").mkdir()
    bare = tables["particles"].drop(columns=ctf)
    bare["rlnImageName"] = [name.replace("@", f"@{folder}/") for name in bare["rlnImageName"]]
    write_tables(tmp_path / "bare.star", {**tables, "particles": bare})
    with pytest.raises(InputError, match="rlnDefocusU"):
        match(options(folder, tmp_path / "o.star", instack=tmp_path / "bare.star"), SerialComm())
    match(options(folder, tmp_path / "o.star", instack=tmp_path / "bare.star", use_ctf=False), SerialComm())
    assert read_input(tmp_path / "o.star", need_ctf=False).smears is not None


def test_output_is_not_replaced_unless_asked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.star"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        match(options(folder, out), SerialComm())
    assert out.read_text() == "mine"
    with pytest.raises(OutputError, match="would replace an input"):
        match(options(folder, folder / "blind.star", overwrite=True), SerialComm())
    with pytest.raises(OutputError, match=r"does not end in \.star"):
        match(options(folder, tmp_path / "out.txt"), SerialComm())
    with pytest.raises(OutputError, match="does not exist"):
        match(options(folder, tmp_path / "no" / "out.star"), SerialComm())


def test_bad_input_is_named_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.star"
    write_map(tmp_path / "other.mrc", blobs(BOX, 1), 3.0)
    with pytest.raises(InputError, match=r"other\.mrc has 24 voxels of 3 A but the images have 24 px of 10 A"):
        match(options(folder, out, references=(tmp_path / "other.mrc",)), SerialComm())
    write_map(tmp_path / "flat.mrc", np.ones((BOX,) * 3, np.float32), PIXEL_A)
    with pytest.raises(InputError, match=r"flat\.mrc is constant"):
        match(options(folder, out, references=(tmp_path / "flat.mrc",)), SerialComm())
    write_map(tmp_path / "slab.mrc", np.ones((BOX, BOX, 8), np.float32), PIXEL_A)
    with pytest.raises(InputError, match="a cubic map is needed"):
        match(options(folder, out, references=(tmp_path / "slab.mrc",)), SerialComm())
    with pytest.raises(InputError, match="rlnAngleRot"):
        match(options(folder, out, local=True, healpix_order=None), SerialComm())
    tables = read_tables(folder / "blind.star")
    broken = tables["particles"].copy()
    broken["rlnImageName"] = "000001@gone.mrcs"
    write_tables(tmp_path / "broken.star", {**tables, "particles": broken})
    with pytest.raises(InputError, match=r"gone\.mrcs"):
        match(options(folder, out, instack=tmp_path / "broken.star"), SerialComm())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"references": ()}, "--ref"),
        ({"healpix_order": 9}, "--healpix-order is 9"),
        ({"angular_step_deg": 5.0}, "both set the first grid"),
        ({"local": True}, "global search"),
        ({"cumulative": 0.0}, "--cumulative"),
        ({"max_smears": 0}, "--max-smears"),
        ({"resolution_A": -1.0}, "--resolution"),
        ({"angle_range_deg": 90.0}, "--angle-range"),
        ({"sym": "x9"}, "point group"),
    ],
)
def test_options_that_cannot_be_are_refused(changed: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        options(tmp_path, tmp_path / "o.star", **changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"resolution_A": 2.0}, "--resolution 2 does not fit"),
        ({"mask_px": 20.0}, "--mask 20"),
        ({"shift_range_px": 13.0}, "--shift-range 13"),
    ],
)
def test_options_that_do_not_fit_the_box_are_refused(
    folder: Path, changed: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=said):
        match(options(folder, tmp_path / "o.star", **changed), SerialComm())
