"""Generation folders and master files read back by readers that share no code, and against EMAN2's own headers."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hpcsort.errors import OutputError
from hpcsort.io import read_particles
from hpcsort.partitions import adjusted_rand_index, rand_index
from hpcsort.sort3d._lists import write_ids
from hpcsort.sort3d.folders import write_generations, write_master_files
from hpcsort.sort3d.records import Box, BoxChains, BoxPlan, Comparison, Generation, Layer


def _compare(a: np.ndarray, b: np.ndarray, keep: int) -> Comparison:
    """Comparison of partitions whose classes correspond already; the ``keep`` pairs of most overlap are accepted."""
    count = int(max(a.max(initial=-1), b.max(initial=-1))) + 1
    overlap = np.array([((a == k) & (b == k)).sum() for k in range(count)], np.int64)
    sizes = np.array([[(a == k).sum(), (b == k).sum()] for k in range(count)], np.int64).reshape(count, 2)
    order = np.argsort(-overlap, kind="stable")[:keep]
    labels = np.full(len(a), -1)
    for number, k in enumerate(order):
        labels[(a == k) & (b == k)] = number
    accepted = np.isin(np.arange(count), order)
    return Comparison(
        sizes, overlap, overlap / np.maximum(sizes.sum(axis=1) - overlap, 1), np.full(count, 0.1),
        np.full(count, 0.02), np.where(accepted, 1e-4, np.nan), accepted,
        ["" if good else "it is # small, größer nie" for good in accepted], labels, rand_index(a, b),
        adjusted_rand_index(a, b),
    )  # fmt: skip


def _disturb(labels: np.ndarray, draw: np.random.Generator, classes: int) -> np.ndarray:
    wrong = draw.random(len(labels)) < 0.2
    return np.where(wrong, draw.integers(-1, classes, len(labels)), labels)


def _box(layer: int, number: int, truth: np.ndarray, active: np.ndarray, n: int, start: bool, seed: int) -> Box:
    draw = np.random.default_rng([seed, layer, number])
    classes, first = 3, np.zeros(n, bool)
    first[active[draw.permutation(len(active))[::2]]] = True
    second = np.zeros(n, bool)
    second[active] = ~first[active]
    chains = (_disturb(truth, draw, classes), _disturb(truth, draw, classes))
    starts = (_disturb(truth, draw, classes), _disturb(truth, draw, classes)) if start else None
    joints = (np.zeros((len(active), classes)),) * 2
    return Box(
        BoxPlan(layer, number, (first, second), classes, starts), BoxChains(chains, joints), _compare(*chains, classes)
    )


def _generation(number: int, active: np.ndarray, n: int, keep: int = 2) -> Generation:
    """A tree of depth 2 over three true groups of which ``keep`` are accepted at the end."""
    truth = np.random.default_rng(number).choice(3, len(active), p=[0.2, 0.5, 0.3])
    layers: list[Layer] = []
    for depth, boxes in enumerate((4, 2)):
        made = [_box(depth, box, truth, active, n, depth > 0, number) for box in range(boxes)]
        pairs = [
            _compare(made[box].comparison.labels, made[box + 1].comparison.labels, 3 if depth == 0 else keep)
            for box in range(0, boxes, 2)
        ]
        layers.append(Layer(depth, made, pairs))
    labels = layers[-1].comparisons[0].labels
    return Generation(number, active, [40, 20], 3, {2: 0.1, 3: np.inf}, {3: np.nan}, layers, labels)


_N = 400


@pytest.fixture
def two() -> tuple[list[Generation], np.ndarray]:
    """Two generations of 400 particles in an order of their own; 7 rows of the table are bad images."""
    rows = np.random.default_rng(1).permutation(_N + 7)[:_N]
    first = _generation(0, np.arange(_N), _N)
    return [first, _generation(1, np.flatnonzero(first.labels < 0), _N)], rows


def _write(folder: Path, generations: list[Generation], rows: np.ndarray, **more: object) -> None:
    groups = sum(int(generation.labels.max(initial=-1)) + 1 for generation in generations)
    given = {"include_unaccounted": True, "frequencies": [0.1 + 0.01 * k for k in range(groups)], "seed": 5} | more
    write_generations(folder, generations, rows, **given)  # type: ignore[arg-type]


def _ids(path: Path) -> np.ndarray:
    return np.loadtxt(path, dtype=np.int64, ndmin=1)


def _labels(path: Path, ids: np.ndarray) -> np.ndarray:
    """Class of each id in a partition file, -1 where it is not listed."""
    classes, listed = np.loadtxt(path, dtype=np.int64, ndmin=2).T
    assert (np.diff(listed) > 0).all()
    assert np.isin(listed, ids).all()
    found = dict(zip(listed.tolist(), classes.tolist(), strict=True))
    return np.array([found.get(row, -1) for row in ids.tolist()])


def test_what_is_read_back_is_what_was_found(tmp_path: Path, two: tuple[list[Generation], np.ndarray]) -> None:
    generations, rows = two
    folder = tmp_path / "Größe Ω"
    folder.mkdir()
    _write(folder, generations, rows)
    for number, generation in enumerate(generations):
        place, active = folder / f"generation_{number:03d}", rows[generation.active]
        clusters = [_ids(path) for path in sorted(place.glob("Cluster_*.txt"))]
        left = np.sort(active[generation.labels < 0])
        assert len(clusters) == 3
        for group, ids in enumerate(clusters[:2]):
            np.testing.assert_array_equal(ids, np.sort(active[generation.labels == group]))
        for name in ("Cluster_002.txt", "Core_set.txt", "indexes_next_generation.txt"):
            np.testing.assert_array_equal(_ids(place / name), left)
        final = _labels(place / "final_partition.txt", active)
        np.testing.assert_array_equal(final, np.where(generation.labels < 0, 2, generation.labels))
    # What one generation leaves over is what the next one sorts.
    box = folder / "generation_001" / "layer0" / "nbox0"
    np.testing.assert_array_equal(_ids(box / "previous_all_indexes.txt"), _ids(folder / "generation_000/Core_set.txt"))


def test_boxes_tell_what_their_chains_learned_and_found(
    tmp_path: Path, two: tuple[list[Generation], np.ndarray]
) -> None:
    generations, rows = two
    _write(tmp_path, generations, rows)
    for generation in generations:
        place, active = tmp_path / f"generation_{generation.number:03d}", rows[generation.active]
        assert sorted(path.name for path in place.glob("layer*/nbox*")) == ["nbox0", "nbox0", "nbox1", "nbox1",
                                                                           "nbox2", "nbox3"]  # fmt: skip
        for layer in generation.layers:
            for box in layer.boxes:
                inner = place / f"layer{layer.number}" / f"nbox{box.plan.number}"
                halves = [_ids(inner / f"half_00{chain}.txt") for chain in (0, 1)]
                np.testing.assert_array_equal(np.sort(np.concatenate(halves)), np.sort(active))
                for chain in (0, 1):
                    np.testing.assert_array_equal(halves[chain], np.sort(rows[box.plan.learns[chain]]))
                    found = _labels(inner / f"independent_index_00{chain}.txt", active)
                    np.testing.assert_array_equal(found, box.chains.labels[chain])
                stable = box.comparison.labels
                np.testing.assert_array_equal(
                    _labels(inner / "partition.txt", active), np.where(stable < 0, stable.max() + 1, stable)
                )
                for group in range(stable.max() + 1):
                    np.testing.assert_array_equal(
                        _ids(inner / f"Cluster_{group:03d}.txt"), np.sort(active[stable == group])
                    )
                state = json.loads((inner / "state.json").read_text())
                assert state["done"] is True
                assert state["rand_index"] == box.comparison.rand
                if box.plan.start is None:
                    np.testing.assert_array_equal(_ids(inner / "previous_all_indexes.txt"), np.sort(active))
                    continue
                for chain, start in enumerate(box.plan.start):
                    np.testing.assert_array_equal(_labels(inner / f"random_assignment_00{chain}.txt", active), start)
                given = generation.layers[0].comparisons[box.plan.number].labels
                np.testing.assert_array_equal(_labels(inner / "previous_NACC.txt", active), given)
                np.testing.assert_array_equal(_ids(inner / "previous_NUACC.txt"), np.sort(active[given < 0]))
                assert not (inner / "previous_all_indexes.txt").exists()


def test_tables_of_comparisons_are_numbers_with_comments(
    tmp_path: Path, two: tuple[list[Generation], np.ndarray]
) -> None:
    generations, rows = two
    _write(tmp_path, generations, rows)
    comparison = generations[0].layers[1].comparisons[0]
    path = tmp_path / "generation_000/layer1/comparison_0.txt"
    table = np.loadtxt(path, ndmin=2)
    np.testing.assert_array_equal(table[:, 1:3], comparison.sizes)
    np.testing.assert_array_equal(table[:, 3], comparison.overlap)
    np.testing.assert_allclose(table[:, 4], 100 * comparison.jaccard, atol=0.006)
    np.testing.assert_allclose(table[:, 5:7], [[10.0, 2.0]] * len(table))
    np.testing.assert_array_equal(table[:, 0] >= 0, comparison.accepted)
    for label, size in zip(table[:, 0], comparison.overlap, strict=True):
        assert label < 0 or (comparison.labels == label).sum() == size
    text = path.read_text()
    assert "Boxes 0 and 1 of layer 1, 400 particles" in text
    assert f"Rand index {comparison.rand:.4f}, adjusted Rand index {comparison.ari:.4f}" in text
    assert text.count("# it is # small, größer nie") == int((~comparison.accepted).sum()) == 1
    assert len(list((tmp_path / "generation_000/layer0").glob("comparison_*.txt"))) == 2
    box = np.loadtxt(tmp_path / "generation_000/layer0/nbox3/box.txt", ndmin=2)
    own = generations[0].layers[0].boxes[3].comparison
    np.testing.assert_array_equal(box[:, 3], own.overlap)
    # Rows stand in the order of the chains' classes, groups are numbered by falling overlap.
    assert box[:, 0].tolist() != [0, 1, 2]
    assert [int((own.labels == label).sum()) for label in box[:, 0]] == own.overlap.tolist()


def test_scores_belong_to_their_groups_in_per_cent(tmp_path: Path, two: tuple[list[Generation], np.ndarray]) -> None:
    generations, rows = two
    _write(tmp_path, generations, rows)
    for generation in generations:
        scores = np.loadtxt(tmp_path / f"generation_{generation.number:03d}/gen_rep.txt", ndmin=2)
        comparison = generation.layers[-1].comparisons[0]
        assert scores.shape == (2, 3)
        for group, score in enumerate(scores[:, 0]):
            inside = generation.labels == group
            first, second = (box.comparison.labels for box in generation.layers[-1].boxes)
            # the class of either box that holds the group, whatever its number
            union = (first == first[inside][0]) | (second == second[inside][0])
            assert score == pytest.approx(100 * inside.sum() / union.sum(), abs=1e-3)
        np.testing.assert_allclose(scores[:, 1:], [[10.0, 2.0]] * 2)
        assert comparison.accepted.sum() == 2


def test_json_is_strict_and_says_what_is_done(tmp_path: Path, two: tuple[list[Generation], np.ndarray]) -> None:
    generations, rows = two
    _write(tmp_path, generations, rows, frequencies=[0.1, np.inf, np.nan, np.float32(0.25)])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = {path: json.loads(path.read_text(), parse_constant=refuse) for path in tmp_path.rglob("*.json")}
    assert len(read) == 2 * (3 + 2 + 6)
    assert all(record["done"] is True for path, record in read.items() if path.name == "state.json")
    assert read[tmp_path / "generation_000/freq_cutoff.json"] == {"Cluster_000.txt": 0.1, "Cluster_001.txt": 0.0}
    assert read[tmp_path / "generation_001/freq_cutoff.json"] == {"Cluster_000.txt": 0.0, "Cluster_001.txt": 0.25}
    tracker = read[tmp_path / "generation_001/Tracker.json"]
    assert (
        tracker["total_stack"] == len(generations[1].active) == sum(tracker["cluster_sizes"]) + tracker["unaccounted"]
    )
    assert (tracker["minimum_grp_size"], tracker["number_of_groups"], tracker["seed"]) == ([20, 40], 3, 5)
    assert tracker["held_out"] == {"2": 0.1, "3": None}


def test_one_group_and_no_group(tmp_path: Path) -> None:
    rows = np.random.default_rng(2).permutation(50)
    all_in_one = Generation(0, np.arange(50), [10], 1, {1: 0.5}, {}, [], np.zeros(50, np.int64))
    nothing = Generation(1, np.arange(9), [10], 0, {}, {}, [], np.full(9, -1))
    untold = Generation(2, np.arange(9), [], 0, {}, {})
    _write(tmp_path, [all_in_one, nothing, untold], rows)
    one = tmp_path / "generation_000"
    np.testing.assert_array_equal(_ids(one / "Cluster_000.txt"), np.arange(50))
    assert (one / "Core_set.txt").read_text() == ""
    assert not (one / "Cluster_001.txt").exists()
    np.testing.assert_array_equal(np.loadtxt(one / "gen_rep.txt"), [100, 100, 0])
    for place in (tmp_path / "generation_001", tmp_path / "generation_002"):
        # No group, so no leftover that could pass for one.
        assert not list(place.glob("Cluster_*"))
        np.testing.assert_array_equal(_ids(place / "Core_set.txt"), np.sort(rows[:9]))
        assert (place / "final_partition.txt").read_text() == (place / "gen_rep.txt").read_text() == ""
        assert json.loads((place / "freq_cutoff.json").read_text()) == {}


def test_a_box_without_stable_sets_has_an_empty_partition(tmp_path: Path) -> None:
    truth = np.zeros(30, np.int64)
    box = _box(0, 0, truth, np.arange(30), 30, False, 0)
    none = _compare(truth, truth, 0)
    layer = Layer(0, [Box(box.plan, BoxChains((truth - 1, truth), box.chains.joints), none)], [])
    _write(tmp_path, [Generation(0, np.arange(30), [9], 1, {}, {}, [layer], truth - 1)], np.arange(30))
    inner = tmp_path / "generation_000/layer0/nbox0"
    assert (inner / "partition.txt").read_text() == (inner / "independent_index_000.txt").read_text() == ""
    assert not list(inner.glob("Cluster_*"))
    assert json.loads((inner / "state.json").read_text())["number_of_groups"] == 3


def test_the_leftover_is_no_cluster_unless_asked_for(tmp_path: Path, two: tuple[list[Generation], np.ndarray]) -> None:
    generations, rows = two
    _write(tmp_path, generations, rows, include_unaccounted=False)
    place = tmp_path / "generation_000"
    assert len(list(place.glob("Cluster_*.txt"))) == 2
    np.testing.assert_array_equal(_labels(place / "final_partition.txt", rows), generations[0].labels)


def test_wrong_calls_and_places(tmp_path: Path, two: tuple[list[Generation], np.ndarray]) -> None:
    generations, rows = two
    with pytest.raises(ValueError, match="3 frequencies for 4 groups"):
        _write(tmp_path, generations, rows, frequencies=[0.1] * 3)
    assert not list(tmp_path.iterdir())
    (tmp_path / "generation_000").write_text("mine")
    with pytest.raises(OutputError, match=r"cannot make the folder .*generation_000: File exists"):
        _write(tmp_path, generations, rows)


def test_master_files_hold_the_poses_as_eman2_does(tmp_path: Path, shared_data: Path) -> None:
    """The same particles as EMAN2 keeps them: SPARX lists phi, theta, psi and the negative of its shifts."""
    table = read_particles(shared_data / "eman_hdf/same_particles.star")
    rows = np.random.default_rng(0).permutation(48)[:46]
    half = table.random_subset[rows] - 1
    labels = np.where(np.isin(np.arange(48), rows[:30]), np.arange(48) % 2, -1)
    write_master_files(tmp_path, table, rows, half, np.array([1.0, 0.9, np.nan, 0.2]), labels, core_has_map=True)
    listed = np.loadtxt(tmp_path / "refinement_parameters.txt")
    assert listed.shape == (48, 6)
    with h5py.File(shared_data / "eman_hdf/eman2_stack_48x64.hdf") as file:
        poses = [file[f"MDF/images/{row}"].attrs["EMAN.xform.projection"][0].tolist() for row in range(48)]
    matrices = np.array(poses).reshape(48, 3, 4)
    np.testing.assert_allclose(listed[:, 3:5], -matrices[:, :2, 3], atol=1e-4)
    phi, theta, psi = listed[:, :3].T
    # intrinsic z y z by phi, theta, psi, which turns the view back to the map
    turned = Rotation.from_euler("ZYZ", np.stack([phi, theta, psi], axis=1), degrees=True).inv().as_matrix()
    np.testing.assert_allclose(turned, matrices[:, :, :3], atol=1e-4)
    bad = np.setdiff1d(np.arange(48), rows)
    np.testing.assert_array_equal(listed[bad, 5], -1)
    np.testing.assert_array_equal(listed[rows, 5], half)
    np.testing.assert_array_equal(_ids(tmp_path / "indexes.txt"), np.sort(rows))
    for number in (0, 1):
        np.testing.assert_array_equal(_ids(tmp_path / f"chunk_{number}.txt"), np.sort(rows[half == number]))
    curve = np.loadtxt(tmp_path / "fsc_global.txt")
    np.testing.assert_allclose(curve, [1.0, 0.9, 0.0, 0.2] + [0.0] * 29)
    found = _labels(tmp_path / "generation_partition.txt", rows)
    np.testing.assert_array_equal(found, np.where(labels[rows] < 0, 2, labels[rows]))
    again = tmp_path / "without"
    again.mkdir()
    write_master_files(again, table, rows, half, np.linspace(1, 0, 99), labels)
    np.testing.assert_array_equal(_labels(again / "generation_partition.txt", rows), labels[rows])
    np.testing.assert_allclose(np.loadtxt(again / "fsc_global.txt"), np.linspace(1, 0, 99)[:33], atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 9973])
def test_lists_are_numpys_text(tmp_path: Path, count: int) -> None:
    ids = np.random.default_rng(0).integers(0, 10**9, count)
    write_ids(tmp_path / "ours.txt", ids)
    np.savetxt(tmp_path / "numpy.txt", ids, fmt="%d")
    assert (tmp_path / "ours.txt").read_bytes() == (tmp_path / "numpy.txt").read_bytes()


def test_an_error_of_one_file_is_told(tmp_path: Path, two: tuple[list[Generation], np.ndarray]) -> None:
    generations, rows = two
    inner = tmp_path / "generation_000/layer1/nbox1"
    inner.mkdir(parents=True)
    (inner / "half_001.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"half_001\.txt exists already"):
        _write(tmp_path, generations, rows)
    assert (inner / "half_001.txt").read_text() == "mine"
    # Nothing says that the folder is complete.
    assert not (tmp_path / "generation_000/state.json").exists()
