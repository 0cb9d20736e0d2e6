"""The central-section grid against direct Fourier sums, and there and back again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hpcsort.images import half_plane
from hpcsort.kernels import extract_sections
from hpcsort.volumes import BandGrid, good_even_size


def _band_limited(size: int, radius: float, seed: int = 0) -> np.ndarray:
    """Real map (size, size, size) with nothing beyond the radius."""
    spectrum = np.fft.fftn(np.random.default_rng(seed).normal(size=(size,) * 3))
    axis = np.fft.fftfreq(size, 1 / size)
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= radius**2
    return np.fft.ifftn(spectrum * inside).real.astype(np.float32)


def _direct(volume: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Transform at points (P, 3) as (x, y, z) in Fourier pixels, divided by the edge."""
    size = len(volume)
    axis = np.arange(size) - size // 2
    x, y, z = (np.exp(-2j * np.pi / size * np.outer(points[:, place], axis)) for place in range(3))
    return np.einsum("zyx,pz,py,px->p", volume, z, y, x, optimize=True) / size


@pytest.mark.parametrize("minimum", [0, 1, 2, 7, 8, 9, 11, 13, 61, 97, 359])
def test_good_sizes_are_even_and_of_small_factors(minimum: int) -> None:
    size = good_even_size(minimum)
    smooth = [number for number in range(2, 2000, 2) if 30**20 % number == 0]
    assert size == next(number for number in smooth if number >= minimum)


@pytest.mark.parametrize(("size", "radius"), [(8, 3), (9, 3), (12, 4), (13, 5), (7, 1), (4, 1)])
def test_a_band_limited_map_comes_back(size: int, radius: int) -> None:
    grid = BandGrid(size, radius)
    volume = _band_limited(size, radius)
    fourier = grid.to_fourier(volume, corrected=False)
    assert fourier.dtype == np.complex64
    assert fourier.shape == grid.fourier_shape
    np.testing.assert_allclose(grid.to_real(fourier, corrected=False), volume, atol=1e-5 * np.abs(volume).max())


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("pad", [1, 2, 3])
@pytest.mark.parametrize("size", [19, 20])
def test_a_smooth_map_comes_back_on_padded_grids(size: int, pad: int, corrected: bool) -> None:
    # The edge of the box and the correction spread a spectrum, so the map must be smooth and small.
    grid = BandGrid(size, size // 2 - 1, pad)
    axis = np.arange(size) - size // 2
    squared = (axis[:, None, None] - 0.7) ** 2 + (axis[:, None] + 0.5) ** 2 + (axis - 1.0) ** 2
    volume = np.exp(-squared / (2 * 1.6**2)).astype(np.float32)
    # Both directions divide: the one before trilinear reading, the other after trilinear insertion.
    factor = grid.sinc2 if corrected else np.ones_like(volume)
    back = grid.to_real(grid.to_fourier(volume, corrected=corrected), corrected=False)
    np.testing.assert_allclose(back * factor, volume, atol=2e-4)
    back = grid.to_real(grid.to_fourier(volume, corrected=False), corrected=corrected)
    np.testing.assert_allclose(back * factor, volume, atol=2e-4)


@pytest.mark.parametrize("pad", [1, 2])
@pytest.mark.parametrize("size", [8, 9, 13])
def test_the_transform_is_the_direct_sum(size: int, pad: int) -> None:
    grid = BandGrid(size, 3, pad)
    volume = np.random.default_rng(3).normal(size=(size,) * 3).astype(np.float32)
    fourier = grid.to_fourier(volume, corrected=False)
    z, y, x = np.nonzero(grid.support & (grid.frequency < size / 2 - 0.5))
    points = np.stack([x, y - grid.half, z - grid.half], axis=1) / grid.pad
    assert len(points) > 50
    np.testing.assert_allclose(fourier[z, y, x], _direct(volume, points), atol=1e-5)
    assert not fourier[~grid.support].any()


def test_leading_axes_are_kept() -> None:
    grid = BandGrid(8, 3)
    volumes = np.random.default_rng(0).normal(size=(2, 3, 8, 8, 8)).astype(np.float32)
    fourier = grid.to_fourier(volumes)
    assert fourier.shape == (2, 3, *grid.fourier_shape)
    np.testing.assert_array_equal(fourier[1, 2], grid.to_fourier(volumes[1, 2]))
    np.testing.assert_array_equal(grid.to_real(fourier)[0, 1], grid.to_real(fourier[0, 1]))


@pytest.mark.parametrize(("size", "radius", "pad", "error"), [(32, 12, 2, 0.02), (31, 12, 2, 0.02), (32, 12, 1, 0.08)])
def test_sections_are_those_of_the_map(size: int, radius: int, pad: int, error: float) -> None:
    grid = BandGrid(size, radius, pad)
    volume = np.random.default_rng(1).normal(size=(size,) * 3) * (grid.distance < 0.25)
    volume = volume.astype(np.float32)
    px, py = half_plane(radius)
    rotations = Rotation.random(5, random_state=np.random.default_rng(2)).as_matrix().astype(np.float32)
    sections = extract_sections(grid.to_fourier(volume), rotations, px, py, float(pad))
    plain = extract_sections(grid.to_fourier(volume, corrected=False), rotations, px, py, float(pad))
    exact = np.stack([_direct(volume, np.outer(px, a[0]) + np.outer(py, a[1])) for a in rotations])

    def relative(values: np.ndarray) -> float:
        return float(np.linalg.norm(values - exact) / np.linalg.norm(exact))

    assert relative(sections) < error
    assert relative(sections) < 0.5 * relative(plain)


def test_a_section_is_the_transform_of_the_projection() -> None:
    grid = BandGrid(12, 4)
    volume = _band_limited(12, 4)
    projection = volume.sum(axis=0)
    image = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(projection))) / 12
    px, py = half_plane(4)
    section = extract_sections(grid.to_fourier(volume, corrected=False), np.eye(3, dtype=np.float32)[None], px, py, 1.0)
    np.testing.assert_allclose(section[0], image[py.astype(int) + 6, px.astype(int) + 6], atol=1e-5)


@pytest.mark.parametrize("pad", [1, 2])
def test_shell_means_and_filling(pad: int) -> None:
    grid = BandGrid(14, 5, pad)
    curve = np.arange(grid.radius + 2.0) ** 2
    filled = grid.shell_fill(curve)
    np.testing.assert_allclose(grid.shell_mean(filled), curve)
    draw = np.random.default_rng(0).normal(size=(2, *grid.fourier_shape))
    h = grid.half
    axis = np.arange(-h, h + 1) / pad
    shell = np.rint(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2))
    full = np.concatenate([draw[:, ::-1, ::-1, :0:-1], draw], axis=3)
    for number in range(grid.radius + 1):
        members = full[:, shell == number]
        expected = members.mean(axis=1)
        if number == 0:
            assert members.shape[1] == (7 if pad == 2 else 1)
        # plane x = 0 holds both mates; `full` does not make them equal, and neither does the mean
        np.testing.assert_allclose(grid.shell_mean(draw)[:, number], expected)
    np.testing.assert_allclose(grid.shell_fill(np.array([3.0, 1.0]))[grid.shell > 1], 1.0)


def test_grids_that_do_not_hold_their_band_are_refused() -> None:
    with pytest.raises(ValueError, match="does not hold"):
        BandGrid(9, 4)
    with pytest.raises(ValueError, match="pad"):
        BandGrid(10, 4, 0)
