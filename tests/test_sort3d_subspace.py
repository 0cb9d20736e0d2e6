"""Nuisance maps are what errors of pose and contrast do to a map; local weights find where maps differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sort3d_cases import (
    DIFFERENCE,
    SIZE,
    cosine,
    exact_sections,
    make_store,
    small_band,
    small_grid,
    two_states,
    views,
)

from hpcsort.images import half_plane
from hpcsort.kernels import extract_sections, interleave
from hpcsort.sort3d.subspace import (
    NUISANCES,
    Subspace,
    local_weight,
    moments,
    nuisance_maps,
    second_order_map,
    unpack_lower,
)
from hpcsort.volumes import soft_sphere

_CENTRES = np.random.default_rng(7).uniform(-4.5, 4.5, (9, 3))
_HEIGHTS = np.random.default_rng(8).uniform(0.5, 1.5, 9)
_WIDTH = 2.2
_ONES = np.ones((SIZE,) * 3, np.float32)


def _phantom(turn: np.ndarray = np.eye(3), shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:  # noqa: B008
    """Gaussians whose centres (x, y, z) are turned and then shifted, computed anew, not interpolated."""
    axis = np.arange(SIZE) - SIZE // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((SIZE,) * 3)
    for centre, height in zip(_CENTRES, _HEIGHTS, strict=True):
        cx, cy, cz = turn @ centre + shift
        volume += height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * _WIDTH**2))
    return volume


_SMALL = 0.02


@pytest.mark.parametrize("index", range(NUISANCES))
def test_nuisance_maps_are_small_changes_of_the_map(index: int) -> None:
    if index == 0:
        change = 0.05 * _phantom()
        unit = 0.05
    elif index <= 3:
        # Maps are [z, y, x], and the shifts come in that order.
        shift = tuple(_SMALL if axis == 3 - index else 0.0 for axis in range(3))
        change, unit = _phantom(shift=shift) - _phantom(), _SMALL  # type: ignore[arg-type]
    else:
        vector = _SMALL * np.eye(3)[index - 4]
        change, unit = _phantom(Rotation.from_rotvec(vector).as_matrix()) - _phantom(), _SMALL
    found = nuisance_maps(small_grid(), _phantom().astype(np.float32), _ONES)[index]
    agreement = cosine(found, change)
    assert abs(agreement) > 0.985
    # Central differences damp what is as fine as these Gaussians by a few per cent.
    assert np.abs(found).max() == pytest.approx(np.abs(change).max() / unit, rel=0.12)


def test_nuisance_maps_stay_inside_the_mask() -> None:
    mask = soft_sphere(small_grid().distance, 0.3, 0.1)
    whole = nuisance_maps(small_grid(), _phantom().astype(np.float32), _ONES)
    inside = nuisance_maps(small_grid(), _phantom().astype(np.float32), mask)
    np.testing.assert_allclose(inside, whole * mask, atol=1e-6)


def test_errors_of_pose_and_contrast_lie_in_the_span_of_the_nuisances() -> None:
    grid, (px, py) = small_grid(), half_plane(small_grid().radius)
    volume = _phantom().astype(np.float32)
    fixed = grid.to_fourier(nuisance_maps(grid, volume, _ONES))
    draw = np.random.default_rng(1)
    for matrix in views(6, 2):
        turn = Rotation.from_rotvec(0.01 * draw.normal(size=3)).as_matrix()
        ox, oy = 0.05 * draw.normal(size=2)
        there = exact_sections(volume, np.stack([matrix, turn @ matrix]))
        moved = 1.01 * there[1] * np.exp(-2j * np.pi / SIZE * (px * ox + py * oy))
        error = moved - there[0]
        basis = np.stack([extract_sections(v, matrix[None].astype(np.float32), px, py, 1.0)[0] for v in fixed])
        system = np.concatenate([basis.real, basis.imag], axis=1).T
        right = np.concatenate([error.real, error.imag])
        fit, *_ = np.linalg.lstsq(system, right, rcond=None)
        left = right - system @ fit
        assert (left**2).sum() < 0.02 * (right**2).sum()
        assert fit[0] == pytest.approx(0.01, abs=0.002)


def test_the_second_order_is_what_small_errors_do_on_average() -> None:
    grid = small_grid()
    # Large beside the map's own detail would not be second order, and small is lost in rounding.
    spread = np.array([0.1, *[0.25] * 3, *[0.06] * 3])
    volume = _phantom().astype(np.float32)
    fixed = grid.to_fourier(nuisance_maps(grid, volume, _ONES) * spread[:, None, None, None].astype(np.float32))
    found = grid.to_real(second_order_map(grid, fixed, _ONES, spread), corrected=False)
    change = np.zeros_like(volume, np.float64)
    for axis in range(3):
        for sign in (1, -1):
            unit = sign * np.eye(3)[axis]
            change += 0.5 * (_phantom(shift=tuple(spread[1] * unit)) - _phantom())
            change += 0.5 * (_phantom(Rotation.from_rotvec(spread[4] * unit).as_matrix()) - _phantom())
    same = grid.to_real(grid.to_fourier(change.astype(np.float32)), corrected=False)
    assert cosine(found, same) > 0.97
    assert np.abs(found).max() == pytest.approx(np.abs(same).max(), rel=0.25)
    # Contrast errs about its mean, which does nothing.
    still = second_order_map(grid, fixed, _ONES, np.where(np.arange(NUISANCES) == 0, spread, 0.0))
    assert np.abs(still).max() == 0


def test_local_weights_find_where_maps_differ() -> None:
    grid = small_grid()
    mask = soft_sphere(grid.distance, 0.4, 0.06)
    draw = np.random.default_rng(2)
    maps = np.float32(0.1) * draw.normal(size=(2, *mask.shape)).astype(np.float32)
    flat = local_weight(grid, maps, mask)
    assert flat.min() >= 0
    assert flat[mask > 0.5].mean() < 0.35
    maps[1] += DIFFERENCE
    focus = local_weight(grid, maps, mask)
    assert focus.max() <= 1
    assert focus[DIFFERENCE > 0.6].min() > 0.9
    assert focus[(mask > 0.5) & (DIFFERENCE < 0.01)].mean() < 0.35


def test_unpacked_triangles_are_symmetric() -> None:
    packed = np.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(unpack_lower(packed, 3)[0], [[0, 1, 3], [1, 2, 4], [3, 4, 5]])
    np.testing.assert_array_equal(unpack_lower(packed, 3)[1], [[6, 7, 9], [7, 8, 10], [9, 10, 11]])


def test_moments_are_sums_over_pixels() -> None:
    data, _ = two_states(7, 1.0)
    store, grid = make_store(data), small_grid()
    maps = grid.to_fourier(nuisance_maps(grid, _phantom().astype(np.float32), _ONES)[:3])
    chosen = np.array([1, 2, 6])
    linear, packed = moments(store, interleave(maps), 3, 1, chosen)
    gram = unpack_lower(packed, 3)
    for row, i in enumerate(chosen):
        turned = data.rotations[i : i + 1]
        seen = [data.ctfs[i] * extract_sections(v, turned, data.px, data.py, 1.0)[0] for v in maps]
        for a in range(3):
            assert linear[row, a] == pytest.approx((seen[a].conj() * data.images[i]).sum().real, rel=1e-4, abs=1e-3)
            for b in range(3):
                assert gram[row, a, b] == pytest.approx((seen[a].conj() * seen[b]).sum().real, rel=1e-4, abs=1e-3)


def test_a_subspace_is_cut_at_its_leading_maps() -> None:
    data, _ = two_states(7, 1.0)
    start = small_band(make_store(data), _phantom().astype(np.float32)).start()
    draw = np.random.default_rng(0)
    free = draw.normal(size=(4, *start.grid.fourier_shape)).astype(np.complex64)
    whole = Subspace(start.grid, start.fixed, free, start.focus, start.region, start.spread)
    cut = whole.leading(2)
    assert (start.components, whole.components, cut.components) == (0, 4, 2)
    np.testing.assert_array_equal(cut.free, free[:2])
    # The kernels read nuisances first, so that the maps that are cut off are the last lanes.
    np.testing.assert_array_equal(cut.volumes(), interleave(np.concatenate([start.fixed, free[:2]])))
    assert cut.spread is whole.spread
