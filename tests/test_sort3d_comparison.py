"""What independent chains agree on: relabelling does not matter, chance is no agreement, three of four are enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcsort.partitions import adjusted_rand_index
from hpcsort.sort3d.chains import choose_number
from hpcsort.sort3d.groups import Agreement, compare_chains


def _joint(labels: np.ndarray, classes: int, sure: float = 5.0) -> np.ndarray:
    return sure * (labels[:, None] == np.arange(classes))


def _compare(chains: list[np.ndarray], classes: int, minimum: int = 10, offset: int = 0, seed: int = 0) -> Agreement:
    return compare_chains(chains, [_joint(labels, classes) for labels in chains], minimum, seed, offset)


def _labels(sizes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize("chains", [2, 4, 8])
def test_identical_chains_agree_on_everything(chains: int) -> None:
    labels = _labels((50, 200, 120))
    found = _compare([labels] * chains, 3)
    # Groups by falling size.
    np.testing.assert_array_equal(found.labels, np.array([2, 0, 1])[labels])
    np.testing.assert_array_equal(found.agreeing, 1.0)
    np.testing.assert_array_equal(found.reproducibility, 1.0)
    assert (found.chance_mean < 0.7).all()
    assert (found.p < 0.01).all()
    assert found.rejected == []
    np.testing.assert_array_equal(found.probability.argmax(axis=1), found.labels)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), wrong=st.floats(0.0, 0.15))
def test_names_of_classes_do_not_matter(seed: int, wrong: float) -> None:
    draw = np.random.default_rng(seed)
    truth = _labels((60, 90, 110, 40), seed)
    chains = [np.where(draw.random(300) < wrong, draw.integers(0, 4, 300), truth) for _ in range(4)]
    found = _compare(chains, 4, seed=1)
    renamed = [chains[0], *(draw.permutation(4)[chain] for chain in chains[1:])]
    again = _compare(renamed, 4, seed=1)
    np.testing.assert_array_equal(again.labels, found.labels)
    np.testing.assert_allclose(again.agreeing, found.agreeing)
    np.testing.assert_allclose(again.reproducibility, found.reproducibility)
    np.testing.assert_allclose(again.probability, found.probability)


@pytest.mark.parametrize("chains", [2, 4])
def test_random_chains_agree_on_nothing(chains: int) -> None:
    draw = np.random.default_rng(3)
    kept = [
        len(_compare([draw.integers(0, 4, 1000) for _ in range(chains)], 4).reproducibility) for _ in range(12)
    ]  # fmt: skip
    # A score above the mean of chance by two deviations happens now and then.
    assert np.mean(kept) < 0.5
    assert min(kept) == 0


def test_reproducibility_is_the_jaccard_score_of_independent_chains() -> None:
    first = np.repeat([0, 1], [100, 100])
    second = first.copy()
    second[:20] = 1
    found = _compare([first, second], 2)
    assert np.bincount(found.labels + 1).tolist() == [20, 100, 80]
    assert found.reproducibility == pytest.approx([100 / 120, 80 / 100])
    np.testing.assert_array_equal(found.agreeing, np.where(np.arange(200) < 20, 0.5, 1.0))


def test_one_of_four_chains_may_disagree_on_a_particle() -> None:
    truth = _labels((150, 100), 1)
    chains = [truth.copy() for _ in range(4)]
    for index, chain in enumerate(chains):  # everyone errs somewhere else
        chain[index * 10 : index * 10 + 10] ^= 1
    chains[1][:5] ^= 1  # and here two of them
    found = _compare(chains, 2)
    np.testing.assert_array_equal(found.labels[5:], truth[5:])
    np.testing.assert_array_equal(found.labels[:5], -1)
    np.testing.assert_array_equal(found.agreeing[:5], 0.5)
    np.testing.assert_array_equal(found.agreeing[5:40], 0.75)
    np.testing.assert_array_equal(found.agreeing[40:], 1.0)


def test_one_chain_that_went_astray_does_not_decide() -> None:
    truth = _labels((300, 300), 2)
    odd = np.random.default_rng(5).integers(0, 2, 600)
    found = _compare([truth, truth, truth, odd], 2)
    # Three of four chains agree on everything: all is accounted for, at a lower reproducibility.
    assert (found.labels >= 0).all()
    assert adjusted_rand_index(truth, found.labels) == 1.0
    assert ((found.reproducibility > 0.6) & (found.reproducibility < 0.75)).all()
    # Two of four are not enough.
    other = np.random.default_rng(6).integers(0, 2, 600)
    assert (_compare([truth, odd, truth, other], 2).labels >= 0).mean() < 0.9


def test_small_groups_are_rejected_with_their_reason() -> None:
    labels = _labels((300, 200, 29))
    found = _compare([labels, labels], 3, minimum=30)
    assert found.reproducibility.size == 2
    assert set(np.unique(found.labels[labels == 2])) == {-1}
    ((size, score, _, reason),) = found.rejected
    assert (size, score) == (29, 1.0)
    assert reason == "its 29 reproducible particles are fewer than the minimum group size 30"
    assert _compare([labels, labels], 3, minimum=29).rejected == []


def test_known_groups_compete_but_are_not_reported() -> None:
    labels = _labels((100, 80, 60))
    found = _compare([labels, labels], 3, offset=1)
    np.testing.assert_array_equal(found.labels, np.array([-1, 0, 1])[labels])
    assert found.probability.shape == (240, 2)
    np.testing.assert_array_equal(found.agreeing, labels > 0)
    assert found.probability[labels == 0].max() < 0.05


def test_an_empty_class_is_no_group() -> None:
    labels = _labels((100, 80))
    found = _compare([labels, labels], 4)
    np.testing.assert_array_equal(found.labels, labels)
    assert [size for size, *_ in found.rejected] == [0, 0]


def _curve(gains: list[float], noise: float = 1.0, count: int = 2000) -> dict[int, np.ndarray]:
    """Held-out gains of particles by number of classes; the particles' own deviations are shared by all numbers."""
    draw = np.random.default_rng(0)
    shared = draw.normal(size=count)
    return {
        number: gain + 5 * shared + noise * draw.normal(size=count) for number, gain in enumerate(gains, start=1)
    }  # fmt: skip


def test_the_number_of_classes_is_the_best_that_is_significant() -> None:
    assert choose_number(_curve([0.0, 3.0, 5.0, 4.9, 4.8]), 0.002) == 3
    assert choose_number(_curve([0.0, -0.1, -0.2]), 0.002) == 1
    # Within two standard errors (2 * sqrt(2 / 2000) = 0.06) fewer are preferred.
    assert choose_number(_curve([0.0, 3.0, 3.03]), 0.0) == 2
    assert choose_number(_curve([0.0, 3.0, 3.3]), 0.0) == 3
    # A dip does not hide a later gain.
    assert choose_number(_curve([0.0, -0.5, 4.0]), 0.002) == 3
    assert choose_number({4: np.zeros(9)}, 0.01) == 4


def test_a_gain_must_be_worth_its_share() -> None:
    curve = _curve([0.0, 10.0, 10.15], noise=0.1)
    assert choose_number(curve, 0.002) == 3
    assert choose_number(curve, 0.02) == 2
    assert choose_number({number: 7.0 + gain for number, gain in curve.items()}, 0.002) == 3
