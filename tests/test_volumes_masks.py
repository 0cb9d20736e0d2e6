"""Masks: spheres anywhere, soft edges, values that are no mask, and the focus found from variance."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from hpcsort.errors import InputError
from hpcsort.volumes import check_mask, focus_from_variance, soften, sphere_mask


@pytest.mark.parametrize("box", [16, 17])
def test_a_sphere_is_where_its_centre_says(box: int) -> None:
    centre = (3.0, -2.0, 1.5)
    mask = sphere_mask(box, centre, 3.0, 2.0)
    z, y, x = (np.indices((box,) * 3) - box // 2).astype(float)
    distance = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    assert mask.dtype == np.float32
    assert (mask[distance <= 3] == 1).all()
    assert (mask[distance >= 5.001] == 0).all()
    between = (distance > 3) & (distance < 5)
    np.testing.assert_allclose(mask[between], np.cos(np.pi / 4 * (distance[between] - 3)) ** 2, atol=1e-6)
    binary = sphere_mask(box, centre, 3.0, 0)
    np.testing.assert_array_equal(binary, distance <= 3)
    # Its mass is that of a ball whose radius ends in the middle of the edge, and its centre of mass the centre.
    assert mask.sum() == pytest.approx(4 / 3 * np.pi * 4.0**3, rel=0.08)
    np.testing.assert_allclose([(mask * part).sum() / mask.sum() for part in (x, y, z)], centre, atol=0.05)


def test_spheres_that_are_none() -> None:
    for centre, radius, edge in (((0, 0, 0), 0, 1), ((0, 0, 0), 2, -1), ((0, 0), 2, 1), ((20, 0, 0), 2, 1)):
        with pytest.raises(ValueError, match="sphere"):
            sphere_mask(8, centre, radius, edge)


@pytest.mark.parametrize("edge", [1.0, 2.5, 4.0])
def test_soft_edges_fall_with_the_distance_from_the_inside(edge: float) -> None:
    binary = np.zeros((13, 12, 11), np.float32)
    binary[5:8, 4:9, 5] = 1
    binary[2, 2, 2] = 1
    result = soften(binary, edge)
    inside = np.argwhere(binary > 0.5)
    distance = np.sqrt(((np.indices(binary.shape).reshape(3, -1).T[:, None] - inside) ** 2).sum(axis=2)).min(axis=1)
    expected = np.where(distance < edge, np.cos(np.pi / 2 * np.minimum(distance / edge, 1)) ** 2, 0)
    np.testing.assert_allclose(result.ravel(), expected, atol=1e-6)


def test_softening_never_lowers_a_mask() -> None:
    soft = np.random.default_rng(0).random((7, 8, 9)).astype(np.float32)
    for edge in (0.0, 1.0, 3.0):
        result = soften(soft, edge)
        assert result.dtype == np.float32
        assert (result >= soft).all()
        assert (result[soft >= 0.5] == 1).all()
        assert result.max() == 1
    np.testing.assert_array_equal(soften(soft, 0.0)[soft < 0.5], soft[soft < 0.5])
    with pytest.raises(ValueError, match="empty"):
        soften(np.full((3, 3, 3), 0.4), 2.0)
    with pytest.raises(ValueError, match="0 px or wider"):
        soften(soft, -1.0)


def test_masks_in_memory_are_checked_as_files_are() -> None:
    mask = np.zeros((7, 7, 7), np.float64)
    mask[2:5, 2:5, 2:5] = 1.0005
    result = check_mask(mask, 7, "given")
    assert result.dtype == np.float32
    assert result.max() == 1
    for broken, message in (
        (mask[1:], "mask given has 7 x 7 x 6 voxels but the images have 7 px"),
        (mask * np.nan, "343 voxels that are NaN"),
        (mask * 3, "has values from 0 to 3"),
        (mask * 0, "is empty"),
    ):
        with pytest.raises(InputError, match=message):
            check_mask(broken, 7, "given")


def _noise(count: int, size: int, band: int, seed: int) -> np.ndarray:
    """Band-limited maps of unit variance."""
    draw = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(size, 1 / size) ** 2
    inside = frequency[:, None, None] + frequency[:, None] + frequency <= band**2
    spectra = scipy.fft.fftn(draw.normal(size=(count, size, size, size)), axes=(1, 2, 3))
    maps = scipy.fft.ifftn(spectra * inside, axes=(1, 2, 3)).real
    return maps / maps.std()


_BALL = sphere_mask(32, (5.0, -3.0, 2.0), 3.5, 1.0)
_PARTICLE = sphere_mask(32, (0, 0, 0), 13.0, 2.0)


def test_the_focus_lies_on_what_differs() -> None:
    state = np.array([0, 0, 1, 1])[:, None, None, None]
    common = 7 * _noise(1, 32, 10, seed=1)
    maps = common + _noise(4, 32, 14, seed=2) + 4 * state * _BALL
    focus = focus_from_variance(maps, _PARTICLE)
    assert focus is not None
    assert focus.dtype == np.float32
    assert focus.max() == 1
    assert (focus * _BALL).sum() > 0.95 * _BALL.sum()
    assert focus.sum() < 5 * _BALL.sum()
    far = sphere_mask(32, (5.0, -3.0, 2.0), 9.0, 0) == 0
    assert not focus[far].any()
    # Differences from a consensus tell the same, also a single one, whose mean is not to be taken off.
    alone = focus_from_variance((maps[2] - maps[0])[None], _PARTICLE, differences=True)
    assert alone is not None
    assert (alone * _BALL).sum() > 0.9 * _BALL.sum()
    assert not alone[far].any()


def test_noise_has_no_focus_and_outside_the_mask_is_none() -> None:
    for seed in range(6):
        assert focus_from_variance(_noise(3, 32, 14, seed), _PARTICLE) is None
    outside = _noise(4, 32, 14, seed=1)
    outside[:2] += 9 * sphere_mask(32, (15.0, 8.0, 0.0), 1.5, 1.0)
    assert focus_from_variance(outside, _PARTICLE) is None
    assert focus_from_variance(np.zeros((3, 32, 32, 32)), _PARTICLE) is None


def test_a_larger_share_holds_more_and_small_parts_are_dropped() -> None:
    state = np.array([0, 1])[:, None, None, None]
    maps = _noise(2, 32, 14, seed=3) + 8 * state * _BALL
    small, large = (focus_from_variance(maps, _PARTICLE, share=share) for share in (0.5, 0.99))
    assert small is not None
    assert large is not None
    assert small.sum() < large.sum()
    assert (large >= small).all()
    speck = sphere_mask(32, (-8.0, 3.0, -2.0), 1.5, 0)
    both = focus_from_variance(maps + 4 * state * speck, _PARTICLE, share=0.8)
    assert both is not None
    assert not both[speck > 0].any()
    hard = focus_from_variance(maps, _PARTICLE, edge_px=0)
    assert hard is not None
    assert set(np.unique(hard)) == {0.0, 1.0}


def test_what_makes_no_focus_is_refused() -> None:
    maps = np.zeros((2, 32, 32, 32))
    for wrong, message in (
        ((maps[0], _PARTICLE), "make no focus"),
        ((maps[:1], _PARTICLE), "make no focus"),
        ((maps, _PARTICLE[1:]), "make no focus"),
        ((maps, 0.3 * _PARTICLE), "empty mask"),
    ):
        with pytest.raises(ValueError, match=message):
            focus_from_variance(*wrong)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match="share"):
            focus_from_variance(maps, _PARTICLE, share=share)
