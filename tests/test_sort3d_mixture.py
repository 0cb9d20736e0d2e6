"""Mixtures of the particles' statistics: the likelihood rises, floors hold, known centres stay, ranks do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sort3d_cases import on_ranks

from hpcsort.parallel import Communicator, SerialComm
from hpcsort.sort3d.mixture import Mixture, best_mixtures, fit_mixture, held_out
from hpcsort.sort3d.statistics import Statistics

_CENTRES = np.array([[3.0, 0.0], [-3.0, 1.0], [0.0, -3.0]])
_RIDGE = 5.0


def _statistics(sizes: tuple[int, ...], seed: int = 0, sharpness: float = 4.0) -> tuple[Statistics, np.ndarray]:
    """Particles at the centres, each seen with a precision of its own, and their true classes."""
    draw = np.random.default_rng(seed)
    state = np.repeat(np.arange(len(sizes)), sizes)
    root = np.sqrt(sharpness) * (np.eye(2) + 0.3 * draw.normal(size=(len(state), 2, 2)))
    precision = root @ root.transpose(0, 2, 1)
    linear = np.einsum("nab,nb->na", precision, _CENTRES[state]) + np.einsum(
        "nab,nb->na", root, draw.normal(size=(len(state), 2))
    )
    return Statistics(linear, precision), state


def _start(classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(classes, 2))


@pytest.mark.parametrize("seed", range(4))
def test_the_likelihood_never_falls_once_cold(seed: int) -> None:
    statistics, _ = _statistics((120, 60, 20), seed, sharpness=0.3)
    curve = []
    for iterations in range(1, 30):
        mixture = fit_mixture(statistics, _start(4, seed), floors=(0.1,), iterations=iterations, first_temperature=1.0)
        # EM maximises the likelihood times the prior of the centres.
        curve.append(held_out(mixture, statistics).sum() - 0.5 * _RIDGE * (mixture.centres**2).sum())
    assert curve[-1] > curve[0] + 1.0
    assert (np.diff(curve) > -1e-7 * abs(curve[-1])).all()


def test_true_centres_and_shares_come_back() -> None:
    sizes = (300, 150, 50)
    statistics, state = _statistics(sizes)
    (best,) = best_mixtures(SerialComm(), [statistics], [3], seed=0, key="", starts=4, floors=(0.3, 0.2, 0.02))
    mixture = best[3]
    order = np.argsort(-mixture.weights)
    np.testing.assert_allclose(mixture.centres[order], _CENTRES, atol=0.25)
    np.testing.assert_allclose(mixture.weights[order], np.array(sizes) / 500, atol=0.02)
    assert (mixture.log_joint(statistics).argmax(axis=1) == order[state]).mean() > 0.98


@settings(max_examples=25, deadline=None)
@given(
    classes=st.integers(1, 6),
    floors=st.lists(st.floats(0.0, 0.5), min_size=1, max_size=3),
    seed=st.integers(0, 100),
)
def test_shares_sum_to_one_and_keep_the_last_floor(classes: int, floors: list[float], seed: int) -> None:
    statistics, _ = _statistics((40, 10, 4), seed)
    mixture = fit_mixture(statistics, _start(classes, seed), floors=tuple(floors), iterations=40)
    assert mixture.weights.sum() == pytest.approx(1.0)
    assert mixture.weights.min() >= min(floors[-1], 1 / classes) - 1e-9
    assert np.isfinite(mixture.centres).all()


def test_floors_hold_one_after_the_other() -> None:
    statistics, _ = _statistics((180, 15, 5))
    floors = (0.3, 0.2, 0.0)
    smallest = [
        fit_mixture(statistics, _start(3), floors=floors, iterations=iterations, first_temperature=1.0).weights.min()
        for iterations in range(1, 14)
    ]
    assert smallest[:4] == pytest.approx([0.3] * 4)
    assert smallest[4:8] == pytest.approx([0.2] * 4)
    assert max(smallest[8:]) < 0.1


def test_fixed_centres_stay_where_they_are() -> None:
    statistics, _ = _statistics((100, 100, 100))
    fixed = _CENTRES[:2] + 0.1
    mixture = fit_mixture(statistics, _start(1), floors=(0.01,), fixed=fixed)
    np.testing.assert_array_equal(mixture.centres[:2], fixed)
    np.testing.assert_allclose(mixture.centres[2], _CENTRES[2], atol=0.3)
    only = fit_mixture(statistics, np.zeros((0, 2)), floors=(0.01,), fixed=fixed)
    np.testing.assert_array_equal(only.centres, fixed)
    assert only.weights.sum() == pytest.approx(1.0)
    assert held_out(mixture, statistics).sum() > held_out(only, statistics).sum()


def test_log_joint_is_share_times_likelihood_and_held_out_their_sum() -> None:
    statistics, _ = _statistics((3, 2, 1))
    mixture = Mixture(_CENTRES, np.array([0.5, 0.3, 0.2]), 0.0)
    joint = mixture.log_joint(statistics)
    for i, k in np.ndindex(6, 3):
        mu, b, m = _CENTRES[k], statistics.linear[i], statistics.precision[i]
        assert joint[i, k] == pytest.approx(np.log(mixture.weights[k]) + b @ mu - mu @ m @ mu / 2)
    np.testing.assert_allclose(held_out(mixture, statistics), logsumexp(joint, axis=1))
    nothing = Mixture(np.zeros((1, 2)), np.ones(1), 0.0)
    np.testing.assert_array_equal(held_out(nothing, statistics), 0.0)


def test_one_class_is_the_weighted_mean() -> None:
    statistics, _ = _statistics((30, 20, 10))
    mixture = fit_mixture(statistics, _start(1), floors=(0.5,))
    mean = np.linalg.solve(statistics.precision.sum(axis=0) + _RIDGE * np.eye(2), statistics.linear.sum(axis=0))
    np.testing.assert_allclose(mixture.centres[0], mean, atol=1e-6)
    assert mixture.likelihood == pytest.approx(held_out(mixture, statistics).sum())


@pytest.mark.parametrize("ranks", [2, 3, 7, 40])
def test_dealing_the_starts_to_ranks_changes_nothing(ranks: int) -> None:
    runs = [_statistics((40, 30, 20), seed)[0] for seed in (1, 2)]

    def work(comm: Communicator) -> list[tuple[int, int, bytes, bytes, float]]:
        best = best_mixtures(
            comm, runs, [0, 1, 2, 3], seed=4, key="k", starts=2, floors=(0.2, 0.1), fixed=[_CENTRES[:1], _CENTRES[1:2]]
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
    statistics, _ = _statistics((60, 30, 10), 3, sharpness=0.5)
    likelihoods = [
        best_mixtures(SerialComm(), [statistics], [3], seed=1, key="k", starts=starts, floors=(0.02,))[0][3].likelihood
        for starts in (1, 2, 4)
    ]
    assert likelihoods == sorted(likelihoods)
