"""Chance levels of reproducibility, and the analysis of variance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hpcsort.partitions import analyse_variance, chance_jaccard, match_groups, p_value
from hpcsort.partitions.chance import _random_tables


@pytest.mark.parametrize(
    ("groups", "total", "mean", "std"),
    [(2, 100, 37.2, 3.1), (5, 100, 17.8, 4.1), (2, 10_000, 33.7, 0.3), (5, 10_000, 11.7, 0.3)],
)
def test_equal_groups_have_the_published_levels(groups: int, total: int, mean: float, std: float) -> None:
    sizes = [total // groups] * groups
    chance = chance_jaccard(sizes, sizes, total, draws=2000)
    assert chance.mean.shape == chance.std.shape == (groups,)
    assert chance.draws.shape == (2000, groups)
    assert 100 * chance.mean.mean() == pytest.approx(mean, abs=0.1 * std + 0.05)
    assert 100 * chance.std.mean() == pytest.approx(std, rel=0.15)
    assert (np.abs(chance.mean - chance.mean.mean()) < 6 * chance.std / np.sqrt(2000)).all()


def test_two_groups_have_the_exact_level() -> None:
    overlap = np.arange(21)
    share = stats.hypergeom(40, 20, 20).pmf(overlap)
    best = np.maximum(overlap, 20 - overlap)
    score = best / (40 - best)
    mean = (share * score).sum()
    std = np.sqrt((share * (score - mean) ** 2).sum())
    chance = chance_jaccard([20, 20], [20, 20], 40, draws=20_000)
    assert chance.mean == pytest.approx(mean, abs=5 * std / np.sqrt(20_000))
    assert chance.std == pytest.approx(std, rel=0.03)


def test_shuffled_labels_have_the_same_level_for_uneven_and_unassigned() -> None:
    a = np.repeat([0, 1, 2, -1], [40, 25, 15, 17])
    b = np.repeat([0, 1, -1], [50, 30, 17])
    draw = np.random.default_rng(3)
    scores = np.zeros((3000, 3))
    for score in scores:
        matching = match_groups(a, draw.permutation(b))
        score[matching.pairs[:, 0]] = matching.jaccard
    chance = chance_jaccard([40, 25, 15], [50, 30], 97, draws=3000)
    assert chance.mean == pytest.approx(scores.mean(axis=0), abs=6 * scores.std(axis=0).max() / np.sqrt(3000))
    assert chance.std == pytest.approx(scores.std(axis=0), rel=0.12)


def test_large_numbers_tend_to_the_limit() -> None:
    for groups in (2, 3, 7):
        sizes = [100_000_000 // groups] * groups
        chance = chance_jaccard(sizes, sizes, 100_000_000, draws=50)
        assert chance.mean == pytest.approx(1 / (2 * groups - 1), abs=1e-4)


def test_random_tables_keep_their_margins() -> None:
    rows, columns = np.array([7, 0, 9]), np.array([5, 11])
    full = _random_tables(rows, columns, 16, 200, np.random.default_rng(0))
    assert (full.sum(axis=2) == rows).all()
    assert (full.sum(axis=1) == columns).all()
    loose = _random_tables(rows, columns, 40, 200, np.random.default_rng(0))
    assert (loose >= 0).all()
    assert (loose.sum(axis=2) <= rows).all()
    assert (loose.sum(axis=1) <= columns).all()
    expected = np.outer(rows, columns) / 40
    assert loose.mean(axis=0) == pytest.approx(expected, abs=0.5)


def test_levels_repeat_and_follow_the_seed() -> None:
    levels = [chance_jaccard([30, 20], [25, 25], 50, draws=20, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(levels[0].draws, levels[1].draws)
    assert not np.array_equal(levels[0].draws, levels[2].draws)


def test_edges_of_chance() -> None:
    assert chance_jaccard([], [], 0, draws=3).mean.shape == (0,)
    assert chance_jaccard([1], [1], 1, draws=3).mean.tolist() == [1.0]
    assert chance_jaccard([0, 4], [4], 4, draws=3).mean.tolist() == [0.0, 1.0]
    assert chance_jaccard([2, 2], [], 4, draws=3).mean.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="cannot be made of 4"):
        chance_jaccard([5], [1], 4)
    with pytest.raises(ValueError, match="at least one draw"):
        chance_jaccard([1], [1], 4, draws=0)


def test_p_values_are_never_zero_and_even_under_chance() -> None:
    chance = chance_jaccard([60, 40], [50, 50], 100, draws=999)
    assert p_value(1.0, chance).tolist() == [0.001, 0.001]
    assert p_value([0.0, 1.0], chance).tolist() == [1.0, 0.001]
    again = chance_jaccard([60, 40], [50, 50], 100, draws=500, seed=9)
    p = np.array([p_value(scores, chance) for scores in again.draws])
    assert ((p < 0.05).mean(axis=0) <= 0.09).all()  # never too often, coarse scores make it less
    assert p.mean() == pytest.approx(0.55, abs=0.08)


def _three_groups(offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(8)
    labels = np.repeat([0, 2, 5, -1], [9, 31, 7, 10])
    return draw.normal(size=57) + 0.8 * (labels == 5) + offset, labels


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_scipy_finds_the_same_variance(offset: float) -> None:
    values, labels = _three_groups(offset)
    members = [values[labels == group] for group in (0, 2, 5)]
    F, p = stats.f_oneway(*members)
    result = analyse_variance(values, labels)
    assert result.groups.tolist() == [0, 2, 5]
    assert result.counts.tolist() == [9, 31, 7]
    assert (result.F, result.p) == (pytest.approx(F, rel=1e-6), pytest.approx(p, rel=1e-6))
    assert result.means == pytest.approx([group.mean() for group in members])
    assert result.stds == pytest.approx([group.std(ddof=1) for group in members], rel=1e-6)
    assert result.pairs.tolist() == [[0, 2], [0, 5], [2, 5]]
    for number, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        t, p = stats.ttest_ind(members[i], members[j])
        assert result.pair_F[number] == pytest.approx(t**2, rel=1e-5)
        assert result.pair_p[number] == pytest.approx(p, rel=1e-5)
    low, middle, high = np.sort(result.pair_p)
    expected = np.maximum.accumulate([3 * low, 2 * middle, high])
    assert np.sort(result.pair_p_holm) == pytest.approx(np.minimum(expected, 1))


def test_explained_share_is_between_nothing_and_all() -> None:
    values, labels = _three_groups()
    assert 0 < analyse_variance(values, labels).eta_squared < 1
    assert analyse_variance([1, 1, 2, 2], [0, 0, 1, 1]).eta_squared == 1
    assert np.inf == analyse_variance([1, 1, 2, 2], [0, 0, 1, 1]).F
    assert pytest.approx(0) == analyse_variance([1, 2, 1, 2], [0, 0, 1, 1]).F


def test_what_cannot_be_tested_is_not_a_number() -> None:
    for values, labels in ([[], []], [[1.0], [0]], [[1.0, 2.0], [0, 1]], [[3.0, 3.0, 3.0], [0, 1, 1]], [[1.0], [-1]]):
        result = analyse_variance(values, np.array(labels, np.int64))
        assert np.isnan(result.F)
        assert np.isnan(result.p)
        assert np.isnan(result.pair_p_holm).all()
    with pytest.raises(ValueError, match="finite"):
        analyse_variance([np.nan, 1.0], [0, 1])
    assert analyse_variance([np.nan, 1.0, 2.0], [-1, 0, 0]).means.tolist() == [1.5]
    with pytest.raises(ValueError, match="2 values for 1"):
        analyse_variance([1.0, 2.0], [0])
