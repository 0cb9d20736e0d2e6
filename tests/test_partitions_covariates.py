"""Corrections for many tests, analysis of variance by micrographs, unevenness, views."""

from __future__ import annotations

import time
from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from scipy.special import sph_harm_y

from hpcsort.geometry import point_group
from hpcsort.partitions import (
    analyse_variance,
    analyse_variance_clustered,
    benjamini_hochberg,
    compare_views,
    explain_groups,
    holm,
    measure_unevenness,
    quantile_features,
    view_features,
)
from hpcsort.partitions.views import real_harmonics


def _sphere(count: int, draw: np.random.Generator) -> np.ndarray:
    vectors = draw.normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _micrographs(count: int, draw: np.random.Generator) -> np.ndarray:
    return np.repeat(np.arange(count), draw.integers(5, 40, count))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 31])
def test_corrections_are_those_of_the_definitions(count: int) -> None:
    p = np.random.default_rng(count).random(count) ** 3
    given = np.insert(p, count // 2, np.nan)
    q, strict = benjamini_hochberg(given), holm(given)
    assert np.isnan(q[count // 2])
    assert np.isnan(strict[count // 2])
    q, strict = np.delete(q, count // 2), np.delete(strict, count // 2)
    if count:
        assert q == pytest.approx(stats.false_discovery_control(p))
    # Holm by its definition: the smallest level at which the step-down procedure rejects the hypothesis.
    for value, corrected in zip(p, strict, strict=True):
        smaller = p[p <= value]
        assert corrected == pytest.approx(min(1, max((other * (p >= other).sum() for other in smaller), default=0)))
    assert (q <= strict + 1e-15).all()


def test_corrections_refuse_what_is_no_probability() -> None:
    for correct in (holm, benjamini_hochberg):
        with pytest.raises(ValueError, match="from 0 to 1"):
            correct([0.5, 1.5])


def test_false_discoveries_are_as_many_as_asked() -> None:
    draw = np.random.default_rng(2)
    shares = []
    for _ in range(300):
        true = np.arange(100) < 30
        p = np.where(true, draw.beta(0.05, 5, 100), draw.random(100))
        kept = benjamini_hochberg(p) <= 0.1
        shares.append((kept & ~true).sum() / max(kept.sum(), 1))
    assert np.mean(shares) == pytest.approx(0.07, abs=0.015)  # level times share of true nulls


def test_each_particle_its_own_micrograph_is_the_usual_anova() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(-1, 4, 4000)
    values = draw.normal(1e4, 50, 4000) + 3 * (labels == 2)
    usual, clustered = analyse_variance(values, labels), analyse_variance_clustered(values, labels, np.arange(4000))
    assert clustered.clusters == (labels >= 0).sum()
    assert abs(clustered.F - usual.F) < 0.03 * usual.F
    assert clustered.p == pytest.approx(usual.p, rel=0.2)
    assert clustered.pairs.tolist() == usual.pairs.tolist()
    assert clustered.pair_F == pytest.approx(usual.pair_F, rel=0.08)
    assert clustered.design_effect == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("nested", [True, False])
def test_p_agrees_with_permutations_of_micrographs(nested: bool) -> None:
    """A quantity that is constant within micrographs can be given to any micrograph: an exact test."""
    draw = np.random.default_rng(5)
    micrograph = np.repeat(np.arange(60), 20)
    share = draw.integers(0, 2, 60) if nested else draw.beta(0.5, 0.5, 60)
    labels = (draw.random(1200) < share[micrograph]).astype(int)
    found = []
    for _ in range(12):
        quantity = draw.normal(size=60) + 0.3 * share
        F = analyse_variance(quantity[micrograph], labels).F
        others = [analyse_variance(draw.permutation(quantity)[micrograph], labels).F for _ in range(200)]
        exact = (1 + sum(other >= F for other in others)) / 201
        found.append((exact, analyse_variance_clustered(quantity[micrograph], labels, micrograph).p))
    exact, p = np.array(found).T
    assert np.abs(exact - p).max() < 0.12
    assert analyse_variance_clustered(quantity[micrograph], labels, micrograph).design_effect > 4


def test_p_values_by_micrograph_are_even_where_the_usual_ones_are_not() -> None:
    draw = np.random.default_rng(11)
    usual, clustered, quantiles, views = [], [], [], []
    for _ in range(250):
        micrograph = _micrographs(80, draw)
        size = micrograph.size
        values = draw.normal(size=80)[micrograph] + 0.3 * draw.normal(size=size)
        share = draw.dirichlet([2, 1, 0.7], 80)
        labels = (share[micrograph].cumsum(axis=1) < draw.random(size)[:, None]).sum(axis=1)
        tilt = _sphere(size, draw) + 0.5 * draw.normal(size=(80, 3))[micrograph]
        directions = tilt / np.linalg.norm(tilt, axis=1, keepdims=True)
        usual.append(analyse_variance(values, labels).p)
        clustered.append(analyse_variance_clustered(values, labels, micrograph).p)
        quantiles.append(explain_groups(quantile_features(values, labels, 5), labels, micrograph).p[0])
        views.append(compare_views(directions, labels, clusters=micrograph, functions=5).p[0])
    assert (np.array(usual) < 0.05).mean() > 0.3
    for p in (clustered, quantiles, views):
        assert stats.kstest(p, "uniform").pvalue > 1e-3
        assert (np.array(p) < 0.05).mean() < 0.09
        assert (np.array(p) < 0.01).mean() < 0.035


def test_a_group_in_one_micrograph_is_no_evidence() -> None:
    draw = np.random.default_rng(1)
    micrograph = np.repeat(np.arange(40), 25)
    defocus = draw.normal(size=40)
    defocus[7] = 3
    labels = (micrograph == 7).astype(int)
    assert analyse_variance(defocus[micrograph], labels).p < 1e-20
    assert analyse_variance_clustered(defocus[micrograph], labels, micrograph).p > 0.1


def test_edges_of_clustered_variance() -> None:
    for values, labels, clusters in ([], [], []), ([1.0, 2.0], [0, 0], [0, 1]), ([1.0, 1.0], [0, 1], [0, 1]):
        result = analyse_variance_clustered(values, np.array(labels, int), np.array(clusters, int))
        assert np.isnan(result.p)
    assert np.isnan(analyse_variance_clustered([1.0, 2.0, 4.0], [0, 1, 1], [3, 3, 3]).p)
    with pytest.raises(ValueError, match="3 values for 2"):
        analyse_variance_clustered([1, 2, 3], [0, 1], [0, 1])
    with pytest.raises(ValueError, match="finite"):
        analyse_variance_clustered([1, np.nan], [0, 1], [0, 1])


def test_moments_of_chi_squared_are_those_of_all_permutations() -> None:
    labels = [0, 0, 0, 1, 1, 2, 2, 2]
    micrograph = np.array([0, 0, 1, 1, 1, 1, 2, 2])
    every = np.array([measure_unevenness(order, micrograph).chi2 for order in set(permutations(labels))])
    result = measure_unevenness(labels, micrograph)
    assert result.expected == pytest.approx(every.mean())
    # The p-value is that of a gamma distribution, whose variance is the other moment.
    gamma = stats.gamma(every.mean() ** 2 / every.var(), scale=every.var() / every.mean())
    assert result.p == pytest.approx(gamma.sf(result.chi2))
    table = np.array([[2, 0, 0], [1, 2, 1], [0, 0, 2]])
    assert result.chi2 == pytest.approx(stats.chi2_contingency(table).statistic)


def test_random_labels_are_spread_evenly_and_batches_are_not() -> None:
    draw = np.random.default_rng(4)
    micrograph = np.repeat(np.arange(600), draw.integers(1, 8, 600))
    p, strength = [], []
    for _ in range(300):
        result = measure_unevenness(draw.choice(4, micrograph.size, p=[0.6, 0.3, 0.07, 0.03]), micrograph)
        p.append(result.p)
        strength.append(result.cramers_v)
    assert np.median(strength) < 0.02  # uncorrected it is 0.5
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert (np.array(p) < 0.01).mean() < 0.04
    batches = measure_unevenness(np.where(micrograph < 200, 0, draw.integers(1, 3, micrograph.size)), micrograph)
    assert batches.p < 1e-50
    assert batches.group_moved[0] > 0.95
    assert batches.cramers_v > 0.6
    assert np.isnan(measure_unevenness([0, 0], [0, 1]).p)
    assert np.isnan(measure_unevenness([], []).p)


def test_any_dependence_on_a_quantity_shows() -> None:
    draw = np.random.default_rng(6)
    defocus = draw.normal(15e3, 4e3, 6000)
    place = np.argsort(np.argsort(defocus)) / 6000
    labels = np.select([np.abs(place - 0.5) < 0.1], [0], draw.integers(1, 4, 6000))
    result = explain_groups(quantile_features(defocus, labels), labels)
    assert analyse_variance(defocus, np.minimum(labels, 1)).eta_squared < 0.01  # same mean, no shift to see
    assert result.moved[0] > 0.95
    assert result.explained[0] > 0.95
    assert result.p_holm[0] < 1e-100
    assert (result.moved[1:] < 0.3).all()


def test_explained_share_is_that_of_linear_regression() -> None:
    draw = np.random.default_rng(9)
    features = draw.normal(size=(500, 3)) @ draw.normal(size=(3, 3))
    labels = (features[:, 0] + draw.normal(size=500) > 1).astype(int)
    design = np.column_stack([np.ones(500), features])
    rest = labels - design @ np.linalg.lstsq(design, labels, rcond=None)[0]
    share = 1 - (rest**2).sum() / ((labels - labels.mean()) ** 2).sum()
    doubled = np.column_stack([features, features[:, 0] * 3 + 5, np.ones(500)])
    for given in (features, doubled):
        result = explain_groups(given, labels)
        assert result.free == 3
        assert result.explained[1] == pytest.approx(1 - (1 - share) * 499 / 496, rel=1e-9)
        assert result.F[1] * 3 == pytest.approx(499 * share)


def test_harmonics_are_those_of_scipy() -> None:
    directions = _sphere(17, np.random.default_rng(0))
    directions[0] = [0, 0, 1]
    values = real_harmonics(directions, 8)
    polar, azimuth = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
    for degree in range(9):
        for m in range(degree + 1):
            expected = (-1) ** m * sph_harm_y(degree, m, polar, azimuth) * (np.sqrt(2) if m else 1)
            assert values[degree**2 + degree + m] == pytest.approx(expected.real, abs=1e-12)
            if m:
                assert values[degree**2 + degree - m] == pytest.approx(expected.imag, abs=1e-12)


@pytest.mark.parametrize("name", ["C1", "C3", "D2", "D7", "T", "O", "I1"])
def test_mates_and_mirror_views_count_as_one(name: str) -> None:
    group = point_group(name)
    directions = _sphere(13, np.random.default_rng(3))
    features = view_features(directions, group)
    for turn in group[[1 % len(group), -1]]:
        assert view_features(-directions @ turn.T, group) == pytest.approx(features, abs=1e-10)
    # The number of functions of degree 6 that a group leaves alone, from its character.
    angles = np.arccos(np.clip((np.trace(group, axis1=1, axis2=2) - 1) / 2, -1, 1))
    number = [(1 + 2 * np.cos(np.outer(angles, np.arange(1, d + 1))).sum(axis=1)).mean() for d in range(2, 21, 2)]
    upto = next((i + 1 for i in range(10) if sum(number[: i + 1]) > 26.5), 10)
    assert features.shape[1] == round(sum(number[:upto]))


def test_views_do_not_depend_on_the_frame() -> None:
    draw = np.random.default_rng(8)
    directions, labels = _sphere(900, draw), draw.integers(0, 3, 900)
    turn = np.linalg.qr(draw.normal(size=(3, 3)))[0]
    one, other = compare_views(directions, labels), compare_views(directions @ turn, labels)
    assert one.p == pytest.approx(other.p, rel=1e-8)
    assert one.moved == pytest.approx(other.moved, rel=1e-8)


def test_same_views_are_even_in_p_and_agree_with_permutations() -> None:
    draw = np.random.default_rng(21)
    preferred = _sphere(1500, draw) + np.array([0, 0, 2.5])
    preferred /= np.linalg.norm(preferred, axis=1, keepdims=True)
    features = view_features(preferred)
    drawn = [explain_groups(features, draw.choice(4, 1500, p=[0.5, 0.3, 0.15, 0.05])).p for _ in range(150)]
    for column in np.array(drawn).T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    labels = np.where(draw.random(1500) < 0.2 + 0.1 * (preferred[:, 0] > 0.2), 1, 0)
    found = compare_views(preferred, labels)
    others = np.array([explain_groups(features, draw.permutation(labels)).F[1] for _ in range(200)])
    exact = (others >= found.F[1]).mean()
    assert found.p[1] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 200) + 0.02)


def test_groups_of_views_are_found_and_measured() -> None:
    draw = np.random.default_rng(31)
    directions = _sphere(6000, draw)
    height = np.abs(directions @ [0.6, 0, 0.8])
    caps = compare_views(directions, (height > 0.9).astype(int))
    assert (caps.moved > 0.8).all()
    assert (caps.p_holm < 1e-100).all()
    state = draw.integers(0, 5, 6000)
    halved = np.where(state == 0, np.where(height > 0.5, 0, 5), state)
    result = compare_views(directions, halved)
    assert result.moved[[0, 5]] == pytest.approx([0.5, 0.5], abs=0.1)
    assert result.moved[1:5].max() < 0.15
    # The sign of a direction is no view of its own, unless asked for.
    signs = (directions[:, 2] > 0).astype(int)
    assert compare_views(directions, signs).moved.max() < 0.15
    assert compare_views(directions, signs, axial=False).moved.min() > 0.8


def test_edges_of_views() -> None:
    directions = _sphere(9, np.random.default_rng(0))
    assert np.isnan(compare_views(directions, np.zeros(9, int)).p).all()
    assert compare_views(directions, np.full(9, -1)).p.size == 0
    assert compare_views(np.zeros((0, 3)), np.zeros(0, int)).p.size == 0
    with pytest.raises(ValueError, match="unit vectors"):
        compare_views(2 * directions, np.zeros(9, int))
    with pytest.raises(ValueError, match="shape"):
        compare_views(directions[:, :2], np.zeros(9, int))


def test_a_million_particles_take_seconds() -> None:
    draw = np.random.default_rng(0)
    size = 1_000_000
    micrograph, labels = np.arange(size) // 100, draw.integers(0, 4, size)
    directions = _sphere(size, draw)
    values = draw.normal(size=10_000)[micrograph]
    start = time.process_time()
    results = [
        compare_views(directions, labels, clusters=micrograph, functions=14).p.min(),
        analyse_variance_clustered(values, labels, micrograph).p,
        measure_unevenness(labels, micrograph).p,
        explain_groups(quantile_features(values, labels), labels, micrograph).p.min(),
    ]
    assert time.process_time() - start < 60  # some 6 s on a free core
    assert min(results) > 1e-4
