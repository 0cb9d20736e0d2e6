"""Sorting particles that have several poses each, a refinement, and symmetry mates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_chunks
import starfile
from meridien_writer import random_case, write_refinement
from mpi_helpers import find_mpiexec, run_mpi
from sort3d_runs import BOX, digests, read_ids, simulate_small, sort_quietly

from hpcsort.errors import InputError, OptionError
from hpcsort.io import Smears, read_particles, write_map, write_particles, write_smears
from hpcsort.parallel import SerialComm
from hpcsort.reconstruction import expand_symmetry
from hpcsort.sort3d import SortOptions, loading, sort3d
from hpcsort.sort3d.source import read_source

_SHORT = {"components": 1, "nxinit": 14}
_WORDS = ("--max-groups", "2", "--depth-order", "1", "--components", "1", "--nxinit", "14")


def smear(star: Path, most: int, spread_deg: float = 4.0) -> Path:
    """Beside a table: the same with 1 to ``most`` poses a particle, the given one the likeliest."""
    table = read_particles(star)
    draw = np.random.default_rng(4)
    counts = draw.integers(1, most + 1, len(table))
    owner = np.repeat(np.arange(len(table)), counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    others = np.setdiff1d(np.arange(len(owner)), first)
    weight = draw.uniform(0.1, 0.5, len(owner))
    weight[first] = 1.0
    angles, shifts = table.angles_deg[owner], table.shifts_px[owner]
    angles[others] += spread_deg * draw.standard_normal((len(others), 3))
    shifts[others] += 0.5 * draw.standard_normal((len(others), 2))
    total = np.bincount(owner, weight)
    smears = Smears.of_lists(owner, angles, shifts, weight / total[owner])
    write_smears(star.parent / "smeared_smears.h5", smears, table.frame["rlnImageName"].tolist())
    write_particles(star.parent / "smeared.star", table, smear_table="smeared_smears.h5")
    return star.parent / "smeared.star"


@pytest.mark.slow
def test_one_pose_each_sorts_as_without_smears(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 150)
    sort_quietly(made.star, tmp_path / "plain", **_SHORT)
    sort_quietly(smear(made.star, 1), tmp_path / "smeared", **_SHORT)
    for path in sorted((tmp_path / "plain").glob("Cluster_*.txt")):
        assert path.read_bytes() == (tmp_path / "smeared" / path.name).read_bytes()


@pytest.mark.mpi
@pytest.mark.slow
def test_files_depend_neither_on_ranks_nor_on_where_poses_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_mpiexec()
    monkeypatch.setattr(loading, "deal_particles", small_chunks.deal_small_chunks)
    star = smear(simulate_small(tmp_path / "data", 180).star, 3)
    sort_quietly(star, tmp_path / "kept", **_SHORT)
    sort_quietly(star, tmp_path / "made", compute_on_the_fly=True, **_SHORT)
    expected = digests(tmp_path / "kept")
    assert digests(tmp_path / "made") == expected
    command = (str(Path(small_chunks.__file__)), "sort3d", "--instack", str(star))
    done = run_mpi(2, *command, "--output-dir", str(tmp_path / "ranks"), *_WORDS)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "ranks") == expected
    assert "Smears: mean" in done.stdout
    assert "cannot tell apart are joined" in done.stdout


def test_smears_are_limited_and_what_is_lost_is_told(tmp_path: Path) -> None:
    star = smear(simulate_small(tmp_path / "data", 60).star, 4)
    whole, cut = (
        read_source(SortOptions(instack=star, output_dir=tmp_path, nsmear=most), SerialComm()) for most in (None, 2)
    )
    assert whole.table.smears is not None
    assert cut.table.smears is not None
    assert cut.table.smears.counts.max() == 2
    lost = whole.table.smears.counts > 2
    assert (cut.table.smears.dropped[lost] > 0).all()
    np.testing.assert_allclose(cut.table.smears.dropped[~lost], 0, atol=1e-12)
    assert "probability left out" in cut.notes[-1]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"scores": "best"}, {"engine": "maps"}, {"null": 1}])
def test_other_ways_take_smears_too(options: dict[str, object], tmp_path: Path) -> None:
    star = smear(simulate_small(tmp_path / "data", 150).star, 3, spread_deg=1.0)
    result = sort_quietly(star, tmp_path / "out", **_SHORT, **options)
    assert result.labels.shape == (150,)
    assert len(result.groups) >= 1


@pytest.mark.slow
def test_a_refinement_is_sorted_and_its_smears_are_kept(tmp_path: Path) -> None:
    case = random_case(90, BOX)
    write_refinement(tmp_path / "meridien", case)
    options = SortOptions(
        refinement_dir=tmp_path / "meridien", output_dir=tmp_path / "out", max_groups=2, components=1, depth_order=1,
        nxinit=14, quiet=True,
    )  # fmt: skip
    result = sort3d(options, SerialComm())
    assert len(result.labels) == 90
    back = read_particles(tmp_path / "out" / "particles.star")
    assert back.smears is not None
    np.testing.assert_array_equal(back.smears.counts, case.smears.counts)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "Iteration 3 of the refinement is used." in log
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert any(name.endswith("params_003.txt") for name in run["inputs"])


def test_noise_spectra_and_norms_of_a_refinement_arrive(tmp_path: Path) -> None:
    case = random_case(60, BOX)
    write_refinement(tmp_path / "meridien", case)
    given, without = (
        read_source(
            SortOptions(refinement_dir=tmp_path / "meridien", output_dir=tmp_path, notapplybckgnoise=left_out),
            SerialComm(),
        ).table
        for left_out in (False, True)
    )
    assert given.noise_power is not None
    assert without.noise_power is None
    assert given.image_scale is not None
    # A particle of twice the norm has twice the contrast.
    again = read_source(SortOptions(refinement_dir=tmp_path / "meridien", output_dir=tmp_path), SerialComm()).table
    doubled = replace(again, image_scale=again.image_scale / 2)
    options = SortOptions(refinement_dir=tmp_path / "meridien", output_dir=tmp_path)
    ctfs = [
        loading.load_particles(options, table, SerialComm(), 8, BOX // 2 - 2)[0].data.ctfs for table in (again, doubled)
    ]
    np.testing.assert_allclose(ctfs[1], 2 * ctfs[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--instack or --refinement-dir"),
        ({"instack": Path("a"), "refinement_dir": Path("b")}, "--instack or --refinement-dir"),
        ({"instack": Path("a"), "niter_for_sorting": 3}, "belong to --refinement-dir"),
        ({"instack": Path("a"), "notapplybckgnoise": True}, "belong to --refinement-dir"),
        ({"instack": Path("a"), "focus": Path("f"), "auto_focus": True}, "give one of them"),
        ({"instack": Path("a"), "expand": True}, "give --sym"),
        ({"instack": Path("a"), "nsmear": 0}, "--nsmear"),
        ({"instack": Path("a"), "memory_per_node": -1.0}, "--memory-per-node -1.0"),
        ({"instack": Path("a"), "overhead": -2.0}, "--overhead -2.0"),
        ({"instack": Path("a"), "scores": "mean"}, "--scores"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        SortOptions(output_dir=Path("out"), **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_symmetry_mates_are_sorted_and_share_a_half(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 60)
    result = sort_quietly(made.star, tmp_path / "out", sym="c2", expand=True, **_SHORT)
    assert len(result.labels) == 120
    table = starfile.read(tmp_path / "out" / "particles.star")["particles"]
    np.testing.assert_array_equal(table["hpcsortExpandedFrom"], np.repeat(np.arange(60), 2))
    listed = np.concatenate([read_ids(path) for path in (tmp_path / "out").glob("Cluster_*.txt")])
    assert listed.max() < 120


def test_an_image_belongs_to_one_half() -> None:
    draw = np.random.default_rng(0)
    rows = draw.permutation(30)
    table = type("Table", (), {})()
    table.stack_id, table.stack_index = np.zeros(30, np.int64), np.repeat(np.arange(10), 3)
    table.random_subset = np.zeros(30, np.int64)
    images = loading.shown_images(table, rows)
    assert images[0] == 0
    assert images.max() == 9
    half = loading.half_sets(table, rows, images, 1)
    for image in range(10):
        assert len(set(half[images == image].tolist())) == 1


def test_expanding_twice_is_refused(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 60)
    table = expand_symmetry(read_particles(made.star), SortOptions(instack=made.star, output_dir=tmp_path).operators())
    write_particles(tmp_path / "data" / "again.star", table)
    options = SortOptions(instack=tmp_path / "data" / "again.star", output_dir=tmp_path, sym="c2", expand=True)
    with pytest.raises(InputError, match="expanded already"):
        read_source(options, SerialComm())


@pytest.mark.slow
def test_a_focus_keeps_differences_inside(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 200)
    ball = np.zeros((BOX,) * 3, np.float32)
    ball[4:12, 4:12, 4:12] = 1
    write_map(tmp_path / "focus.mrc", ball, 13.3)
    source = read_source(
        SortOptions(instack=made.star, output_dir=tmp_path / "out", focus=tmp_path / "focus.mrc"), SerialComm()
    )
    from hpcsort.sort3d.problem import pose_problem

    problem = pose_problem(source, SerialComm(), lambda note: None)
    grid = problem.narrow.grid
    centre = grid.size // 2
    assert problem.narrow.mask[centre + 4 :, centre + 4 :, centre + 4 :].max() < 0.1
    assert problem.narrow.mask[centre - 4, centre - 4, centre - 4] > 0.5
    assert problem.narrow.region[centre + 4, centre + 4, centre + 4] > 0.5
    result = sort_quietly(made.star, tmp_path / "out", focus=tmp_path / "focus.mrc", **_SHORT)
    assert len(result.labels) == 200
