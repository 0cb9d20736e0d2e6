"""A particle's own contribution to a map is taken out of its score, so that noise prefers no class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from finish_cases import class_scores, empty_maps, even_half, everybody, opposite_states

from hpcsort.sort3d import classmaps, finish
from hpcsort.sort3d.classmaps import ClassMaps
from hpcsort.sort3d.finish import Chain, refine_chains, with_junk
from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import NUISANCES


def _of_noise(count: int, seed: int = 0) -> tuple[ParticleStore, finish._State]:
    """One class whose map is made of pure noise."""
    store = opposite_states(count, 0.0, seed)
    chain = Chain(everybody(count), empty_maps(1, 0.0), with_junk(np.ones(1)))
    state = finish._State(chain, np.arange(count), np.ones((count, 1)), np.zeros((count, NUISANCES)))
    return store, state


def _made(store: ParticleStore, state: finish._State) -> ClassMaps:
    return finish._estimate(store, [state])[0]


def _seen(store: ParticleStore, maps: ClassMaps, shares: np.ndarray | None = None) -> np.ndarray:
    return finish.look(store, maps, np.arange(store.count), shares).scores(maps.scale)[:, 0]


def _mask_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No focus that is itself drawn to where the noise is high."""
    monkeypatch.setattr(classmaps, "local_weight", lambda grid, maps, mask: np.ones_like(mask))


def test_leaving_a_particle_out_is_making_the_map_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _mask_alone(monkeypatch)
    count, probes = 200, 60
    store, state = _of_noise(count)
    maps = _made(store, state)
    naive, corrected = (_seen(store, maps, shares)[:probes] for shares in (None, state.shares))
    explicit = np.empty(probes)
    for probe in range(probes):
        without = state.shares.copy()
        without[probe] = 0
        explicit[probe] = _seen(store, _made(store, replace(state, shares=without)))[probe]
    bias = (naive - explicit).mean()
    assert bias > 0.5
    assert abs((corrected - explicit).mean()) < 0.1 * bias
    assert np.corrcoef(corrected, explicit)[0, 1] > 0.9


def test_noise_gains_nothing_from_a_map_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    _mask_alone(monkeypatch)
    store, state = _of_noise(400)
    maps = _made(store, state)
    naive, corrected = (_seen(store, maps, shares) for shares in (None, state.shares))
    error = corrected.std() / np.sqrt(400)
    assert naive.mean() > 10 * error
    assert corrected.mean() < -2 * error
    # A particle's corrected score is what a particle that the map has not seen would get.
    assert corrected.mean() == pytest.approx(_seen(opposite_states(400, 0.0, 50), maps).mean(), abs=3 * error)


def test_the_focus_brings_back_a_part_of_the_bias_only() -> None:
    store, state = _of_noise(400)
    maps = _made(store, state)
    naive, corrected = (_seen(store, maps, shares).mean() for shares in (None, state.shares))
    assert 0 < naive < 0.3
    assert corrected < 0.6 * naive


@pytest.mark.parametrize(("focused", "left"), [(False, 0.1), (True, 0.6)])
def test_noise_hardly_prefers_the_class_that_it_was_put_in(
    focused: bool, left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not focused:
        _mask_alone(monkeypatch)
    count = 800
    store, learns = opposite_states(count, 0.0), even_half(count)
    start = np.random.default_rng(3).integers(0, 2, count)
    known = np.where(learns, start, -1)

    def preference(iterations: int) -> np.ndarray:
        """By how much particles prefer their own class; as the first maps see them, or left out, as the loop does."""
        # The loop makes its first maps from what is known; without a loop a start partition makes them.
        chain = Chain(learns, empty_maps(2, 0.3), with_junk(np.ones(2)), None if iterations else start)
        (done,), (joint,) = refine_chains(store, [chain], known, iterations=iterations, floor=0.02)
        scores = class_scores(done, joint) / done.maps.scale
        return np.asarray(np.where(start == 0, 1, -1) * (scores[:, 0] - scores[:, 1]))

    naive, found = preference(0), preference(1)
    error = found[learns].std() / np.sqrt(learns.sum())
    assert naive[learns].mean() > 6 * error
    assert found[learns].mean() < left * naive[learns].mean() + 2 * error
    assert found[learns].mean() > -3 * error
    assert abs(found[~learns].mean()) < 3 * error


def test_particles_that_hardly_belong_are_not_corrected() -> None:
    store = opposite_states(100, 0.5)
    shares = np.full((100, 2), 0.005)
    shares[:50, 0] = 1.0
    chain = Chain(everybody(100), empty_maps(2), with_junk(np.ones(2)))
    maps = _made(store, finish._State(chain, np.arange(100), shares, np.zeros((100, NUISANCES))))
    corrected, plain = (finish.look(store, maps, np.arange(100), given).linear for given in (shares, None))
    assert (corrected[:50, 0] != plain[:50, 0]).all()
    np.testing.assert_array_equal(corrected[50:, 0], plain[50:, 0])
    np.testing.assert_array_equal(corrected[:, 1], plain[:, 1])
