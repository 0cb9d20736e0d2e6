"""Random conical tilt from files to maps: exact particles, what is left out, what is refused, ranks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mpi_helpers import run_mpi
from rct_cases import RADIUS, Case, make_case
from reconstruction_cases import PIXEL_A

from hpcsort.cli.main import cli
from hpcsort.errors import HpcsortError, InputError, OptionError, OutputError
from hpcsort.geometry import relion_matrices
from hpcsort.io import read_map, read_particles, read_tables, write_tables
from hpcsort.parallel import SerialComm
from hpcsort.reconstruction import ConicalClass, ConicalOptions, ReconstructOptions, reconstruct_conical
from hpcsort.reconstruction.conical_input import _signs

_MAIN = "from hpcsort.cli.main import main; main()"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("rct") / "pairs")


@pytest.fixture
def copied(case: Case, tmp_path: Path) -> Case:
    """A case whose tables may be changed."""
    shutil.copytree(case.folder, tmp_path / "pairs")
    shutil.copy(case.classes, tmp_path / "classes.star")
    return Case(tmp_path / "pairs", tmp_path / "classes.star", case.volumes, case.shifts)


def _run(case: Case, output: Path, tilt_sign: str = "auto", rounds: int = 5, **more: object) -> list[ConicalClass]:
    maps = ReconstructOptions(output=output, **({"radius": RADIUS, "quiet": True} | more))  # type: ignore[arg-type]
    return reconstruct_conical(ConicalOptions(case.classes, case.folder, maps, tilt_sign, rounds), SerialComm())


def _map(output: Path, number: int = 1) -> np.ndarray:
    return read_map(output.with_name(f"{output.name}_class{number:03d}.mrc"))[0]


def _edit(path: Path, block: str, **columns: object) -> None:
    tables = {name: found for name, found in read_tables(path).items() if isinstance(found, pd.DataFrame)}
    for name, values in columns.items():
        if values is None:
            tables[block] = tables[block].drop(columns=name)
        else:
            tables[block][name] = values
    write_tables(path, tables, overwrite=True)


def measured_correlation(found: np.ndarray, true: np.ndarray, tilt_deg: float, radius: int) -> float:
    """Correlation over Fourier space up to a radius, outside the missing cone."""
    axis = np.fft.fftfreq(len(true), 1 / len(true))
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt(x * x + y * y + z * z)
    inside = (distance > 0) & (distance <= radius) & (np.abs(z) <= distance * np.sin(np.deg2rad(tilt_deg)))
    first, second = (np.fft.fftn(np.fft.ifftshift(data))[inside] for data in (found, true))
    return float(np.vdot(first, second).real / np.sqrt(np.vdot(first, first).real * np.vdot(second, second).real))


def test_each_class_gives_its_structure_whatever_psi_mirror_and_shift(case: Case, tmp_path: Path) -> None:
    done = _run(case, tmp_path / "m")
    assert [found.number for found in done] == [1, 2]
    for found, own, other in zip(done, case.volumes, case.volumes[::-1], strict=True):
        made = _map(tmp_path / "m", found.number)
        assert measured_correlation(made, own, 50, 8) > 0.9
        assert measured_correlation(made, other, 50, 8) < 0.7
        # z upside down: the other hand
        assert measured_correlation(made, np.roll(own[::-1], 1, axis=0), 50, 8) < 0.7
        assert found.resolution_A < 5 * PIXEL_A
        # the tilts of 50 and 58 degrees leave the cone of the larger
        assert 0.12 < found.unmeasured < 0.35


def test_centring_finds_the_shifts(case: Case, tmp_path: Path) -> None:
    left, before, after = [_run(case, tmp_path / f"m{rounds}", rounds=rounds)[0] for rounds in (0, 1, 5)]
    rows = left.table.source_row
    rotations = relion_matrices(after.table.angles_deg)[:, :2]
    errors = []
    for found in (left, before, after):
        error = found.table.shifts_px - case.shifts[rows]
        # a shift of the map in space does not count
        common = np.linalg.lstsq(rotations.reshape(-1, 3), error.reshape(-1), rcond=None)[0]
        errors.append(float(np.sqrt(np.mean((error - rotations @ common) ** 2))))
    assert errors[0] > 0.8
    assert errors[2] < 0.3
    assert errors[2] < errors[1] < errors[0]


def test_what_is_known_of_the_hand_is_told(case: Case, tmp_path: Path) -> None:
    _run(case, tmp_path / "a", rounds=0, classes=(1,))
    assert "Hand: as the sign of the tilt says" in (tmp_path / "a.log").read_text()
    unknown = make_case(tmp_path / "u" / "pairs", sign_known=False)
    maps = {}
    for sign in ("auto", "+", "-"):
        _run(unknown, tmp_path / f"s{sign}", tilt_sign=sign, rounds=0, classes=(1,))
        maps[sign] = _map(tmp_path / f"s{sign}")
    assert np.array_equal(maps["auto"], maps["+"])
    assert "Hand: not known" in (tmp_path / "sauto.log").read_text()
    assert not np.array_equal(maps["+"], maps["-"])


def test_signs_go_with_the_direction_in_which_an_axis_is_told() -> None:
    axes = np.array([175.0, 178.0, 2.0, 5.0])
    # 178 and 2 degrees are nearly one axis, told by opposite directions
    for given, found, expected, known in (
        ("auto", [0, 0, 0, 0], [-1, -1, 1, 1], False),
        ("auto", [1, 0, 0, 0], [1, 1, -1, -1], False),
        ("auto", [1, 1, -1, 1], [1, 1, -1, 1], True),
        ("-", [1, 1, -1, -1], [1, 1, -1, -1], True),
        ("+", [0, 0, 0, 0], [-1, -1, 1, 1], True),
    ):
        sign, is_known = _signs(np.array(found, float), axes, given)
        assert is_known == known
        # which direction of an axis near 0 counts is open; that all tilts go one way is not
        free = given != "auto" or not any(found)
        assert np.array_equal(sign, expected) or (free and np.array_equal(-sign, expected)), (given, found, sign)
    assert np.array_equal(_signs(np.zeros(2), np.array([80.0, 90.0]), "+")[0], [1, 1])
    assert np.array_equal(_signs(np.zeros(2), np.array([80.0, 90.0]), "-")[0], [-1, -1])


def test_one_hand_is_the_mirror_image_of_the_other(tmp_path: Path) -> None:
    made = make_case(tmp_path / "pairs", shift_px=0.0)
    micrographs = read_tables(made.folder / "pairs.star")["micrographs"]
    assert isinstance(micrographs, pd.DataFrame)
    _edit(made.folder / "pairs.star", "pairs", hpcsortTiltedRestX=0.0, hpcsortTiltedRestY=0.0)
    _run(made, tmp_path / "a", rounds=0, classes=(1,))
    _edit(made.folder / "pairs.star", "micrographs", hpcsortTiltSign=-micrographs["hpcsortTiltSign"])
    _run(made, tmp_path / "b", rounds=0, classes=(1,))
    first, second = _map(tmp_path / "a"), _map(tmp_path / "b")
    assert measured_correlation(first, made.volumes[0], 50, 8) > 0.95
    assert measured_correlation(second, np.roll(made.volumes[0][::-1], 1, axis=0), 50, 8) > 0.95


def test_without_a_mirror_column_nothing_is_mirrored(copied: Case, tmp_path: Path) -> None:
    table = read_particles(copied.classes, need_images=False, need_poses=False, need_ctf=False)
    upright = table.frame[table.frame["hpcsortMirror"] == 0]
    write_tables(copied.classes, {"particles": upright.drop(columns="hpcsortMirror")}, overwrite=True)
    _run(copied, tmp_path / "m", classes=(2,))
    assert measured_correlation(_map(tmp_path / "m", 2), copied.volumes[1], 50, 7) > 0.85


def test_flipped_phases_and_absent_ctfs_are_not_corrected_again(tmp_path: Path) -> None:
    made = make_case(tmp_path / "pairs", flipped=True)
    _run(made, tmp_path / "f", rounds=2, classes=(1,))
    assert measured_correlation(_map(tmp_path / "f"), made.volumes[0], 50, 6) > 0.7
    assert "Phases of the tilted images are flipped" in (tmp_path / "f.log").read_text()
    _edit(made.folder / "tilted.star", "particles", rlnDefocusU=None, rlnDefocusV=None, rlnDefocusAngle=None)
    _edit(made.folder / "tilted.star", "optics", hpcsortPhaseFlipped=None)
    _run(made, tmp_path / "n", rounds=2, classes=(1,))
    assert "The tilted images have no CTF" in (tmp_path / "n.log").read_text()
    assert np.array_equal(_map(tmp_path / "f"), _map(tmp_path / "n"))


def test_files_are_such_that_other_programs_go_on(case: Case, tmp_path: Path) -> None:
    done = _run(case, tmp_path / "out" / "m", rounds=1)
    names = [f"m_class00{number}{end}" for number in (1, 2) for end in (".mrc", ".star", "_fsc.txt", "_half1.mrc")]
    assert {*names, "m.log"} <= {path.name for path in (tmp_path / "out").iterdir()}
    table = read_particles(tmp_path / "out/m_class002.star")
    np.testing.assert_allclose(table.angles_deg, done[1].table.angles_deg, atol=1e-5)
    np.testing.assert_allclose(table.shifts_px, done[1].table.shifts_px, atol=1e-5)
    assert set(table.random_subset) == {1, 2}
    assert [path.resolve() for path in table.stack_paths] == [(case.folder / "tilted.mrcs").resolve()]
    words = [str(tmp_path / "out/m_class002.star"), "--output", str(tmp_path / "again"), "--radius", str(RADIUS)]
    result = CliRunner().invoke(cli, ["reconstruct", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for part in ("", "_half1"):
        first, second = (read_map(tmp_path / f"{stem}{part}.mrc")[0] for stem in ("out/m_class002", "again"))
        np.testing.assert_allclose(first, second, atol=2e-4 * np.abs(first).max())
    log = (tmp_path / "out/m.log").read_text()
    assert "Missing cone of 32.0 degrees" in log
    assert "are not measured" in log


@pytest.mark.mpi
def test_every_number_of_ranks_writes_the_same_bytes(case: Case, tmp_path: Path) -> None:
    words = ["reconstruct", str(case.classes), "--rct", str(case.folder), "--radius", str(RADIUS), "--quiet"]
    _run(case, tmp_path / "one" / "m")
    done = run_mpi(3, "-c", _MAIN, *words, "--output", str(tmp_path / "three" / "m"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names = sorted(path.name for path in (tmp_path / "one").iterdir() if path.suffix in (".mrc", ".txt", ".star"))
    assert len(names) == 10
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes(), name


def test_particles_without_a_tilt_are_left_out_by_reason(copied: Case, tmp_path: Path) -> None:
    _edit(copied.folder / "pairs.star", "pairs", hpcsortTiltOutlier=(np.arange(120) < 3).astype(int))
    _edit(copied.folder / "pairs.star", "micrographs", hpcsortTiltAngle=[50.0, np.nan])
    done = _run(copied, tmp_path / "m", rounds=0)
    assert sum(len(found.table) for found in done) == 60 - 2
    log = (tmp_path / "m.log").read_text()
    assert "60 particles are left out: they lie in micrographs whose tilt could not be fitted" in log
    assert "2 particles are left out: they do not fit the tilt of their micrographs" in log


def _foreign_images(case: Case) -> None:
    _edit(case.classes, "particles", rlnImageName=[f"{row + 1}@pairs/tilted.mrcs" for row in range(120)])


def _twice(case: Case) -> None:
    _edit(case.classes, "particles", rlnImageName=["7@pairs/untilted.mrcs"] * 120)


def _rows_apart(case: Case) -> None:
    _edit(case.folder / "tilted.star", "particles", hpcsortPairId=np.arange(120))


def _no_tilt(case: Case) -> None:
    _edit(case.folder / "pairs.star", "micrographs", hpcsortTiltAngle=None)


def _no_fit(case: Case) -> None:
    _edit(case.folder / "pairs.star", "micrographs", hpcsortTiltAngle=np.nan)


def _refined(case: Case) -> None:
    _edit(case.classes, "particles", rlnAngleTilt=30.0)


def _no_psi(case: Case) -> None:
    _edit(case.classes, "particles", rlnAnglePsi=None)


def _odd_mirror(case: Case) -> None:
    _edit(case.classes, "particles", hpcsortMirror=2)


def _tiny_classes(case: Case) -> None:
    _edit(case.classes, "particles", rlnClassNumber=np.arange(120))


def _no_folder(case: Case) -> None:
    (case.folder / "pairs.star").unlink()


@pytest.mark.parametrize(
    ("spoil", "pattern"),
    [
        (_foreign_images, r"classes\.star, row 1: .*tilted\.mrcs is not among the images of .*untilted\.star"),
        (_twice, r"row 2: the image is in row 1 already"),
        (_rows_apart, r"tilted\.star and .*pairs\.star do not hold the same pairs"),
        (_no_tilt, r"pairs\.star has no column hpcsortTiltAngle in data_micrographs"),
        (_no_fit, r"tells the tilt of no particle .*120 particles .* could not be fitted"),
        (_refined, r"column rlnAngleTilt, holds directions of a 3D refinement"),
        (_no_psi, r"no column rlnAnglePsi"),
        (_odd_mirror, r"row 1, column hpcsortMirror: 2 is neither 0 nor 1"),
        (_tiny_classes, r"no class of .* has 10 tilted particles, the largest 1"),
        (_no_folder, r"has no pairs\.star"),
    ],
)
def test_wrong_inputs_end_in_one_sentence(copied: Case, tmp_path: Path, spoil: object, pattern: str) -> None:
    assert callable(spoil)
    spoil(copied)
    with pytest.raises(InputError, match=pattern) as caught:
        _run(copied, tmp_path / "out" / "m")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "kind", "pattern"),
    [
        (["--sym", "c4"], OptionError, "--sym does not go with --rct"),
        (["--no-halves"], OptionError, "--no-halves does not go with --rct"),
        (["--class", "9"], OptionError, "--class 9 has no tilted particles; those of class 1, 2 are known"),
        (["--centring-rounds", "-1"], OptionError, "--centring-rounds -1"),
        (["--max-shift", "nan"], OptionError, "--max-shift nan"),
        (["--max-shift", "0"], OptionError, "--max-shift 0 is out of range"),
        (["--radius", "20"], OptionError, "--radius 20 does not fit"),
    ],
)
def test_wrong_options_end_in_one_sentence(
    case: Case, tmp_path: Path, words: list[str], kind: type[HpcsortError], pattern: str
) -> None:
    base = ["reconstruct", str(case.classes), "--rct", str(case.folder), "--output", str(tmp_path / "m"), "--quiet"]
    with pytest.raises(kind, match=pattern):
        CliRunner().invoke(cli, [*base, *words], catch_exceptions=False)
    with pytest.raises(OptionError, match="--rct needs the 2D classes"):
        CliRunner().invoke(cli, [base[0], *base[2:]], catch_exceptions=False)


def test_maps_are_not_replaced_unless_asked(case: Case, tmp_path: Path) -> None:
    _run(case, tmp_path / "m", rounds=0)
    with pytest.raises(OutputError, match="--overwrite"):
        _run(case, tmp_path / "m", rounds=0)
    _run(case, tmp_path / "m", rounds=0, classes=(2,), overwrite=True)
    # the map of a class that this run has not made would pass for one
    assert not list(tmp_path.glob("m_class001*"))
