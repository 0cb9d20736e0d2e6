"""Bad input of the program ends in one sentence, before anything is lost."""

from __future__ import annotations

import json
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from sort3d_runs import BOX, PIXEL_A, break_images, read_ids, simulate_small, sort_quietly

from hpcsort.errors import HpcsortError, InputError, OptionError, OutputError
from hpcsort.io import write_map
from hpcsort.partitions import purities
from hpcsort.simulation import SimulationResult


@pytest.fixture
def small(tmp_path: Path) -> SimulationResult:
    return simulate_small(tmp_path / "data", 60)


def _refused(made: SimulationResult, kind: type[HpcsortError], message: str, **options: object) -> None:
    out = made.star.parent.parent / "refused"
    (out / "log.txt").unlink(missing_ok=True)
    with pytest.raises(kind, match=message) as caught:
        sort_quietly(made.star, out, **options)
    assert "\n" not in str(caught.value)
    left = [path.name for path in out.iterdir()] if out.exists() else []
    assert left == []


def test_many_bad_images_are_summed_up(small: SimulationResult) -> None:
    break_images(small, constant=[7], nan=list(range(10, 30)))
    _refused(small, InputError, r"^21 bad images: (image .*; ){5}and 16 more; .*--skip-bad")


def test_masked_images_are_refused_before_any_work(small: SimulationResult) -> None:
    axis = np.arange(BOX) - BOX // 2
    with mrcfile.open(small.stack, "r+") as stack:
        stack.data[5] *= axis[:, None] ** 2 + axis**2 <= (BOX // 2 - 2) ** 2
    _refused(small, InputError, r"particles\.star, row 6: the image is constant outside the radius of 10 px")


def test_bad_images_are_left_out_on_request(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 300)
    bad = [3, 100, 101, 250]
    break_images(made, nan=[3, 250], inf=[100], constant=[101])
    result = sort_quietly(made.star, tmp_path / "out", skip_bad=True, num_core_set=1)
    np.testing.assert_array_equal(result.labels[bad], -1)
    np.testing.assert_array_equal(result.agreeing[bad], 0.0)
    listed = [read_ids(path) for path in (tmp_path / "out").glob("**/Cluster_*.txt")]
    listed += [read_ids(path) for path in (tmp_path / "out").glob("**/Core_set.txt")]
    assert not set(bad) & set(np.concatenate(listed).tolist())
    top = [read_ids(path) for path in (tmp_path / "out").glob("Cluster_*.txt")] + [
        read_ids(tmp_path / "out" / "Core_set.txt")
    ]
    assert set(np.concatenate(top).tolist()) == set(range(300)) - set(bad)
    written = starfile.read(tmp_path / "out" / "particles.star")["particles"]
    assert len(written) == 300
    assert (written.rlnClassNumber[bad] == 0).all()
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(run["bad_images"]) == 4
    assert "4 bad images are left out" in (tmp_path / "out" / "log.txt").read_text()
    assert purities(pd.read_csv(made.truth).state, result.labels).min() > 0.9


def test_too_few_good_images_are_left(small: SimulationResult) -> None:
    break_images(small, constant=list(range(25)))
    _refused(small, InputError, "only 35 good images are left of 60; at least 40 are needed", skip_bad=True)


@pytest.mark.parametrize("option", [{"radius": 12}, {"nxinit": 26}])
def test_what_does_not_fit_the_box_is_refused(small: SimulationResult, option: dict[str, int]) -> None:
    _refused(small, OptionError, f"{next(iter(option.values()))} .*box of 24 px", **option)
    assert not (small.star.parent.parent / "refused").exists()


def test_what_lies_in_the_output_folder_stays(small: SimulationResult, tmp_path: Path) -> None:
    out = tmp_path / "used"
    out.mkdir()
    foreign = ["notes.txt", "Cluster_notes.txt", "volume_core_of_mine.mrc", "generation_me/list.txt", "data.mrcs"]
    for name in foreign:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    with pytest.raises(OutputError, match=r"used is not empty.*--output-dir.*--overwrite"):
        sort_quietly(small.star, out)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == sorted(foreign)
    stale = ["Cluster_007.txt", "vol_cluster007.mrc", "vol_cluster007_half2.mrc", "generation_003/Cluster_001.txt"]
    for name in stale:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("of an earlier sort")
    sort_quietly(small.star, out, overwrite=True)
    assert not any((out / name).exists() for name in stale)
    assert all((out / name).read_text() == "mine" for name in foreign)
    assert (out / "run.json").exists()


def test_bad_input_costs_no_earlier_results(small: SimulationResult, tmp_path: Path) -> None:
    out = tmp_path / "used"
    out.mkdir()
    earlier = {name: f"earlier {name}" for name in ("Cluster_000.txt", "log.txt", "run.json")}
    for name, text in earlier.items():
        (out / name).write_text(text)
    break_images(small, nan=[5])
    with pytest.raises(InputError, match="bad images"):
        sort_quietly(small.star, out, overwrite=True)
    assert {path.name: path.read_text() for path in out.iterdir()} == earlier


def test_overwriting_never_removes_an_input(small: SimulationResult, tmp_path: Path) -> None:
    out = small.star.parent
    before = small.star.read_bytes()
    with pytest.raises(OutputError, match=r"particles\.star is an input and"):
        sort_quietly(small.star, out, overwrite=True)
    assert small.star.read_bytes() == before
    used = tmp_path / "used"
    used.mkdir()
    mask = used / "vol_cluster000.mrc"
    write_map(mask, np.ones((BOX,) * 3, np.float32), PIXEL_A)
    with pytest.raises(OutputError, match=r"vol_cluster000\.mrc is an input"):
        sort_quietly(small.star, used, overwrite=True, mask3D=mask)
    assert mask.exists()


def test_an_output_folder_that_is_a_file_is_refused(small: SimulationResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file"):
        sort_quietly(small.star, tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"
