"""Masks that users give, and resampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcsort.errors import InputError
from hpcsort.io import write_map
from hpcsort.volumes import read_mask, resample_map


def _wave(size: int, frequency: tuple[int, int, int]) -> np.ndarray:
    axis = (np.arange(size) - size // 2) / size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.cos(2 * np.pi * (frequency[0] * x + frequency[1] * y + frequency[2] * z) + 0.4).astype(np.float32)


@pytest.mark.parametrize("old", [8, 9, 13])
@pytest.mark.parametrize("new", [7, 8, 11, 16])
def test_waves_of_the_common_band_keep_their_values(old: int, new: int) -> None:
    for frequency in ((0, 0, 0), (1, 2, -3), (3, 0, 1)):
        result = resample_map(_wave(old, frequency), new)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, _wave(new, frequency), atol=1e-5)


def test_what_the_smaller_grid_cannot_hold_is_cut_and_not_folded() -> None:
    assert np.abs(resample_map(_wave(16, (6, 0, 1)), 9)).max() < 1e-5


@pytest.mark.parametrize(("size", "larger"), [(8, 16), (8, 13), (7, 12), (1, 5)])
def test_padding_and_cropping_come_back(size: int, larger: int) -> None:
    volume = np.random.default_rng(size).normal(size=(size,) * 3).astype(np.float32)
    np.testing.assert_allclose(resample_map(resample_map(volume, larger), size), volume, atol=1e-5)
    same = resample_map(volume, size)
    np.testing.assert_array_equal(same, volume)
    same[0, 0, 0] = 99
    assert volume[0, 0, 0] != 99


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="not a cube"):
        resample_map(np.zeros((4, 4, 5), np.float32), 4)
    with pytest.raises(ValueError, match="at least one voxel"):
        resample_map(np.zeros((4, 4, 4), np.float32), 0)


def test_a_good_mask_is_read_and_clipped(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((7, 7, 7)).astype(np.float32)
    mask[0, 0, 0], mask[1, 1, 1] = -0.0005, 1.0005
    for voxel in (2.5, 0.0, 1.0):
        write_map(tmp_path / "m.mrc", mask, voxel, overwrite=True)
        result = read_mask(tmp_path / "m.mrc", 7, 2.5)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, np.clip(mask, 0, 1))


@pytest.mark.parametrize(
    ("shape", "values", "voxel", "message"),
    [
        ((8, 8, 8), {}, 2.0, r"m\.mrc has 8 x 8 x 8 voxels but the images have 7 px; crop or pad"),
        ((5, 6, 7), {}, 2.0, r"has 7 x 6 x 5 voxels"),
        ((7, 7, 7), {}, 2.2, r"has voxels of 2\.2 A but the images have pixels of 2 A; resample"),
        ((7, 7, 7), {0: np.nan, 1: np.inf}, 2.0, r"has 2 voxels that are NaN or infinite"),
        ((7, 7, 7), {0: 1.5}, 2.0, r"has values from 0 to 1\.5 where 0"),
        ((7, 7, 7), {0: -0.1}, 2.0, r"has values from -0\.1 to 1 where"),
        ((7, 7, 7), dict.fromkeys(range(100), 0.0), 2.0, r"is empty: its largest value is 0 "),
    ],
)
def test_wrong_masks_are_told_apart(
    tmp_path: Path, shape: tuple[int, ...], values: dict, voxel: float, message: str
) -> None:
    mask = np.zeros(shape, np.float32)
    mask.reshape(-1)[10:100] = 1.0
    for place, value in values.items():
        mask.reshape(-1)[place] = value
    with np.errstate(invalid="ignore"):
        write_map(tmp_path / "m.mrc", mask, voxel)
    with pytest.raises(InputError, match=message):
        read_mask(tmp_path / "m.mrc", 7, 2.0)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.mrc cannot be read"):
        read_mask(tmp_path / "m.mrc", 7, 2.0)
