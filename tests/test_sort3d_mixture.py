"""Mixtures of the particles' statistics: the likelihood rises, floors hold, known centres stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sort3d_cases import CENTRES, seen_at_centres

from hpcsort.sort3d.mixture import Mixture, fit_mixture, held_out

_RIDGE = 5.0


def _start(classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(classes, 2))


@pytest.mark.parametrize("seed", range(4))
def test_the_likelihood_never_falls_once_cold(seed: int) -> None:
    statistics, _ = seen_at_centres((120, 60, 20), seed, sharpness=0.3)
    curve = []
    for iterations in range(1, 30):
        mixture = fit_mixture(statistics, _start(4, seed), floors=(0.1,), iterations=iterations, first_temperature=1.0)
        # EM maximises the likelihood times the prior of the centres.
        curve.append(held_out(mixture, statistics).sum() - 0.5 * _RIDGE / 4 * (mixture.centres**2).sum())
    assert curve[-1] > curve[0] + 1.0
    assert (np.diff(curve) > -1e-7 * abs(curve[-1])).all()


@settings(max_examples=25, deadline=None)
@given(
    classes=st.integers(1, 6),
    floors=st.lists(st.floats(0.0, 0.5), min_size=1, max_size=3),
    seed=st.integers(0, 100),
)
def test_shares_sum_to_one_and_keep_the_last_floor(classes: int, floors: list[float], seed: int) -> None:
    statistics, _ = seen_at_centres((40, 10, 4), seed)
    mixture = fit_mixture(statistics, _start(classes, seed), floors=tuple(floors), iterations=40)
    assert mixture.weights.sum() == pytest.approx(1.0)
    assert mixture.weights.min() >= min(floors[-1], 1 / classes) - 1e-9
    assert np.isfinite(mixture.centres).all()


def test_floors_hold_one_after_the_other() -> None:
    statistics, _ = seen_at_centres((180, 15, 5))
    floors = (0.3, 0.2, 0.0)
    smallest = [
        fit_mixture(statistics, _start(3), floors=floors, iterations=iterations, first_temperature=1.0).weights.min()
        for iterations in range(1, 14)
    ]
    assert smallest[:4] == pytest.approx([0.3] * 4)
    assert smallest[4:8] == pytest.approx([0.2] * 4)
    assert max(smallest[8:]) < 0.1


def test_fixed_centres_stay_where_they_are() -> None:
    statistics, _ = seen_at_centres((100, 100, 100))
    fixed = CENTRES[:2] + 0.1
    mixture = fit_mixture(statistics, _start(1), floors=(0.01,), fixed=fixed)
    np.testing.assert_array_equal(mixture.centres[:2], fixed)
    np.testing.assert_allclose(mixture.centres[2], CENTRES[2], atol=0.3)
    only = fit_mixture(statistics, np.zeros((0, 2)), floors=(0.01,), fixed=fixed)
    np.testing.assert_array_equal(only.centres, fixed)
    assert only.weights.sum() == pytest.approx(1.0)
    assert held_out(mixture, statistics).sum() > held_out(only, statistics).sum()


def test_log_joint_is_share_times_likelihood_and_held_out_their_sum() -> None:
    statistics, _ = seen_at_centres((3, 2, 1))
    mixture = Mixture(CENTRES, np.array([0.5, 0.3, 0.2]), 0.0)
    joint = mixture.log_joint(statistics)
    for i, k in np.ndindex(6, 3):
        mu, b, m = CENTRES[k], statistics.linear[i], statistics.precision[i]
        assert joint[i, k] == pytest.approx(np.log(mixture.weights[k]) + b @ mu - mu @ m @ mu / 2)
    np.testing.assert_allclose(held_out(mixture, statistics), logsumexp(joint, axis=1))
    nothing = Mixture(np.zeros((1, 2)), np.ones(1), 0.0)
    np.testing.assert_array_equal(held_out(nothing, statistics), 0.0)


def test_one_class_is_the_weighted_mean() -> None:
    statistics, _ = seen_at_centres((30, 20, 10))
    mixture = fit_mixture(statistics, _start(1), floors=(0.5,))
    mean = np.linalg.solve(statistics.precision.sum(axis=0) + _RIDGE * np.eye(2), statistics.linear.sum(axis=0))
    np.testing.assert_allclose(mixture.centres[0], mean, atol=1e-6)
    assert mixture.likelihood == pytest.approx(held_out(mixture, statistics).sum())
