"""The program end to end: true groups, consistent files, the same bytes on any ranks."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from mpi_helpers import find_mpiexec, run_mpi
from scipy.spatial.transform import Rotation
from sort3d_runs import BOX, MAIN, PIXEL_A, break_images, edit_table, read_ids, simulate_small, sort_quietly

from hpcsort.errors import InputError
from hpcsort.geometry import direction_order, point_group, relion_matrices
from hpcsort.io import read_map, read_particles, write_map, write_tables
from hpcsort.parallel import SerialComm, StoryLog
from hpcsort.partitions import matched_accuracy, purities
from hpcsort.simulation import SimulationResult
from hpcsort.sort3d import SortOptions, SortResult
from hpcsort.sort3d.final import reconstruct_groups
from hpcsort.sort3d.problem import pose_problem, read_table
from hpcsort.volumes import map_fsc


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
    made = simulate_small(folder / "data", 500, snr=0.35)
    result = sort_quietly(made.star, folder / "out", num_core_set=1)
    return _Case(made, pd.read_csv(made.truth).state.to_numpy(), folder / "out", result)


def test_groups_are_the_true_states(case: _Case) -> None:
    assert len(case.result.groups) == 2
    assert purities(case.truth, case.result.labels).min() >= 0.9
    assert matched_accuracy(case.truth, case.result.labels) >= 0.9
    for group in case.result.groups:
        assert group.reproducibility > group.chance_mean + 5 * group.chance_std
        assert group.p < 0.01
        assert 2 * PIXEL_A <= group.resolution_A < 5 * PIXEL_A
    assert [group.size for group in case.result.groups] == np.bincount(case.result.labels + 1)[1:].tolist()


def test_cluster_files_and_core_set_partition_the_particles(case: _Case) -> None:
    clusters = [read_ids(path) for path in sorted(case.out.glob("Cluster_*.txt"))]
    core = read_ids(case.out / "Core_set.txt")
    assert len(clusters) == len(case.result.groups)
    assert len(core) > 0
    np.testing.assert_array_equal(np.sort(np.concatenate([*clusters, core])), np.arange(500))
    for number, ids in enumerate(clusters):
        np.testing.assert_array_equal(ids, np.flatnonzero(case.result.labels == number))
    first = case.out / "generation_000"
    parts = [read_ids(path) for path in sorted(first.glob("Cluster_*.txt"))]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(500))
    np.testing.assert_array_equal(parts[-1], read_ids(first / "Core_set.txt"))


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
    members = [read_ids(path) for path in sorted(case.out.glob("Cluster_*.txt"))] + [
        read_ids(case.out / "Core_set.txt")
    ]
    again = reconstruct_groups(
        SerialComm(), table, members, half=table.random_subset - 1, radius_px=BOX // 2 - 2, mask=None,
        symmetry=point_group("c1"),
    )  # fmt: skip
    assert again is not None
    stems = ["vol_cluster000", "vol_cluster001", "volume_core"]
    for stem, maps, ids in zip(stems, again, members, strict=True):
        assert maps.size == len(ids)
        for name, volume in ((stem, maps.map), (f"{stem}_half1", maps.half1), (f"{stem}_half2", maps.half2)):
            data, voxel = read_map(case.out / f"{name}.mrc")
            assert data.tobytes() == volume.tobytes()
            assert voxel == pytest.approx(PIXEL_A, rel=1e-5)
        curve = np.loadtxt(case.out / f"{stem}_fsc.txt")
        np.testing.assert_allclose(curve[:, 2], maps.fsc, atol=1e-5)
        np.testing.assert_allclose(curve[1:, 1], BOX * PIXEL_A / curve[1:, 0], rtol=1e-4)
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
    made = simulate_small(tmp_path / "data", 500, junk=0.12)
    truth = pd.read_csv(made.truth).state.to_numpy()
    result = sort_quietly(made.star, tmp_path / "out", depth_order=1)
    # Junk may be a group of its own, but not part of another.
    assert purities(truth + 1, result.labels).min() > 0.95
    found = {int(np.bincount(truth[result.labels == group] + 1).argmax()) - 1 for group in range(len(result.groups))}
    assert {0, 1} <= found


def test_one_state_is_one_group(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 300, states=1)
    result = sort_quietly(made.star, tmp_path / "out")
    assert len(result.groups) == 1
    np.testing.assert_array_equal(result.labels, 0)
    assert "One group: held-out likelihood prefers a single structure for all 300" in (
        (tmp_path / "out" / "log.txt").read_text()
    )
    assert (tmp_path / "out" / "Core_set.txt").read_text() == ""
    assert not (tmp_path / "out" / "volume_core.mrc").exists()


def test_other_options_sort_as_well(tmp_path: Path, case: _Case) -> None:
    mask = np.ones((BOX,) * 3, np.float32)
    write_map(tmp_path / "mask.mrc", mask, PIXEL_A)
    result = sort_quietly(
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
    axis = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((BOX,) * 3)
    for operator in point_group("C4"):
        cx, cy, cz = operator @ np.array([4.0, 1.0, 2.0])
        volume += np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / 6)
        cx, cy, cz = operator @ np.array([2.0, -3.0, -4.0])
        volume += 0.7 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / 4)
    write_map(tmp_path / "c4.mrc", volume.astype(np.float32), PIXEL_A)
    made = simulate_small(tmp_path / "data", 120, states=1, map_path=tmp_path / "c4.mrc", pixel_size_A=0.0, box_px=0)
    result = sort_quietly(made.star, tmp_path / "out", sym="c4")
    assert len(result.groups) == 1
    found, _ = read_map(tmp_path / "out" / "vol_cluster000.mrc")
    assert map_fsc(found, volume.astype(np.float32))[1:6].min() > 0.9
    # The centre of an even box is a voxel, so that plane 0 has no partner.
    core = found[:, 1:, 1:]
    np.testing.assert_allclose(np.rot90(core, axes=(1, 2)), core, atol=0.01 * found.max())


# Ranks


def _digests(out: Path) -> dict[str, str]:
    """SHA-256 of everything that may not depend on the ranks."""
    patterns = ("**/*.txt", "*.mrc", "particles.star")
    found = {path for pattern in patterns for path in out.glob(pattern)} - {out / "log.txt"}
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


def _command(star: Path, out: Path) -> tuple[str, ...]:
    files = ("--instack", str(star), "--output-dir", str(out))
    return "-c", MAIN, "sort3d", *files, "--max-groups", "2", "--components", "2", "--depth-order", "1"


@pytest.mark.mpi
@pytest.mark.slow
def test_files_do_not_depend_on_the_ranks(tmp_path: Path) -> None:
    find_mpiexec()
    # 300 particles are three chunks, so that the last of four ranks has none.
    made = simulate_small(tmp_path / "data", 300)
    sort_quietly(made.star, tmp_path / "out0", max_groups=2, components=2, depth_order=1)
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
    made = simulate_small(tmp_path / "data", 200)
    first = sort_quietly(made.star, tmp_path / "first", depth_order=1)
    order = np.random.default_rng(0).permutation(200)
    tables = starfile.read(made.star)
    tables["particles"] = tables["particles"].iloc[order].reset_index(drop=True)
    shuffled = made.star.with_name("shuffled.star")
    write_tables(shuffled, tables)
    second = sort_quietly(shuffled, tmp_path / "second", depth_order=1)
    np.testing.assert_array_equal(second.labels, first.labels[order])
    np.testing.assert_array_equal(second.agreeing, first.agreeing[order])
    np.testing.assert_allclose(second.probability, first.probability[order])


def test_the_seed_decides_and_nothing_else(tmp_path: Path, case: _Case) -> None:
    again = sort_quietly(case.made.star, tmp_path / "again", num_core_set=1)
    np.testing.assert_array_equal(again.labels, case.result.labels)
    # The table names its images from where it lies, which is elsewhere.
    digests = [_digests(out) | {"particles.star": ""} for out in (tmp_path / "again", case.out)]
    assert digests[0] == digests[1]
    other = sort_quietly(case.made.star, tmp_path / "other", seed=9, depth_order=1)
    assert (other.probability != case.result.probability).any()
    assert purities(case.truth, other.labels).min() >= 0.9


@pytest.mark.mpi
def test_an_image_that_only_the_last_rank_reads_ends_all_ranks(tmp_path: Path) -> None:
    find_mpiexec()
    made = simulate_small(tmp_path / "data", 300)
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


# What the sort starts from


def test_the_problem_is_posed_in_the_order_of_views(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 300, noise="coloured")
    options, comm = SortOptions(instack=made.star, output_dir=tmp_path, quiet=True), SerialComm()
    table, mask = read_table(options, comm)
    problem = pose_problem(options, table, mask, comm, StoryLog(None, comm, True))
    assert mask is None
    assert sorted(problem.rows.tolist()) == list(range(300))
    np.testing.assert_array_equal(problem.half, table.random_subset[problem.rows] - 1)
    assert problem.narrow.grid.radius <= problem.wide.grid.radius <= BOX // 2 - 1
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
    made = simulate_small(tmp_path / "data", 100)
    edit_table(made, rlnRandomSubset=None)
    options, comm = SortOptions(instack=made.star, output_dir=tmp_path, quiet=True), SerialComm()
    problem = pose_problem(options, *read_table(options, comm), comm, StoryLog(None, comm, True))
    assert np.bincount(problem.half).tolist() == [50, 50]
