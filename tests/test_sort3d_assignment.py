"""Assignment with a minimum group size is optimal, fair to every view direction, and never gives less than promised."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

from hpcsort.sort3d.assignment import assign, group_quota
from hpcsort.sort3d.sizes import minimum_sizes, smallest_group


def _best_total(scores: np.ndarray, quota: int | np.ndarray) -> float:
    """Largest sum of scores with at least ``quota`` particles in every class (the program's solutions are integers)."""
    count, classes = scores.shape
    each = np.kron(np.eye(count), np.ones(classes))
    sizes = np.kron(np.ones(count), np.eye(classes))
    solved = linprog(
        -scores.ravel(), A_eq=each, b_eq=np.ones(count), A_ub=-sizes, b_ub=-np.broadcast_to(np.float64(quota), classes)
    )
    assert solved.status == 0
    assert solved.fun is not None
    return -float(solved.fun)


def _total(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(scores[np.arange(len(labels)), labels].sum())


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    classes=st.integers(1, 5),
    share=st.floats(0.0, 1.2),
    seed=st.integers(0, 10**6),
    grain=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_the_total_score_is_the_best_there_is(count: int, classes: int, share: float, seed: int, grain: float) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(count, classes)) * 4 + draw.normal(size=classes) * 6
    if grain:  # many ties
        scores = np.round(scores / grain) * grain
    minimum = int(share * count / classes)
    quota = group_quota(minimum, classes, count, count)
    labels = assign(scores, None, minimum)
    assert np.bincount(labels, minlength=classes).min() >= quota
    assert _total(scores, labels) == pytest.approx(_best_total(scores, quota), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_full_quota_is_the_linear_assignment(seed: int) -> None:
    # 95 % of 60 particles in 3 classes: 19 each, so add what is free and compare with slots.
    scores = np.random.default_rng(seed).normal(size=(60, 3)) * 3
    labels = assign(scores, None, 20)
    assert np.bincount(labels).min() >= 19
    slots = np.concatenate([np.repeat(np.arange(3), 19), np.repeat(-1, 3)])
    value = np.where(slots >= 0, scores[:, slots], scores.max(axis=1, keepdims=True))
    rows, columns = linear_sum_assignment(value, maximize=True)
    assert _total(scores, labels) == pytest.approx(value[rows, columns].sum())


def test_without_a_minimum_everyone_goes_to_the_best_class() -> None:
    scores = np.random.default_rng(0).normal(size=(200, 4))
    scores[7] = 1.0
    for minimum in (0, -3):
        labels = assign(scores, np.arange(200) % 3, minimum)
        np.testing.assert_array_equal(labels, scores.argmax(axis=1))
    assert labels[7] == 0
    assert labels.dtype == np.int64


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5), directions=st.integers(1, 8), share=st.floats(0.05, 1.0))
def test_every_class_gets_its_share_of_every_view(seed: int, classes: int, directions: int, share: float) -> None:
    draw = np.random.default_rng(seed)
    count = 150
    orientation = draw.integers(0, directions, count) * 3
    scores = draw.normal(size=(count, classes)) + np.array([5.0] + [0.0] * (classes - 1))
    minimum = int(share * count / classes)
    labels = assign(scores, orientation, minimum)
    for group in np.unique(orientation):
        members = np.flatnonzero(orientation == group)
        quota = group_quota(minimum, classes, len(members), count)
        assert np.bincount(labels[members], minlength=classes).min() >= quota
        alone = assign(scores[members], None, int(np.ceil(quota * classes / 0.95)) if quota else 0)
        if group_quota(int(np.ceil(quota * classes / 0.95)) if quota else 0, classes, len(members), len(members)) == (
            quota
        ):
            assert _total(scores[members], labels[members]) == pytest.approx(_total(scores[members], alone))


def test_the_quota_formula() -> None:
    # q = int(min(m K / N, 0.95) n / K)
    assert group_quota(100, 4, 200, 1000) == 20
    assert group_quota(250, 4, 200, 1000) == int(0.95 * 200 / 4)
    assert group_quota(30, 3, 7, 1000) == 0
    assert group_quota(0, 3, 100, 100) == 0
    assert group_quota(5, 2, 0, 0) == 0


@pytest.mark.parametrize(("count", "classes"), [(2, 5), (3, 3), (0, 3), (1, 1), (7, 2), (9, 4)])
def test_few_particles(count: int, classes: int) -> None:
    scores = np.random.default_rng(1).normal(size=(count, classes))
    labels = assign(scores, np.zeros(count, np.int64), 1)
    assert labels.shape == (count,)
    assert labels.dtype == np.int64
    if count >= classes:
        assert np.bincount(labels, minlength=classes).min() >= group_quota(1, classes, count, count)


def test_equal_scores_are_shared_out() -> None:
    labels = assign(np.zeros((100, 4)), None, 25)
    assert np.bincount(labels, minlength=4).min() >= 23


def test_a_class_that_nobody_likes_gets_those_that_mind_least() -> None:
    scores = np.zeros((10, 2))
    scores[:, 1] = -np.arange(10.0) - 100
    # High raw scores do not matter, only the margin does.
    scores += np.arange(10.0)[::-1, None] * 50
    labels = assign(scores, None, 3)
    assert np.flatnonzero(labels == 1).tolist() == [0, 1, 2]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(20, 60),
    classes=st.integers(2, 5),
    free=st.integers(0, 3),
    share=st.floats(0.1, 1.0),
    seed=st.integers(0, 10**6),
    grain=st.sampled_from([0.0, 2.0]),
)
def test_classes_without_a_minimum_only_take_what_is_theirs(
    count: int, classes: int, free: int, share: float, seed: int, grain: float
) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(count, free + classes)) * 4 + draw.normal(size=free + classes) * 4
    if grain:
        scores = np.round(scores / grain) * grain
    minimum = int(share * count / classes)
    quota = group_quota(minimum, classes, count, count)
    labels = assign(scores, None, minimum, free)
    assert np.bincount(labels, minlength=free + classes)[free:].min() >= quota
    bounds = np.concatenate([np.zeros(free), np.full(classes, quota)])
    assert _total(scores, labels) == pytest.approx(_best_total(scores, bounds), abs=1e-6)
    assert (assign(scores, None, 0, free) == scores.argmax(axis=1)).all()


@pytest.mark.parametrize("kind", ["near", "ties", "twins"])
def test_hard_cases_are_optimal_too(kind: str) -> None:
    """Classes that want the same particles, equal scores and equal classes: prices alone do not settle them."""
    draw = np.random.default_rng(3)
    scores = draw.normal(size=(240, 5))
    if kind == "near":
        scores[:, 1] = scores[:, 0] + 1e-3 * draw.normal(size=240) + 2
        scores[:, 0] += 2
    elif kind == "ties":
        scores = np.round(scores)
    else:
        scores[:, 1] = scores[:, 0]
        scores[:, 3] = scores[:, 2] - 5
    for share in (0.5, 0.8, 0.95):
        minimum = int(share * 240 / 5)
        quota = group_quota(minimum, 5, 240, 240)
        labels = assign(scores, None, minimum)
        assert np.bincount(labels, minlength=5).min() >= quota
        assert _total(scores, labels) == pytest.approx(_best_total(scores, quota), abs=1e-6)


def test_the_order_of_the_particles_does_not_matter() -> None:
    draw = np.random.default_rng(8)
    scores, orientation = draw.normal(size=(500, 6)) * 3, draw.integers(0, 4, 500)
    order = draw.permutation(500)
    labels = assign(scores, orientation, 75)
    np.testing.assert_array_equal(assign(scores[order], orientation[order], 75), labels[order])


def test_many_particles_in_reasonable_time() -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(20000, 10)) + draw.normal(size=10) * 3
    started = time.perf_counter()
    labels = assign(scores, draw.integers(0, 20, 20000), 1900)
    # It takes a tenth of a second on a machine that does nothing else.
    assert time.perf_counter() - started < 5
    assert np.bincount(labels, minlength=10).min() >= 1900 - 20


def test_minimum_sizes_are_bisected_from_high_to_low() -> None:
    assert minimum_sizes(900, 300, 5) == [900, 600, 450, 375, 337]
    assert minimum_sizes(900, 300, 1) == [900]
    assert minimum_sizes(900, 300, 2) == [900, 300]
    assert minimum_sizes(900, 300, 3) == [900, 600, 300]
    assert minimum_sizes(900, 300, 4) == [900, 600, 450, 375]
    assert minimum_sizes(30, 30, 5) == [30] * 5


@settings(max_examples=50)
@given(high=st.integers(1, 10**6), low=st.integers(0, 10**6), steps=st.integers(1, 12))
def test_minimum_sizes_never_rise_nor_pass_the_lowest(high: int, low: int, steps: int) -> None:
    high, low = max(high, low), min(high, low)
    sizes = minimum_sizes(high, low, steps)
    assert len(sizes) == steps
    assert sizes[0] == high
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= low


def test_the_smallest_group_is_one_per_cent_or_thirty() -> None:
    assert [smallest_group(count) for count in (0, 100, 3000, 3100, 17280)] == [30, 30, 30, 31, 172]
