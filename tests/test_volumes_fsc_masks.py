"""FSC and masks: identities, direct sums, and what noise must give."""

from __future__ import annotations

import numpy as np
import pytest

from hpcsort.volumes import fsc_of_full, fsc_of_size, last_shell_above, map_fsc, shell_correlation, soft_sphere


@pytest.mark.parametrize("size", [7, 8, 9, 13])
def test_map_fsc_is_the_sum_over_the_full_transform(size: int) -> None:
    draw = np.random.default_rng(size)
    one, two = draw.normal(size=(2, size, size, size)).astype(np.float32)
    two += one
    first, second = np.fft.fftn(one), np.fft.fftn(two)
    axis = np.fft.fftfreq(size, 1 / size)
    shell = np.rint(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2))
    expected = [1.0]
    for number in range(1, size // 2 + 1):
        a, b = first[shell == number], second[shell == number]
        expected.append((a * b.conj()).sum().real / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum()))
    np.testing.assert_allclose(map_fsc(one, two), expected, atol=1e-5)


def test_fsc_of_a_map_with_itself_its_negative_and_nothing() -> None:
    volume = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(map_fsc(volume, 5 * volume), 1.0, atol=1e-6)
    np.testing.assert_allclose(map_fsc(volume, -volume)[1:], -1.0, atol=1e-6)
    assert map_fsc(volume, np.zeros_like(volume)).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert shell_correlation(np.array([0.0, 2.0]), np.array([0.0, 1.0]), np.array([0.0, 1.0])).tolist() == [1.0, 1.0]


def test_fsc_of_all_data_follows_from_the_halves() -> None:
    # Signal of power 1 and noise of power v in a half: F = 1 / (1 + v); with q times the images the noise is v / q.
    noise = np.array([0.1, 1.0, 7.0])
    for ratio in (0.5, 2.0, 10.0):
        np.testing.assert_allclose(fsc_of_size(1 / (1 + noise), ratio), 1 / (1 + noise / ratio))
    curve = np.array([-0.2, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(fsc_of_full(curve), [0, 0, 2 / 3, 1], atol=1e-6)


def test_resolution_is_the_last_shell_before_the_curve_falls() -> None:
    assert last_shell_above(np.array([1.0, 0.9, 0.1, 0.9])) == 1
    assert last_shell_above(np.array([1.0, 0.9, 0.2])) == 2
    assert last_shell_above(np.array([1.0, 0.0])) == 0
    assert last_shell_above(np.array([1.0, 0.6, 0.4]), 0.5) == 1


def test_soft_spheres_are_one_inside_and_fall_smoothly() -> None:
    distance = np.linspace(0, 20, 2001)
    mask = soft_sphere(distance, 8.0, 4.0)
    assert mask.dtype == np.float32
    assert (mask[distance <= 8] == 1).all()
    assert (mask[distance >= 12] < 1e-6).all()
    assert (np.diff(mask) <= 0).all()
    assert mask[np.argmin(abs(distance - 10))] == pytest.approx(0.5)
    assert abs(np.diff(mask)).max() < 0.01
