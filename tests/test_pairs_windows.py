"""Windows and whole micrographs: where pixels land, what normalisation leaves, what dust and the CTF become."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from hpcsort.optics import ctf
from hpcsort.pairs.ctfs import MicrographCtf
from hpcsort.pairs.preprocess import downsampled_shape, flip_sign, replace_dust, transform_micrograph
from hpcsort.pairs.windows import cut_windows, cut_windows_in_transform, inside, nearest_pixels, normalize_windows


@pytest.mark.parametrize("box", [7, 8, 9, 13, 32])
def test_an_impulse_lands_on_half_the_box(box: int) -> None:
    image = np.zeros((61, 83), np.float32)
    image[31, 47] = 1
    (window,) = cut_windows(image, np.array([[47, 31]]), box)
    assert np.argwhere(window).tolist() == [[box // 2, box // 2]]


@pytest.mark.parametrize("box", [7, 8, 32])
def test_windows_at_the_rim_are_inside_until_one_pixel_is_missing(box: int) -> None:
    low, high = box // 2, 40 - (box - box // 2)
    centres = np.array([[low, low], [low - 1, 20], [20, low - 1], [high + 10, high], [high + 11, 20], [20, high + 1]])
    assert inside(centres, box, (40, 50)).tolist() == [True, False, False, True, False, False]


def test_borders_are_filled_with_the_nearest_pixel() -> None:
    image = np.arange(30, dtype=np.float32).reshape(5, 6)
    (window,) = cut_windows(image, np.array([[0, 4]]), 4)
    assert window[:, 2].tolist() == [12, 18, 24, 24]
    assert np.all(window[:, 0] == window[:, 2])
    assert np.all(window[3] == window[2])


def test_halves_round_up_and_the_rest_stays_within_half_a_pixel() -> None:
    xy = np.array([[10.5, 11.5], [10.49, 11.51], [-0.5, 0.0]])
    pixels = nearest_pixels(xy)
    assert pixels.tolist() == [[11, 12], [10, 12], [0, 0]]
    assert np.all(xy - pixels >= -0.5)
    assert np.all(xy - pixels < 0.5)


@pytest.mark.parametrize("box", [11, 16])
def test_a_subpixel_shift_centres_a_blob(box: int) -> None:
    y, x = np.mgrid[:64, :70]
    place = np.array([[30.3, 25.8]])
    image = np.exp(-((x - 30.3) ** 2 + (y - 25.8) ** 2) / (2 * 1.5**2)).astype(np.float32)
    (window,) = cut_windows_in_transform(image, place, box, subpixel=True)
    j, i = np.mgrid[:box, :box] - box // 2
    expected = np.exp(-(i**2 + j**2) / (2 * 1.5**2))
    assert np.abs(window - expected).max() < 2e-3
    (unmoved,) = cut_windows_in_transform(image, place, box)
    assert np.abs(unmoved - cut_windows(image, nearest_pixels(place), box)[0]).max() < 1e-5


@pytest.mark.parametrize(("box", "radius"), [(16, 8), (17, 8), (16, 5), (9, 4)])
@pytest.mark.parametrize("method", ["new", "ramp"])
def test_the_background_has_mean_0_and_deviation_1(box: int, radius: int, method: str) -> None:
    rng = np.random.default_rng(0)
    windows = rng.normal(1000, 7, (5, box, box)).astype(np.float32)
    blank = normalize_windows(windows, method, radius)
    axis = np.arange(box) - box // 2
    outside = axis[:, None] ** 2 + axis**2 >= radius**2
    assert not blank.any()
    for window in windows:
        assert abs(window[outside].mean(dtype=np.float64)) < 1e-4
        assert window[outside].std(ddof=1, dtype=np.float64) == pytest.approx(1, abs=1e-4)


def test_old_normalisation_is_of_the_whole_window() -> None:
    windows = np.random.default_rng(1).normal(5, 3, (2, 12, 12)).astype(np.float32)
    normalize_windows(windows, "old", 6)
    np.testing.assert_allclose(windows.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(windows.std(axis=(1, 2)), 1, atol=1e-5)


def test_a_ramp_is_removed_and_a_particle_is_not() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 1, (20, 20))
    y, x = np.mgrid[:20, :20] - 10
    particle = 5.0 * (x**2 + y**2 < 16)
    flat, tilted = noise + particle, noise + particle + 3.0 * x - 0.7 * y + 200
    windows = np.array([flat, tilted], np.float32)
    normalize_windows(windows, "ramp", 10)
    assert np.abs(windows[0] - windows[1]).max() < 2e-4
    inner = x**2 + y**2 < 16
    assert windows[1][inner].mean() > 4


@pytest.mark.parametrize("method", ["none", "old", "new", "ramp"])
def test_blank_windows_are_told_and_stay_finite(method: str) -> None:
    windows = np.random.default_rng(3).normal(0, 1, (3, 8, 8)).astype(np.float32)
    windows[1] = 7.0
    blank = normalize_windows(windows, method, 4)
    assert blank.tolist() == [False, True, False]
    assert np.isfinite(windows).all()
    assert np.all(windows[1] == 7.0)


def test_no_windows_are_normalised_without_complaint() -> None:
    assert normalize_windows(np.zeros((0, 8, 8), np.float32), "ramp", 4).shape == (0,)


def test_dust_becomes_the_median_around_it() -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(10, 1, (40, 41)).astype(np.float32)
    image = np.clip(image, 8, 12)
    clean = image.copy()
    image[20, 20], image[0, 0], image[30, 5] = 500, -400, np.nan
    assert replace_dust(image, 5) == 3
    around = np.delete(clean[18:23, 18:23].ravel(), 12)
    assert image[20, 20] == pytest.approx(np.median(around), abs=1e-6)
    corner = np.delete(clean[:3, :3].ravel(), 0)
    assert image[0, 0] == pytest.approx(np.median(corner), abs=1e-6)
    untouched = np.ones_like(image, bool)
    untouched[[20, 0, 30], [20, 0, 5]] = False
    assert np.array_equal(image[untouched], clean[untouched])


def test_a_patch_of_dust_larger_than_the_window_is_filled_from_its_rim() -> None:
    image = np.random.default_rng(5).uniform(0, 1, (50, 50)).astype(np.float32)
    image[10:21, 12:25] = 1000
    assert replace_dust(image, 3) == 11 * 13
    assert image.max() <= 1


@pytest.mark.parametrize("value", [3.0, np.nan])
def test_images_without_good_pixels_stay_as_they_are(value: float) -> None:
    image = np.full((8, 8), value, np.float32)
    assert replace_dust(image, 3.5) == 0
    assert np.array_equal(image, np.full((8, 8), value, np.float32), equal_nan=True)


@pytest.mark.parametrize(("shape", "factor"), [((64, 60), 2.0), ((63, 65), 2.5), ((47, 64), 1.3), ((31, 37), 3.0)])
def test_downsampling_keeps_grey_values_and_the_first_pixel(shape: tuple[int, int], factor: float) -> None:
    rows, columns = downsampled_shape(shape, factor)
    assert (rows, columns) == (int(shape[0] / factor), int(shape[1] / factor))

    def wave(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whole periods along both axes, sampled wherever one likes."""
        return 100 + np.cos(2 * np.pi * (3 * y - 2 * x) + 0.4) + np.sin(2 * np.pi * 4 * x)

    image = wave(np.arange(shape[0])[:, None] / shape[0], np.arange(shape[1]) / shape[1]).astype(np.float32)
    expected = wave(np.arange(rows)[:, None] / rows, np.arange(columns) / columns)
    small = transform_micrograph(image, (rows, columns), 1.0)
    assert np.abs(small - expected).max() < 1e-4


@pytest.mark.parametrize("shape", [(64, 80), (63, 50), (61, 61)])
@pytest.mark.parametrize("phase_deg", [0.0, 70.0])
def test_a_flipped_ctf_has_no_sign_change(shape: tuple[int, int], phase_deg: float) -> None:
    values = MicrographCtf(9000, 8000, 35, phase_shift_deg=phase_deg)
    fy, fx = np.meshgrid(np.fft.fftfreq(shape[0], 2.0), np.fft.rfftfreq(shape[1], 2.0), indexing="ij")
    # Rohou and Grigorieff's formula, written out again and not the package's
    radius2, angle = fx**2 + fy**2, np.arctan2(fy, fx)
    wavelength = 12.2643247 / np.sqrt(3e5 * (1 + 0.978466e-6 * 3e5))
    defocus = 8500 + 500 * np.cos(2 * (angle - np.deg2rad(35)))
    chi = np.pi * wavelength * defocus * radius2 - np.pi / 2 * 2.7e7 * wavelength**3 * radius2**2
    transfer = np.sin(chi + np.deg2rad(phase_deg) + np.arcsin(0.1))
    assert (transfer < 0).mean() > 0.2
    impulse = np.zeros(shape, np.float32)
    impulse[0, 0] = 1
    spread = scipy.fft.irfft2(scipy.fft.rfft2(impulse) * transfer, s=shape).astype(np.float32)
    flipped = scipy.fft.rfft2(transform_micrograph(spread, shape, 2.0, values))
    known = np.abs(transfer) > 1e-3
    # the lines at the Nyquist frequency are real in a real image
    known &= (np.abs(fy) < 0.249) & (fx < 0.249)
    assert flipped.real[known].min() > 0
    np.testing.assert_allclose(flipped.real[known], np.abs(transfer[known]), atol=1e-3)


def test_flipping_while_downsampling_is_flipping_afterwards() -> None:
    values = MicrographCtf(9000, 8000, 35)
    image = np.random.default_rng(6).normal(0, 1, (60, 72)).astype(np.float32)
    both = transform_micrograph(image, (30, 36), 1.5, values)
    after = transform_micrograph(transform_micrograph(image, (30, 36), 1.5), (30, 36), 3.0, values)
    assert np.abs(both - after).max() < 1e-5


def test_the_sign_is_that_of_the_ctf_of_particles() -> None:
    box = 32
    values = MicrographCtf(12000, 10000, 20)
    sign = flip_sign((box, box), (3.0, 3.0), values)
    ky, kx = np.meshgrid(np.fft.fftfreq(box, 1 / box), np.fft.rfftfreq(box, 1 / box), indexing="ij")
    transfer = ctf(kx, ky, box, 3.0, 12000, 10000, 20, 300, 2.7, 0.1)[0].reshape(ky.shape)
    clear = np.abs(transfer) > 1e-4
    assert np.array_equal(sign[clear], np.sign(transfer)[clear])
    assert sign[0, 0] == 1


def test_every_window_can_be_flipped_with_its_own_ctf() -> None:
    rng = np.random.default_rng(7)
    image = rng.normal(0, 1, (96, 96)).astype(np.float32)
    xy = np.array([[48.0, 48.0], [40.0, 50.0]])
    ctfs = [MicrographCtf(3000, 3000), MicrographCtf(6000, 6000)]
    windows = cut_windows_in_transform(image, xy, 32, flips=ctfs, pixels_A=(2.0, 2.0))
    for window, place, values in zip(windows, xy, ctfs, strict=True):
        whole = cut_windows(transform_micrograph(image, (96, 96), 2.0, values), nearest_pixels(place[None]), 32)[0]
        other = ctfs[0] if values is ctfs[1] else ctfs[1]
        wrong = cut_windows(transform_micrograph(image, (96, 96), 2.0, other), nearest_pixels(place[None]), 32)[0]
        assert np.corrcoef(window.ravel(), whole.ravel())[0, 1] > 0.9
        assert np.corrcoef(window.ravel(), wrong.ravel())[0, 1] < 0.8
