"""The estimate of memory against arrays and processes, and what is decided by it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mpi_helpers import run_alone, run_mpi
from sort3d_runs import BOX, simulate_small

from hpcsort.errors import InputError
from hpcsort.images import SmearedData
from hpcsort.io import ParticleTable, Smears, read_particles
from hpcsort.parallel import SerialComm
from hpcsort.sort3d import SortOptions
from hpcsort.sort3d._footprint import Footprint
from hpcsort.sort3d.memory import MemoryEstimate, _Planner, estimate_memory, plan_memory
from hpcsort.sort3d.problem import Problem, pose_problem
from hpcsort.sort3d.source import Source

POSES = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_small(tmp_path_factory.mktemp("memory") / "sim", 120, snr=5.0).star


@pytest.fixture(scope="module")
def table(made: Path) -> ParticleTable:
    return read_particles(made)


@pytest.fixture(scope="module")
def smeared(table: ParticleTable) -> ParticleTable:
    return _with_smears(table, POSES)


def _with_smears(table: ParticleTable, poses: int) -> ParticleTable:
    owner = np.repeat(np.arange(len(table)), poses)
    draw = np.random.default_rng(0)
    angles = table.angles_deg[owner] + draw.normal(size=(len(owner), 3))
    smears = Smears.of_lists(owner, angles, table.shifts_px[owner], draw.random(len(owner)) + 0.1)
    return replace(table, smears=smears)


def _options(table: ParticleTable, **more: object) -> SortOptions:
    return SortOptions(instack=table.source, output_dir=Path("out"), **more)  # type: ignore[arg-type]


def _posed(table: ParticleTable, options: SortOptions) -> Problem:
    return pose_problem(Source(options, table, None, None, ()), SerialComm(), lambda text: None)


def _held(problem: Problem) -> tuple[int, int]:
    """Bytes of images with their CTFs, and of the images of all poses, each array once."""
    bands = [problem.wide.store.data, problem.narrow.store.data]
    plain = [band.data if isinstance(band, SmearedData) else band for band in bands]
    ready = [band.ready for band in bands if isinstance(band, SmearedData) and band.ready is not None]
    images = {id(array): array.nbytes for band in plain for array in (band.images, band.ctfs)}
    return sum(images.values()), sum({id(array): array.nbytes for array in ready}.values())


@pytest.mark.parametrize("window", [14, None])
def test_images_are_those_that_a_sort_holds(table: ParticleTable, window: int | None) -> None:
    options = _options(table, nxinit=window)
    problem = _posed(table, options)
    footprint = Footprint.of(table, options, 1)
    assert problem.wide.grid.radius == footprint.wide.radius, "the estimate is for a consensus good to the band's end"
    rotations = 100 * len(table)
    assert footprint.images() - rotations == _held(problem)[0]


@pytest.mark.parametrize("on_the_fly", [False, True])
def test_poses_are_kept_or_not(smeared: ParticleTable, on_the_fly: bool) -> None:
    options = _options(smeared, nxinit=14, compute_on_the_fly=on_the_fly)
    footprint = Footprint.of(smeared, options, 1)
    images, ready = _held(_posed(smeared, options))
    assert footprint.images() == pytest.approx(images, rel=0.15)
    assert 1 < footprint.poses_wide < POSES, "some of the poses should be joined in this band"
    listed = 60 * footprint.poses_wide * len(smeared)
    assert footprint.poses() - listed == pytest.approx(ready)
    assert (ready == 0) == on_the_fly


def test_more_of_anything_takes_more_memory(table: ParticleTable, smeared: ParticleTable) -> None:
    options = _options(table)

    def total(one: ParticleTable, ranks: int = 4, here: int = 2, **more: object) -> float:
        return estimate_memory(one, replace(options, **more), ranks, here).total  # type: ignore[arg-type]

    twice = table.subset(np.tile(np.arange(len(table)), 200))
    many = twice.subset(np.tile(np.arange(len(twice)), 2))
    assert total(many) > total(twice) > total(table)
    assert total(many, ranks=8) < total(many)
    assert total(many, ranks=8, here=4) > total(many)
    assert total(table, nxinit=16) < total(table, nxinit=BOX)
    assert total(table, components=16) > total(table, components=8)
    wide = _with_smears(twice, POSES)
    assert total(wide) > total(wide, compute_on_the_fly=True) > total(twice)
    assert total(wide, null=19) > total(wide)


def test_table_of_the_log_adds_up(table: ParticleTable) -> None:
    estimate = estimate_memory(table, _options(table), 3, 3)
    text = "\n".join(estimate.lines())
    said = {name: float(value) for name, value in re.findall(r"(libraries|images|poses|\w+) (\d+\.\d\d)", text)}
    throughout = sum(said.pop(name) for name in ("libraries", "images", "poses"))
    head = float(re.search(r"estimated: (\d+\.\d\d) GB", text)[1])  # type: ignore[index]
    assert head == pytest.approx(throughout + max(said.values()), abs=0.03)
    assert text.count("(largest)") == 1
    assert "3 ranks" in text


def test_estimate_is_within_a_fifth_of_what_a_sort_uses(made: Path, table: ParticleTable, tmp_path: Path) -> None:
    # many components, so that much of the memory is the sort's own
    options: dict[str, object] = {"components": 32, "max_groups": 1, "depth_order": 1, "nxinit": BOX}
    code = (
        "import sys; from pathlib import Path\n"
        "from hpcsort.parallel import SerialComm, peak_memory_of_node_GB\n"
        "from hpcsort.sort3d import SortOptions, sort3d\n"
        f"options = SortOptions(instack=Path(sys.argv[1]), output_dir=Path(sys.argv[2]), quiet=True, **{options!r})\n"
        "sort3d(options, SerialComm())\n"
        "print(peak_memory_of_node_GB(SerialComm()))\n"
    )
    ran = run_alone("-c", code, str(made), str(tmp_path / "out"), timeout_s=120)
    assert ran.returncode == 0, ran.stderr
    measured = float(ran.stdout)
    estimate = estimate_memory(table, _options(table, **options), 1, 1, groups=1)
    assert measured > 1.5 * estimate.libraries
    assert estimate.total == pytest.approx(measured, rel=0.2)


def test_enough_memory_changes_nothing(smeared: ParticleTable) -> None:
    options = _options(smeared, memory_per_node=100.0)
    plan = plan_memory(smeared, options, SerialComm())
    planned, told = plan.options, plan.sentences
    assert planned is options
    assert told[:-1] == estimate_memory(smeared, options, 1, 1).lines()
    assert "99.00 GB may be used (100.00 GB, --memory-per-node, less 1 GB, --overhead)" in told[-1]


def test_images_of_poses_are_not_kept_where_they_do_not_fit(table: ParticleTable) -> None:
    # so many that a block, whose images are made together, is a small part of them
    many = _with_smears(table.subset(np.tile(np.arange(len(table)), 40)), 20)
    options = _options(many, overhead=0.25)
    kept, made = (estimate_memory(many, replace(options, compute_on_the_fly=fly), 1, 1).total for fly in (False, True))
    assert kept > made
    options = replace(options, memory_per_node=(kept + made) / 2 + options.overhead)
    plan = plan_memory(many, options, SerialComm())
    planned, told = plan.options, plan.sentences
    assert planned == replace(options, compute_on_the_fly=True)
    assert f"{kept:.2f} GB" in told[0]
    assert "--compute-on-the-fly" in told[0]
    assert f"{made:.2f} GB" in told[1]


def test_what_does_not_fit_is_refused_with_a_cure_that_works(table: ParticleTable) -> None:
    options = _options(table, memory_per_node=1.0, overhead=0.0, nxinit=BOX, components=24)
    needed = estimate_memory(table, options, 1, 1).total
    options = replace(options, memory_per_node=0.9 * needed)
    with pytest.raises(InputError) as refused:
        plan_memory(table, options, SerialComm())
    text = str(refused.value)
    assert f"{needed:.2f} GB" in text
    assert f"{0.9 * needed:.2f} GB" in text
    window = int(re.search(r"--nxinit (\d+)", text)[1])  # type: ignore[index]
    assert plan_memory(table, replace(options, nxinit=window), SerialComm()).sentences
    with pytest.raises(InputError):
        plan_memory(table, replace(options, nxinit=window + 2), SerialComm())


def test_no_cure_is_invented(table: ParticleTable) -> None:
    with pytest.raises(InputError, match=r"0\.00 GB may be used .*; use nodes with more memory, or fewer particles\.$"):
        plan_memory(table, _options(table, memory_per_node=0.5), SerialComm())


def test_every_rank_hears_the_same(made: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from hpcsort.errors import InputError\n"
        "from hpcsort.io import read_particles\n"
        "from hpcsort.parallel import get_comm\n"
        "from hpcsort.sort3d import SortOptions\n"
        "from hpcsort.sort3d.memory import plan_memory\n"
        "comm = get_comm()\n"
        "table = read_particles(sys.argv[1])\n"
        "for allowed in (50.0, 0.42):\n"
        "    places = {'instack': Path(sys.argv[1]), 'output_dir': Path('out')}\n"
        "    options = SortOptions(memory_per_node=allowed, overhead=0.0, **places)\n"
        "    try:\n"
        "        told = plan_memory(table, options, comm).sentences\n"
        "    except InputError as error:\n"
        "        told = [str(error)]\n"
        "    heard = comm.allgather(told)\n"
        "    assert all(one == told for one in heard)\n"
        "    if comm.is_root:\n"
        "        print(told[0])\n"
    )
    ran = run_mpi(2, "-c", code, str(made))
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert first.startswith("Memory of a node with 2 ranks")
    assert "start at most 1 rank a node" in second


def test_phases_follow_each_other() -> None:
    estimate = MemoryEstimate(1, 1, 5, 1.0, 2.0, 4.0, 0.25, 0.5, 0.125, 0.0625, 0.03125)
    assert estimate.total == 7.5


def test_large_final_maps_are_made_by_fewer_ranks(table: ParticleTable) -> None:
    # Maps of 360 px take gigabytes on each rank that makes them; images and classes do not.
    large = replace(table, box_px=360)
    options = _options(table, memory_per_node=24.0, nxinit=32)
    all_make = estimate_memory(large, options, 16, 16)
    plan = plan_memory(large, options, SerialComm())
    assert plan.makers == 1
    many = _Planner(large).decide(options, 16, 16, 24.0)
    assert all_make.total > 24.0
    assert 1 <= many.makers < 16
    assert estimate_memory(large, options, 16, 16, makers=many.makers).total <= 23.0
    assert estimate_memory(large, options, 16, 16, makers=many.makers + 1).total > 23.0
    assert f"made by {many.makers} of the ranks" in " ".join(many.sentences)
