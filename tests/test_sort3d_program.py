"""The program end to end: true groups, consistent files, the same bytes on any ranks, and bad input in one sentence."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from mpi_helpers import find_mpiexec, run_mpi
from scipy.spatial.transform import Rotation

from hpcsort.errors import HpcsortError, InputError, OptionError, OutputError
from hpcsort.geometry import direction_order, point_group, relion_matrices
from hpcsort.io import read_map, read_particles, write_map, write_tables
from hpcsort.parallel import SerialComm, StoryLog
from hpcsort.partitions import matched_accuracy, purities
from hpcsort.simulation import SimulationOptions, SimulationResult, simulate
from hpcsort.sort3d import SortOptions, SortResult, sort3d
from hpcsort.sort3d.final import reconstruct_groups
from hpcsort.sort3d.problem import pose_problem, read_table
from hpcsort.volumes import map_fsc

_BOX, _PIXEL_A = 24, 13.3
_MAIN = "from hpcsort.cli.main import main; main()"


def _simulate(out: Path, particles: int, states: int = 2, **more: object) -> SimulationResult:
    given = {"box_px": _BOX, "pixel_size_A": _PIXEL_A, "snr": 0.5, "shift_sigma_px": 1.0, "seed": 3} | more
    return simulate(SimulationOptions(out=out, states=states, particles=particles, **given))  # type: ignore[arg-type]


def _sort(star: Path, out: Path, **more: object) -> SortResult:
    given = {"max_groups": 3, "components": 4, "quiet": True} | more
    return sort3d(SortOptions(instack=star, output_dir=out, **given), SerialComm())  # type: ignore[arg-type]


def _ids(path: Path) -> np.ndarray:
    return np.array(path.read_text().split(), np.int64)


@dataclass(frozen=True)
class _Case:
    made: SimulationResult
    truth: np.ndarray
    out: Path
    result: SortResult


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> _Case:
    folder = tmp_path_factory.mktemp("two_states")
    # Noisy enough that some particles stay unaccounted.
    made = _simulate(folder / "data", 500, snr=0.35)
    result = _sort(made.star, folder / "out", num_core_set=1)
    return _Case(made, pd.read_csv(made.truth).state.to_numpy(), folder / "out", result)


def test_groups_are_the_true_states(case: _Case) -> None:
    assert len(case.result.groups) == 2
    assert purities(case.truth, case.result.labels).min() >= 0.9
    assert matched_accuracy(case.truth, case.result.labels) >= 0.9
    for group in case.result.groups:
        assert group.reproducibility > group.chance_mean + 5 * group.chance_std
        assert group.p < 0.01
        assert 2 * _PIXEL_A <= group.resolution_A < 5 * _PIXEL_A
    assert [group.size for group in case.result.groups] == np.bincount(case.result.labels + 1)[1:].tolist()


def test_cluster_files_and_core_set_partition_the_particles(case: _Case) -> None:
    clusters = [_ids(path) for path in sorted(case.out.glob("Cluster_*.txt"))]
    core = _ids(case.out / "Core_set.txt")
    assert len(clusters) == len(case.result.groups)
    assert len(core) > 0
    np.testing.assert_array_equal(np.sort(np.concatenate([*clusters, core])), np.arange(500))
    for number, ids in enumerate(clusters):
        np.testing.assert_array_equal(ids, np.flatnonzero(case.result.labels == number))
    first = case.out / "generation_000"
    parts = [_ids(path) for path in sorted(first.glob("Cluster_*.txt"))]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(500))
    np.testing.assert_array_equal(parts[-1], _ids(first / "Core_set.txt"))


def test_the_table_keeps_every_column_and_adds_the_class(case: _Case) -> None:
    given, written = (starfile.read(path) for path in (case.made.star, case.out / "particles.star"))
    assert list(written["particles"].columns) == [
        *given["particles"].columns, "rlnClassNumber", "hpcsortReproducibility", "hpcsortGroupProbability",
    ]  # fmt: skip
    pd.testing.assert_frame_equal(
        written["particles"][given["particles"].columns].drop(columns="rlnImageName"),
        given["particles"].drop(columns="rlnImageName"),
    )
    pd.testing.assert_frame_equal(written["optics"], given["optics"])
    np.testing.assert_array_equal(written["particles"].rlnClassNumber, case.result.labels + 1)
    accounted = case.result.labels >= 0
    assert written["particles"].hpcsortReproducibility[accounted].min() >= 0.75
    assert written["particles"].hpcsortReproducibility.between(0, 1).all()
    assert written["particles"].hpcsortGroupProbability.between(0, 1).all()
    # From its new place the table still finds the images.
    table = read_particles(case.out / "particles.star")
    assert table.stack_paths[0].resolve() == case.made.stack.resolve()
    np.testing.assert_array_equal(table.stack_index, np.arange(500))


def test_maps_are_made_of_exactly_the_listed_particles(case: _Case) -> None:
    table = read_particles(case.made.star)
    members = [_ids(path) for path in sorted(case.out.glob("Cluster_*.txt"))] + [_ids(case.out / "Core_set.txt")]
    again = reconstruct_groups(
        SerialComm(), table, members, half=table.random_subset - 1, radius_px=_BOX // 2 - 2, mask=None,
        symmetry=point_group("c1"),
    )  # fmt: skip
    assert again is not None
    stems = ["vol_cluster000", "vol_cluster001", "volume_core"]
    for stem, maps, ids in zip(stems, again, members, strict=True):
        assert maps.size == len(ids)
        for name, volume in ((stem, maps.map), (f"{stem}_half1", maps.half1), (f"{stem}_half2", maps.half2)):
            data, voxel = read_map(case.out / f"{name}.mrc")
            assert data.tobytes() == volume.tobytes()
            assert voxel == pytest.approx(_PIXEL_A, rel=1e-5)
        curve = np.loadtxt(case.out / f"{stem}_fsc.txt")
        np.testing.assert_allclose(curve[:, 2], maps.fsc, atol=1e-5)
        np.testing.assert_allclose(curve[1:, 1], _BOX * _PIXEL_A / curve[1:, 0], rtol=1e-4)
    states = [read_map(path)[0] for path in case.made.maps]
    for maps, ids in zip(again[:2], members[:2], strict=True):
        own = np.bincount(case.truth[ids] + 1).argmax() - 1
        right, wrong = (map_fsc(maps.map, states[which])[2:7].mean() for which in (own, 1 - own))
        assert right > max(wrong, 0.9)


def test_the_run_and_the_log_tell_what_happened(case: _Case) -> None:
    run = json.loads((case.out / "run.json").read_text())
    assert (run["particles"], run["ranks"], run["seed"]) == (500, 1, 0)
    assert run["accounted"] == int((case.result.labels >= 0).sum())
    assert [group["size"] for group in run["groups"]] == [group.size for group in case.result.groups]
    assert run["options"]["instack"] == str(case.made.star)
    assert run["inputs"][str(case.made.star)]["sha256"] == hashlib.sha256(case.made.star.read_bytes()).hexdigest()
    assert run["inputs"][str(case.made.stack)]["bytes"] == case.made.stack.stat().st_size
    assert run["bad_images"] == []
    log = (case.out / "log.txt").read_text()
    assert f"2 groups, {run['accounted']} of 500 particles accounted for." in log
    for number, group in enumerate(case.result.groups):
        assert re.search(rf"group {number}: {group.size} particles, reproducibility \d+\.\d %", log)
        assert re.search(rf"^.*  +{number} +{group.size} +0 ", log, re.MULTILINE)
    assert "Held-out log-likelihood" in log
    assert "Time: " in log
    assert "memory" in log


def test_junk_is_no_part_of_the_groups(tmp_path: Path) -> None:
    made = _simulate(tmp_path / "data", 500, junk=0.12)
    truth = pd.read_csv(made.truth).state.to_numpy()
    result = _sort(made.star, tmp_path / "out", depth_order=1)
    # Junk may be a group of its own, but not part of another.
    assert purities(truth + 1, result.labels).min() > 0.95
    found = {int(np.bincount(truth[result.labels == group] + 1).argmax()) - 1 for group in range(len(result.groups))}
    assert {0, 1} <= found


def test_one_state_is_one_group(tmp_path: Path) -> None:
    made = _simulate(tmp_path / "data", 300, states=1)
    result = _sort(made.star, tmp_path / "out")
    assert len(result.groups) == 1
    np.testing.assert_array_equal(result.labels, 0)
    assert "One group: held-out likelihood prefers a single structure for all 300" in (
        (tmp_path / "out" / "log.txt").read_text()
    )
    assert (tmp_path / "out" / "Core_set.txt").read_text() == ""
    assert not (tmp_path / "out" / "volume_core.mrc").exists()


def test_other_options_sort_as_well(tmp_path: Path, case: _Case) -> None:
    mask = np.ones((_BOX,) * 3, np.float32)
    write_map(tmp_path / "mask.mrc", mask, _PIXEL_A)
    result = _sort(
        case.made.star, tmp_path / "out", img_per_grp=200, freeze_groups=False, nstep=2, nxinit=16, radius=9,
        mask3D=tmp_path / "mask.mrc", include_unaccounted=False, depth_order=1, orientation_groups=4, num_core_set=499,
    )  # fmt: skip
    assert len(result.groups) == 2
    assert purities(case.truth, result.labels).min() >= 0.9
    first = tmp_path / "out" / "generation_000"
    assert len(list(first.glob("Cluster_*.txt"))) == 2
    assert not (tmp_path / "out" / "volume_core.mrc").exists()
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert str(tmp_path / "mask.mrc") in run["inputs"]


def test_a_symmetric_particle(tmp_path: Path) -> None:
    """Views are random over all directions, so that a map of C4 has to put four mates together."""
    axis = np.arange(_BOX) - _BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((_BOX,) * 3)
    for operator in point_group("C4"):
        cx, cy, cz = operator @ np.array([4.0, 1.0, 2.0])
        volume += np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / 6)
        cx, cy, cz = operator @ np.array([2.0, -3.0, -4.0])
        volume += 0.7 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / 4)
    write_map(tmp_path / "c4.mrc", volume.astype(np.float32), _PIXEL_A)
    made = _simulate(tmp_path / "data", 120, states=1, map_path=tmp_path / "c4.mrc", pixel_size_A=0.0, box_px=0)
    result = _sort(made.star, tmp_path / "out", sym="c4")
    assert len(result.groups) == 1
    found, _ = read_map(tmp_path / "out" / "vol_cluster000.mrc")
    assert map_fsc(found, volume.astype(np.float32))[1:6].min() > 0.9
    # The centre of an even box is a voxel, so that plane 0 has no partner.
    core = found[:, 1:, 1:]
    np.testing.assert_allclose(np.rot90(core, axes=(1, 2)), core, atol=0.01 * found.max())


# Bad input


@pytest.fixture
def small(tmp_path: Path) -> SimulationResult:
    return _simulate(tmp_path / "data", 60)


def _break_images(made: SimulationResult, **faults: list[int]) -> None:
    with mrcfile.open(made.stack, "r+") as stack:
        stack.data[faults.get("nan", []), 3, 4] = np.nan
        stack.data[faults.get("inf", []), 0, 0] = np.inf
        stack.data[faults.get("constant", [])] = 2.5


def _edit_table(made: SimulationResult, **columns: object) -> None:
    tables = starfile.read(made.star)
    for name, value in columns.items():
        if value is None:
            del tables["particles"][name]
        else:
            tables["particles"][name] = value
    write_tables(made.star, tables, overwrite=True)


def _refused(made: SimulationResult, kind: type[HpcsortError], message: str, **options: object) -> None:
    out = made.star.parent.parent / "refused"
    (out / "log.txt").unlink(missing_ok=True)
    with pytest.raises(kind, match=message) as caught:
        _sort(made.star, out, **options)
    assert "\n" not in str(caught.value)
    left = [path.name for path in out.iterdir()] if out.exists() else []
    assert left == []


@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_images_that_are_not_finite_are_named(small: SimulationResult, fault: str) -> None:
    _break_images(small, **{fault: [41]})
    named = r"^1 bad images: image 42 of .*particles\.mrcs \(STAR row 42\) has 1 NaN or infinite pixels"
    _refused(small, InputError, named + ".*--skip-bad")


def test_constant_images_are_named_and_many_are_summed_up(small: SimulationResult) -> None:
    _break_images(small, constant=[7])
    _refused(small, InputError, r"image 8 of .* \(STAR row 8\) is constant \(every pixel 2\.5\)")
    _break_images(small, nan=list(range(10, 30)))
    _refused(small, InputError, r"^21 bad images: (image .*; ){5}and 16 more; .*--skip-bad")


def test_masked_images_are_refused_before_any_work(small: SimulationResult) -> None:
    axis = np.arange(_BOX) - _BOX // 2
    with mrcfile.open(small.stack, "r+") as stack:
        stack.data[5] *= axis[:, None] ** 2 + axis**2 <= (_BOX // 2 - 2) ** 2
    _refused(small, InputError, r"particles\.star, row 6: the image is constant outside the radius of 10 px")


def test_bad_images_are_left_out_on_request(tmp_path: Path) -> None:
    made = _simulate(tmp_path / "data", 300)
    bad = [3, 100, 101, 250]
    _break_images(made, nan=[3, 250], inf=[100], constant=[101])
    result = _sort(made.star, tmp_path / "out", skip_bad=True, num_core_set=1)
    np.testing.assert_array_equal(result.labels[bad], -1)
    np.testing.assert_array_equal(result.agreeing[bad], 0.0)
    listed = [_ids(path) for path in (tmp_path / "out").glob("**/Cluster_*.txt")]
    listed += [_ids(path) for path in (tmp_path / "out").glob("**/Core_set.txt")]
    assert not set(bad) & set(np.concatenate(listed).tolist())
    top = [_ids(path) for path in (tmp_path / "out").glob("Cluster_*.txt")] + [_ids(tmp_path / "out" / "Core_set.txt")]
    assert set(np.concatenate(top).tolist()) == set(range(300)) - set(bad)
    written = starfile.read(tmp_path / "out" / "particles.star")["particles"]
    assert len(written) == 300
    assert (written.rlnClassNumber[bad] == 0).all()
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(run["bad_images"]) == 4
    assert "4 bad images are left out" in (tmp_path / "out" / "log.txt").read_text()
    assert purities(pd.read_csv(made.truth).state, result.labels).min() > 0.9


def test_too_few_good_images_are_left(small: SimulationResult) -> None:
    _break_images(small, constant=list(range(25)))
    _refused(small, InputError, "only 35 good images are left of 60; at least 40 are needed", skip_bad=True)


def test_a_truncated_stack_is_refused(small: SimulationResult) -> None:
    with small.stack.open("r+b") as stack:
        stack.truncate(small.stack.stat().st_size - 1000)
    _refused(small, InputError, r"particles\.mrcs")


@pytest.mark.parametrize("column", ["rlnAngleTilt", "rlnDefocusU", "rlnImageName"])
def test_a_missing_column_is_named(small: SimulationResult, column: str) -> None:
    _edit_table(small, **{column: None})
    _refused(small, InputError, column)


def test_words_where_numbers_belong_are_named(small: SimulationResult) -> None:
    angles = [f"{angle}" for angle in range(60)]
    angles[11] = "north"
    _edit_table(small, rlnAngleRot=angles)
    _refused(small, InputError, r"particles\.star.*row 12.*(rlnAngleRot.*north|north.*rlnAngleRot)")


def test_too_few_particles_are_refused(tmp_path: Path) -> None:
    made = _simulate(tmp_path / "data", 39)
    _refused(made, InputError, r"particles\.star holds 39 particles, too few to sort; give at least 40")


def test_pixel_sizes_that_differ_are_refused_before_the_folder_is_touched(small: SimulationResult) -> None:
    tables = starfile.read(small.star)
    tables["optics"] = pd.concat([tables["optics"]] * 2, ignore_index=True)
    tables["optics"]["rlnOpticsGroup"] = [1, 2]
    tables["optics"]["rlnOpticsGroupName"] = ["one", "two"]
    tables["optics"]["rlnImagePixelSize"] = [_PIXEL_A, 2 * _PIXEL_A]
    tables["particles"]["rlnOpticsGroup"] = 1 + np.arange(60) % 2
    write_tables(small.star, tables, overwrite=True)
    _refused(small, InputError, "pixel")
    assert not (small.star.parent.parent / "refused").exists()


@pytest.mark.parametrize("option", [{"radius": 12}, {"nxinit": 26}])
def test_what_does_not_fit_the_box_is_refused(small: SimulationResult, option: dict[str, int]) -> None:
    _refused(small, OptionError, f"{next(iter(option.values()))} .*box of 24 px", **option)
    assert not (small.star.parent.parent / "refused").exists()


def test_a_mask_of_another_box_is_refused(small: SimulationResult, tmp_path: Path) -> None:
    write_map(tmp_path / "mask.mrc", np.ones((20,) * 3, np.float32), _PIXEL_A)
    _refused(small, InputError, r"mask .*mask\.mrc has 20 x 20 x 20 voxels", mask3D=tmp_path / "mask.mrc")
    _refused(small, InputError, r"absent\.mrc", mask3D=tmp_path / "absent.mrc")


def test_what_lies_in_the_output_folder_stays(small: SimulationResult, tmp_path: Path) -> None:
    out = tmp_path / "used"
    out.mkdir()
    foreign = ["notes.txt", "Cluster_notes.txt", "volume_core_of_mine.mrc", "generation_me/list.txt", "data.mrcs"]
    for name in foreign:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    with pytest.raises(OutputError, match=r"used is not empty.*--output-dir.*--overwrite"):
        _sort(small.star, out)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == sorted(foreign)
    stale = ["Cluster_007.txt", "vol_cluster007.mrc", "vol_cluster007_half2.mrc", "generation_003/Cluster_001.txt"]
    for name in stale:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("of an earlier sort")
    _sort(small.star, out, overwrite=True)
    assert not any((out / name).exists() for name in stale)
    assert all((out / name).read_text() == "mine" for name in foreign)
    assert (out / "run.json").exists()


def test_bad_input_costs_no_earlier_results(small: SimulationResult, tmp_path: Path) -> None:
    out = tmp_path / "used"
    out.mkdir()
    earlier = {name: f"earlier {name}" for name in ("Cluster_000.txt", "log.txt", "run.json")}
    for name, text in earlier.items():
        (out / name).write_text(text)
    _break_images(small, nan=[5])
    with pytest.raises(InputError, match="bad images"):
        _sort(small.star, out, overwrite=True)
    assert {path.name: path.read_text() for path in out.iterdir()} == earlier


def test_overwriting_never_removes_an_input(small: SimulationResult, tmp_path: Path) -> None:
    out = small.star.parent
    before = small.star.read_bytes()
    with pytest.raises(OutputError, match=r"particles\.star is an input of this sort"):
        _sort(small.star, out, overwrite=True)
    assert small.star.read_bytes() == before
    used = tmp_path / "used"
    used.mkdir()
    mask = used / "vol_cluster000.mrc"
    write_map(mask, np.ones((_BOX,) * 3, np.float32), _PIXEL_A)
    with pytest.raises(OutputError, match=r"vol_cluster000\.mrc is an input"):
        _sort(small.star, used, overwrite=True, mask3D=mask)
    assert mask.exists()


def test_an_output_folder_that_is_a_file_is_refused(small: SimulationResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file"):
        _sort(small.star, tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


# Ranks


def _digests(out: Path) -> dict[str, str]:
    """SHA-256 of everything that may not depend on the ranks."""
    patterns = ("**/*.txt", "*.mrc", "particles.star")
    found = {path for pattern in patterns for path in out.glob(pattern)} - {out / "log.txt"}
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


def _command(star: Path, out: Path) -> tuple[str, ...]:
    files = ("--instack", str(star), "--output-dir", str(out))
    return "-c", _MAIN, "sort3d", *files, "--max-groups", "2", "--components", "2", "--depth-order", "1"


@pytest.mark.mpi
@pytest.mark.slow
def test_files_do_not_depend_on_the_ranks(tmp_path: Path) -> None:
    find_mpiexec()
    # 300 particles are three chunks, so that the last of four ranks has none.
    made = _simulate(tmp_path / "data", 300)
    _sort(made.star, tmp_path / "out0", max_groups=2, components=2, depth_order=1)
    expected = _digests(tmp_path / "out0")
    assert {"Cluster_000.txt", "Core_set.txt", "particles.star", "vol_cluster001_half1.mrc"} <= set(expected)
    for ranks in (1, 2, 3, 4):
        done = run_mpi(ranks, *_command(made.star, tmp_path / f"out{ranks}"))
        assert done.returncode == 0, done.stderr
        assert _digests(tmp_path / f"out{ranks}") == expected
        run = json.loads((tmp_path / f"out{ranks}" / "run.json").read_text())
        assert run["ranks"] == ranks
        assert f", {ranks} rank" in done.stdout


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    made = _simulate(tmp_path / "data", 200)
    first = _sort(made.star, tmp_path / "first", depth_order=1)
    order = np.random.default_rng(0).permutation(200)
    tables = starfile.read(made.star)
    tables["particles"] = tables["particles"].iloc[order].reset_index(drop=True)
    shuffled = made.star.with_name("shuffled.star")
    write_tables(shuffled, tables)
    second = _sort(shuffled, tmp_path / "second", depth_order=1)
    np.testing.assert_array_equal(second.labels, first.labels[order])
    np.testing.assert_array_equal(second.agreeing, first.agreeing[order])
    np.testing.assert_allclose(second.probability, first.probability[order])


def test_the_seed_decides_and_nothing_else(tmp_path: Path, case: _Case) -> None:
    again = _sort(case.made.star, tmp_path / "again", num_core_set=1)
    np.testing.assert_array_equal(again.labels, case.result.labels)
    # The table names its images from where it lies, which is elsewhere.
    digests = [_digests(out) | {"particles.star": ""} for out in (tmp_path / "again", case.out)]
    assert digests[0] == digests[1]
    other = _sort(case.made.star, tmp_path / "other", seed=9, depth_order=1)
    assert (other.probability != case.result.probability).any()
    assert purities(case.truth, other.labels).min() >= 0.9


@pytest.mark.mpi
def test_an_image_that_only_the_last_rank_reads_ends_all_ranks(tmp_path: Path) -> None:
    find_mpiexec()
    made = _simulate(tmp_path / "data", 300)
    table = read_particles(made.star)
    names = np.array([f"particles.mrcs@{index:09d}" for index in table.stack_index])
    last = int(direction_order(relion_matrices(table.angles_deg), names)[-1])
    _break_images(made, nan=[last])
    done = run_mpi(3, *_command(made.star, tmp_path / "out"), timeout_s=60)
    assert done.returncode == InputError.exit_code
    lines = [line for line in done.stderr.splitlines() if line.startswith("hpcsort")]
    assert len(lines) == 1, done.stderr
    assert f"STAR row {last + 1}" in lines[0]
    assert "Traceback" not in done.stderr


# What the sort starts from


def test_the_problem_is_posed_in_the_order_of_views(tmp_path: Path) -> None:
    made = _simulate(tmp_path / "data", 300, noise="coloured")
    options, comm = SortOptions(instack=made.star, output_dir=tmp_path, quiet=True), SerialComm()
    table, mask = read_table(options, comm)
    problem = pose_problem(options, table, mask, comm, StoryLog(None, comm, True))
    assert mask is None
    assert sorted(problem.rows.tolist()) == list(range(300))
    np.testing.assert_array_equal(problem.half, table.random_subset[problem.rows] - 1)
    assert problem.narrow.grid.radius <= problem.wide.grid.radius <= _BOX // 2 - 1
    views = Rotation.from_matrix(relion_matrices(table.angles_deg[problem.rows]))
    steps = (views[1:] * views[:-1].inv()).magnitude()
    axis = views.inv().apply([0, 0, 1])
    # Neighbours look along nearly the same axis, far nearer than particles do by chance.
    assert np.abs((axis[1:] * axis[:-1]).sum(axis=1)).mean() > 0.9
    assert steps.size == 299
    # Residuals are whitened: what is left after the consensus is noise of variance one, state differences apart.
    power = (np.abs(problem.wide.store.data.images) ** 2).mean()
    assert 0.8 < power < 1.3
    assert problem.orientation.shape == (300,)


def test_half_sets_are_drawn_where_the_table_has_none(tmp_path: Path) -> None:
    made = _simulate(tmp_path / "data", 100)
    _edit_table(made, rlnRandomSubset=None)
    options, comm = SortOptions(instack=made.star, output_dir=tmp_path, quiet=True), SerialComm()
    problem = pose_problem(options, *read_table(options, comm), comm, StoryLog(None, comm, True))
    assert np.bincount(problem.half).tolist() == [50, 50]
