"""Images come back in asked order from any number of stacks; bad ones are named."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcsort.errors import InputError
from hpcsort.io import ImageReader, ParticleTable, find_bad_images, images, judge_images, read_particles, write_stack

_BOX = 5


def _particles(folder: Path, stacks: int, each: int, dtype: type = np.float32) -> tuple[ParticleTable, np.ndarray]:
    """Make particles whose image k is the constant-free pattern k + y/100, in shuffled rows over several stacks."""
    rng = np.random.default_rng(3)
    pattern = np.arange(_BOX * _BOX).reshape(_BOX, _BOX) / 128
    names, truth = [], []
    for stack in range(stacks):
        data = np.array([stack * each + k + pattern for k in range(each)])
        write_stack(folder / f"s{stack}.mrcs", data, data.shape, 1.0, dtype)  # type: ignore[arg-type]
        names += [f"{k + 1}@s{stack}.mrcs" for k in range(each)]
        truth += list(data)
    order = rng.permutation(len(names))
    rows = "\n".join(names[k] for k in order)
    (folder / "t.star").write_text(f"data_\n\nloop_\n_rlnImageName\n{rows}\n")
    table = read_particles(folder / "t.star", need_poses=False, need_ctf=False)
    return table, np.array(truth, dtype=np.float32)[order]


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> tuple[ParticleTable, np.ndarray]:
    return _particles(tmp_path_factory.mktemp("particles"), 3, 4)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 11), max_size=20))
def test_any_rows_in_any_order(particles: tuple[ParticleTable, np.ndarray], rows: list[int]) -> None:
    table, truth = particles
    with ImageReader(table) as reader:
        out = reader.read(np.array(rows, dtype=np.int64))
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, truth[rows])


def test_a_subset_reads_its_own_images(particles: tuple[ParticleTable, np.ndarray]) -> None:
    table, truth = particles
    with ImageReader(table.subset([7, 2, 9])) as reader:
        np.testing.assert_array_equal(reader.read([2, 0]), truth[[9, 7]])


def test_more_stacks_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, truth = _particles(tmp_path, 5, 2, np.float16)
    monkeypatch.setattr(images, "_OPEN_STACKS", 2)
    reader = ImageReader(table)
    for _ in range(2):
        np.testing.assert_array_equal(reader.read(range(10)), truth)
        assert len(reader._stacks) == 2
    reader.close()
    assert len(reader._stacks) == 0
    np.testing.assert_array_equal(reader.read([3]), truth[[3]])


def test_stacks_that_changed_or_were_never_there(tmp_path: Path) -> None:
    table, _ = _particles(tmp_path, 1, 3)
    write_stack(tmp_path / "s0.mrcs", np.ones((3, 4, 4)), (3, 4, 4), 1.0, overwrite=True)
    with pytest.raises(InputError, match=r"s0\.mrcs has images of 4 x 4 px where 5 x 5 are expected"):
        ImageReader(table).read([0])
    (tmp_path / "s0.mrcs").unlink()
    with pytest.raises(InputError, match=r"s0\.mrcs cannot be read"):
        ImageReader(table).read([0])
    (tmp_path / "t.star").write_text("data_\n\nloop_\n_rlnImageName\n1@gone.mrcs\n")
    table = read_particles(tmp_path / "t.star", need_images=False, need_poses=False, need_ctf=False, angpix=1)
    with pytest.raises(InputError, match=r"no stack of .*t\.star was found; .*--datadir"):
        ImageReader(table).read([0])


def test_bad_images_are_listed_with_stack_image_and_row(tmp_path: Path) -> None:
    table, truth = _particles(tmp_path, 2, 3)
    with mrcfile.mmap(tmp_path / "s1.mrcs", mode="r+") as mrc:
        mrc.data[0, 1, 1] = np.nan
        mrc.data[0, 2, 2] = np.inf
        mrc.data[2] = 4
    rows = {name: row for row, name in enumerate(table.frame["rlnImageName"].tolist())}
    with ImageReader(table) as reader:
        bad = find_bad_images(reader, np.arange(6))
        assert find_bad_images(reader, [rows["1@s0.mrcs"]]) == []
        assert find_bad_images(reader, []) == []
    said = {item.row: item.describe() for item in bad}
    first, last = rows["1@s1.mrcs"], rows["3@s1.mrcs"]
    stack = tmp_path / "s1.mrcs"
    assert said == {
        first: f"image 1 of {stack} (STAR row {first + 1}) has 2 NaN or infinite pixels",
        last: f"image 3 of {stack} (STAR row {last + 1}) is constant (every pixel 4)",
    }
    # the STAR row stays that of the file when the table is a part of it
    part = table.subset([last, first])
    with ImageReader(part) as reader:
        data = reader.read([0, 1])
    assert [item.star_row for item in judge_images(data, [0, 1], part)] == [last + 1, first + 1]
    assert judge_images(truth[:2], [0, 1], table) == []


@pytest.mark.parametrize(("pixels", "sigmas", "bad"), [(1, 30, False), (40, 10, False), (1, 1e6, True), (5, 1e4, True)])
def test_only_outliers_that_outweigh_the_image_are_bad(tmp_path: Path, pixels: int, sigmas: float, bad: bool) -> None:
    table, _ = _particles(tmp_path, 1, 1)
    image = np.random.default_rng(0).normal(3.0, 2.0, (1, 48, 48)).astype(np.float32)
    assert judge_images(image, [0], table) == []
    image.reshape(-1)[7 : 7 + pixels] -= 2.0 * sigmas
    found = judge_images(image, [0], table)
    assert [one.outlier is not None for one in found] == [True] * bad
    assert not bad or "outlier: the pixel of -" in found[0].describe()


def test_reference_stacks(shared_data: Path) -> None:
    table = read_particles(shared_data / "dev5" / "particles.star")
    with ImageReader(table) as reader, mrcfile.mmap(table.stack_paths[0]) as mrc:
        rows = np.array([4999, 0, 1234])
        np.testing.assert_array_equal(reader.read(rows), mrc.data[rows].astype(np.float32))
        assert find_bad_images(reader, np.arange(0, 5000, 50)) == []
