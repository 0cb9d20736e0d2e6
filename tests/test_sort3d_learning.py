"""Subspaces find true differences and the true errors of poses; runs in lock step are runs of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sort3d_cases import (
    DIFFERENCE,
    SIZE,
    band_data,
    blobs,
    cosine,
    exact_sections,
    make_store,
    noise,
    on_ranks,
    small_band,
    small_grid,
    transfer,
    two_states,
    views,
)

from hpcsort.images import BandData, half_plane
from hpcsort.parallel import Communicator
from hpcsort.sort3d.learning import SubspaceRun, learn_subspaces
from hpcsort.sort3d.mixture import held_out
from hpcsort.sort3d.moves import best_mixtures
from hpcsort.sort3d.problem import Band
from hpcsort.sort3d.statistics import particle_statistics
from hpcsort.sort3d.subspace import Subspace

_CONSENSUS = blobs(SIZE, 9)
_ITERATIONS = 8


def _band(data: BandData, comm: Communicator | None = None) -> Band:
    return small_band(make_store(data, comm), _CONSENSUS)


def _run(band: Band, learns: np.ndarray, key: str = "test", components: int = 3) -> SubspaceRun:
    return SubspaceRun(key, learns, components, 0.05 * band.power)


def _learn(band: Band, runs: list[SubspaceRun], iterations: int = _ITERATIONS) -> list[Subspace]:
    return learn_subspaces(band.store, band.start(), runs, seed=1, iterations=iterations)


def _bits(subspace: Subspace) -> tuple[bytes, ...]:
    return tuple(part.tobytes() for part in (subspace.free, subspace.fixed, subspace.focus, subspace.spread))


def _even(count: int) -> np.ndarray:
    return np.arange(count) % 2 == 0


def test_the_learned_map_is_the_true_difference() -> None:
    band = _band(two_states(700, 1.5)[0])
    (subspace,) = _learn(band, [_run(band, np.ones(700, bool))])
    grid = subspace.grid
    assert subspace.free.shape == (3, *grid.fourier_shape)
    truth = grid.to_real(grid.to_fourier(DIFFERENCE, corrected=False), corrected=False)
    found = grid.to_real(subspace.free, corrected=False)
    agreement = [abs(cosine(one, truth)) for one in found]
    assert agreement[0] > 0.85
    assert agreement[0] == max(agreement)
    # The states lie at plus and minus one half, and latents have unit variance.
    assert np.sqrt((found[0] ** 2).sum() / (truth**2).sum()) == pytest.approx(0.5 * 1.5, rel=0.35)
    power = (np.abs(subspace.free) ** 2 * grid.multiplicity).sum(axis=(1, 2, 3))
    assert (np.diff(power) < 0).all()
    inside = subspace.focus[SIZE // 2 + 2, SIZE // 2 - 3, SIZE // 2 + 4]
    assert inside > 2 * np.median(subspace.focus[band.mask > 0.5])


def test_latents_of_unseen_particles_tell_the_states_apart() -> None:
    data, state = two_states(700, 1.5)
    band, own = _band(data), _even(700)
    (statistics,) = particle_statistics(band.store, _learn(band, [_run(band, own)]))
    latents = statistics.latents()[~own, 0]
    right = ((latents > 0) == (state[~own] == 1)).mean()
    assert max(right, 1 - right) > 0.9


@pytest.mark.parametrize(("strength", "best"), [(0.0, 1), (1.5, 2)])
def test_held_out_likelihood_knows_the_number_of_states(strength: float, best: int) -> None:
    band, own = _band(two_states(700, strength)[0]), _even(700)
    (statistics,) = particle_statistics(band.store, _learn(band, [_run(band, own)]))
    seen, other = (statistics.rows(np.flatnonzero(rows)) for rows in (own, ~own))
    (mixtures,) = best_mixtures(
        band.store.comm, [seen], [1, 2, 3], seed=0, key="test", starts=3, floors=(0.3, 0.05)
    )  # fmt: skip
    held = {number: held_out(mixture, other).mean() for number, mixture in mixtures.items()}
    assert held[best] > max(held[number] for number in held if number < best) if best > 1 else held[1] > held[2]
    # Classes that coincide make no difference but for rounding.
    assert held[best] > held[3] - (0.02 if strength else 1e-12)


# Runs


def test_runs_in_lock_step_are_the_runs_alone() -> None:
    band = _band(two_states(500, 1.0)[0])
    # Different particles, and different numbers of components.
    runs = [
        _run(band, _even(500), "a", 3),
        _run(band, ~_even(500), "b", 2),
        _run(band, np.arange(500) < 350, "c", 1),
    ]
    together = _learn(band, runs, 4)
    for run, subspace in zip(runs, together, strict=True):
        (alone,) = _learn(band, [run], 4)
        assert _bits(alone) == _bits(subspace)


@pytest.mark.parametrize("ranks", [2, 3])
def test_subspaces_have_the_same_bits_on_any_ranks(ranks: int) -> None:
    data, _ = two_states(500, 1.0)

    def work(comm: Communicator) -> list[tuple[bytes, ...]]:
        band = _band(data, comm)
        # The second run has no particle on the first rank.
        runs = [_run(band, _even(500), "a"), _run(band, np.arange(500) >= 400, "b")]
        return [_bits(subspace) for subspace in _learn(band, runs, 6)]

    (alone,) = on_ranks(1, work)
    for told in on_ranks(ranks, work):
        assert told == alone


def test_only_the_run_s_own_particles_count() -> None:
    data, _ = two_states(300, 1.5)
    own = _even(300)
    other = replace(data, images=np.where(own[:, None], data.images, -data.images))
    first, second = (_learn(band, [_run(band, own)], 3)[0] for band in (_band(data), _band(other)))
    assert _bits(first) == _bits(second)


def test_the_key_keys_the_start_and_steps_are_told() -> None:
    band = _band(two_states(300, 1.5)[0])
    everything = np.ones(300, bool)
    told: list[str] = []
    a, again, b = learn_subspaces(
        band.store, band.start(), [_run(band, everything, key) for key in ("a", "a", "b")], seed=1, iterations=2,
        step=told.append,
    )  # fmt: skip
    assert _bits(a) == _bits(again)
    assert _bits(a) != _bits(b)
    assert told == [f"3 subspaces: iteration {number} of 2" for number in (1, 2)]
    (other,) = learn_subspaces(band.store, band.start(), [_run(band, everything, "a")], seed=2, iterations=2)
    assert _bits(a) != _bits(other)


# Spreads of the nuisances


def _misplaced(count: int, contrast: float, shift: float, turn_deg: float) -> Band:
    """Residuals of one state whose images err in contrast, shift (voxels) and rotation (degrees a axis)."""
    draw, (px, py) = np.random.default_rng(1), half_plane(small_grid().radius)
    volume = 2.5 * blobs(SIZE, 9)
    rotations, ctfs = views(count, 2), transfer(count, 3)
    turns = Rotation.from_rotvec(np.deg2rad(turn_deg) * draw.normal(size=(count, 3))).as_matrix()
    ox, oy = shift * draw.normal(size=(2, count, 1))
    seen = exact_sections(volume, turns @ rotations) * np.exp(-2j * np.pi / SIZE * (px * ox + py * oy))
    seen *= 1.0 + contrast * draw.normal(size=(count, 1))
    images = ctfs * (seen - exact_sections(volume, rotations)) + noise(count, 5)
    return small_band(make_store(band_data(images, ctfs, rotations)), volume)


def _spread(band: Band) -> np.ndarray:
    """Learned spreads of contrast, shift and rotation, in units of the start's."""
    run = SubspaceRun("test", np.ones(band.store.count, bool), 1, 0.01 * band.power)
    (subspace,) = _learn(band, [run], 12)
    first = band.start().spread
    for kind in (slice(1, 4), slice(4, 7)):
        assert np.ptp(subspace.spread[kind]) == 0
    # The maps that integrate errors out are scaled by what was learned.
    scale = (subspace.spread / first)[:, None, None, None]
    np.testing.assert_allclose(subspace.fixed, band.fixed * scale, rtol=1e-4, atol=1e-6)
    return np.asarray(subspace.spread[[0, 1, 4]])


def test_learned_spreads_follow_the_true_errors() -> None:
    true = np.array([0.1, 0.5, np.deg2rad(3.0)])
    none = _spread(_misplaced(300, 0, 0, 0))
    for kind in range(3):
        errors = np.where(np.arange(3) == kind, [0.1, 0.5, 3.0], 0.0)
        found = _spread(_misplaced(300, *errors))
        assert found[kind] > 2 * none[kind]
        assert found[kind] == pytest.approx(true[kind], rel=0.4)
        # Errors of one kind pass for another in second order only.
        others = np.arange(3) != kind
        assert (found[others] < 0.85 * true[others]).all()


def test_larger_errors_give_larger_spreads() -> None:
    turns = [_spread(_misplaced(300, 0.05, 0.5, degrees))[2] for degrees in (0.5, 1.5, 3.0)]
    assert turns == sorted(turns)
    assert turns[2] > 1.3 * turns[0]
