"""Indices of agreement against pair counting, brute force and scikit-learn."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsort.partitions import adjusted_mutual_information, adjusted_rand_index, rand_index

_INDICES = [rand_index, adjusted_rand_index, adjusted_mutual_information]
_LABELS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), max_size=25)


def _random_pair(seed: int, size: int, groups: int, kept: float) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    a = draw.integers(0, groups, size)
    return a, np.where(draw.random(size) < kept, a, draw.integers(0, groups + 1, size))


@given(_LABELS)
def test_rand_indices_count_pairs(labels: list[tuple[int, int]]) -> None:
    a, b = (np.array([pair[side] for pair in labels], np.int64) for side in (0, 1))
    kept = [(x, y) for x, y in labels if x >= 0 and y >= 0]
    together = [(p[0] == q[0], p[1] == q[1]) for p, q in combinations(kept, 2)]
    pairs = len(together)
    if not pairs:
        assert rand_index(a, b) == adjusted_rand_index(a, b) == 1
        return
    assert rand_index(a, b) == pytest.approx(sum(x == y for x, y in together) / pairs)
    both = sum(x and y for x, y in together)
    in_a, in_b = sum(x for x, _ in together), sum(y for _, y in together)
    expected, most = in_a * in_b / pairs, (in_a + in_b) / 2
    if most == expected:
        assert adjusted_rand_index(a, b) == 1
    else:
        assert adjusted_rand_index(a, b) == pytest.approx((both - expected) / (most - expected))


def test_adjusted_information_is_zero_on_average_over_all_orders() -> None:
    # independent of the formula: the mean over every permutation of seven particles
    a, b = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1, 2])
    assert np.mean([adjusted_mutual_information(a, b[list(order)]) for order in permutations(range(7))]) == (
        pytest.approx(0, abs=1e-12)
    )


@pytest.mark.parametrize("index", _INDICES)
def test_indices_do_not_know_names_or_sides(index) -> None:
    a, b = _random_pair(2, 300, 5, 0.5)
    renamed = np.random.default_rng(0).permutation(9)[b]  # leaves empty groups between
    assert index(a, renamed) == pytest.approx(index(a, b), abs=1e-12)
    assert index(b, a) == pytest.approx(index(a, b), abs=1e-12)
    assert index(a, a) == 1
    assert index(a, b) < 1
    with_strays = np.append(a, [-1, 0]), np.append(b, [0, -1])
    assert index(*with_strays) == index(a, b)


@pytest.mark.parametrize("index", _INDICES)
@pytest.mark.parametrize("labels", [[], [0], [-1, -1], [0, 0, 0], [0, 1, 2]])
def test_equal_trivial_partitions_agree(index, labels: list[int]) -> None:
    assert index(labels, labels) == 1


def test_one_group_against_several_is_chance() -> None:
    for index in _INDICES[1:]:
        assert index([0, 0, 0, 0], [0, 0, 1, 1]) == pytest.approx(0, abs=1e-12)
        assert index([0, 1, 2, 3], [0, 0, 1, 1]) == pytest.approx(0, abs=1e-9)


def test_independent_partitions_are_at_chance_and_large_numbers_do_not_overflow() -> None:
    draw = np.random.default_rng(4)
    a, b = draw.integers(0, 5, (2, 1_000_000), dtype=np.int8)
    assert abs(adjusted_rand_index(a, b)) < 1e-4
    assert abs(adjusted_mutual_information(a, b)) < 1e-4
    assert rand_index(a, b) == pytest.approx(1 - 2 * 0.2 * 0.8, abs=1e-3)
    assert adjusted_rand_index(a, a) == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("size", "groups"), [(7, 3), (101, 4), (997, 13)])
def test_scikit_learn_agrees(seed: int, size: int, groups: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    a, b = _random_pair(seed, size, groups, 0.3 * seed)
    assert rand_index(a, b) == pytest.approx(metrics.rand_score(a, b), abs=1e-12)
    assert adjusted_rand_index(a, b) == pytest.approx(metrics.adjusted_rand_score(a, b), abs=1e-12)
    assert adjusted_mutual_information(a, b) == pytest.approx(metrics.adjusted_mutual_info_score(a, b), abs=1e-9)
