"""The best of several starts: true classes come back, moves leave local optima, ranks do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from sort3d_cases import CENTRES, on_ranks, seen_at_centres

from hpcsort.parallel import Communicator, SerialComm
from hpcsort.sort3d.mixture import fit_mixture
from hpcsort.sort3d.moves import best_mixtures, improve_mixture, split_direction
from hpcsort.sort3d.statistics import Statistics


def test_true_centres_and_shares_come_back() -> None:
    sizes = (300, 150, 50)
    statistics, state = seen_at_centres(sizes)
    (best,) = best_mixtures(SerialComm(), [statistics], [3], seed=0, key="", starts=4, floors=(0.3, 0.2, 0.02))
    mixture = best[3]
    order = np.argsort(-mixture.weights)
    np.testing.assert_allclose(mixture.centres[order], CENTRES, atol=0.25)
    np.testing.assert_allclose(mixture.weights[order], np.array(sizes) / 500, atol=0.02)
    assert (mixture.log_joint(statistics).argmax(axis=1) == order[state]).mean() > 0.98


@pytest.mark.parametrize("ranks", [2, 3, 7, 40])
def test_dealing_the_starts_to_ranks_changes_nothing(ranks: int) -> None:
    runs = [seen_at_centres((40, 30, 20), seed)[0] for seed in (1, 2)]

    def work(comm: Communicator) -> list[tuple[int, int, bytes, bytes, float]]:
        best = best_mixtures(
            comm, runs, [0, 1, 2, 3], seed=4, key="k", starts=2, floors=(0.2, 0.1), fixed=[CENTRES[:1], CENTRES[1:2]]
        )
        return [
            (run, number, mixture.centres.tobytes(), mixture.weights.tobytes(), mixture.likelihood)
            for run, found in enumerate(best)
            for number, mixture in sorted(found.items())
        ]

    (alone,) = on_ranks(1, work)
    assert [entry[:2] for entry in alone] == [(run, number) for run in (0, 1) for number in range(4)]
    for told in on_ranks(ranks, work):
        assert told == alone


def test_more_starts_are_never_worse() -> None:
    statistics, _ = seen_at_centres((60, 30, 10), 3, sharpness=0.5)
    likelihoods = [
        best_mixtures(SerialComm(), [statistics], [3], seed=1, key="k", starts=starts, floors=(0.02,))[0][3].likelihood
        for starts in (1, 2, 4)
    ]
    assert likelihoods == sorted(likelihoods)


# Moves


def test_moves_leave_an_optimum_with_a_split_and_a_mixed_class() -> None:
    places = np.array([[8.0, 0.0], [-8.0, 1.5], [-8.0, -1.5]])
    statistics, state = seen_at_centres((150, 150, 150), centres=places)
    # Two classes share one true one, and the third holds the other two.
    start = np.array([[8.0, 0.4], [8.0, -0.4], [-8.0, 0.0]])
    stuck = fit_mixture(statistics, start, floors=(0.02,), first_temperature=1.0)
    assert (stuck.log_joint(statistics).argmax(axis=1)[state > 0] == 2).all()
    moved = improve_mixture(statistics, stuck, (0.02,))
    assert moved.likelihood > stuck.likelihood + 100
    assert np.linalg.norm(moved.centres[:, None] - places, axis=2).min(axis=0).max() < 0.4
    # Fixed classes take no part in moves, and two free ones have none.
    held = improve_mixture(statistics, stuck, (0.02,), fixed=stuck.centres[:1])
    np.testing.assert_array_equal(held.centres, stuck.centres)


@pytest.mark.parametrize("seed", range(3))
def test_moves_never_lose_likelihood(seed: int) -> None:
    statistics, _ = seen_at_centres((80, 40, 20), seed, sharpness=0.4)
    start = np.random.default_rng(seed).normal(size=(5, 2))
    before = fit_mixture(statistics, start, floors=(0.02,))
    after = improve_mixture(statistics, before, (0.02,))
    assert after.likelihood >= before.likelihood
    assert after.weights.shape == before.weights.shape
    assert after.weights.sum() == pytest.approx(1.0)


def _along(axis: np.ndarray, deviation: float, count: int = 4000) -> Statistics:
    """One class whose members scatter along an axis."""
    draw = np.random.default_rng(1)
    root = 1.5 * (np.eye(3) + 0.3 * draw.normal(size=(count, 3, 3)))
    precision = root @ root.transpose(0, 2, 1)
    places = CENTRES[0][0] * np.ones(3) + deviation * draw.normal(size=(count, 1)) * axis
    linear = np.einsum("nab,nb->na", precision, places) + np.einsum("nab,nb->na", root, draw.normal(size=(count, 3)))
    return Statistics(linear, precision)


@pytest.mark.parametrize("deviation", [0.3, 0.8])
def test_a_class_is_split_along_its_spread(deviation: float) -> None:
    axis = np.array([2.0, -1.0, 2.0]) / 3
    statistics = _along(axis, deviation)
    centre, share = CENTRES[0][0] * np.ones(3), np.ones(len(statistics))
    step, gain = split_direction(statistics, share, centre)
    assert abs(step @ axis) > 0.97 * np.linalg.norm(step)
    assert np.linalg.norm(step) == pytest.approx(deviation, rel=0.2)
    assert gain > 10
    # Nobody's spread counts who is not in the class.
    assert split_direction(statistics, 0.0 * share, centre)[1] == pytest.approx(0.0, abs=1e-6)


def test_a_class_that_is_a_point_gains_little_from_a_split() -> None:
    statistics = _along(np.array([1.0, 0.0, 0.0]), 0.0)
    centre, share = CENTRES[0][0] * np.ones(3), np.ones(len(statistics))
    step, gain = split_direction(statistics, share, centre)
    assert gain < 10
    assert np.linalg.norm(step) < 0.2
