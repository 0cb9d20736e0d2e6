from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cl2d_cases import BOX, PIXEL_A, Views, make_views, options
from click.testing import CliRunner
from mpi_helpers import run_alone, run_mpi
from planar_cases import correlation

from hpcsort.cl2d import Cl2dResult, cl2d
from hpcsort.cl2d.stock import normalised
from hpcsort.cli.cl2d import command
from hpcsort.errors import InputError, OptionError, OutputError
from hpcsort.io import MrcStack, read_particles, write_stack
from hpcsort.io.star import read_tables
from hpcsort.io.xmd import read_xmd
from hpcsort.parallel import SerialComm
from hpcsort.partitions import adjusted_rand_index
from hpcsort.planar import PlanarPoses, apply_poses, average_images


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    return make_views(tmp_path_factory.mktemp("views"), 300, 4)


@pytest.fixture(scope="module")
def classified(views: Views, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cl2dResult]:
    out = tmp_path_factory.mktemp("cl2d") / "out"
    return out, cl2d(options(views, out, mirrored_stack=True, analyze_rejected=True), SerialComm())


def written_poses(table: dict) -> PlanarPoses:
    """Poses as a reader of the STAR file takes them."""
    particles = table["particles"]
    shift = particles[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(np.float64) / PIXEL_A
    return PlanarPoses(particles["rlnAnglePsi"].to_numpy(np.float64), shift, particles["hpcsortMirror"].to_numpy() == 1)


def test_views_are_told_apart_and_poses_found(views: Views, classified: tuple[Path, Cl2dResult]) -> None:
    _, result = classified
    assert [level.state.classes for level in result.levels] == [2, 4, 8]
    for level in result.levels:
        assert (level.state.sizes > 0).all()
        assert (np.diff(level.state.sizes) <= 0).all()
    state = result.levels[-1].state
    pure = pd.crosstab(state.labels, views.kind).to_numpy()
    assert pure.max(axis=1).sum() > 0.95 * len(views.kind)
    assert adjusted_rand_index(result.levels[1].state.labels, views.kind) > 0.6
    # all members of a class show the same picture once they are turned by the poses found
    for label in range(state.classes):
        kind = pure[label].argmax()
        members = np.flatnonzero((state.labels == label) & (views.kind == kind))
        aligned = apply_poses(views.clean[members], state.poses.rows(members))
        mean = aligned.mean(axis=0)
        assert np.median([correlation(image, mean) for image in aligned]) > 0.95


def test_averaging_again_from_the_written_table_gives_the_written_averages(
    views: Views, classified: tuple[Path, Cl2dResult]
) -> None:
    out, result = classified
    for number in range(len(result.levels)):
        folder = out / f"level_{number:02d}"
        tables = read_tables(folder / "particles.star")
        images = normalised(MrcStack(views.stack).read(np.arange(300)), BOX / 2)
        poses, label = written_poses(tables), tables["particles"]["rlnClassNumber"].to_numpy()
        for name, chosen in (
            ("classes", np.ones(300, bool)),
            ("core_classes", tables["particles"]["hpcsortCore"].to_numpy() == 1),
        ):
            stored = MrcStack(folder / f"{name}.mrcs").read(np.arange(label.max()))
            for one in range(label.max()):
                rows = np.flatnonzero((label == one + 1) & chosen)
                assert correlation(average_images(images[rows], poses.rows(rows)), stored[one]) > 0.9999


def test_the_mirrored_stack_needs_no_mirror(views: Views, classified: tuple[Path, Cl2dResult]) -> None:
    out, _ = classified
    tables = read_tables(out / "mirrored.star")
    poses = written_poses(tables)
    assert not poses.mirror.any()
    table = read_particles(out / "mirrored.star")
    np.testing.assert_allclose(table.shifts_px, poses.shift_px)
    images = normalised(MrcStack(out / "mirrored.mrcs").read(np.arange(300)), BOX / 2)
    label = tables["particles"]["rlnClassNumber"].to_numpy()
    stored = MrcStack(out / "level_02" / "classes.mrcs").read(np.arange(label.max()))
    for one in range(label.max()):
        rows = np.flatnonzero(label == one + 1)
        assert correlation(average_images(images[rows], poses.rows(rows)), stored[one]) > 0.999
    flip = read_tables(out / "level_02" / "particles.star")["particles"]["hpcsortMirror"].to_numpy() == 1
    assert flip.any()
    np.testing.assert_allclose(table.defocus_angle_deg, np.where(flip, 150.0, 30.0))


def test_xmipp_metadata_say_the_same(classified: tuple[Path, Cl2dResult]) -> None:
    out, result = classified
    state = result.levels[-1].state
    blocks = read_xmd(out / "level_02" / "classes.xmd")
    np.testing.assert_array_equal(blocks["classes"]["classCount"], state.sizes)
    x = np.random.default_rng(0).normal(size=2)
    for label in range(state.classes):
        block = blocks[f"class{label + 1:06d}_images"]
        rows = np.flatnonzero(state.labels == label)
        assert [int(name.split("@")[0]) - 1 for name in block["image"]] == rows.tolist()
        for (_, line), matrix, offset in zip(
            block.iterrows(), state.poses.matrices[rows], state.poses.offsets_px[rows], strict=True
        ):
            # y = F R(psi) x + s with R = [[cos, sin], [-sin, cos]]: Xmipp's alignment
            angle, flip = np.deg2rad(line["anglePsi"]), np.diag([-1.0 if line["flip"] else 1.0, 1.0])
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            there = flip @ turn @ x + [line["shiftX"], line["shiftY"]]
            np.testing.assert_allclose(there, matrix @ x + offset, atol=1e-5)


def test_tables_of_all_levels_agree(views: Views, classified: tuple[Path, Cl2dResult]) -> None:
    out, result = classified
    original = read_tables(views.stack.with_suffix(".star"))["particles"]
    for number, level in enumerate(result.levels):
        folder = out / f"level_{number:02d}"
        told = json.loads((folder / "level.json").read_text())
        assert [each["size"] for each in told["classes"]] == level.state.sizes.tolist()
        assert len(told["iterations"]) == len(level.history)
        classes = pd.read_csv(folder / "classes.csv")
        big = classes["size"] >= 20
        assert classes["resolution_A"][big].between(2 * PIXEL_A, BOX * PIXEL_A).all()
        particles = read_tables(folder / "particles.star")["particles"]
        np.testing.assert_array_equal(particles["rlnDefocusU"], original["rlnDefocusU"])
        assert "rlnOriginX" not in particles
        core = read_tables(folder / "core.star")["particles"]
        assert len(core) == particles["hpcsortCore"].sum() == classes["core_size"].sum()
        assert (folder / "stable_core.star").exists() == (number == 2)
        if number == 2:
            assert set(particles["rlnImageName"][particles["hpcsortStableCore"] == 1]) <= set(core["rlnImageName"])
        model = read_tables(folder / "classes.star")["model_classes"]
        np.testing.assert_allclose(model["rlnClassDistribution"].sum(), 1.0, atol=1e-4)
    flows = pd.read_csv(out / "hierarchy.csv")
    for _, flow in flows.iterrows():
        upper, lower = (result.levels[int(flow["level"]) + step].state.labels for step in (0, 1))
        both = (upper == flow["class"] - 1) & (lower == flow["next_class"] - 1)
        assert both.sum() == flow["particles"]
    assert flows.groupby("level")["particles"].sum().tolist() == [300, 300]
    assert (out / "hierarchy.png").read_bytes().startswith(b"\x89PNG")
    assert "comes from level 1" in (out / "hierarchy.txt").read_text()


@pytest.mark.parametrize(
    "changed",
    [
        {"clustering": "robust"},
        {"comparison": "correntropy"},
        {"comparison": "correntropy", "clustering": "robust"},
        {"ctf": "flip", "core": False},
        {"ctf": "wiener"},
    ],
)
def test_other_ways_deliver_all_classes(views: Views, tmp_path: Path, changed: dict) -> None:
    result = cl2d(options(views, tmp_path / "out", initial_classes=4, iterations=3, **changed), SerialComm())
    state = result.levels[-1].state
    assert (state.sizes > 0).all()
    assert np.isfinite(state.scores).all()
    if "ctf" not in changed:
        assert pd.crosstab(state.labels, views.kind).to_numpy().max(axis=1).sum() > 0.9 * 300


def test_references_mirrors_and_alignment_can_be_chosen(tmp_path: Path) -> None:
    views = make_views(tmp_path, 120, 3, mirror=False, seed=3)
    aligned = apply_poses(views.clean, views.poses)
    references = np.stack([aligned[views.kind == kind].mean(axis=0) for kind in range(3)])
    write_stack(tmp_path / "refs.mrcs", references, references.shape, PIXEL_A)
    given = {"references": tmp_path / "refs.mrcs", "classes": 3, "iterations": 2}
    result = cl2d(options(views, tmp_path / "a", mirror=False, **given), SerialComm())
    assert len(result.levels) == 1
    state = result.levels[0].state
    assert adjusted_rand_index(state.labels, views.kind) > 0.95
    assert not state.poses.mirror.any()
    # the frame is that of the references
    turn = np.exp(1j * np.deg2rad(state.poses.psi_deg - views.poses.psi_deg))
    assert abs(np.rad2deg(np.angle(turn.mean()))) < 3
    write_stack(tmp_path / "turned.mrcs", aligned + 0.5, aligned.shape, PIXEL_A)
    flat = options(views, tmp_path / "b", instack=tmp_path / "turned.mrcs", align=False, **given)
    fixed = cl2d(flat, SerialComm()).levels[0].state
    assert adjusted_rand_index(fixed.labels, views.kind) == 1.0
    assert not fixed.poses.shift_px.any()
    assert not fixed.poses.psi_deg.any()


@pytest.mark.parametrize(("count", "classes", "box"), [(1, 1, 8), (7, 7, 9), (13, 5, 31), (23, 8, 33)])
def test_small_sets_odd_boxes_and_bare_stacks(tmp_path: Path, count: int, classes: int, box: int) -> None:
    rng = np.random.default_rng(count)
    images = rng.standard_normal((count, box, box), np.float32)
    write_stack(tmp_path / "noise.mrcs", images, images.shape, PIXEL_A)
    views = Views(tmp_path / "noise.mrcs", np.zeros(count), PlanarPoses.identity(count), images)
    asked = options(views, tmp_path / "out", instack=views.stack, classes=classes, initial_classes=1)
    result = cl2d(asked, SerialComm())
    assert (result.levels[-1].state.sizes > 0).all()
    assert result.levels[-1].state.classes == classes
    again = read_particles(result.folder / "particles.star", need_poses=False, need_ctf=False)
    assert again.pixel_size_A == PIXEL_A
    assert len(again) == count


def test_rejected_particles_are_classified_by_themselves(views: Views, tmp_path: Path) -> None:
    asked = options(views, tmp_path / "out", classes=2, pca_zscore=0.5, analyze_rejected=True, iterations=2)
    result = cl2d(asked, SerialComm())
    rejected = read_tables(tmp_path / "out" / "rejected.star")["particles"]
    core = read_tables(tmp_path / "out" / "level_00" / "core.star")["particles"]
    assert len(rejected) + len(core) == 300
    assert result.rejected is not None
    assert len(result.rejected.levels[-1].state.labels) == len(rejected) > 100
    assert (tmp_path / "out" / "rejected" / "level_00" / "classes.mrcs").exists()


def test_an_empty_core_is_a_result(views: Views, tmp_path: Path) -> None:
    cl2d(options(views, tmp_path / "out", classes=2, junk_zscore=1e-6, pca_zscore=1e-6, iterations=1), SerialComm())
    folder = tmp_path / "out" / "level_00"
    assert pd.read_csv(folder / "classes.csv")["core_size"].tolist() == [0, 0]
    assert not (folder / "core.star").exists()
    assert not MrcStack(folder / "core_classes.mrcs").read([0, 1]).any()


def test_bad_requests_are_refused_in_one_sentence(views: Views, tmp_path: Path) -> None:
    def refused(kind: type[Exception], words: str, **changed: object) -> None:
        with pytest.raises(kind, match=words):
            cl2d(options(views, tmp_path / "out", **changed), SerialComm())

    refused(OptionError, "--classes 301 is more than the 300 particles", classes=301)
    refused(OptionError, "--initial-classes 9 is more than --classes 8", initial_classes=9)
    refused(OptionError, "--max-shift is 0.7", max_shift=0.7)
    refused(OptionError, "--analyze-rejected needs cores", analyze_rejected=True, core=False)
    refused(OptionError, "--mask-radius 17 does not fit a box of 32 px", mask_radius_px=17.0)
    refused(OptionError, "--resolution 4 does not fit", resolution_A=4.0)
    refused(InputError, "tells no CTF", instack=views.stack, ctf="flip")
    refused(InputError, "nothing.mrcs", instack=tmp_path / "nothing.mrcs")
    small = np.ones((2, 16, 16), np.float32)
    write_stack(tmp_path / "small.mrcs", small, small.shape, 1.0)
    refused(InputError, "images of 16 x 16 px, but the particles have 32", references=tmp_path / "small.mrcs")
    flat = np.ones((2, 32, 32), np.float32)
    write_stack(tmp_path / "flat.mrcs", flat, flat.shape, 1.0)
    refused(InputError, "image 1 of .*flat.mrcs is constant", references=tmp_path / "flat.mrcs")
    refused(InputError, "image 1 of .*flat.mrcs .* is constant", instack=tmp_path / "flat.mrcs", classes=2)
    unknown = np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.float32)
    write_stack(tmp_path / "unknown.mrcs", unknown, unknown.shape, 0.0)
    refused(InputError, "tells no pixel size", instack=tmp_path / "unknown.mrcs", classes=2)


def test_only_earlier_results_are_replaced(views: Views, tmp_path: Path) -> None:
    level = tmp_path / "out" / "level_00"
    level.mkdir(parents=True)
    (level / "classes.star").write_text("old")
    (level / "notes.txt").write_text("mine")
    (tmp_path / "out" / "level_07").mkdir()
    (tmp_path / "out" / "level_07" / "particles.star").write_text("old")
    with pytest.raises(OutputError, match="is not empty; name another with --output-dir, or replace"):
        cl2d(options(views, tmp_path / "out"), SerialComm())
    constant = tmp_path / "flat.mrcs"
    write_stack(constant, np.ones((9, 32, 32), np.float32), (9, 32, 32), 1.0)
    with pytest.raises(InputError, match="is constant"):
        cl2d(options(views, tmp_path / "out", instack=constant, overwrite=True), SerialComm())
    assert (level / "classes.star").read_text() == "old", "not given up for bad input"
    cl2d(options(views, tmp_path / "out", overwrite=True, iterations=1), SerialComm())
    assert (level / "classes.star").read_text() != "old"
    assert (level / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "out" / "level_07").exists()


def test_the_command_runs(views: Views, tmp_path: Path) -> None:
    words = ["--instack", str(views.stack), "--output-dir", str(tmp_path / "out"), "--classes", "2"]
    words += ["--initial-classes", "1", "--iterations", "1", "--robust"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert "The last level is in" in done.output
    assert (tmp_path / "out" / "level_01" / "particles.star").exists()


_RUN = """
import sys
from pathlib import Path
from hpcsort.cl2d import Cl2dOptions, cl2d
from hpcsort.parallel import abort_on_error, get_comm
comm = get_comm()
with abort_on_error(comm):
    cl2d(Cl2dOptions(Path(sys.argv[1]), Path(sys.argv[2]), classes=4, initial_classes=2, iterations=2, quiet=True,
                     clustering="robust", comparison="correntropy", ctf="wiener", mirrored_stack=True,
                     analyze_rejected=True, pca_zscore=1.0), comm)
"""


@pytest.mark.mpi
def test_files_have_the_same_bytes_on_any_number_of_ranks(tmp_path: Path) -> None:
    views = make_views(tmp_path, 530, 3, snr=0.5, seed=5)
    star = str(views.stack.with_suffix(".star"))
    runs = {"alone": run_alone("-c", _RUN, star, str(tmp_path / "alone"), timeout_s=120)}
    for ranks in (1, 2, 3):
        runs[str(ranks)] = run_mpi(ranks, "-c", _RUN, star, str(tmp_path / str(ranks)), timeout_s=120)
    trees = {}
    for name, run in runs.items():
        assert run.returncode == 0, run.stderr
        root = tmp_path / name
        trees[name] = {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name not in ("log.txt", "job.json", "run.json", "report.html")
        }
    assert len(trees["alone"]) > 20
    for name in ("1", "2", "3"):
        assert trees[name].keys() == trees["alone"].keys()
        different = [path for path in trees[name] if trees[name][path] != trees["alone"][path]]
        assert different == []


def test_an_error_of_one_rank_is_that_of_all(tmp_path: Path) -> None:
    views = make_views(tmp_path, 530, 2, seed=6)
    images = MrcStack(views.stack).read(np.arange(530))
    images[525] = np.nan
    write_stack(views.stack, images, images.shape, PIXEL_A, overwrite=True)
    done = run_mpi(2, "-c", _RUN, str(views.stack.with_suffix(".star")), str(tmp_path / "out"))
    assert done.returncode == InputError.exit_code
    assert done.stderr.count("hpcsort: error") == 1
    assert "image 526 of" in done.stderr
