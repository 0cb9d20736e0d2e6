"""The consensus of particles of a known map is that map, and its residuals are noise."""

from __future__ import annotations

import numpy as np
import pytest
from sort3d_cases import (
    RADIUS,
    SIZE,
    band_data,
    blobs,
    exact_sections,
    make_store,
    noise,
    on_ranks,
    small_grid,
    transfer,
    views,
)

from hpcsort.images import noise_spectrum
from hpcsort.parallel import Communicator
from hpcsort.sort3d.consensus import build_consensus, half_sums, subtract_consensus, whiten
from hpcsort.sort3d.store import ParticleStore
from hpcsort.volumes import map_fsc, soft_sphere

_COUNT = 400
_TRUTH = 2.0 * blobs(SIZE, 1, count=40, spread=6.0, width=0.8)
_TRUTH -= _TRUTH.mean()
_MASK = soft_sphere(small_grid().distance, 0.42, 0.06)


def _store(strength: float, level: float, count: int = _COUNT, comm: Communicator | None = None) -> ParticleStore:
    rotations, ctfs = views(count, 2), transfer(count, 3)
    images = strength * ctfs * exact_sections(_TRUTH, rotations) + level * noise(count, 4)
    return make_store(band_data(images, ctfs, rotations), comm)


def _halves(count: int = _COUNT) -> np.ndarray:
    return np.random.default_rng(5).permutation(count) % 2


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_the_known_map_comes_back(level: float) -> None:
    store = _store(1.0, level)
    consensus = build_consensus(store, small_grid(), _halves(), _MASK)
    assert map_fsc(consensus.map, _TRUTH * _MASK)[1:RADIUS].min() > 0.97
    assert consensus.fsc[1:RADIUS].min() > 0.9
    grid = small_grid()
    smooth = grid.to_real(grid.to_fourier(_TRUTH, corrected=False), corrected=False) * _MASK
    assert (consensus.map * smooth).sum() / (smooth * smooth).sum() == pytest.approx(1.0, abs=0.05)
    # The volume that the kernels read is the map's own.
    sections = exact_sections(consensus.map, views(3, 8))
    read = subtract_consensus(make_store(band_data(0 * sections, np.ones(sections.shape), views(3, 8))), consensus)
    assert np.abs(read.data.images + sections).max() < 0.05 * np.abs(sections).max()


def test_residuals_of_a_found_map_are_the_noise() -> None:
    store = _store(1.0, 1.0)
    residual = subtract_consensus(store, build_consensus(store, small_grid(), _halves(), _MASK))
    power, count = noise_spectrum(store.data, residual.data.images, 1)
    np.testing.assert_allclose(power[0, 2:] / count[0, 2:], 1.0, atol=0.06)
    raw, _ = noise_spectrum(store.data, store.data.images, 1)
    assert (raw[0, 2:] / count[0, 2:] > 1.5).all()


def test_noise_has_no_consensus() -> None:
    store = _store(0.0, 1.0)
    consensus = build_consensus(store, small_grid(), _halves(), _MASK)
    assert np.abs(consensus.fsc[1:]).mean() < 0.35
    fitted = store.data.images - subtract_consensus(store, consensus).data.images
    assert (np.abs(fitted) ** 2).mean() < 0.02


def test_left_out_particles_do_not_count() -> None:
    store, half = _store(1.0, 1.0), _halves()
    half[: _COUNT // 2] = -1
    kept = store.restricted(half >= 0)
    for some, all_ in zip(half_sums(kept, small_grid(), half[half >= 0]), half_sums(store, small_grid(), half),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(some, all_, atol=1e-3 * np.abs(all_).max())


@pytest.mark.parametrize("ranks", [2, 5])
def test_all_ranks_get_the_same_bits(ranks: int) -> None:
    def work(comm: Communicator) -> tuple[bytes, ...]:
        store = _store(1.0, 1.0, comm=comm)
        white, sigma = whiten(store, store, 1)
        consensus = build_consensus(white, small_grid(), _halves()[store.positions], _MASK)
        return consensus.map.tobytes(), consensus.volume.tobytes(), consensus.fsc.tobytes(), sigma.tobytes()

    (alone,) = on_ranks(1, work)
    assert set(on_ranks(ranks, work)) == {alone}


def test_whitening_divides_by_the_level_of_each_group() -> None:
    store = _store(0.0, 1.0)
    shell = store.data.shell
    groups = np.arange(_COUNT) % 2
    level = np.stack([2.0 + shell, 0.1 + 0.3 * shell])[groups].astype(np.float32)
    data = band_data(store.data.images * level, store.data.ctfs, store.data.rotations)
    coloured = store.with_data(data.__class__(**{**vars(data), "groups": groups}))
    # A third group without particles divides by one.
    white, sigma = whiten(coloured, coloured, 3)
    np.testing.assert_allclose(sigma[0, 1:], 2.0 + np.arange(1, RADIUS + 1), rtol=0.05)
    np.testing.assert_allclose(sigma[1, 1:], 0.1 + 0.3 * np.arange(1, RADIUS + 1), rtol=0.05)
    np.testing.assert_array_equal(sigma[2], 1.0)
    power, count = noise_spectrum(white.data, white.data.images, 2)
    np.testing.assert_allclose(power[:, 1:] / count[:, 1:], 1.0, rtol=1e-4)
    np.testing.assert_allclose(white.data.ctfs * sigma[groups][:, shell], store.data.ctfs, rtol=1e-4)
