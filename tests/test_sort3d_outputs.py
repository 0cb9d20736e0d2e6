"""What --overwrite removes and what it must not; clusters, the particle table's columns, maps of both formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile

from hpcsort.errors import OutputError
from hpcsort.io import ParticleTable, read_map, read_particles, write_stack, write_tables
from hpcsort.io.eman_hdf import read_hdf_map
from hpcsort.reconstruction import GroupMaps, write_group_maps
from hpcsort.sort3d.folders import write_generations, write_master_files
from hpcsort.sort3d.outputs import run_folder, write_clusters, write_table
from hpcsort.sort3d.records import Box, BoxChains, BoxPlan, Comparison, Generation, Layer

_N = 12


def _table(folder: Path, **more: object) -> ParticleTable:
    folder.mkdir(exist_ok=True)
    write_stack(folder / "p.mrcs", np.zeros((_N, 8, 8), np.float32), (_N, 8, 8), 2.0)
    columns = {
        "rlnImageName": [f"{row + 1}@p.mrcs" for row in range(_N)],
        **{f"rlnAngle{name}": np.arange(_N) * 7.5 for name in ("Rot", "Tilt", "Psi")},
        **{f"rlnOrigin{name}": np.arange(_N) / 4 for name in "XY"},
        "rlnDefocusU": [1e4] * _N, "rlnDefocusV": [1e4] * _N, "rlnDefocusAngle": [0.0] * _N,
        "rlnVoltage": [300.0] * _N, "rlnSphericalAberration": [2.7] * _N, "rlnAmplitudeContrast": [0.1] * _N,
        "rlnDetectorPixelSize": [2.0] * _N, **more,
    }  # fmt: skip
    write_tables(folder / "p.star", {"particles": pd.DataFrame(columns)}, overwrite=True)
    return read_particles(folder / "p.star")


def _maps() -> GroupMaps:
    volumes = np.random.default_rng(0).normal(size=(3, 7, 7, 7)).astype(np.float32)
    return GroupMaps(*volumes, fsc=np.array([1.0, 0.9, 0.5, 0.1]), resolution_A=7.0, size=9)


def _generation(number: int, active: np.ndarray) -> Generation:
    labels = np.where(np.arange(len(active)) < 4, 0, -1)
    one = np.ones(1)
    both = Comparison(
        np.array([[4, 4]]), np.array([4]), one, one, one, one, np.ones(1, bool), [""], labels, 1.0, 1.0
    )  # fmt: skip
    learns = (np.arange(_N) % 2 == 0, np.arange(_N) % 2 == 1)
    chains = BoxChains((labels, labels), (np.zeros((len(active), 1)),) * 2)
    layers = [
        Layer(depth, [Box(BoxPlan(depth, box, learns, 1, start), chains, both) for box in (0, 1)], [both])
        for depth, start in enumerate((None, (labels, labels)))
    ]
    return Generation(number, active, [3], 1, {1: 0.0}, {}, layers, labels)


def _write_everything(out: Path, table: ParticleTable, map_format: str) -> None:
    generations = [_generation(0, np.arange(_N)), _generation(1, np.arange(4, _N))]
    labels = np.array([0] * 4 + [1] * 4 + [-1] * 4)
    write_generations(out, generations, np.arange(_N), include_unaccounted=True, frequencies=[0.1, 0.2], seed=0)
    write_master_files(out, table, np.arange(_N), np.arange(_N) % 2, np.ones(5), labels, core_has_map=True)
    write_clusters(out, labels, np.arange(8, _N), [0, 1])
    write_table(out, table, labels, np.ones(_N), np.ones(_N), np.full((_N, 2), 0.5), np.zeros(_N))
    for stem in ("vol_cluster000", "vol_cluster001", "volume_core"):
        write_group_maps(out, stem, _maps(), 2.0, map_format=map_format)
    for name in ("log.txt", "run.json"):
        (out / name).write_text("{}")


@pytest.mark.parametrize("map_format", ["mrc", "hdf"])
def test_all_that_a_sort_writes_is_cleared_with_its_folders(tmp_path: Path, map_format: str) -> None:
    out = tmp_path / "größer Ω"
    out.mkdir()
    table = _table(tmp_path / "data")
    _write_everything(out, table, map_format)
    assert len(list(out.rglob("*"))) > 80
    # What an interrupted writer leaves is the sort's as well.
    (out / "generation_000" / ".0123456789ab.Core_set.txt").write_text("1\n")
    run_folder(out).claim(table.stack_paths, replace=True)
    run_folder(out).clear(going_on=False)
    assert list(out.iterdir()) == []
    # A second sort finds nothing in its way.
    _write_everything(out, table, map_format)


_FOREIGN = (
    "notes.txt", "Cluster_notes.txt", "Cluster_000_mine.txt", "Cluster_01.txt", "my_Cluster_000.txt",
    "vol_cluster0.mrc", "vol_cluster000_sharp.mrc", "vol_cluster000_half3.hdf", "volume_core.mrcs",
    "volume_core_of_mine.hdf", "chunk_2.txt", "indexes_0.txt", ".Core_set.txt", ".xyz.Core_set.txt",
    "partition.txt", "state.json", "Tracker.json", "a/Cluster_000.txt", "generation/Core_set.txt",
    "generation_me/Core_set.txt", "generation_00/Core_set.txt", "generation_000/notes.txt",
    "generation_000/log.txt", "generation_000/particles.star", "generation_000/x/state.json",
    "generation_000/layer/state.json", "generation_000/layer0/Cluster_000.txt", "generation_000/layer0/mine.txt",
    "generation_000/layer0/nbox/state.json", "generation_000/layer0/nbox0/state.json.bak",
    "layer0/nbox0/state.json", "generation_000/layer0/nbox0/run0/Cluster_000.txt",
    "generation_000/generation_000/Core_set.txt", "old/generation_000/Core_set.txt",
)  # fmt: skip


def test_a_persons_own_files_and_folders_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in _FOREIGN:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    (out / "empty").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "Core_set.txt").write_text("mine")
    (out / "generation_009").symlink_to(elsewhere)
    (out / "Cluster_005.txt").mkdir()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    run_folder(out).clear(going_on=False)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    # Among the files of a sort too; only folders that hold nothing else go.
    table = _table(tmp_path / "data")
    for name in ("generation_000/layer0/nbox0/state.json.bak", "generation_000/layer0/nbox0/run0/Cluster_000.txt"):
        assert (out / name).read_text() == "mine"
    _write_everything(out, table, "mrc")
    run_folder(out).clear(going_on=False)
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("generation_009")} == set(_FOREIGN)
    assert (elsewhere / "Core_set.txt").read_text() == "mine"
    assert (out / "empty").is_dir()
    assert not (out / "generation_001").exists()
    assert not (out / "generation_000/layer1").exists()


def test_an_input_in_a_generation_folder_is_not_given_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    mask = out / "vol_cluster001_half2.hdf"
    inner = out / "generation_000/layer0/nbox1/Cluster_000.txt"
    for path in (mask, inner):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("needed")
        with pytest.raises(OutputError, match=rf"{path.name} is an input and"):
            run_folder(out).claim([path], replace=True)
    assert mask.read_text() == inner.read_text() == "needed"
    run_folder(out).claim([tmp_path / "other.mrc"], replace=True)


def test_clusters_alone_or_with_their_generations(tmp_path: Path) -> None:
    labels = np.array([0, 2, -1, 1, 0, 2, -1, 0])
    core = np.array([2])  # row 6 is a bad image
    write_clusters(tmp_path, labels, core, [0, 0, 1])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "Cluster_000.txt", "Cluster_001.txt", "Cluster_002.txt", "Core_set.txt",
    ]  # fmt: skip
    for group in range(3):
        listed = np.loadtxt(tmp_path / f"Cluster_{group:03d}.txt", dtype=int, ndmin=1)
        np.testing.assert_array_equal(listed, np.flatnonzero(labels == group))
    again = tmp_path / "again"
    again.mkdir()
    write_clusters(again, labels, core, [0, 0, 1], True)
    first, second = (again / f"generation_00{number}" for number in (0, 1))
    np.testing.assert_array_equal(np.loadtxt(first / "Cluster_002.txt"), [1, 2, 5])
    np.testing.assert_array_equal(np.loadtxt(second / "Cluster_000.txt"), [1, 5])
    np.testing.assert_array_equal(np.loadtxt(second / "Core_set.txt", ndmin=1), [2])


def _columns(out: Path) -> pd.DataFrame:
    frame = starfile.read(out / "particles.star")
    assert isinstance(frame, pd.DataFrame)
    return frame


@pytest.mark.parametrize("groups", [0, 1, 3, 30, 33])
def test_the_table_has_a_column_for_each_group(tmp_path: Path, groups: int) -> None:
    table = _table(tmp_path / "data")
    draw = np.random.default_rng(groups)
    chances = draw.dirichlet(np.ones(groups), _N) * 0.9 if groups else np.zeros((_N, 0))
    chances[5:7] = 0
    chances[6:7] = np.nan
    junk = 1 - chances.sum(axis=1)
    junk[6] = 0.25
    labels = np.where(np.arange(_N) % 3 == 0, -1, min(groups, 1) - 1)
    write_table(tmp_path, table, labels, np.ones(_N), np.zeros(_N), chances, junk)
    written = _columns(tmp_path)
    names = [name for name in written.columns if name.startswith("hpcsortProbability")]
    assert names == [f"hpcsortProbability{number:03d}" for number in range(1, min(groups, 30) + 1)]
    if names:
        np.testing.assert_allclose(written[names].to_numpy(), chances[:, :30], atol=6e-7)
    likeliest = [int(np.argmax(row)) + 1 if np.nansum(row) > 0 else 0 for row in chances]
    np.testing.assert_array_equal(written.hpcsortLikeliestGroup, likeliest)
    np.testing.assert_allclose(written.hpcsortJunkProbability, junk, atol=6e-7)
    np.testing.assert_array_equal(written.rlnClassNumber, labels + 1)


def test_columns_of_an_earlier_sort_do_not_stay(tmp_path: Path) -> None:
    stale = {"hpcsortProbability001": [0.125] * _N, "hpcsortProbability004": [0.5] * _N, "rlnOwn": [3.5] * _N}
    table = _table(tmp_path / "data", **stale)
    write_table(tmp_path, table, np.zeros(_N, int), np.ones(_N), np.ones(_N), np.ones((_N, 2)) / 2)
    written = _columns(tmp_path)
    assert "hpcsortProbability004" not in written
    assert (written.hpcsortProbability001 == 0.5).all()
    assert (written.rlnOwn == 3.5).all()
    assert list(table.frame.hpcsortProbability004) == [0.5] * _N


def test_maps_of_both_formats_hold_the_same(tmp_path: Path) -> None:
    maps = _maps()
    for map_format in ("mrc", "hdf"):
        write_group_maps(tmp_path, "g", maps, 2.5, overwrite=True, map_format=map_format)
    for name, volume in (("g", maps.map), ("g_half1", maps.half1), ("g_half2", maps.half2)):
        for data, voxel_A in (read_map(tmp_path / f"{name}.mrc"), read_hdf_map(tmp_path / f"{name}.hdf")):
            np.testing.assert_array_equal(data, volume)
            assert voxel_A == 2.5
    assert len(list(tmp_path.iterdir())) == 7
    with pytest.raises(OutputError, match=r"g\.hdf exists already"):
        write_group_maps(tmp_path, "g", maps, 2.5, map_format="hdf")
