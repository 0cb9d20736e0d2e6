"""extract-pairs from micrographs to files: counts, rows, geometry against a simulation, ranks, and refusals."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mpi_helpers import run_alone, run_mpi
from pairs_cases import ctf_table, digests, options_of, write_micrograph, write_pos, write_set

from hpcsort.cli.main import cli
from hpcsort.errors import InputError, OptionError, OutputError
from hpcsort.io import MrcStack, read_particles, read_tables, write_tables
from hpcsort.io.xmd import read_xmd
from hpcsort.pairs import PairsResult, extract_pairs
from hpcsort.parallel import SerialComm
from hpcsort.simulation.tilt_options import TiltPairOptions
from hpcsort.simulation.tilt_pairs import TiltPairResult, simulate_tilt_pairs

_MAIN = "from hpcsort.cli.main import main; main()"


def _run(made: dict[str, Path], output: Path, **more: object) -> PairsResult:
    result = extract_pairs(options_of(made, output, **more), SerialComm())
    assert result is not None
    return result


def _stack(path: Path) -> np.ndarray:
    with MrcStack(path) as stack:
        return stack.read(np.arange(len(stack)))


def _table(path: Path, block: str) -> pd.DataFrame:
    found = read_tables(path)[block]
    assert isinstance(found, pd.DataFrame)
    return found


def _losses(folder: Path) -> dict[tuple[str, str, str], int]:
    with (folder / "losses.csv").open() as file:
        return {
            (Path(row["micrograph"]).name, row["side"], row["reason"]): int(row["particles"])
            for row in csv.DictReader(file)
        }


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[TiltPairResult, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("simulated")
    options = TiltPairOptions(
        out=folder / "sim", pairs=2, per_micrograph=25, size_px=384, box_px=48, pixel_size_A=6.0, tilt_deg=-52, snr=1.0
    )
    result = simulate_tilt_pairs(options)
    return result, pd.read_csv(result.truth)


def _made(result: TiltPairResult) -> dict[str, Path]:
    return {"pairs": result.pairs, "picks": result.coordinates}


def test_impulses_land_in_the_middle_of_both_sides(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places = {"u": np.array([[20, 31], [70, 44], [55, 80]]), "t": np.array([[25, 31], [60, 40], [51, 83]])}
    for letter, xy in places.items():
        image = rng.normal(0, 0.01, (97, 103))
        image[xy[:, 1], xy[:, 0]] = [1, 2, 3]
        write_micrograph(tmp_path / f"a_{letter}.mrc", image)
        write_pos(tmp_path / f"a_{letter}.pos", xy)
    (tmp_path / "pairs.csv").write_text("untilted,tilted\na_u.mrc,a_t.mrc\n")
    made = {"pairs": tmp_path / "pairs.csv", "picks": tmp_path}
    for box in (8, 9):
        out = tmp_path / f"out{box}"
        _run(made, out, box_px=box, dust=False, normalize="none")
        for side in ("untilted", "tilted"):
            windows = _stack(out / f"{side}.mrcs")
            assert [np.unravel_index(w.argmax(), w.shape) for w in windows] == [(box // 2, box // 2)] * 3
            np.testing.assert_allclose(windows.max(axis=(1, 2)), [1, 2, 3])


def test_kept_and_lost_pairs_are_counted_by_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    size, box = 64, 16
    good, rim = [32.0, 32.0], [3.0, 30.0]
    flat = rng.normal(0, 1, (size, size))
    blank = flat.copy()
    blank[40:60, 40:60] = 5.0
    write_micrograph(tmp_path / "a_u.mrc", flat)
    write_micrograph(tmp_path / "a_t.mrc", blank)
    # whole, border on one side, on the other, on both, blank, switched off, and one without a partner
    write_pos(
        tmp_path / "a_u.pos",
        np.array([good, rim, good, rim, good, good, good]),
        np.array([1, 2, 3, 4, 5, 6, 7]),
        np.array([1, 1, 1, 1, 1, -1, 1]),
    )
    write_pos(tmp_path / "a_t.pos", np.array([good, good, rim, rim, [50, 50], good]), np.array([1, 2, 3, 4, 5, 6]))
    (tmp_path / "pairs.csv").write_text("untilted,tilted\na_u.mrc,a_t.mrc\n")
    made = {"pairs": tmp_path / "pairs.csv", "picks": tmp_path}
    result = _run(made, tmp_path / "o", box_px=box, dust=False)
    assert result.kept == 1
    assert _losses(tmp_path / "o") == {
        ("a_u.mrc", "untilted", "border"): 1,
        ("a_t.mrc", "tilted", "border"): 1,
        ("a_u.mrc", "both", "border"): 1,
        ("a_t.mrc", "tilted", "blank"): 1,
        ("a_u.mrc", "both", "switched off by the user"): 1,
        ("a_u.mrc", "untilted", "not picked in the other micrograph"): 1,
    }
    assert _table(tmp_path / "o/pairs.star", "pairs")["hpcsortItemId"].tolist() == [1]
    filled = _run(made, tmp_path / "f", box_px=box, dust=False, borders="fill")
    assert filled.kept == 4


def test_windows_are_normalised_and_inverted(tmp_path: Path) -> None:
    made = write_set(tmp_path)
    _run(made, tmp_path / "a", normalize="ramp")
    _run(made, tmp_path / "b", normalize="ramp", invert=True)
    upright, inverted = (_stack(tmp_path / name / "untilted.mrcs") for name in "ab")
    np.testing.assert_allclose(upright, -inverted, atol=1e-5)
    axis = np.arange(16) - 8
    outside = axis[:, None] ** 2 + axis**2 >= 64
    np.testing.assert_allclose(upright[:, outside].mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(upright[:, outside].std(axis=1, ddof=1), 1, atol=1e-4)


def test_inversion_as_in_the_original_stretches_the_micrograph(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1)
    _run(made, tmp_path / "plain", normalize="none", dust=False)
    _run(made, tmp_path / "sign", normalize="none", dust=False, invert=True)
    _run(made, tmp_path / "compat", normalize="none", dust=False, invert=True, compat=True)
    plain, sign, compat = (_stack(tmp_path / name / "tilted.mrcs") for name in ("plain", "sign", "compat"))
    micrograph = _stack(tmp_path / "mics/m0_t.mrc")
    assert np.array_equal(plain, -sign)
    expected = (micrograph.max() - plain) / (micrograph.max() - micrograph.min())
    np.testing.assert_allclose(compat, expected, atol=1e-5)
    averages = [
        _table(tmp_path / name / "pairs.star", "pairs")["hpcsortTiltedLocalAverage"] for name in ("plain", "compat")
    ]
    np.testing.assert_allclose(averages[0], averages[1])
    np.testing.assert_allclose(averages[0], plain.mean(axis=(1, 2)), atol=1e-4)


def test_both_star_files_have_equal_rows_that_other_readers_read(tmp_path: Path) -> None:
    made = write_set(tmp_path)
    more = {"ctf_untilted": made["ctf_u"], "ctf_tilted": made["ctf_t"], "phase_flip": True, "downsample": 2.0}
    _run(made, tmp_path / "o", **more)
    tables = [read_particles(tmp_path / f"o/{side}.star", need_poses=False) for side in ("untilted", "tilted")]
    frames = [table.frame for table in tables]
    assert len(frames[0]) == len(frames[1]) == 24
    assert frames[0]["hpcsortPairId"].tolist() == frames[1]["hpcsortPairId"].tolist()
    assert [table.pixel_size_A for table in tables] == [4.0, 4.0]
    assert [table.box_px for table in tables] == [16, 16]
    assert tables[0].optics is not None
    assert tables[0].optics["hpcsortPhaseFlipped"].tolist() == [1]
    assert tables[0].optics["rlnMicrographOriginalPixelSize"].tolist() == [2.0]
    np.testing.assert_allclose(tables[1].defocus_u_A, 8300)
    pairs = _table(tmp_path / "o/pairs.star", "pairs")
    assert pairs["hpcsortTiltedImageName"].tolist() == [f"{i + 1:06d}@tilted.mrcs" for i in range(24)]
    for side, frame in zip(("Untilted", "Tilted"), frames, strict=True):
        for axis in "XY":
            np.testing.assert_allclose(
                frame[f"rlnCoordinate{axis}"] / 2, pairs[f"hpcsort{side}Scaled{axis}"], atol=1e-5
            )
            rest = pairs[f"hpcsort{side}Rest{axis}"]
            assert rest.between(-0.5, 0.5).all()
            assert rest.abs().max() > 0.1
    xmd = read_xmd(tmp_path / "o/images_tilted.xmd")["particles"]
    assert isinstance(xmd, pd.DataFrame)
    whole = np.floor(pairs["hpcsortTiltedScaledX"].to_numpy() + 0.5)
    assert np.array_equal(xmd["xcoor"], whole)
    assert xmd["ctfQ0"].tolist() == [0.1] * 24


def test_without_ctf_the_table_has_none(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1)
    _run(made, tmp_path / "o", ctf_untilted=made["ctf_u"], phase_flip=True)
    assert "rlnDefocusU" in _table(tmp_path / "o/untilted.star", "particles")
    assert "rlnDefocusU" not in _table(tmp_path / "o/tilted.star", "particles")
    flipped = [
        _table(tmp_path / f"o/{side}.star", "optics")["hpcsortPhaseFlipped"].tolist() for side in ("untilted", "tilted")
    ]
    assert flipped == [[1], [0]]


def test_the_tilt_of_a_simulation_is_found_and_its_gradient_followed(
    simulated: tuple[TiltPairResult, pd.DataFrame], tmp_path: Path
) -> None:
    result, truth = simulated
    more = {"ctf_untilted": result.ctfs[0], "ctf_tilted": result.ctfs[1], "phase_flip": True, "invert": True}
    done = _run(_made(result), tmp_path / "o", box_px=48, tilted_defocus="gradient", **more)
    for pair in done.pairs:
        assert pair.fit is not None
        assert pair.fit.tilt_deg == pytest.approx(52, abs=0.5)
        assert pair.fit.axis_untilted_deg == pytest.approx(85, abs=1)
        assert pair.fit.axis_tilted_deg == pytest.approx(88, abs=1)
        assert not pair.fit.outlier.any()
        assert pair.sign_sigmas > 4
    table = _table(tmp_path / "o/tilted.star", "particles").merge(truth, left_on="hpcsortPairId", right_on="pair_id")
    assert len(table) == done.kept > 15
    mean = (table["rlnDefocusU"] + table["rlnDefocusV"]) / 2
    assert np.ptp(table["defocus_t_A"] - table["micrograph_defocus_t_A"]) > 500
    # six pixels between the middle of the micrograph and the axis make 46 A
    assert (mean - table["defocus_t_A"]).abs().max() < 80
    for axis in "xy":
        assert (table[f"rlnCoordinate{axis.upper()}"] - table[f"{axis}_t_px"]).abs().max() <= 0.5


def test_the_windows_of_a_simulation_hold_its_particles(
    simulated: tuple[TiltPairResult, pd.DataFrame], tmp_path: Path
) -> None:
    result, truth = simulated
    _run(_made(result), tmp_path / "o", box_px=48, invert=True)
    for side in ("untilted", "tilted"):
        mean = _stack(tmp_path / f"o/{side}.mrcs").mean(axis=0)
        axis = np.arange(48) - 24
        radius = np.hypot(axis[:, None], axis)
        # particles are dark in the micrographs and white after inversion; the CTF leaves little of the mean
        assert mean[radius < 16].var() > 2 * mean[radius > 22].var()
    inputs = truth[["x_u_px", "x_t_px"]].to_numpy()
    near = ((truth[["x_u_px", "y_u_px"]] < 24) | (truth[["x_u_px", "y_u_px"]] > 384 - 24)).any(axis=1)
    assert near.any()
    assert len(inputs) > len(_stack(tmp_path / "o/tilted.mrcs"))


def test_missing_things_end_in_the_report(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=4)
    (tmp_path / "mics/m0_t.mrc").unlink()
    (tmp_path / "picks/m1_t.pos").unlink()
    write_tables(made["ctf_u"], {"": ctf_table(["mics/m0_u.mrc", "mics/m3_u.mrc"])}, overwrite=True)
    result = _run(made, tmp_path / "o", ctf_untilted=made["ctf_u"], report=True)
    assert result.kept == 12
    text = (tmp_path / "o/report.html").read_text()
    for word in ("m0_t.mrc", "missing micrograph", "m1_t.mrc", "no file of coordinates", "m2_u.mrc", "missing CTF"):
        assert word in text
    assert text.count("data:image/png;base64,") >= 3


def test_micrographs_that_break_on_reading_lose_their_pair(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=2)
    write_micrograph(tmp_path / "mics/m0_t.mrc", np.full((128, 128), np.nan))
    result = _run(made, tmp_path / "o")
    assert result.kept == 12
    ((name, side, reason),) = _losses(tmp_path / "o")
    assert (name, side) == ("m0_t.mrc", "tilted")
    assert "not finite" in reason


def test_nothing_whole_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1)
    write_pos(made["picks"] / "m0_u.pos", np.tile([2.0, 2.0], (12, 1)))
    with pytest.raises(InputError, match=r"no pair of particles is whole.*border"):
        _run(made, tmp_path / "o")
    assert not list((tmp_path / "o").iterdir())


def test_output_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1)
    _run(made, tmp_path / "o")
    before = (tmp_path / "o/untilted.mrcs").read_bytes()
    (tmp_path / "o/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        _run(made, tmp_path / "o", box_px=12)
    assert (tmp_path / "o/untilted.mrcs").read_bytes() == before
    assert _run(made, tmp_path / "o", box_px=12, overwrite=True).kept == 12
    assert _stack(tmp_path / "o/tilted.mrcs").shape == (12, 12, 12)
    assert (tmp_path / "o/notes.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="is an input"):
        _run(made, tmp_path, overwrite=True)


def test_workers_and_downsampling_by_a_fraction_change_no_bit_and_no_place(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=3, size=96)
    for name, workers in (("a", 1), ("b", 3)):
        _run(made, tmp_path / name, downsample=1.37, box_px=10, workers=workers, report=True)
    for name in ("untilted.mrcs", "tilted.star", "pairs.star", "report/micrographs.csv", "report/000000_field.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    pairs = _table(tmp_path / "a/pairs.star", "pairs")
    true_scale = 96 / np.floor(96 / 1.37)
    scaled = pairs["hpcsortUntiltedCoordinateX"] / true_scale
    np.testing.assert_allclose(pairs["hpcsortUntiltedScaledX"], scaled, atol=1e-5)


@pytest.mark.mpi
def test_every_number_of_ranks_writes_the_same_bytes(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=3)
    words = f"extract-pairs --pairs {made['pairs']} --coordinates {made['picks']} --box 16 --invert --no-report --quiet"
    words += f" --ctf-untilted {made['ctf_u']} --phase-flip --output"
    sums = []
    for ranks in (1, 2, 3):
        out = tmp_path / f"out{ranks}"
        if ranks == 1:
            _run(made, out, invert=True, ctf_untilted=made["ctf_u"], phase_flip=True)
        else:
            done = run_mpi(ranks, "-c", _MAIN, *words.split(), str(out))
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        sums.append(digests(out))
    assert len(sums[0]) == 8
    assert sums[0] == sums[1] == sums[2]


@pytest.mark.mpi
def test_ranks_fail_together_on_bad_input(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=2)
    (made["picks"] / "m1_u.pos").write_text("nothing\n")
    words = ("--pairs", str(made["pairs"]), "--coordinates", str(made["picks"]), "--box", "16", "--no-invert")
    done = run_mpi(2, "-c", _MAIN, "extract-pairs", *words, "--output", str(tmp_path / "o"))
    assert done.returncode == InputError.exit_code
    assert done.stderr.count("m1_u.pos") == 1, done.stderr


def test_the_command_line_tells_geometry_and_losses(tmp_path: Path) -> None:
    made = write_set(tmp_path)
    (tmp_path / "mics/m1_t.mrc").unlink()
    words = ("--pairs", str(made["pairs"]), "--coordinates", str(made["picks"]), "--box", "16", "--no-invert")
    done = run_alone("-c", _MAIN, "extract-pairs", *words, "--output", str(tmp_path / "o"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "m0_u: tilt 50." in done.stdout or "m0_u: tilt 49." in done.stdout
    assert "12 pairs in 1 micrograph (missing micrograph, tilted)" in done.stdout
    assert "12 pairs written" in done.stdout


def test_the_user_chooses_the_contrast(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1)
    words = ["extract-pairs", "--pairs", str(made["pairs"]), "--box", "16", "--output", str(tmp_path / "o")]
    with pytest.raises(OptionError, match="neither --invert nor --no-invert"):
        CliRunner().invoke(cli, words, catch_exceptions=False)


@pytest.mark.parametrize("more", [{"tilt_deg": 80.0}, {"pairs": 0}, {"size_px": 8}, {"snr": -1.0}, {"cs_mm": -1.0}])
def test_simulations_out_of_range_are_refused(more: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        TiltPairOptions(out=tmp_path / "s", **more)


def test_the_same_simulation_has_the_same_bytes_and_is_not_replaced(tmp_path: Path) -> None:
    text = "--tilt-pairs 1 --per-micrograph 4 --micrograph-size 96 --box 32 --angpix 8 --dust 3 --seed 5"
    words = text.split()
    for name in "ab":
        done = CliRunner().invoke(cli, ["simulate", str(tmp_path / name), *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "extract-pairs --pairs" in done.output
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert Path("micrographs/pair_001_T.mrc") in files
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    with pytest.raises(OutputError, match="--overwrite"):
        CliRunner().invoke(cli, ["simulate", str(tmp_path / "a"), *words], catch_exceptions=False)
