"""The relation of two micrographs: tilt, axis, outliers, swapped sides, mirrored images, the gradient's sign."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.fft
from pairs_cases import tilt_matrix

from hpcsort.optics import ctf
from hpcsort.pairs import MicrographCtf, TiltFit, fit_tilt
from hpcsort.pairs.gradient import estimate_sign
from hpcsort.pairs.tilt import heights_px


def _points(count: int = 40, size: int = 500, noise: float = 0.3, seed: int = 0, **tilt: float) -> tuple:
    rng = np.random.default_rng(seed)
    untilted = rng.uniform(0, size, (count, 2))
    matrix = tilt_matrix(tilt.get("tilt", 55), tilt.get("axis", 80), tilt.get("turn", 4))
    tilted = (untilted - size / 2) @ matrix.T + size / 2 + np.array([5.0, -9.0])
    return untilted, tilted + rng.normal(0, noise, tilted.shape), matrix


def _fit(untilted: np.ndarray, tilted: np.ndarray) -> TiltFit:
    fit = fit_tilt(untilted, tilted)
    assert fit is not None
    return fit


@pytest.mark.parametrize("tilt", [20.0, 45.0, 60.0])
@pytest.mark.parametrize(("axis", "turn"), [(0.5, 0.0), (85.0, 3.0), (130.0, -20.0)])
def test_tilt_and_axis_are_found(tilt: float, axis: float, turn: float) -> None:
    untilted, tilted, matrix = _points(tilt=tilt, axis=axis, turn=turn)
    fit = _fit(untilted, tilted)
    assert fit.tilt_deg == pytest.approx(tilt, abs=0.5)
    assert fit.axis_untilted_deg == pytest.approx(axis, abs=0.7)
    assert fit.axis_tilted_deg == pytest.approx(axis + turn, abs=0.7)
    assert fit.scale == pytest.approx(1, abs=0.003)
    assert not fit.swapped
    assert not fit.mirrored
    np.testing.assert_allclose(fit.matrix, matrix, atol=5e-3)
    assert fit.rms_px == pytest.approx(0.3 * np.sqrt(2), rel=0.3)


def test_forty_per_cent_of_wrong_pairs_are_flagged_and_change_nothing() -> None:
    untilted, tilted, _ = _points(50)
    rng = np.random.default_rng(3)
    wrong = rng.permutation(50)[:20]
    tilted[wrong] += rng.choice([-1, 1], (20, 2)) * rng.uniform(30, 200, (20, 2))
    fit = _fit(untilted, tilted)
    assert fit.tilt_deg == pytest.approx(55, abs=0.5)
    assert sorted(np.flatnonzero(fit.outlier)) == sorted(wrong)
    assert fit.rms_px < 1


def test_exact_pairs_give_the_exact_relation() -> None:
    untilted, tilted, matrix = _points(noise=0.0)
    fit = _fit(untilted, tilted)
    np.testing.assert_allclose(fit.matrix, matrix, atol=1e-9)
    np.testing.assert_allclose(untilted @ fit.matrix.T + fit.shift, tilted, atol=1e-6)
    assert not fit.outlier.any()


def test_swapped_sides_are_recognised() -> None:
    untilted, tilted, _ = _points()
    fit = _fit(tilted, untilted)
    assert fit.swapped
    assert fit.tilt_deg == pytest.approx(55, abs=0.5)
    assert fit.axis_untilted_deg == pytest.approx(84, abs=0.7)


def test_a_mirrored_micrograph_is_recognised() -> None:
    untilted, tilted, _ = _points()
    mirrored = tilted * [1, -1] + [0, 500]
    fit = _fit(untilted, mirrored)
    assert fit.mirrored
    assert fit.tilt_deg == pytest.approx(55, abs=0.5)


def test_other_magnification_along_the_axis_is_told_apart_from_tilt() -> None:
    untilted, tilted, _ = _points()
    fit = _fit(untilted, tilted * 1.1)
    assert fit.scale == pytest.approx(1.1, abs=0.005)
    assert fit.tilt_deg == pytest.approx(55, abs=0.5)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_few_pairs_are_not_fitted(count: int) -> None:
    untilted, tilted, _ = _points(count)
    assert fit_tilt(untilted, tilted) is None


def test_pairs_on_a_line_or_at_one_place_are_not_fitted() -> None:
    line = np.outer(np.arange(10.0), [3.0, 1.0])
    assert fit_tilt(line, line * 0.5) is None
    assert fit_tilt(np.ones((10, 2)), np.ones((10, 2))) is None


def test_heights_rise_along_the_normal_of_the_axis() -> None:
    untilted, tilted, _ = _points(noise=0.0, tilt=60, axis=0.0, turn=0.0)
    fit = _fit(untilted, tilted)
    heights = heights_px(np.array([[10.0, 0.0], [0.0, 10.0], [0.0, -10.0]]), fit, np.zeros(2))
    sign = np.cos(np.deg2rad(fit.axis_tilted_deg))
    np.testing.assert_allclose(heights, sign * np.array([0, 10, -10]) * np.tan(np.pi / 3), atol=1e-5)


def _ice(fit: TiltFit, values: MicrographCtf, sign: int, strength: float) -> np.ndarray:
    """Noise through the CTF of its own height, strip by strip, over white noise."""
    size, pixel_A = 512, 4.0
    rng = np.random.default_rng(8)
    spectrum = scipy.fft.rfft2(rng.standard_normal((size, size)))
    y, x = np.mgrid[:size, :size]
    places = np.column_stack([x.ravel(), y.ravel()]).astype(float)
    heights = sign * heights_px(places, fit, np.array([size / 2, size / 2])).reshape(size, size) * pixel_A
    fy, fx = np.meshgrid(np.fft.fftfreq(size, pixel_A), np.fft.rfftfreq(size, pixel_A), indexing="ij")
    image = rng.standard_normal((size, size))
    edges = np.linspace(heights.min(), heights.max(), 9)
    for low, high in pairwise(edges.tolist()):
        moved = values.moved((low + high) / 2)
        transfer = ctf(fx, fy, 1, 1.0, moved.defocus_u_A, moved.defocus_v_A, 0, 300, 2.7, 0.1)[0].reshape(fx.shape)
        strip = (heights >= low) & (heights <= high)
        image[strip] += strength * scipy.fft.irfft2(spectrum * transfer, s=image.shape)[strip]
    return image.astype(np.float32)


def test_thon_rings_tell_to_which_side_defocus_grows() -> None:
    untilted, tilted, _ = _points(size=512)
    fit, values = _fit(untilted, tilted), MicrographCtf(15000, 15000)
    for sign in (1, -1):
        found, sigmas = estimate_sign(_ice(fit, values, sign, 1.0), (4.0, 4.0), values, fit)
        assert found == sign
        assert sigmas > 6


def test_pure_noise_does_not_tell() -> None:
    untilted, tilted, _ = _points(size=512)
    fit, values = _fit(untilted, tilted), MicrographCtf(15000, 15000)
    rng = np.random.default_rng(9)
    for _ in range(5):
        assert estimate_sign(rng.normal(0, 1, (256, 256)).astype(np.float32), (4.0, 4.0), values, fit)[1] < 4
    assert estimate_sign(np.zeros((40, 40), np.float32), (4.0, 4.0), values, fit)[1] == 0
