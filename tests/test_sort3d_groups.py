"""Two-way comparisons against counting by hand, chance, reproducibility over boxes, and what all chains say."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from hpcsort.partitions import adjusted_rand_index, match_groups
from hpcsort.sort3d.groups import compare, ensemble, measure_groups
from hpcsort.sort3d.records import BoxChains
from hpcsort.sort3d.statistics import JUNK_KINDS


def _labels(sizes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Labels 0, 1 ... in random order; the last size is of particles in no group."""
    names = [*range(len(sizes) - 1), -1]
    return np.random.default_rng(seed).permutation(np.repeat(names, sizes))


def _blurred(truth: np.ndarray, wrong: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.where(draw.random(len(truth)) < wrong, draw.integers(-1, truth.max() + 1, len(truth)), truth)


def _renamed(labels: np.ndarray, names: np.ndarray) -> np.ndarray:
    return np.append(names, -1)[labels]


# Comparisons


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), wrong=st.floats(0.0, 0.5), minimum=st.integers(1, 60))
def test_comparisons_are_what_counting_gives(seed: int, wrong: float, minimum: int) -> None:
    truth = _labels((90, 60, 40, 10), seed)
    a, b = truth, _blurred(truth, wrong, seed + 1)
    found = compare(a, b, minimum, 0)
    both = np.array([[((a == i) & (b == j)).sum() for j in range(3)] for i in range(3)])
    best = max(permutations(range(3)), key=lambda order: sum(both[i, j] for i, j in enumerate(order)))
    assert found.overlap.sum() == sum(both[i, j] for i, j in enumerate(best))
    np.testing.assert_array_equal(found.sizes[:, 0], [(a == i).sum() for i in range(3)])
    union = found.sizes.sum(axis=1) - found.overlap
    np.testing.assert_allclose(found.jaccard, found.overlap / union)
    # Accepted are those beyond chance that are large enough, and the others say why not.
    beyond = (found.jaccard > found.chance_mean + 2 * found.chance_std) & (found.p <= 0.05)
    np.testing.assert_array_equal(found.accepted, beyond & (found.overlap >= minimum))
    assert [bool(reason) for reason in found.reasons] == (~found.accepted).tolist()
    # The stable sets are the particles that both put into an accepted pair, by falling overlap.
    kept = np.sort(found.overlap[found.accepted])[::-1]
    np.testing.assert_array_equal(np.bincount(found.labels[found.labels >= 0], minlength=len(kept)), kept)
    for group in range(len(kept)):
        inside = found.labels == group
        assert np.ptp(a[inside]) == np.ptp(b[inside]) == 0
    assert found.ari == pytest.approx(adjusted_rand_index(a, b))
    assert -0.2 < found.ari <= 1.0
    assert 0.0 <= found.rand <= 1.0


def test_equal_partitions_agree_on_everything() -> None:
    labels = _labels((50, 200, 120, 30))
    found = compare(labels, _renamed(labels, np.array([2, 0, 1])), 10, 0)
    # Groups by falling size.
    np.testing.assert_array_equal(found.labels, _renamed(labels, np.array([2, 0, 1])))
    np.testing.assert_array_equal(found.jaccard, 1.0)
    assert (found.rand, found.ari) == (1.0, 1.0)
    assert found.accepted.all()
    assert found.reasons == [""] * 3


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), wrong=st.floats(0.0, 0.3))
def test_names_of_classes_do_not_matter(seed: int, wrong: float) -> None:
    draw = np.random.default_rng(seed)
    truth = _labels((60, 90, 110, 40, 0), seed)
    other = _blurred(truth, wrong, seed + 1)
    found = compare(truth, other, 10, 1)
    again = compare(truth, _renamed(other, draw.permutation(4)), 10, 1)
    np.testing.assert_array_equal(again.overlap, found.overlap)
    np.testing.assert_array_equal(again.labels, found.labels)


def test_small_groups_are_rejected_with_their_reason() -> None:
    labels = _labels((300, 200, 29, 0))
    found = compare(labels, labels, 30, 0)
    assert found.accepted.tolist() == [True, True, False]
    assert found.reasons[2] == "its 29 reproducible particles are fewer than the minimum group size 30"
    assert set(np.unique(found.labels[labels == 2])) == {-1}
    assert compare(labels, labels, 29, 0).accepted.all()


def test_random_partitions_agree_by_chance_only() -> None:
    draw = np.random.default_rng(3)
    accepted = []
    for _ in range(20):
        found = compare(draw.integers(0, 4, 1000), draw.integers(0, 4, 1000), 1, 0)
        accepted.append(int(found.accepted.sum()))
        for reason, score, mean in zip(found.reasons, found.jaccard, found.chance_mean, strict=True):
            if reason:
                assert f"reproducibility {score:.3f} is what chance gives ({mean:.3f}" in reason
    # A score above the mean of chance by two deviations happens now and then.
    assert np.mean(accepted) < 0.5
    assert min(accepted) == 0


def test_chance_is_that_of_partitions_of_these_sizes() -> None:
    a, b = _labels((120, 60, 20)), _labels((100, 80, 20), 1)
    draw = np.random.default_rng(5)
    scores = [match_groups(draw.permutation(a), draw.permutation(b)).jaccard for _ in range(400)]
    found = compare(a, b, 1, 0)
    np.testing.assert_allclose(found.chance_mean, np.mean(scores, axis=0), atol=0.02)
    np.testing.assert_allclose(found.chance_std, np.std(scores, axis=0), rtol=0.25)


def test_nothing_in_common_is_no_comparison() -> None:
    nobody = np.full(50, -1)
    for a, b in ((nobody, nobody), (nobody, np.zeros(50, int)), (np.repeat([0, -1], 25), np.repeat([-1, 0], 25))):
        found = compare(a, b, 1, 0)
        assert found.overlap.size == found.accepted.size == len(found.reasons) == 0
        np.testing.assert_array_equal(found.labels, -1)


# Reproducibility


def _box(first: np.ndarray, second: np.ndarray, known: int = 0, sure: float = 5.0) -> BoxChains:
    """Chains that are as sure of each label; known groups come first, junk last."""
    joints = []
    for labels in (first, second):
        classes = known + max(int(first.max()), int(second.max())) + 1
        joint = np.zeros((len(labels), classes + JUNK_KINDS))
        joint[np.arange(len(labels)), np.where(labels >= 0, labels + known, classes)] = sure
        joints.append(joint)
    return BoxChains((first, second), (joints[0], joints[1]))


def test_reproducibility_is_the_jaccard_score_of_the_chains_of_each_box() -> None:
    groups = np.repeat([0, 1], [100, 100])
    second = groups.copy()
    second[:20] = 1
    found = measure_groups(groups, [_box(groups, second)], 0)
    assert found.score == pytest.approx([80 / 100, 100 / 120])
    # The mean over boxes, whatever the classes are called.
    both = measure_groups(groups, [_box(groups, second), _box(1 - groups, groups)], 0)
    assert both.score == pytest.approx([(0.8 + 1) / 2, (100 / 120 + 1) / 2])
    assert (both.p < 0.01).all()
    assert (both.chance_mean < 0.5).all()
    # Boxes agree by chance independently of each other, so that their mean varies less.
    four = measure_groups(groups, [_box(groups, second)] * 4, 0)
    np.testing.assert_allclose(four.chance_std, found.chance_std / 2, rtol=0.2)


def test_a_group_that_a_chain_lacks_is_not_reproduced() -> None:
    groups = np.repeat([0, 1, 2], 50)
    merged = np.where(groups == 2, 1, groups)
    found = measure_groups(groups, [_box(groups, merged)], 0)
    # The merged class goes to one of its two groups.
    assert found.score[0] == 1.0
    assert sorted(found.score[1:]) == pytest.approx([0.0, 0.5])
    assert measure_groups(np.full(150, -1), [_box(groups, merged)], 0).score.size == 0


def test_more_classes_than_groups_have_no_partner() -> None:
    groups = np.where(np.arange(300) < 100, np.repeat([0, 1], 150), -1)
    chain = np.repeat([2, 0, 1], 100)
    found = measure_groups(groups, [_box(chain, chain)], 0)
    assert found.score.shape == (1,)
    assert found.score[0] == 1.0


@pytest.mark.parametrize("boxes", [1, 4])
def test_random_chains_reproduce_what_chance_gives(boxes: int) -> None:
    draw = np.random.default_rng(2)
    p = []
    for _ in range(30):
        chains = [_box(draw.integers(0, 3, 300), draw.integers(0, 3, 300)) for _ in range(boxes)]
        found = measure_groups(draw.integers(0, 3, 300), chains, 0)
        p.extend(found.p.tolist())
    # Chance may choose the best pairing, random chains are paired by way of the groups.
    assert np.mean(np.array(p) <= 0.05) < 0.12


# All chains


def test_columns_follow_the_groups() -> None:
    groups = _labels((60, 40, 50, 0))
    draw = np.random.default_rng(4)
    known = 2
    boxes, expected, votes = [], np.zeros((150, 3)), np.zeros((150, 3))
    for _ in range(3):
        chains, joints = [], []
        for _ in range(2):
            names = draw.permutation(3)
            own = _blurred(groups, 0.2, int(draw.integers(10**6)))
            joint = draw.normal(size=(150, known + 3 + JUNK_KINDS))
            joint[np.arange(150), known + np.maximum(_renamed(own, names), 0)] += 2.0
            chains.append(_renamed(own, names))
            joints.append(joint)
            share = softmax(joint, axis=1)
            for group in range(3):
                expected[:, group] += share[:, known + names[group]] / 6
                votes[:, group] += (own == group) / 6
        boxes.append(BoxChains((chains[0], chains[1]), (joints[0], joints[1])))
    probability, junk, agreeing = ensemble(groups, boxes, known)
    np.testing.assert_allclose(probability, expected)
    np.testing.assert_allclose(agreeing, votes.max(axis=1))
    every = [softmax(joint, axis=1) for box in boxes for joint in box.joints]
    np.testing.assert_allclose(junk, np.mean([share[:, -JUNK_KINDS:].sum(axis=1) for share in every], axis=0))
    # The rest belongs to known groups.
    rest = np.mean([share[:, :known].sum(axis=1) for share in every], axis=0)
    np.testing.assert_allclose(probability.sum(axis=1) + junk + rest, 1.0)


def test_a_particle_that_all_chains_call_junk_is_junk() -> None:
    labels = np.where(np.arange(100) < 10, -1, _labels((50, 50, 0)))
    probability, junk, agreeing = ensemble(labels, [_box(labels, labels, sure=9.0)] * 2, 0)
    assert junk[:10].min() > 0.99
    assert junk[10:].max() < 0.01
    np.testing.assert_array_equal(agreeing, labels >= 0)
    np.testing.assert_array_equal(probability[10:].argmax(axis=1), labels[10:])


def test_classes_beside_known_groups_keep_their_columns() -> None:
    labels = _labels((100, 80, 60))
    probability, _, agreeing = ensemble(labels, [_box(labels, labels, known=1)], 1)
    assert probability.shape == (240, 2)
    np.testing.assert_array_equal(probability.argmax(axis=1)[labels >= 0], labels[labels >= 0])
    assert probability[labels < 0].max() < 0.05
    np.testing.assert_array_equal(agreeing, labels >= 0)


def test_without_groups_nobody_agrees() -> None:
    labels = np.full(40, -1)
    chains = _labels((20, 20, 0))
    probability, junk, agreeing = ensemble(labels, [_box(chains, chains)], 0)
    assert probability.shape == (40, 0)
    assert junk.max() < 0.1
    np.testing.assert_array_equal(agreeing, 0.0)
