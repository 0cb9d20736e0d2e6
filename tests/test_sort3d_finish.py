"""The finishing loop: likelihoods of classes, leverage of a particle on its own map, amplitudes, known particles."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sort3d_cases import (
    SIZE,
    band_data,
    blobs,
    cosine,
    exact_sections,
    make_store,
    noise,
    on_ranks,
    small_grid,
    transfer,
    views,
)

from hpcsort.kernels import aligned_empty, complete_friedel, extract_sections, insert_sections
from hpcsort.parallel import Communicator
from hpcsort.sort3d import finish
from hpcsort.sort3d.finish import (
    ClassMaps,
    _best_scale,
    estimate_classes,
    leverage_ratio,
    maps_from_centres,
    refine_classes,
    weigh_evidence,
)
from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import NUISANCES, Subspace, nuisance_maps
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


def _fixed(scale: float = 1.0) -> np.ndarray:
    grid = small_grid()
    spread = scale * np.array([0.05, *[0.3] * 3, *[0.04] * 3])
    maps = nuisance_maps(grid, blobs(SIZE, 9), _MASK) * spread[:, None, None, None]
    return grid.to_fourier(maps.astype(np.float32))


def _maps(volumes: np.ndarray, fixed: np.ndarray, level: float = 2.0) -> ClassMaps:
    grid = small_grid()
    prior = np.full(grid.radius + 2, level)
    ridge = np.zeros((len(volumes), *grid.fourier_shape), np.float32)
    return ClassMaps(grid, fixed, volumes, np.ones(len(volumes)), ridge, 0.0, prior, _MASK, _MASK)


@cache
def _differences() -> np.ndarray:
    """Two opposite differences of structure, real maps inside the mask."""
    axis = np.arange(SIZE) - SIZE // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    blob = 0.5 * np.exp(-((x - 3) ** 2 + (y + 3) ** 2 + (z - 2) ** 2) / (2 * 1.8**2))
    return np.stack([blob, -blob]).astype(np.float32)


def _store(count: int, strength: float, seed: int = 0, comm: Communicator | None = None) -> ParticleStore:
    """Particles of two states, first and second half, in shuffled order; see `_state`."""
    rotations, ctfs = views(count, seed + 3), transfer(count, seed + 4)
    signal = strength * np.where(_state(count)[:, None] == 0, 1, -1) * exact_sections(_differences()[0], rotations)
    return make_store(band_data(ctfs * signal + noise(count, seed + 6), ctfs, rotations), comm)


def _state(count: int) -> np.ndarray:
    return np.random.default_rng(11).permutation(count) % 2


def test_evidence_is_the_gain_in_likelihood_with_the_nuisances_integrated_out() -> None:
    grid, fixed = small_grid(), _fixed()
    maps = _maps(grid.to_fourier(_differences()), fixed)
    store = _store(6, 1.0)
    scale = np.array([0.7, 1.6])
    evidence = weigh_evidence(store, maps)
    found = evidence.scores(scale)
    shares = np.array([[1.0, 0.0], [0.3, 0.7], [0.0, 1.0], [0.0, 0.0], [0.2, 0.3], [0.5, 0.5]])
    nuisances = evidence.nuisances(shares, scale)
    data = store.data
    for i in range(6):
        rotation = data.rotations[i : i + 1]
        sections = np.stack(
            [data.ctfs[i] * extract_sections(v, rotation, data.px, data.py, 1.0)[0] for v in [*fixed, *maps.volumes]]
        )
        real = np.concatenate([sections.real, sections.imag], axis=1).astype(np.float64)
        image = np.concatenate([data.images[i].real, data.images[i].imag]).astype(np.float64)
        # Noise of variance 1/2 in each real number, nuisances of variance 1.
        covariance = 0.5 * np.eye(len(image)) + real[:NUISANCES].T @ real[:NUISANCES]
        whole = np.linalg.solve(covariance, image)
        expected = np.zeros(NUISANCES)
        for k in (0, 1):
            left = image - scale[k] * real[NUISANCES + k]
            solved = np.linalg.solve(covariance, left)
            assert found[i, k] == pytest.approx(0.5 * (image @ whole - left @ solved), rel=1e-3, abs=1e-3)
            expected += shares[i, k] * real[:NUISANCES] @ solved
        np.testing.assert_allclose(nuisances[i], expected, rtol=2e-3, atol=2e-3)


def test_maps_from_centres_are_combinations_on_a_wider_band() -> None:
    narrow, wide = BandGrid(16, 5), BandGrid(20, 8)
    draw = np.random.default_rng(0)
    free = draw.normal(size=(3, *narrow.fourier_shape)) + 1j * draw.normal(size=(3, *narrow.fourier_shape))
    subspace = Subspace(
        narrow, free[:0].astype(np.complex64), free.astype(np.complex64), np.ones((16,) * 3), np.ones(7)
    )
    centres = draw.normal(size=(4, 3))
    mask = np.ones((20,) * 3, np.float32)
    maps = maps_from_centres(subspace, centres, wide, free, np.ones(10), mask)
    assert maps.volumes.shape == (4, *wide.fourier_shape)
    cut = slice(wide.half - narrow.half, wide.half + narrow.half + 1)
    np.testing.assert_allclose(
        maps.volumes[:, cut, cut, : narrow.half + 1], np.tensordot(centres, free, axes=1), rtol=1e-4, atol=1e-4
    )
    assert np.count_nonzero(maps.volumes) == 4 * narrow.frequency.size
    assert maps.leverage == 0.0


@pytest.mark.parametrize("size", [0.5, 1.0, 3.0])
def test_the_best_scale_is_the_true_amplitude(size: float) -> None:
    grid = small_grid()
    maps = _maps(grid.to_fourier(_differences()), _fixed(0.0))
    store = _store(600, 2.0 * size)
    maps = replace(maps, volumes=2 * maps.volumes)
    shares = np.eye(2)[_state(600)]
    scale = _best_scale(store, weigh_evidence(store, maps), shares)
    np.testing.assert_allclose(scale, size, rtol=0.12)


def _noise_maps(count: int) -> tuple[ParticleStore, ClassMaps, np.ndarray, np.ndarray]:
    """One class map of pure noise."""
    store = _store(count, 0.0)
    maps = _maps(np.zeros((1, *small_grid().fourier_shape), np.complex64), _fixed(0.0), level=0.3)
    shares, nuisance = np.ones((count, 1)), np.zeros((count, NUISANCES))
    return store, estimate_classes(store, maps, shares, nuisance), shares, nuisance


def _mask_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No focus that is itself drawn to where the noise is high."""
    monkeypatch.setattr(finish, "local_weight", lambda grid, maps, mask: np.ones_like(mask))


def test_leaving_a_particle_out_is_making_the_map_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _mask_alone(monkeypatch)
    count, probes = 200, 60
    store, maps, shares, nuisance = _noise_maps(count)
    naive = weigh_evidence(store, maps).scores(maps.scale)[:probes, 0]
    corrected = weigh_evidence(store, maps, shares).scores(maps.scale)[:probes, 0]
    explicit = np.empty(probes)
    for probe in range(probes):
        without = shares.copy()
        without[probe] = 0
        own = estimate_classes(store, maps, without, nuisance)
        explicit[probe] = weigh_evidence(store, own).scores(own.scale)[probe, 0]
    bias = (naive - explicit).mean()
    assert bias > 0.5
    assert abs((corrected - explicit).mean()) < 0.1 * bias
    assert np.corrcoef(corrected, explicit)[0, 1] > 0.9


def test_noise_gains_nothing_from_a_map_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    _mask_alone(monkeypatch)
    store, maps, shares, _ = _noise_maps(400)
    naive = weigh_evidence(store, maps).scores(maps.scale)[:, 0]
    corrected = weigh_evidence(store, maps, shares).scores(maps.scale)[:, 0]
    fresh = weigh_evidence(_store(400, 0.0, seed=50), maps).scores(maps.scale)[:, 0]
    error = corrected.std() / np.sqrt(400)
    assert naive.mean() > 10 * error
    assert corrected.mean() < -2 * error
    # A particle's corrected score is what a particle that the map has not seen would get.
    assert corrected.mean() == pytest.approx(fresh.mean(), abs=3 * error)


def test_the_focus_brings_back_a_part_of_the_bias_only() -> None:
    store, maps, shares, _ = _noise_maps(400)
    naive = weigh_evidence(store, maps).scores(maps.scale)[:, 0].mean()
    corrected = weigh_evidence(store, maps, shares).scores(maps.scale)[:, 0].mean()
    assert 0 < naive < 0.3
    assert corrected < 0.6 * naive


def test_particles_that_hardly_belong_are_not_corrected() -> None:
    store = _store(100, 0.5)
    maps = _maps(np.zeros((2, *small_grid().fourier_shape), np.complex64), _fixed())
    shares = np.full((100, 2), 0.005)
    shares[:50, 0] = 1.0
    made = estimate_classes(store, maps, shares, np.zeros((100, NUISANCES)))
    change = weigh_evidence(store, made, shares).linear - weigh_evidence(store, made).linear
    assert (change[:50, 0] != 0).all()
    np.testing.assert_array_equal(change[50:, 0], 0.0)
    np.testing.assert_array_equal(change[:, 1], 0.0)


def test_class_maps_are_the_true_differences_shrunk() -> None:
    grid, count = small_grid(), 600
    store = _store(count, 2.0)
    maps = _maps(grid.to_fourier(0 * _differences()), _fixed(0.0), level=0.3)
    made = estimate_classes(store, maps, np.eye(2)[_state(count)], np.zeros((count, NUISANCES)))
    truth = 2.0 * grid.to_real(grid.to_fourier(_differences(), corrected=False), corrected=False)
    found = grid.to_real(made.volumes, corrected=False)
    for one, same in zip(found, truth, strict=True):
        assert cosine(one, same) > 0.85
        assert 0.3 < (one * same).sum() / (same**2).sum() < 1.05
    assert made.leverage < 1.0
    assert (made.focus <= _MASK + 1e-6).all()


def _refined(
    count: int, comm: Communicator | None = None, pinned: np.ndarray | None = None, floor: float = 0.1
) -> tuple[ClassMaps, np.ndarray, np.ndarray]:
    """From maps of a third of the strength and mixed with each other."""
    grid, store = small_grid(), _store(count, 2.0, comm=comm)
    start = 0.5 * grid.to_fourier(_differences() + np.array([0.4, 0.0])[:, None, None, None].astype(np.float32) * 0.2)
    maps = _maps(start, _fixed(0.3), level=0.3)
    own = None if pinned is None else pinned[store.positions]
    return refine_classes(store, maps, np.array([0.5, 0.5]), iterations=3, floor=floor, pinned=own)


def test_the_loop_sorts_the_particles() -> None:
    maps, weights, scores = _refined(500)
    right = (scores.argmax(axis=1) == _state(500)).mean()
    assert right > 0.93
    np.testing.assert_allclose(weights, 0.5, atol=0.05)
    assert scores.shape == (500, 2)
    assert (maps.scale >= 0.3).all()


def test_pinned_particles_stay_and_do_not_count() -> None:
    state = _state(400)
    # All particles of the first state are known already, so that none is left for its class.
    pinned = np.where(state == 0, 0, -1)
    maps, weights, _ = _refined(400, pinned=pinned, floor=0.02)
    assert weights[0] < 0.12
    assert weights.sum() == pytest.approx(1.0)
    found = small_grid().to_real(maps.volumes, corrected=False)
    assert cosine(found[0], _differences()[0]) > 0.7
    # Pinned to the wrong class they make the wrong map.
    swapped, _, _ = _refined(400, pinned=1 - state)
    assert cosine(small_grid().to_real(swapped.volumes, corrected=False)[0], _differences()[0]) < -0.7


def test_steps_are_told_and_floors_kept() -> None:
    store = _store(200, 2.0)
    maps = _maps(small_grid().to_fourier(np.concatenate([_differences(), _differences()[:1]])), _fixed(), level=0.3)
    told: list[str] = []
    _, weights, _ = refine_classes(
        store, maps, np.array([0.05, 0.9, 0.05]), iterations=2, floor=0.2, step=told.append
    )  # fmt: skip
    assert weights.min() > 0.2 / 1.2
    assert told == [f"finishing 3 classes, iteration {number} of 2" for number in (1, 2)]


@pytest.mark.parametrize("ranks", [2, 5])
def test_the_loop_has_the_same_bits_on_any_ranks(ranks: int) -> None:
    def work(comm: Communicator) -> tuple[bytes, ...]:
        maps, weights, scores = _refined(400, comm)
        joined = comm.allgather_rows(scores)
        return maps.volumes.tobytes(), maps.scale.tobytes(), weights.tobytes(), joined.tobytes()

    (alone,) = on_ranks(1, work)
    assert set(on_ranks(ranks, work)) == {alone}
