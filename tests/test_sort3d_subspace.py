"""The subspace finds true differences, and its nuisance maps are what errors of pose and contrast do to a map."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sort3d_cases import (
    SIZE,
    band_data,
    cosine,
    exact_sections,
    make_store,
    noise,
    on_ranks,
    small_grid,
    transfer,
    views,
)

from hpcsort.images import half_plane
from hpcsort.kernels import extract_sections
from hpcsort.parallel import Communicator
from hpcsort.sort3d.mixture import best_mixtures, held_out
from hpcsort.sort3d.statistics import particle_statistics
from hpcsort.sort3d.subspace import NUISANCES, Subspace, learn_subspace, local_weight, nuisance_maps
from hpcsort.volumes import BandGrid, soft_sphere

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


@cache
def _difference() -> np.ndarray:
    """What the second state has and the first lacks."""
    axis = np.arange(SIZE) - SIZE // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.asarray(1.2 * np.exp(-((x - 4) ** 2 + (y + 3) ** 2 + (z - 2) ** 2) / (2 * 1.8**2)), np.float32)


def _start(grid: BandGrid) -> Subspace:
    mask = soft_sphere(grid.distance, 0.4, 0.06)
    spread = np.array([0.05, *[0.3] * 3, *[0.04] * 3])
    maps = nuisance_maps(grid, _phantom().astype(np.float32), mask) * spread[:, None, None, None]
    fixed = grid.to_fourier(maps.astype(np.float32))
    empty = np.zeros((0, *grid.fourier_shape), np.complex64)
    return Subspace(grid, fixed, empty, mask, spread)


def _prior(grid: BandGrid) -> np.ndarray:
    power = grid.shell_mean(np.abs(grid.to_fourier(_phantom().astype(np.float32))) ** 2)
    power[0], power[-1] = power[1], power[-2]
    return np.asarray(0.05 * np.maximum(power, 1e-6))


@cache
def _residuals(count: int, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Residuals from the mean of two states, with CTFs, views and states."""
    rotations, ctfs = views(count, 3), transfer(count, 4)
    state = np.random.default_rng(5).permutation(count) % 2
    signal = (state - 0.5)[:, None] * strength * exact_sections(_difference(), rotations)
    return ctfs * signal + noise(count, 6), ctfs, rotations, state


def _learn(count: int, strength: float, comm: Communicator | None = None, chosen: slice = slice(None)) -> Subspace:
    images, ctfs, rotations, _ = _residuals(count, strength)
    store = make_store(band_data(images[chosen], ctfs[chosen], rotations[chosen]), comm)
    grid = small_grid()
    return learn_subspace(store, _start(grid), 3, _prior(grid), seed=1, run="test", iterations=8)


def test_the_learned_map_is_the_true_difference() -> None:
    subspace = _learn(700, 1.5)
    grid = subspace.grid
    assert subspace.free.shape == (3, *grid.fourier_shape)
    truth = grid.to_real(grid.to_fourier(_difference(), corrected=False), corrected=False)
    found = grid.to_real(subspace.free, corrected=False)
    agreement = [abs(cosine(one, truth)) for one in found]
    assert agreement[0] > 0.85
    assert agreement[0] == max(agreement)
    # The states lie at plus and minus one half, and latents have unit variance.
    assert np.sqrt((found[0] ** 2).sum() / (truth**2).sum()) == pytest.approx(0.5 * 1.5, rel=0.35)
    power = (np.abs(subspace.free) ** 2 * grid.multiplicity).sum(axis=(1, 2, 3))
    assert (np.diff(power) < 0).all()
    inside = subspace.focus[SIZE // 2 + 2, SIZE // 2 - 3, SIZE // 2 + 4]
    assert inside > 2 * np.median(subspace.focus[_start(grid).focus > 0.5])


def test_latents_tell_the_states_apart() -> None:
    images, ctfs, rotations, state = _residuals(700, 1.5)
    # Learned from one half, asked about the other.
    subspace = _learn(700, 1.5, chosen=slice(0, None, 2))
    other = slice(1, None, 2)
    store = make_store(band_data(images[other], ctfs[other], rotations[other]))
    latents = particle_statistics(store, subspace).latents()[:, 0]
    right = ((latents > 0) == (state[other] == 1)).mean()
    assert max(right, 1 - right) > 0.9


@pytest.mark.parametrize(("strength", "best"), [(0.0, 1), (1.5, 2)])
def test_held_out_likelihood_knows_the_number_of_states(strength: float, best: int) -> None:
    images, ctfs, rotations, _ = _residuals(700, strength)
    subspace = _learn(700, strength, chosen=slice(0, None, 2))
    store = make_store(band_data(images, ctfs, rotations))
    statistics = particle_statistics(store, subspace)
    own, other = (statistics.rows(np.arange(first, 700, 2)) for first in (0, 1))
    (mixtures,) = best_mixtures(
        store.comm, [own], [1, 2, 3], seed=0, key="test", starts=3, floors=(0.3, 0.05)
    )  # fmt: skip
    held = {number: held_out(mixture, other).mean() for number, mixture in mixtures.items()}
    assert held[best] > max(held[number] for number in held if number < best) if best > 1 else held[1] > held[2]
    assert held[best] > held[3] - (0.02 if strength else 0.0)


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_subspace_has_the_same_bits_on_any_ranks(ranks: int) -> None:
    def work(comm: Communicator) -> tuple[bytes, bytes]:
        subspace = _learn(300, 1.5, comm)
        return subspace.free.tobytes(), subspace.focus.tobytes()

    (alone,) = on_ranks(1, work)
    assert set(on_ranks(ranks, work)) == {alone}


def test_the_run_keys_the_start_and_steps_are_told() -> None:
    images, ctfs, rotations, _ = _residuals(300, 1.5)
    store, grid = make_store(band_data(images, ctfs, rotations)), small_grid()
    told: list[str] = []
    learned = [
        learn_subspace(store, _start(grid), 2, _prior(grid), seed=1, run=run, iterations=2, step=told.append).free
        for run in ("a", "a", "b")
    ]
    assert learned[0].tobytes() == learned[1].tobytes()
    assert learned[0].tobytes() != learned[2].tobytes()
    assert told[:2] == ["a: subspace iteration 1 of 2", "a: subspace iteration 2 of 2"]
    assert len(told) == 6


def test_local_weights_find_where_maps_differ() -> None:
    grid = small_grid()
    mask = soft_sphere(grid.distance, 0.4, 0.06)
    draw = np.random.default_rng(2)
    maps = np.float32(0.1) * draw.normal(size=(2, *mask.shape)).astype(np.float32)
    flat = local_weight(grid, maps, mask)
    assert flat.min() >= 0
    assert flat[mask > 0.5].mean() < 0.35
    maps[1] += _difference()
    focus = local_weight(grid, maps, mask)
    assert focus.max() <= 1
    assert focus[_difference() > 0.6].min() > 0.9
    assert focus[(mask > 0.5) & (_difference() < 0.01)].mean() < 0.35
