"""Class maps: combinations of a subspace's maps, shrunk sums, and the leverage of a particle on its own map."""

from __future__ import annotations

import numpy as np
import pytest
from sort3d_cases import SIZE, blobs, small_grid, views

from hpcsort.kernels import aligned_empty, complete_friedel, extract_sections, insert_sections
from hpcsort.sort3d.classmaps import ClassMaps, leverage_ratio, maps_from_centres, shrink_classes
from hpcsort.sort3d.subspace import NUISANCES, Subspace
from hpcsort.volumes import BandGrid, soft_sphere

_SHAPE = (SIZE,) * 3
_MASK = soft_sphere(small_grid().distance, 0.38, 0.08)


@pytest.mark.parametrize("pad", [1, 2])
def test_leverage_without_a_mask_is_that_of_the_weights(pad: int) -> None:
    grid = BandGrid(16, 5, pad)
    # Padding surrounds the map with zeros, which is a mask by itself.
    expected = 1.0 if pad == 1 else None
    found = leverage_ratio(grid, np.ones((16,) * 3, np.float32))
    if expected is None:
        assert 0.1 < found < 1.0
    else:
        assert found == pytest.approx(1.0, abs=1e-5)
    assert leverage_ratio(grid, np.full((16,) * 3, 0.25, np.float32)) == pytest.approx(0.25 * found, rel=1e-4)


def _point(size: int) -> np.ndarray:
    mask = np.zeros((size,) * 3, np.float32)
    mask[size // 2, size // 2, size // 2] = 1.0
    return mask


def test_leverage_of_a_single_voxel() -> None:
    # All pairs of corners return alike: (sum t)^2 = 1 for each voxel of the box.
    assert leverage_ratio(small_grid(), _point(SIZE)) == pytest.approx(27 / 8 / SIZE**3, rel=1e-4)


@pytest.mark.parametrize("kind", ["whole", "sphere", "corner"])
def test_leverage_against_masking_one_pixel_at_a_time(kind: str) -> None:
    """Insert a pixel, mask its map in real space, and read it back where it was."""
    grid = small_grid()
    blob = blobs(SIZE, 3, count=1, spread=4.0, width=3.0)
    mask = {"whole": np.ones(_SHAPE, np.float32), "sphere": _MASK, "corner": (blob / blob.max()).astype(np.float32)}
    draw = np.random.default_rng(0)
    returned, squared = [], []
    one = np.ones((1, 1), np.float32)
    for rotation in views(250, 1).astype(np.float32)[:, None]:
        px, py = (np.array([value], np.float32) for value in (draw.integers(2, 5), draw.integers(-4, 5)))
        if abs(float(px[0] * rotation[0, 0, 0] + py[0] * rotation[0, 1, 0])) < 2:
            continue  # its Friedel mate is near
        records = aligned_empty((1, *grid.fourier_shape, 4), np.float32)
        records[...] = 0
        insert_sections(one.astype(np.complex64), one, rotation, np.zeros(1, np.int32), one[0], px, py, 1.0, records)
        squared.append(float((records[0, ..., 2] ** 2).sum()))
        volume = (records[0, ..., 0] + 1j * records[0, ..., 1]).astype(np.complex64)
        complete_friedel(volume, hermitian=True)
        masked = grid.to_fourier(grid.to_real(volume, corrected=False) * mask[kind], corrected=False)
        returned.append(float(extract_sections(masked, rotation, px, py, 1.0)[0, 0].real))
    assert len(returned) > 100
    assert leverage_ratio(grid, mask[kind]) == pytest.approx(np.mean(returned) / np.mean(squared), rel=0.06)


def test_maps_from_centres_are_combinations_on_a_wider_band() -> None:
    narrow, wide = BandGrid(16, 5), BandGrid(20, 8)
    draw = np.random.default_rng(0)
    free = draw.normal(size=(3, *narrow.fourier_shape)) + 1j * draw.normal(size=(3, *narrow.fourier_shape))
    subspace = Subspace(
        narrow, free[:0].astype(np.complex64), free.astype(np.complex64), *(2 * [np.ones((16,) * 3)]), np.ones(7)
    )
    centres = draw.normal(size=(4, 3))
    mask = np.ones((20,) * 3, np.float32)
    maps = maps_from_centres(subspace, centres, wide, free, np.ones(10), mask, mask)
    assert maps.volumes.shape == (4, *wide.fourier_shape)
    cut = slice(wide.half - narrow.half, wide.half + narrow.half + 1)
    np.testing.assert_allclose(
        maps.volumes[:, cut, cut, : narrow.half + 1], np.tensordot(centres, free, axes=1), rtol=1e-4, atol=1e-4
    )
    assert np.count_nonzero(maps.volumes) == 4 * narrow.frequency.size
    assert maps.leverage == 0.0


def _blank(classes: int, prior: np.ndarray) -> ClassMaps:
    grid = small_grid()
    shape = (classes, *grid.fourier_shape)
    fixed, volumes = np.zeros((NUISANCES, *grid.fourier_shape), np.complex64), np.zeros(shape, np.complex64)
    ridge = np.ones(shape, np.float32)
    return ClassMaps(grid, fixed, 0.1, volumes, np.full(classes, 3.0), ridge, 0.5, prior, _MASK, _MASK, _MASK)


def test_sums_are_divided_by_weight_and_prior_then_weighted_where_classes_differ() -> None:
    grid = small_grid()
    truth = np.stack([blobs(SIZE, 1, count=1, spread=4.0), -blobs(SIZE, 1, count=1, spread=4.0)])
    target = grid.to_fourier(truth, corrected=False)
    draw = np.random.default_rng(0)
    weight = draw.uniform(1.0, 5.0, target.shape)
    # Weights of a real map's sums are the same at a frequency and its opposite.
    weight[:, :, :, 0] = 0.5 * (weight[:, :, :, 0] + weight[:, ::-1, ::-1, 0])
    prior = np.linspace(2.0, 0.1, grid.radius + 2)
    made = shrink_classes(_blank(2, prior), target * weight, weight)
    expected = np.where(grid.support, 1.0 / (weight + 1.0 / grid.shell_fill(prior)), 0.0)
    np.testing.assert_allclose(made.ridge, expected, rtol=1e-5)
    np.testing.assert_array_equal(made.scale, 1.0)
    shrunk = grid.to_real((target * weight * expected).astype(np.complex64), corrected=False)
    np.testing.assert_allclose(
        made.volumes, grid.to_fourier(shrunk * made.focus, corrected=False), rtol=1e-4, atol=1e-5
    )
    assert (made.focus <= _MASK + 1e-6).all()
    peak = np.unravel_index(np.abs(truth[0]).argmax(), _SHAPE)
    assert made.focus[peak] > 0.9
    assert made.leverage == leverage_ratio(grid, made.focus)
    # What stays the same for the next estimate.
    assert made.contrast == 0.1
    assert made.prior is prior


def test_without_data_there_is_no_difference() -> None:
    grid = small_grid()
    nothing = np.zeros((3, *grid.fourier_shape))
    made = shrink_classes(_blank(3, np.ones(grid.radius + 2)), nothing.astype(complex), nothing)
    assert made.classes == 3
    np.testing.assert_array_equal(made.volumes, 0)
