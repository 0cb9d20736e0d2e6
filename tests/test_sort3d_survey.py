"""What a generation finds out first: how many classes and components predict particles that were not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import logsumexp
from sort3d_cases import (
    CENTRES,
    DIFFERENCE,
    SIZE,
    band_data,
    blobs,
    exact_sections,
    lump,
    noise,
    on_ranks,
    seen_at_centres,
    small_task,
    transfer,
    two_states,
    views,
)

from hpcsort.parallel import Communicator
from hpcsort.sort3d import survey as module
from hpcsort.sort3d.mixture import Mixture
from hpcsort.sort3d.survey import choose_number, fit_weights, known_centres, split_halves, survey

_CONSENSUS = blobs(SIZE, 9)


# Number of classes


def _curve(gains: Sequence[float], noise: float = 1.0, count: int = 2000) -> dict[int, np.ndarray]:
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


def test_every_class_must_be_worth_its_share() -> None:
    # Three classes more gain 3.5 % together, which is less than 2 % each.
    curve = _curve([0.0, 10.0, 10.0, 10.0, 10.35], noise=0.1)
    assert choose_number(curve, 0.02) == 2
    assert choose_number(curve, 0.01) == 5
    # The order in which numbers were tried does not matter.
    assert choose_number(dict(reversed(curve.items())), 0.01) == 5


def test_a_gain_must_exceed_what_small_errors_give() -> None:
    curve = _curve([0.0, 0.5, 0.6], noise=0.1)
    assert choose_number(curve, 0.002, 0.05) == 3
    assert choose_number(curve, 0.002, 0.2) == 2
    assert choose_number(curve, 0.002, 0.7) == 1


def test_components_that_predict_nothing_are_left_out() -> None:
    gains = np.stack(list(_curve([0.0, 3.0, 5.0, 4.9, 4.8]).values()), axis=1)
    assert module._choose_components(gains) == 2
    # One is needed for classes to lie in.
    assert module._choose_components(-np.abs(gains - gains[:, :1])) == 1


# Pieces


@pytest.mark.parametrize("sizes", [(300, 150, 50), (480, 10, 10)])
def test_the_weights_of_known_classes_come_back(sizes: tuple[int, ...]) -> None:
    statistics, _ = seen_at_centres(sizes, sharpness=2.0)
    scores = statistics.scores(CENTRES)
    weights = fit_weights(scores)
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights, np.array(sizes) / 500, atol=0.02)
    # They are those of highest likelihood.
    best = logsumexp(scores + np.log(weights), axis=1).sum()
    draw = np.random.default_rng(0)
    for _ in range(20):
        other = weights * np.exp(0.3 * draw.normal(size=3))
        assert logsumexp(scores + np.log(other / other.sum()), axis=1).sum() < best
    # A constant for each particle does not matter.
    np.testing.assert_allclose(fit_weights(scores + draw.normal(size=(500, 1))), weights, rtol=1e-6)


def test_classes_that_nobody_is_in_keep_a_weight() -> None:
    statistics, _ = seen_at_centres((60,))
    weights = fit_weights(statistics.scores(CENTRES))
    assert 0 < weights[1:].max() < 1e-3
    np.testing.assert_array_equal(fit_weights(np.zeros((5, 1))), 1.0)


def test_known_groups_lie_where_their_members_of_the_half_are() -> None:
    data, _ = two_states(450, 0.5)
    statistics, state = seen_at_centres((150, 150, 150))
    known = np.where(np.arange(450) % 5 == 0, -1, state)
    task, mine = small_task(data, _CONSENSUS, known=known), np.arange(450) % 2 == 0
    found = known_centres(task, statistics, mine)
    assert (task.groups, int(task.active.sum())) == (3, 90)
    np.testing.assert_allclose(found, CENTRES, atol=0.2)
    for group in range(3):
        members = np.flatnonzero(mine & (known == group))
        precision = statistics.precision[members].sum(axis=0) + np.eye(2)
        np.testing.assert_allclose(
            found[group], np.linalg.solve(precision, statistics.linear[members].sum(axis=0)), rtol=1e-9
        )
    assert known_centres(small_task(data, _CONSENSUS), statistics, mine).shape == (0, 2)


def test_halves_are_even_and_keyed() -> None:
    data, _ = two_states(301, 0.5)
    task = small_task(data, _CONSENSUS)
    half = split_halves(task, "a")
    assert sorted(np.bincount(half).tolist()) == [150, 151]
    np.testing.assert_array_equal(half, split_halves(task, "a"))
    for other in (split_halves(task, "b"), split_halves(small_task(data, _CONSENSUS, seed=6), "a")):
        # Independent splits agree on half of the particles.
        assert abs((half == other).mean() - 0.5) < 0.15


# The survey


@pytest.mark.parametrize(("strength", "number"), [(0.0, 1), (1.5, 2)])
def test_as_many_classes_as_states_predict_unseen_particles(strength: float, number: int) -> None:
    data, state = two_states(700, strength)
    told: list[str] = []
    task = small_task(data, _CONSENSUS, components=None, told=told)
    found = survey(task, [1, 2, 3])
    assert choose_number(found.held, 0.01, found.least) == number
    assert found.held[1].shape == (700,)
    assert found.components == 1
    assert [subspace.components for subspace in found.subspaces] == [1, 1]
    assert [set(chain) for chain in found.mixtures] == [{1, 2, 3}] * 2
    assert found.best == pytest.approx(max(gain.mean() for gain in found.held.values()))
    assert found.gain == pytest.approx(max(found.held[n].mean() for n in (2, 3)) - found.held[1].mean())
    assert found.spread.shape == (7,)
    assert told[-1] == "classes fitted"
    if number == 2:
        assert found.gain > 0.3
        for chain, part in enumerate(found.statistics):
            labels = found.mixtures[chain][2].log_joint(part).argmax(axis=1)[found.half != chain]
            right = (labels == state[found.half != chain]).mean()
            assert max(right, 1 - right) > 0.85


def test_a_particle_is_judged_by_the_chain_that_has_not_seen_it() -> None:
    data, _ = two_states(300, 1.5)
    task = small_task(data, _CONSENSUS)
    found = survey(task, [1, 2])
    for chain, part in enumerate(found.statistics):
        mixture: Mixture = found.mixtures[chain][2]
        scores, unseen = part.scores(mixture.centres), found.half != chain
        weights = fit_weights(scores[~unseen])
        np.testing.assert_allclose(found.held[2][unseen], logsumexp(scores[unseen] + np.log(weights), axis=1))


def test_the_number_of_components_that_is_asked_for_is_kept() -> None:
    found = survey(small_task(two_states(200, 1.0)[0], _CONSENSUS, components=3), [1])
    assert found.components == 3
    assert [part.linear.shape for part in found.statistics] == [(200, 3)] * 2


def test_images_without_a_particle_are_neither_learned_from_nor_judged() -> None:
    data, _ = two_states(300, 1.5)
    blank = np.arange(300) % 6 == 0
    images = [np.where(blank[:, None], sign * data.images, data.images) for sign in (1, -1)]
    first, second = (
        survey(small_task(data.with_images(these), _CONSENSUS, empty=0.9 * blank), [1, 2]) for these in images
    )
    assert first.held[2].shape == (250,)
    np.testing.assert_array_equal(first.held[2], second.held[2])


def _three_states(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images of three states, two of them with one more lump each, from the mean of the first two."""
    rotations, ctfs = views(count, 3), transfer(count, 4)
    maps = np.stack([DIFFERENCE, -DIFFERENCE, lump((-4.0, 2.0, 0.0), 1.2)])
    state = np.random.default_rng(5).choice(3, count, p=[0.45, 0.45, 0.1])
    sections = np.stack([exact_sections(volume, rotations) for volume in maps])
    return ctfs * sections[state, np.arange(count)] + noise(count, 6), ctfs, rotations, state


def test_what_lies_between_two_known_groups_is_no_class_of_its_own() -> None:
    """Particles are left over because one cannot tell where they belong, and all of them lie in the middle."""
    count = 900
    data, state = two_states(count, 1.5)
    whole = survey(small_task(data, _CONSENSUS, components=1), [2])
    place = np.abs(whole.statistics[0].latents()[:, 0])
    left = place < np.quantile(place, 0.4)
    task = small_task(data, _CONSENSUS, components=1, known=np.where(left, -1, state))
    found = survey(task, [0, 1, 2])
    assert choose_number(found.held, 0.01, found.least) == 0
    # Among themselves more classes would seem to gain.
    alone = {number: gain[left].mean() for number, gain in found.held.items()}
    assert max(alone[1], alone[2]) > alone[0]


def test_a_state_that_is_no_known_group_is_found_among_what_is_left() -> None:
    images, ctfs, rotations, state = _three_states(900)
    spare = np.random.default_rng(8).random(900) < 0.1
    known = np.where((state == 2) | spare, -1, state)
    found = survey(small_task(band_data(images, ctfs, rotations), _CONSENSUS, known=known), [0, 1, 2])
    assert choose_number(found.held, 0.01, found.least) == 1


def test_the_survey_has_the_same_bits_on_any_ranks() -> None:
    data, _ = two_states(300, 1.0)

    def work(comm: Communicator) -> list[bytes]:
        found = survey(small_task(data, _CONSENSUS, comm), [1, 2])
        parts = [found.half, found.spread, np.array(found.least), found.held[1], found.held[2]]
        return [part.tobytes() for part in [*parts, *(subspace.free for subspace in found.subspaces)]]

    (alone,) = on_ranks(1, work)
    for ranks in (2, 3):
        for told in on_ranks(ranks, work):
            assert told == alone
