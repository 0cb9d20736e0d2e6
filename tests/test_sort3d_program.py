"""The program end to end: true groups and consistent files."""

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
from sort3d_runs import BOX, PIXEL_A, read_ids, simulate_small, sort_quietly

from hpcsort.geometry import point_group
from hpcsort.io import read_hdf_map, read_map, read_particles, write_map
from hpcsort.parallel import SerialComm
from hpcsort.partitions import matched_accuracy, purities
from hpcsort.reconstruction import reconstruct_groups
from hpcsort.simulation import SimulationResult
from hpcsort.sort3d import SortResult
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
    result = sort_quietly(made.star, folder / "out", num_core_set=1, depth_order=2, max_groups=3, components=4)
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
        "hpcsortLikeliestGroup", "hpcsortProbability001", "hpcsortProbability002", "hpcsortJunkProbability",
    ]  # fmt: skip
    pd.testing.assert_frame_equal(
        written["particles"][given["particles"].columns].drop(columns="rlnImageName"),
        given["particles"].drop(columns="rlnImageName"),
    )
    pd.testing.assert_frame_equal(written["optics"], given["optics"])
    np.testing.assert_array_equal(written["particles"].rlnClassNumber, case.result.labels + 1)
    # From its new place the table still finds the images.
    table = read_particles(case.out / "particles.star")
    assert table.stack_paths[0].resolve() == case.made.stack.resolve()
    np.testing.assert_array_equal(table.stack_index, np.arange(500))


def test_probabilities_say_where_a_particle_belongs(case: _Case) -> None:
    written, labels = starfile.read(case.out / "particles.star")["particles"], case.result.labels
    every = written[["hpcsortProbability001", "hpcsortProbability002"]].to_numpy()
    np.testing.assert_allclose(every, case.result.probability, atol=1e-5)
    np.testing.assert_allclose(every.sum(axis=1) + written.hpcsortJunkProbability, 1.0, atol=1e-5)
    np.testing.assert_array_equal(written.hpcsortLikeliestGroup, every.argmax(axis=1) + 1)
    accounted = labels >= 0
    own = case.result.probability[accounted, labels[accounted]]
    np.testing.assert_allclose(written.hpcsortGroupProbability[accounted], own, atol=1e-5)
    np.testing.assert_array_equal(written.hpcsortGroupProbability[~accounted], 0.0)
    # Unaccounted particles are those about which less is known.
    assert case.result.probability[~accounted].max(axis=1).mean() < own.mean()
    # The likeliest group is the true state as often as it says.
    state = [np.bincount(case.truth[labels == group]).argmax() for group in (0, 1)]
    right = np.array(state)[every.argmax(axis=1)] == case.truth
    assert right.mean() == pytest.approx(every.max(axis=1).mean(), abs=0.05)
    np.testing.assert_allclose(written.hpcsortReproducibility, case.result.agreeing, atol=1e-5)
    assert written.hpcsortReproducibility.between(0, 1).all()
    assert written.hpcsortReproducibility[accounted].mean() > 0.9
    assert case.result.junk.max() < 0.5


def test_generations_tell_of_every_layer_and_box(case: _Case) -> None:
    first = case.out / "generation_000"
    assert [len(list((first / f"layer{layer}").glob("nbox*"))) for layer in (0, 1)] == [4, 2]
    assert not (first / "layer2").exists()
    for box in first.glob("layer*/nbox*"):
        halves = [read_ids(box / f"half_{chain:03d}.txt") for chain in (0, 1)]
        np.testing.assert_array_equal(np.sort(np.concatenate(halves)), np.arange(500))
        classes, ids = np.loadtxt(box / "partition.txt", dtype=int).T
        np.testing.assert_array_equal(np.sort(ids), np.arange(500))
        stable = [read_ids(path) for path in sorted(box.glob("Cluster_*.txt"))]
        assert [int((classes == group).sum()) for group in range(len(stable))] == [len(part) for part in stable]
        for part in stable:
            assert np.bincount(case.truth[part]).max() > 0.9 * len(part)
        state = json.loads((box / "state.json").read_text())
        assert state["done"]
        assert 0.5 < state["adjusted_rand_index"] < 1.0
    tracker = json.loads((first / "Tracker.json").read_text())
    assert (tracker["total_stack"], tracker["depth_order"]) == (500, 2)
    assert tracker["cluster_sizes"] == [group.size for group in case.result.groups if group.generation == 0]
    assert tracker["unaccounted"] == 500 - sum(tracker["cluster_sizes"])
    assert len((first / "gen_rep.txt").read_text().splitlines()) == 2


def test_groups_of_one_stack_differ_in_nothing_but_structure(case: _Case) -> None:
    rows = pd.read_csv(case.out / "anova.csv")
    assert len(rows) > 0
    text = (case.out / "anova.txt").read_text()
    for word in ("defocus", "views"):
        assert word in text
    run = json.loads((case.out / "run.json").read_text())
    assert run["warnings"] == []
    assert "Warning" not in (case.out / "log.txt").read_text()


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
    made = simulate_small(tmp_path / "data", 300, junk=0.12)
    truth = pd.read_csv(made.truth).state.to_numpy()
    result = sort_quietly(made.star, tmp_path / "out", max_groups=3, components=3, nxinit=18)
    # Junk may be a group of its own, but not part of another.
    assert purities(truth + 1, result.labels).min() > 0.95
    found = {int(np.bincount(truth[result.labels == group] + 1).argmax()) - 1 for group in range(len(result.groups))}
    assert {0, 1} <= found


def test_a_mixed_group_is_looked_into(tmp_path: Path) -> None:
    # Two classes at most, so that one of them holds two of the three states.
    made = simulate_small(tmp_path / "data", 450, states=3, snr=1.0)
    result = sort_quietly(made.star, tmp_path / "out")
    assert len(result.groups) == 3
    assert purities(pd.read_csv(made.truth).state, result.labels).min() > 0.95
    assert re.search(r"group \d is mixed; it splits into [23]", (tmp_path / "out" / "log.txt").read_text())


def test_one_state_is_one_group(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 300, states=1)
    result = sort_quietly(made.star, tmp_path / "out", null=1)
    assert len(result.groups) == 1
    np.testing.assert_array_equal(result.labels, 0)
    # No set of one state beside it says otherwise.
    null = json.loads((tmp_path / "out" / "run.json").read_text())["null"]
    assert (null["sets"], null["supported_groups"]) == (1, 0)
    assert len(pd.read_csv(tmp_path / "out" / "null.csv")) == 2
    assert "One group: held-out likelihood prefers a single structure for all 300" in (
        (tmp_path / "out" / "log.txt").read_text()
    )
    assert (tmp_path / "out" / "Core_set.txt").read_text() == ""
    assert not (tmp_path / "out" / "volume_core.mrc").exists()


def test_noise_is_one_group_of_unknown_resolution(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 200, states=1)
    with mrcfile.open(made.stack, "r+") as stack:
        stack.data[:] = np.random.default_rng(0).normal(size=stack.data.shape)
    result = sort_quietly(made.star, tmp_path / "out")
    assert len(result.groups) <= 1
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [group["resolution_A"] for group in run["groups"]] == [None] * len(result.groups)


def test_images_without_a_particle_are_no_part_of_one_group(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 300, states=1)
    blank = np.arange(300) % 5 == 0
    with mrcfile.open(made.stack, "r+") as stack:
        stack.data[blank] = np.random.default_rng(0).normal(size=stack.data[blank].shape) * stack.data.std()
    result = sort_quietly(made.star, tmp_path / "out")
    assert len(result.groups) == 1
    assert (result.labels[blank] == -1).mean() > 0.95
    assert (result.labels[~blank] == 0).mean() > 0.95
    np.testing.assert_array_equal(result.junk > 0.5, result.labels == -1)
    assert "images show no particle" in (tmp_path / "out" / "log.txt").read_text()


def test_other_options_sort_as_well(tmp_path: Path, case: _Case) -> None:
    mask = np.ones((BOX,) * 3, np.float32)
    write_map(tmp_path / "mask.mrc", mask, PIXEL_A)
    result = sort_quietly(
        case.made.star, tmp_path / "out", img_per_grp=200, freeze_groups=False, nstep=2, nxinit=16, radius=9,
        mask3D=tmp_path / "mask.mrc", include_unaccounted=False, orientation_groups=4, num_core_set=499,
    )  # fmt: skip
    assert len(result.groups) == 2
    assert purities(case.truth, result.labels).min() >= 0.9
    first = tmp_path / "out" / "generation_000"
    assert len(list(first.glob("Cluster_*.txt"))) == 2
    assert not (tmp_path / "out" / "volume_core.mrc").exists()
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert str(tmp_path / "mask.mrc") in run["inputs"]


@pytest.mark.parametrize("options", [{"independence": "starts"}, {"engine": "maps"}])
def test_other_ways_to_sort_find_the_states(options: dict[str, str], tmp_path: Path, case: _Case) -> None:
    result = sort_quietly(case.made.star, tmp_path / "out", **options)
    assert len(result.groups) == 2
    assert purities(case.truth, result.labels).min() >= 0.9
    assert matched_accuracy(case.truth, result.labels) >= 0.75
    halves = [read_ids(path) for path in sorted((tmp_path / "out").glob("generation_000/layer0/nbox0/half_*.txt"))]
    assert [len(half) for half in halves] == ([500, 500] if "independence" in options else [250, 250])


def test_maps_are_written_as_eman_s_hdf_on_request(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 150, states=1)
    for map_format in ("mrc", "hdf"):
        sort_quietly(made.star, tmp_path / map_format, map_format=map_format)
    assert not list((tmp_path / "hdf").glob("*.mrc"))
    assert not list((tmp_path / "mrc").glob("*.hdf"))
    for stem in ("vol_cluster000", "vol_cluster000_half1", "vol_cluster000_half2"):
        same, voxel = read_map(tmp_path / "mrc" / f"{stem}.mrc")
        written, given = read_hdf_map(tmp_path / "hdf" / f"{stem}.hdf")
        np.testing.assert_array_equal(written, same)
        assert given == pytest.approx(voxel, rel=1e-5)


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
