"""cluster-averages from files to files: the inputs of other programs, the original's text file, merging, ranks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from averages_cases import families, views
from click.testing import CliRunner
from mpi_helpers import run_mpi

from hpcsort.averages import AveragesOptions, Findings, cluster_averages, read_averages
from hpcsort.cl2d import Cl2dOptions, cl2d
from hpcsort.cli.cluster_averages import command
from hpcsort.errors import InputError, OptionError, OutputError
from hpcsort.io import MrcStack, read_particles, read_tables, write_stack, write_tables
from hpcsort.io.xmd import write_xmd
from hpcsort.parallel import SerialComm
from hpcsort.partitions import adjusted_rand_index
from hpcsort.planar import PlanarPoses, average_images

_BOX, _PIXEL_A, _EACH = 32, 3.0, 6
_TRUTH = np.array([0, 1, 2, 0, 1, 0, 0, 1, 2])
_MAIN = "import sys; from hpcsort.cli.cluster_averages import command; command(sys.argv[1:], standalone_mode=False)"


@dataclass(frozen=True)
class _Made:
    """Files of a 2D classification, and what is in them."""

    folder: Path
    averages: np.ndarray
    particles: np.ndarray
    classes: np.ndarray
    poses: PlanarPoses

    @property
    def star(self) -> Path:
        return self.folder / "run_it025_model.star"


def _stack(path: Path) -> np.ndarray:
    with MrcStack(path) as stack:
        return stack.read(np.arange(len(stack)))


def _frame(path: Path, block: str) -> pd.DataFrame:
    found = read_tables(path)[block]
    assert isinstance(found, pd.DataFrame)
    return found


def _members(path: Path) -> dict[int, list[str]]:
    """Read the clusters by the rule of the original program."""
    clusters: dict[int, list[str]] = {}
    current = None
    for line in path.read_text().splitlines():
        line = line.strip()
        if line.startswith("Cluster"):
            current = int(line.split()[1].replace(":", ""))
            clusters[current] = []
        elif line.isdigit():
            assert current is not None
            clusters[current].append(line)
    return clusters


def _labels(clusters: dict[int, list[str]], ids: list[int]) -> np.ndarray:
    label = {int(word): number for number, words in clusters.items() for word in words}
    return np.array([label[number] for number in ids])


def _run(averages: Path, out: Path, **more: object) -> Findings:
    given = {"averages": averages, "output_dir": out, "min_clusters": 2, "quiet": True} | more
    found = cluster_averages(AveragesOptions(**given), SerialComm())  # type: ignore[arg-type]
    assert found is not None
    return found


def _write_classification(folder: Path, mirror: bool) -> _Made:
    """Nine classes of three views, with their particles; views of classes are turned, shifted and mirrored."""
    folder.mkdir()
    view, _ = families(views(3, _BOX, seed=12), _TRUTH, 0.0, 3, shift_px=1.5)
    counts = _EACH + np.arange(9) % 3
    classes = np.random.default_rng(1).permutation(np.repeat(np.arange(9), counts))
    particles, poses = families(view, classes, 0.5, 8, shift_px=1.5, mirror=mirror)
    averages = np.stack([average_images(particles[classes == k], poses.rows(classes == k)) for k in range(9)])
    averages = averages.astype(np.float32)
    write_stack(folder / "particles.mrcs", particles, particles.shape, _PIXEL_A)
    write_stack(folder / "run_it025_classes.mrcs", averages, averages.shape, _PIXEL_A)
    frame = pd.DataFrame(
        {
            "rlnImageName": [f"{row + 1:06d}@particles.mrcs" for row in range(len(classes))],
            "rlnMicrographName": "m.mrc",
            "rlnClassNumber": classes + 1,
            "rlnAnglePsi": poses.psi_deg,
            "rlnOriginXAngst": poses.shift_px[:, 0] * _PIXEL_A,
            "rlnOriginYAngst": poses.shift_px[:, 1] * _PIXEL_A,
            "rlnAngleRot": 0.0,
            "rlnAngleTilt": 0.0,
            "rlnOpticsGroup": 1,
        }
    )
    if mirror:
        frame["hpcsortMirror"] = poses.mirror.astype(int)
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [_PIXEL_A], "rlnImageSize": [_BOX]})
    write_tables(folder / "run_it025_data.star", {"optics": optics, "particles": frame})
    names = [f"{k + 1:06d}@run_it025_classes.mrcs" for k in range(9)]
    model = pd.DataFrame({"rlnReferenceImage": names, "rlnClassDistribution": counts / counts.sum()})
    write_tables(folder / "run_it025_model.star", {"model_general": {"rlnNrClasses": 9}, "model_classes": model})
    return _Made(folder, averages, particles, classes, poses)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> _Made:
    return _write_classification(tmp_path_factory.mktemp("made") / "relion", mirror=False)


@pytest.fixture(scope="module")
def mirrored_made(tmp_path_factory: pytest.TempPathFactory) -> _Made:
    return _write_classification(tmp_path_factory.mktemp("made") / "cl2d", mirror=True)


@pytest.fixture(scope="module")
def done(made: _Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Findings]:
    out = tmp_path_factory.mktemp("done") / "out"
    return out, _run(made.star, out)


def test_the_text_file_parses_by_the_rule_of_the_original(done: tuple[Path, Findings]) -> None:
    clusters = _members(done[0] / "best_clusters_with_names.txt")
    assert list(clusters) == [0, 1, 2]
    assert adjusted_rand_index(_labels(clusters, list(range(1, 10))), _TRUTH) == 1
    lines = (done[0] / "best_results.txt").read_text().splitlines()
    assert lines[0].startswith("Best clustering method: ")
    assert 0 < float(lines[1].removeprefix("Best Silhouette Score: ")) < 1


def test_all_outputs_tell_the_same(done: tuple[Path, Findings]) -> None:
    out, found = done
    told = json.loads((out / "clusters.json").read_text())
    clusters = _members(out / "best_clusters_with_names.txt")
    assert {c["label"]: [str(m["id"]) for m in c["members"]] for c in told["clusters"]} == clusters
    assert told["labels"] == {
        str(k): v for k, v in zip(range(1, 10), _labels(clusters, list(range(1, 10))), strict=True)
    }
    for cluster in told["clusters"]:
        assert cluster["representative"] == cluster["members"][0]["id"]
        assert cluster["members"][0]["image"] == f"{cluster['representative']:06d}@run_it025_classes.mrcs"
        assert cluster["size"] == sum(member["size"] for member in cluster["members"])
        assert 0.5 < cluster["stability"] <= 1
    scores = pd.read_csv(out / "scores.csv")
    assert scores["clusters"].min() == 2
    assert scores["clusters"].max() == 7
    assert len(scores) == 3 * 6
    chosen = scores[scores["chosen"] == 1]
    assert chosen["silhouette"].tolist() == [scores["silhouette"].max()]
    assert chosen["clusters"].tolist() == [len(found.families)]
    for name in ("best_cluster_visualization_with_images", "all_clusters_with_labels", "dendrogram"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "report.html").read_text().count("data:image/png;base64,") == 3


@pytest.mark.parametrize("which", ["made", "mirrored_made"])
def test_averaging_the_merged_particles_gives_the_merged_averages(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made: _Made = request.getfixturevalue(which)
    out = tmp_path / "out"
    found = _run(made.star, out)
    merged = _stack(out / "merged_averages.mrcs")
    table = read_particles(out / "merged_particles.star", need_ctf=False)
    assert np.array_equal(table.frame["hpcsortUnmergedClassNumber"], made.classes + 1)
    labels = table.frame["rlnClassNumber"].to_numpy() - 1
    mirror = table.frame["hpcsortMirror"].to_numpy() > 0
    poses = PlanarPoses(table.angles_deg[:, 2], table.shifts_px, mirror)
    assert mirror.any()
    for label, family in enumerate(found.families):
        own = labels == label
        assert own.sum() == found.averages.sizes[family.members].sum()
        again = average_images(made.particles[own], poses.rows(own))
        # twice interpolated against once
        assert np.corrcoef(again.ravel(), merged[label].ravel())[0, 1] > 0.998
        assert np.linalg.norm(again - merged[label]) < 0.06 * np.linalg.norm(again)
        first = made.averages[family.members[0]]
        assert np.corrcoef(again.ravel(), first.ravel())[0, 1] > 0.9
    classes = _frame(out / "merged_averages.star", "model_classes")
    assert classes["rlnClassDistribution"].sum() == pytest.approx(1)


def test_a_bare_stack_has_places_or_a_list_beside_it_as_ids(made: _Made, tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    write_stack(path, made.averages, made.averages.shape, _PIXEL_A)
    assert read_averages(path).ids.tolist() == list(range(1, 10))
    (tmp_path / "a.txt").write_text("".join(f"{number}\n" for number in range(101, 110)))
    _run(path, tmp_path / "out")
    clusters = _members(tmp_path / "out/best_clusters_with_names.txt")
    assert adjusted_rand_index(_labels(clusters, list(range(101, 110))), _TRUTH) == 1
    assert not (tmp_path / "out/merged_particles.star").exists()
    (tmp_path / "a.txt").write_text("1\n2\n")
    with pytest.raises(InputError, match="lists 2 ids for the 9 averages"):
        read_averages(path)
    (tmp_path / "a.txt").write_text("notes of mine 1\n")
    assert read_averages(path).ids.tolist() == list(range(1, 10))


def test_relions_stack_finds_its_model_and_its_particles(made: _Made) -> None:
    averages = read_averages(made.folder / "run_it025_classes.mrcs")
    assert averages.particles is not None
    assert averages.sizes.tolist() == np.bincount(made.classes).tolist()
    assert averages.pixel_A == _PIXEL_A
    np.testing.assert_allclose(averages.particles.poses.matrices, made.poses.matrices, atol=1e-9)
    np.testing.assert_allclose(averages.particles.poses.shift_px, made.poses.shift_px, atol=1e-9)


def test_a_selection_of_classes_keeps_its_numbers(made: _Made, tmp_path: Path) -> None:
    names = [f"{k:06d}@{made.folder}/run_it025_classes.mrcs" for k in (8, 2, 5)]
    write_tables(tmp_path / "s.star", {"": pd.DataFrame({"rlnReferenceImage": names})})
    averages = read_averages(tmp_path / "s.star")
    assert averages.ids.tolist() == [8, 2, 5]
    assert np.array_equal(averages.images[0], made.averages[7])
    with pytest.raises(InputError, match="no average has the class"):
        read_averages(tmp_path / "s.star", made.folder / "run_it025_data.star")


def test_the_folder_of_cl2d_gives_its_last_level(mirrored_made: _Made, tmp_path: Path) -> None:
    for number in (0, 1):
        level = tmp_path / f"cl2d/level_{number:02d}"
        level.mkdir(parents=True)
        images = mirrored_made.averages[: 9 if number else 4]
        write_stack(level / "classes.mrcs", images, images.shape, _PIXEL_A)
        names = [f"{k + 1:06d}@classes.mrcs" for k in range(len(images))]
        model = pd.DataFrame({"rlnReferenceImage": names, "rlnClassDistribution": 1 / len(images)})
        write_tables(level / "classes.star", {"model_classes": model})
    (level / "particles.star").write_bytes((mirrored_made.folder / "run_it025_data.star").read_bytes())
    averages = read_averages(tmp_path / "cl2d")
    assert len(averages.ids) == 9
    assert averages.particles is not None
    assert np.array_equal(averages.particles.poses.mirror, mirrored_made.poses.mirror)
    assert len(read_averages(tmp_path / "cl2d/level_00").ids) == 4
    assert read_averages(level / "classes.mrcs").particles is not None
    with pytest.raises(InputError, match=r"no classes\.star"):
        read_averages(tmp_path)


def test_what_cl2d_writes_is_read_and_merged(tmp_path: Path) -> None:
    truth = np.arange(72) % 2
    particles, _ = families(views(2, 24, seed=3), truth, 0.5, 4, shift_px=1.0)
    write_stack(tmp_path / "p.mrcs", particles, particles.shape, _PIXEL_A)
    more = {"classes": 4, "initial_classes": 2, "iterations": 3, "core": False, "stable_core": False, "quiet": True}
    cl2d(Cl2dOptions(tmp_path / "p.mrcs", tmp_path / "cl2d", **more), SerialComm())
    found = _run(tmp_path / "cl2d", tmp_path / "out")
    assert found.averages.sizes.sum() == 72
    merged = _frame(tmp_path / "out/merged_particles.star", "particles")
    labels = merged["rlnClassNumber"].to_numpy() - 1
    assert labels.max() == 1
    assert adjusted_rand_index(labels, truth) > 0.9
    poses = PlanarPoses(
        merged["rlnAnglePsi"].to_numpy(float),
        merged[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(float) / _PIXEL_A,
        merged["hpcsortMirror"].to_numpy() > 0,
    )
    x = np.arange(24) - 12
    disc = np.hypot(x[:, None], x) < 10
    for label, image in enumerate(_stack(tmp_path / "out/merged_averages.mrcs")):
        again = average_images(particles[labels == label], poses.rows(labels == label))
        assert np.corrcoef(again[disc], image[disc])[0, 1] > 0.99


def test_classes_of_xmipp_have_their_particles_and_poses(mirrored_made: _Made, tmp_path: Path) -> None:
    made = mirrored_made
    write_stack(tmp_path / "level_classes.mrcs", made.averages, made.averages.shape, _PIXEL_A)
    refs = np.arange(9) + 20
    blocks = {
        "classes": pd.DataFrame(
            {
                "ref": refs,
                "image": [f"{k + 1:06d}@level_classes.mrcs" for k in range(9)],
                "classCount": np.bincount(made.classes),
            }
        )
    }
    offsets = made.poses.offsets_px
    for k in range(9):
        rows = np.flatnonzero(made.classes == k)
        blocks[f"class{refs[k]:06d}_images"] = pd.DataFrame(
            {
                "image": [f"{row + 1:06d}@{made.folder}/particles.mrcs" for row in rows],
                "enabled": 1,
                "flip": made.poses.mirror[rows].astype(int),
                "shiftX": offsets[rows, 0],
                "shiftY": offsets[rows, 1],
                # y = F R(psi) x + s: Xmipp mirrors after the rotation
                "anglePsi": np.where(made.poses.mirror[rows], made.poses.psi_deg[rows], -made.poses.psi_deg[rows]),
            }
        )
    write_xmd(tmp_path / "level_classes.xmd", blocks)
    averages = read_averages(tmp_path / "level_classes.xmd")
    assert averages.ids.tolist() == refs.tolist()
    assert averages.particles is not None
    order = np.argsort(made.classes, kind="stable")
    assert np.array_equal(averages.particles.class_ids, made.classes[order] + 20)
    np.testing.assert_allclose(averages.particles.poses.matrices, made.poses.matrices[order], atol=1e-6)
    np.testing.assert_allclose(averages.particles.poses.shift_px, made.poses.shift_px[order], atol=1e-5)
    _run(tmp_path / "level_classes.xmd", tmp_path / "out")
    merged = read_particles(tmp_path / "out/merged_particles.star", need_ctf=False)
    assert len(merged) == len(made.classes)


def test_blank_classes_and_particles_of_no_class(made: _Made, tmp_path: Path) -> None:
    for path in made.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    images = made.averages.copy()
    images[4] = 0
    write_stack(tmp_path / "run_it025_classes.mrcs", images, images.shape, _PIXEL_A, overwrite=True)
    tables = read_tables(tmp_path / "run_it025_data.star")
    frame = tables["particles"]
    assert isinstance(frame, pd.DataFrame)
    frame.loc[[0, 1], "rlnClassNumber"] = 0
    write_tables(tmp_path / "run_it025_data.star", tables, overwrite=True)
    found = _run(tmp_path / "run_it025_model.star", tmp_path / "out")
    clusters = _members(tmp_path / "out/best_clusters_with_names.txt")
    assert clusters[len(clusters) - 1] == ["5"]
    merged = _frame(tmp_path / "out/merged_particles.star", "particles")
    assert len(merged) == len(made.classes) - 2
    of_blank = merged[merged["hpcsortUnmergedClassNumber"] == 5]
    assert of_blank["rlnClassNumber"].unique().tolist() == [len(found.families)]
    old = frame[frame["rlnClassNumber"] == 5]["rlnAnglePsi"]
    turned = of_blank["rlnAnglePsi"].to_numpy() - old.to_numpy()
    np.testing.assert_allclose((turned + 180) % 360 - 180, 0, atol=1e-5)
    assert not _stack(tmp_path / "out/merged_averages.mrcs")[-1].any()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_averages_make_all_files(made: _Made, tmp_path: Path, count: int) -> None:
    write_stack(tmp_path / "a.mrcs", made.averages[:count], (count, _BOX, _BOX), _PIXEL_A)
    _run(tmp_path / "a.mrcs", tmp_path / "out", min_clusters=10)
    clusters = _members(tmp_path / "out/best_clusters_with_names.txt")
    assert sorted(word for words in clusters.values() for word in words) == [str(k + 1) for k in range(count)]
    assert len(list((tmp_path / "out").iterdir())) == 12


def test_extract_chooses_what_is_written(made: _Made, tmp_path: Path) -> None:
    particles, averages = "merged_particles.star", "merged_averages.mrcs"
    assert read_averages(made.star, with_particles=False).particles is None
    for extract, expected in (("classes", {particles}), ("averages", {averages}), ("both", {particles, averages})):
        _run(made.star, tmp_path / extract, extract=extract)
        assert {name for name in (particles, averages) if (tmp_path / extract / name).exists()} == expected
    write_stack(tmp_path / "a.mrcs", made.averages, made.averages.shape, _PIXEL_A)
    with pytest.raises(OptionError, match="--extract both needs particles"):
        _run(tmp_path / "a.mrcs", tmp_path / "out", extract="both")
    assert not (tmp_path / "out").exists()


def test_threads_change_no_byte_and_output_is_not_replaced(
    made: _Made, done: tuple[Path, Findings], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _run(made.star, out, workers=3)
    # the record and the page tell times and options
    names = sorted({path.name for path in done[0].iterdir()} - {"run.json", "report.html", "report"})
    assert len(names) == 10
    for name in names:
        # names of particles are relative to the folder of the table
        if name != "merged_particles.star":
            assert (out / name).read_bytes() == (done[0] / name).read_bytes(), name
    with pytest.raises(OutputError, match="--overwrite"):
        _run(made.star, out)
    _run(made.star, out, overwrite=True, extract="averages")
    assert not (out / "merged_particles.star").exists()


@pytest.mark.mpi
def test_every_number_of_ranks_writes_the_same_bytes(made: _Made, tmp_path: Path) -> None:
    sums = []
    words = f"--averages {made.star} --min-clusters 2 --quiet --output-dir"
    for ranks in (1, 2):
        out = tmp_path / f"out{ranks}"
        if ranks == 1:
            _run(made.star, out)
        else:
            ran = run_mpi(ranks, "-c", _MAIN, *words.split(), str(out))
            assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        # the record and the page tell times and ranks
        files = [path for path in sorted(out.rglob("*.*")) if path.name not in {"run.json", "report.html"}]
        sums.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})
    assert sums[0] == sums[1]


def test_the_command_tells_what_it_found(made: _Made, tmp_path: Path) -> None:
    words = ["--averages", str(made.star), "--output-dir", str(tmp_path / "o"), "--similarity", "ncc", "-j", "2"]
    ran = CliRunner().invoke(command, words, catch_exceptions=False)
    assert ran.exit_code == 0
    assert "--min-clusters 10 is more than 9 averages allow; 8 is taken." in ran.output
    assert "9 averages in 8 families" in ran.output


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"min_clusters": 0}, "--min-clusters is 0"),
        ({"max_clusters": 0}, "--max-clusters is 0"),
        ({"min_clusters": 5, "max_clusters": 4}, "less than --min-clusters"),
        ({"similarity": "frc"}, "--similarity is frc"),
        ({"extract": "all"}, "--extract is all"),
        ({"workers": 0}, "-j is 0"),
        ({"angpix": float("nan")}, "--angpix is nan"),
    ],
)
def test_options_out_of_range_are_refused(more: dict[str, object], told: str) -> None:
    given = {"averages": Path("a.mrcs"), "output_dir": Path("o")} | more
    with pytest.raises(OptionError, match=told):
        AveragesOptions(**given)  # type: ignore[arg-type]


def test_inputs_that_cannot_be_used_are_told(made: _Made, tmp_path: Path) -> None:
    write_stack(tmp_path / "small.mrcs", np.ones((2, 8, 8), np.float32), (2, 8, 8), 1.0)
    write_stack(tmp_path / "long.mrcs", np.ones((2, 16, 32), np.float32), (2, 16, 32), 1.0)
    data = made.folder / "run_it025_data.star"
    frame = _frame(data, "particles")
    optics = _frame(data, "optics")
    tables = {"optics": optics, "particles": frame.drop(columns="rlnAnglePsi")}
    write_tables(tmp_path / "no_psi.star", tables)
    write_tables(tmp_path / "no_class.star", {"optics": optics, "particles": frame.drop(columns="rlnClassNumber")})
    cases: list[tuple[Path, Path | None, str]] = [
        (tmp_path / "none.mrcs", None, "is not there"),
        (tmp_path / "small.mrcs", None, "8 px are too small"),
        (tmp_path / "long.mrcs", None, "squares"),
        (data, None, "no column rlnReferenceImage"),
        (made.star, tmp_path / "no_psi.star", "no angle rlnAnglePsi"),
        (made.star, tmp_path / "no_class.star", "no column rlnClassNumber"),
    ]
    for averages, particles, told in cases:
        with pytest.raises(InputError, match=told):
            read_averages(averages, particles)
    write_stack(tmp_path / "merged_averages.mrcs", made.averages, made.averages.shape, 1.0)
    with pytest.raises(OutputError, match="is an input"):
        _run(tmp_path / "merged_averages.mrcs", tmp_path, overwrite=True)
