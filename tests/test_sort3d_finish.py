"""The finishing loop: likelihoods of classes, junk, start partitions, known particles, lock step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from finish_cases import (
    DIFFERENCES,
    class_maps,
    empty_maps,
    even_half,
    everybody,
    nobody,
    opposite_states,
    refine,
    share_of_states,
    true_state,
)
from hypothesis import given
from hypothesis import strategies as st
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

from hpcsort.kernels import extract_sections
from hpcsort.parallel import Communicator
from hpcsort.sort3d import finish
from hpcsort.sort3d.classmaps import ClassMaps
from hpcsort.sort3d.finish import JUNK_SHARE, Chain, refine_chains, with_junk
from hpcsort.sort3d.statistics import JUNK_KINDS
from hpcsort.sort3d.subspace import NUISANCES

# Scores


def test_joints_are_shares_times_likelihood_with_the_nuisances_integrated_out() -> None:
    store, scale = opposite_states(6, 1.0), np.array([0.7, 1.6])
    maps = replace(class_maps(DIFFERENCES), scale=scale)
    (chain,), (joint,) = refine(store, [Chain(everybody(6), maps, with_junk(np.array([0.2, 0.6])))], 0)
    assert joint.shape == (6, 2 + JUNK_KINDS)
    found = joint - np.log(chain.weights)
    shares = np.array([[1.0, 0.0], [0.3, 0.7], [0.0, 1.0], [0.0, 0.0], [0.2, 0.3], [0.5, 0.5]])
    nuisances = finish.look(store, maps, np.arange(6), None).nuisances(shares, scale)
    data = store.data
    for i in range(6):
        rotation = data.rotations[i : i + 1]
        volumes = [*maps.fixed, *maps.volumes]
        sections = np.stack(
            [data.ctfs[i] * extract_sections(v, rotation, data.px, data.py, 1.0)[0] for v in volumes]
        )  # fmt: skip
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


def test_images_without_a_particle_are_junk() -> None:
    count, empty = 200, np.arange(200) < 20
    rotations, ctfs = views(count, 1), transfer(count, 2)
    consensus = ctfs * exact_sections(blobs(SIZE, 9), rotations)
    images = np.where(empty[:, None], -consensus, 0) + noise(count, 3)
    store = make_store(band_data(images, ctfs, rotations))
    _, (joint,) = refine(store, [Chain(everybody(count), class_maps(DIFFERENCES), with_junk(np.ones(2)))])
    np.testing.assert_array_equal(joint.argmax(axis=1) == 2, empty)


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=9))
def test_junk_has_a_share_of_its_own(shares: list[float]) -> None:
    weights = with_junk(np.array(shares))
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights[-JUNK_KINDS:], JUNK_SHARE)
    np.testing.assert_allclose(weights[:-JUNK_KINDS] / weights[0], np.array(shares) / shares[0])


@pytest.mark.parametrize("size", [0.5, 1.0, 3.0])
def test_the_scale_is_the_true_amplitude(size: float) -> None:
    count = 600
    store, shares = opposite_states(count, 2.0 * size), np.eye(2)[true_state(count)]
    maps = class_maps(2 * DIFFERENCES, 0.0)
    chain = Chain(everybody(count), maps, with_junk(np.ones(2)))
    state = finish._State(chain, np.arange(count), shares, np.zeros((count, NUISANCES)))
    scaled = finish._rescale(store, state, finish.look(store, maps, np.arange(count), None))
    np.testing.assert_allclose(scaled.chain.maps.scale, size, rtol=0.12)


# Start partitions


def test_a_start_partition_makes_the_maps_of_its_classes() -> None:
    count, grid = 600, small_grid()
    chain = Chain(everybody(count), empty_maps(2, 0.0), with_junk(np.ones(2)), true_state(count))
    (made,), _ = refine(opposite_states(count, 2.0), [chain], 0)
    truth = 2.0 * grid.to_real(grid.to_fourier(DIFFERENCES, corrected=False), corrected=False)
    found = grid.to_real(made.maps.volumes, corrected=False)
    for one, scale, same in zip(found, made.maps.scale, truth, strict=True):
        assert cosine(one, same) > 0.85
        # Shrunk by the prior, and stretched to the size that the particles see.
        assert 0.2 < (one * same).sum() / (same**2).sum() < 1.05
        assert scale * (one * same).sum() / (same**2).sum() == pytest.approx(1.0, rel=0.3)


def test_particles_outside_a_start_partition_are_no_part_of_its_maps() -> None:
    count = 300
    start = np.where(even_half(count), true_state(count), -1)
    store = opposite_states(count, 2.0)
    images = np.where(even_half(count)[:, None], store.data.images, -store.data.images)
    other = store.with_data(store.data.with_images(images))
    chain = Chain(everybody(count), empty_maps(2), with_junk(np.ones(2)), start)
    (first,), _ = refine(store, [chain], 0)
    (second,), _ = refine(other, [chain], 0)
    assert np.abs(first.maps.volumes).max() > 0
    assert first.maps.volumes.tobytes() == second.maps.volumes.tobytes()


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_the_loop_mends_a_start_partition(wrong: float) -> None:
    count, learns = 500, even_half(500)
    flipped = np.random.default_rng(5).random(count) < wrong
    start = np.where(np.random.default_rng(6).random(count) < 0.1, -1, true_state(count) ^ flipped)
    chain = Chain(learns, empty_maps(2, 0.3), with_junk(np.ones(2)), start)
    (done,), (joint,) = refine(opposite_states(count, 2.0), [chain])
    right = joint.argmax(axis=1) == true_state(count)
    assert right[learns].mean() > 0.93
    assert right[~learns].mean() > 0.93
    np.testing.assert_allclose(done.weights[:2], 0.5, atol=0.08)


# The loop


def _mixed_up() -> ClassMaps:
    """Maps of half the strength and mixed with each other."""
    return class_maps(0.5 * DIFFERENCES + np.float32(0.04), 0.3)


def test_the_loop_sorts_the_particles() -> None:
    count = 500
    (done,), (joint,) = refine(
        opposite_states(count, 2.0), [Chain(everybody(count), _mixed_up(), with_junk(np.ones(2)))]
    )
    assert (joint.argmax(axis=1) == true_state(count)).mean() > 0.93
    np.testing.assert_allclose(done.weights[:2], 0.5, atol=0.05)
    assert (done.maps.scale > 0).all()


def test_known_particles_begin_where_they_are_known_to_be() -> None:
    count = 400
    state, store = true_state(count), opposite_states(count, 2.0)
    # Maps say nothing; what is known makes the first maps, the right ones or those of the wrong names.
    for known in (state, 1 - state):
        half = np.where(even_half(count), known, -1)
        for start in (None, np.full(count, -1)):
            chain = Chain(everybody(count), empty_maps(2, 0.3), with_junk(np.ones(2)), start)
            (done,), (joint,) = refine_chains(store, [chain], half, iterations=2, floor=0.02)
            assert (joint.argmax(axis=1) == known).mean() > 0.9
            found = small_grid().to_real(done.maps.volumes, corrected=False)
            sign = 1 if known is state else -1
            assert sign * cosine(found[0], DIFFERENCES[0]) > 0.7


def test_known_particles_leave_a_group_that_they_are_no_part_of() -> None:
    count = 500
    state, store = true_state(count), opposite_states(count, 2.0)
    wrong = np.random.default_rng(2).random(count) < 0.15
    chain = Chain(everybody(count), empty_maps(2, 0.3), with_junk(np.ones(2)))
    (done,), (joint,) = refine_chains(store, [chain], np.where(wrong, 1 - state, state), iterations=3, floor=0.02)
    assert (joint.argmax(axis=1) == state)[wrong].mean() > 0.9
    np.testing.assert_allclose(done.weights[:2], np.bincount(state) / count, atol=0.05)


def test_steps_are_told_and_floors_kept() -> None:
    maps = class_maps(np.concatenate([DIFFERENCES, DIFFERENCES[:1]]))
    told: list[str] = []
    chains = [Chain(everybody(200), maps, with_junk(np.array([0.05, 0.9, 0.05])))] * 2
    done, _ = refine_chains(opposite_states(200, 2.0), chains, nobody(200), iterations=2, floor=0.2, step=told.append)
    assert done[0].weights[:3].min() > 0.2 / 1.21
    assert told == [f"finishing 2 chains: iteration {number} of 2" for number in (1, 2)]


def _bits(chain: Chain, joint: np.ndarray) -> tuple[bytes, ...]:
    maps = chain.maps
    return tuple(part.tobytes() for part in (maps.volumes, maps.scale, maps.ridge, chain.weights, joint))


def _different_chains(count: int) -> list[Chain]:
    three = class_maps(np.concatenate([DIFFERENCES, 0 * DIFFERENCES[:1]]), 0.5)
    start = np.where(np.arange(count) % 7 == 0, -1, true_state(count))
    return [
        Chain(even_half(count), _mixed_up(), with_junk(np.ones(2))),
        Chain(~even_half(count), three, with_junk(np.ones(3))),
        # The last ranks have none of this chain's particles.
        Chain(np.arange(count) < 120, empty_maps(2), with_junk(np.ones(2)), start),
    ]


@pytest.mark.parametrize("iterations", [0, 2])
def test_chains_in_lock_step_are_the_chains_alone(iterations: int) -> None:
    store, chains = opposite_states(300, 2.0), _different_chains(300)
    together = zip(*refine(store, chains, iterations), strict=True)
    for chain, (done, joint) in zip(chains, together, strict=True):
        (alone,), (same,) = refine(store, [chain], iterations)
        assert _bits(alone, same) == _bits(done, joint)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_the_loop_has_the_same_bits_on_any_ranks(ranks: int) -> None:
    known = np.where(np.arange(300) % 10 == 0, true_state(300), -1)

    def work(comm: Communicator) -> list[tuple[bytes, ...]]:
        done, joints = refine_chains(
            share_of_states(300, 2.0, 0, comm), _different_chains(300), known, iterations=2, floor=0.02
        )  # fmt: skip
        return [_bits(chain, joint) for chain, joint in zip(done, joints, strict=True)]

    (alone,) = on_ranks(1, work)
    for told in on_ranks(ranks, work):
        assert told == alone
