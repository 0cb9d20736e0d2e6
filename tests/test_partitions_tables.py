"""Contingency tables, matching and stable sets."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hpcsort.partitions import (
    contingency_table,
    group_sizes,
    intersect_groups,
    match_groups,
    matched_accuracy,
    purities,
)

_NONE = np.empty(0, np.int64)


@st.composite
def two_partitions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(0, 40))
    return tuple(draw(arrays(np.int64, size, elements=st.integers(-1, 4))) for _ in range(2))


@given(two_partitions())
def test_table_counts_every_pair_of_groups(both: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = both
    table = contingency_table(a, b, 6, 5)
    assert table.shape == (6, 5)
    for i, j in np.ndindex(table.shape):
        assert table[i, j] == sum(x == i and y == j for x, y in zip(a, b, strict=True))
    assert np.array_equal(contingency_table(b, a, 5, 6), table.T)


def test_table_of_nothing_is_empty() -> None:
    assert contingency_table([], []).shape == (0, 0)
    assert contingency_table([-1, -1], [0, 1]).shape == (0, 2)
    assert contingency_table([0, 2], [-1, 1]).tolist() == [[0, 0], [0, 0], [0, 1]]
    assert contingency_table(np.array([0, 1], np.uint8), np.array([1, 1], np.int16)).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("a", "b", "complaint"),
    [([0, 1], [0], "2 and 1"), ([0.0], [0], "integers"), ([[0]], [[0]], "one dimension"), ([-2], [0], "-2")],
)
def test_what_is_no_partition_is_refused(a: list, b: list, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        contingency_table(a, b)


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="label 3 does not fit into 3"):
        group_sizes([0, 3], 3)


@given(two_partitions())
@settings(max_examples=60)
def test_matching_is_the_best_of_all_pairings(both: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = both
    table = contingency_table(a, b, 5, 5)
    best = max(sum(table[i, j] for i, j in enumerate(order)) for order in permutations(range(5)))
    matching = match_groups(a, b)
    assert matching.overlap.sum() == best
    assert (matching.overlap > 0).all()
    for side in (0, 1):
        assert len(set(matching.pairs[:, side])) == len(matching.pairs)
    stable = intersect_groups(a, b, matching.pairs)
    for number, (i, j) in enumerate(matching.pairs):
        members_a, members_b = set(np.flatnonzero(a == i)), set(np.flatnonzero(b == j))
        assert set(np.flatnonzero(stable == number)) == members_a & members_b
        assert matching.overlap[number] == len(members_a & members_b)
        assert matching.sizes[number].tolist() == [len(members_a), len(members_b)]
        assert matching.jaccard[number] == pytest.approx(len(members_a & members_b) / len(members_a | members_b))
    assert (stable >= 0).sum() == best


def test_renamed_groups_match_completely() -> None:
    draw = np.random.default_rng(1)
    a = draw.integers(-1, 7, 500)
    new_name = np.append(draw.permutation(7), -1)
    matching = match_groups(a, new_name[a])
    assert (matching.jaccard == 1).all()
    assert np.array_equal(matching.pairs, np.stack([np.arange(7), new_name[:7]], axis=1))
    assert np.array_equal(intersect_groups(a, new_name[a], matching.pairs), a)


def test_superfluous_and_disjoint_groups_stay_single() -> None:
    a, b = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 1, 1, 0, 1, -1])
    matching = match_groups(a, b)
    assert matching.pairs.tolist() == [[0, 1], [1, 0]]
    assert matching.jaccard.tolist() == [0.75, 0.5]
    assert intersect_groups(a, b, matching.pairs).tolist() == [0, 0, 0, 1, -1, -1]
    assert intersect_groups(a, b, []).tolist() == [-1] * 6
    assert match_groups([0, -1], [-1, 0]).pairs.shape == (0, 2)
    assert match_groups(_NONE, _NONE).pairs.shape == (0, 2)


@pytest.mark.parametrize("pairs", [[[0, 0], [0, 1]], [[0, 1], [1, 1]], [[2, 0]], [[-1, 0]]])
def test_pairs_that_cannot_be_are_refused(pairs: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="names a group that"):
        intersect_groups([0, 1], [0, 1], pairs)


def test_accuracy_and_purity_count_strays() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1, -1, -1])
    labels = np.array([3, 3, 0, 0, 0, -1, 0, -1])
    assert matched_accuracy(truth, labels) == pytest.approx(4 / 6)  # 0-3 twice, 1-0 twice, of six with a truth
    found = purities(truth, labels)
    assert found[[0, 3]].tolist() == [0.5, 1.0]
    assert np.isnan(found[1:3]).all()
    assert matched_accuracy(truth, truth) == 1
    assert np.isnan(matched_accuracy([-1], [0]))
    assert purities([], []).shape == (0,)
    assert purities([-1], [0]).tolist() == [0.0]
