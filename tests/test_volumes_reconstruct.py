"""Reconstruction: noise-free projections give the map back; sums equal plain insertion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hpcsort.images import half_plane
from hpcsort.kernels import aligned_empty, complete_friedel, insert_sections
from hpcsort.optics import ctf
from hpcsort.parallel import SerialComm
from hpcsort.simulation.sections import SectionMaker
from hpcsort.volumes import BandGrid, SectionSums, map_fsc, reconstruct_map, wiener_prior


def _sharp(grid: BandGrid, radius: float) -> np.ndarray:
    """Random density of every frequency in a sphere of this radius (in boxes)."""
    noise = np.random.default_rng(5).normal(1.0, 2.0, (grid.size,) * 3)
    return (noise * (grid.distance < radius)).astype(np.float32)


def _records(grid: BandGrid, truth: np.ndarray, count: int, with_ctf: bool, start: int = 0) -> np.ndarray:
    """Exact, noise-free images of the map, inserted."""
    px, py = half_plane(grid.radius)
    rotations = Rotation.random(start + count, random_state=np.random.default_rng(1)).as_matrix()[start:]
    transfer = np.ones((count, px.size), np.float32)
    if with_ctf:
        defocus = np.random.default_rng([2, start]).uniform(5000, 15000, count)
        transfer = ctf(px, py, grid.size, 5.0, defocus, defocus, 0.0, 300.0, 2.7, 0.1)
    maker = SectionMaker(truth)
    sections = np.stack([maker.section(matrix, px, py) / grid.size for matrix in rotations])
    out = aligned_empty((1, *grid.fourier_shape, 4), np.float32)
    out[...] = 0
    insert_sections(
        (sections * transfer).astype(np.complex64), transfer, rotations.astype(np.float32), np.zeros(count, np.int32),
        np.ones(count, np.float32), px, py, float(grid.pad), out,
    )  # fmt: skip
    return out[0]


def _summed(grid: BandGrid, *records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sums = SectionSums(grid, 1e4)
    for volume in records:
        sums.add(volume)
    joined = sums.join(SerialComm())
    assert joined is not None
    return joined


@pytest.mark.parametrize("with_ctf", [False, True])
@pytest.mark.parametrize("size", [32, 31])
def test_noise_free_projections_give_the_map_back(size: int, with_ctf: bool) -> None:
    grid = BandGrid(size, size // 2 - 1, 2)
    truth = _sharp(grid, 0.3)
    numerator, weight = _summed(grid, _records(grid, truth, 500, with_ctf))
    result = reconstruct_map(numerator, weight, grid, particle_radius=0.35)
    inside = grid.distance < 0.35
    curve = map_fsc(truth * inside, result * inside)
    last = int(0.8 * size / 2)
    assert curve[1 : last + 1].min() > 0.99
    axis = np.fft.fftfreq(size, 1 / size)
    kept = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= last**2
    smooth, found = (np.fft.ifftn(np.fft.fftn(volume) * kept).real[inside] for volume in (truth, result))
    assert np.polyfit(smooth, found, 1)[0] == pytest.approx(1.0, abs=0.03)
    # the images' mean is no data: the level outside the particle stands for it
    assert abs(result[grid.distance > 0.36].mean()) < 0.02 * truth[inside].std()
    assert abs(found.mean() - smooth.mean()) < 0.2 * truth[inside].std()


@pytest.mark.parametrize("pad", [1, 2])
def test_sums_are_those_of_plain_insertion(pad: int) -> None:
    grid = BandGrid(13, 5, pad)
    records = [_records(grid, _sharp(grid, 0.3), 9, True, start) for start in (0, 9, 18)]
    numerator, weight = _summed(grid, *records)
    plain = sum(volume.astype(np.float64) for volume in records)
    for found, expected, hermitian in (
        (numerator, plain[..., 0] + 1j * plain[..., 1], True),
        (weight, np.ascontiguousarray(plain[..., 2]), False),
    ):
        np.testing.assert_allclose(found, complete_friedel(expected, hermitian), rtol=1e-6, atol=1e-10)
        assert np.abs(found).max() > 1
    again = _summed(grid, *records[::-1])
    assert numerator.tobytes() == again[0].tobytes()
    assert weight.tobytes() == again[1].tobytes()


def test_thin_slabs_do_not_change_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = BandGrid(13, 5, 2)
    records = _records(grid, _sharp(grid, 0.3), 9, True)
    whole = _summed(grid, records)
    monkeypatch.setattr("hpcsort.volumes.reconstruct._SLAB_VOXELS", 1)
    for one, other in zip(whole, _summed(grid, records), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_memory_of_sums_is_foretold() -> None:
    grid = BandGrid(40, 19, 2)
    sums = SectionSums(grid, 1.0)
    held = sum(total.total.nbytes + support.nbytes for _, support, total in sums._slabs)
    assert SectionSums.bytes_needed(grid) == pytest.approx(held, rel=0.1)


def test_priors_shrink_by_the_signal_to_noise_ratio() -> None:
    grid = BandGrid(16, 6)
    draw = np.random.default_rng(0)
    weight = np.full(grid.fourier_shape, 8.0, np.float32)
    fsc = np.array([1.0, 0.9, 0.5, 0.2, 0.0, -0.1, 0.0, 0.0, 0.0])
    prior = wiener_prior(weight, fsc, grid)
    full = 2 * fsc / (1 + fsc)
    np.testing.assert_allclose(prior[1:4], 8 * (1 - full[1:4]) / full[1:4], rtol=1e-5)
    assert (prior[4:] > 100 * 8).all()
    assert prior[0] == prior[1]
    numerator = (draw.normal(size=weight.shape) + 1j * draw.normal(size=weight.shape)).astype(np.complex64)
    complete_friedel(numerator, hermitian=True)
    for added in (None, prior):
        result = reconstruct_map(numerator, weight, grid, prior=added) * grid.sinc2
        expected = numerator / (weight + (0 if added is None else grid.shell_fill(added))) * grid.support
        np.testing.assert_allclose(grid.to_fourier(result, corrected=False), expected, atol=1e-5)


def test_weights_are_not_divided_by_less_than_a_thousandth_of_their_shell() -> None:
    grid = BandGrid(16, 6)
    weight = np.full(grid.fourier_shape, 8.0, np.float32)
    numerator = np.ones(weight.shape, np.complex64)
    place = (grid.half, grid.half, 4)
    weight[place] = 1e-6
    result = grid.to_fourier(reconstruct_map(numerator, weight, grid) * grid.sinc2, corrected=False)
    assert result[place].real == pytest.approx(1 / 8e-3, rel=0.05)
    assert result[grid.half, grid.half, 3].real == pytest.approx(1 / 8, rel=1e-3)


def test_nothing_gives_nothing() -> None:
    grid = BandGrid(9, 3, 2)
    numerator, weight = _summed(grid)
    prior = wiener_prior(weight, np.array([1.0, 0, 0, 0, 0]), grid)
    for added in (None, prior):
        assert not reconstruct_map(numerator, weight, grid, prior=added, particle_radius=0.3).any()
