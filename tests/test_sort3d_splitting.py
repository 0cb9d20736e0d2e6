"""Groups are kept where chains reproduce them, and a mixed one is replaced by its parts."""

from __future__ import annotations

import numpy as np
import pytest
from sort3d_cases import DIFFERENCE, SIZE, band_data, blobs, exact_sections, lump, noise, small_task, transfer, views

from hpcsort.sort3d import splitting
from hpcsort.sort3d.records import BoxChains
from hpcsort.sort3d.splitting import Found, found_groups, split_groups
from hpcsort.sort3d.statistics import JUNK_KINDS


def _found(labels: np.ndarray, agreeing: float = 1.0) -> Found:
    groups = int(labels.max()) + 1
    score = 0.9 - 0.1 * np.arange(groups)
    return Found(labels, np.full(len(labels), agreeing), score, score / 2, score / 20, score / 900)


def _box(first: np.ndarray, second: np.ndarray) -> BoxChains:
    joint = np.zeros((len(first), int(first.max()) + 1 + JUNK_KINDS))
    return BoxChains((first, second), (joint, joint))


def test_groups_that_chains_reproduce_are_kept_by_falling_size() -> None:
    draw = np.random.default_rng(0)
    truth = draw.permutation(np.repeat([0, 1, 2, -1], [100, 150, 80, 20]))
    # Nobody finds group 0 again: its members go elsewhere, and its class is made of anybody.
    chains = [
        np.where(draw.random(350) < 0.2, 0, np.where(truth == 0, draw.integers(1, 3, 350), truth)) for _ in range(4)
    ]
    found = found_groups(truth, [_box(chains[0], chains[1]), _box(chains[2], chains[3])], 0, 0)
    np.testing.assert_array_equal(found.labels, np.array([-1, 0, 1, -1])[truth])
    assert found.groups == 2
    assert (found.score > found.chance_mean + 2 * found.chance_std).all()
    assert (found.p <= 0.05).all()
    assert found.agreeing[truth > 0].mean() > found.agreeing[truth == 0].mean()


def test_chosen_groups_keep_their_figures() -> None:
    labels = np.repeat([0, 1, 2, -1], [10, 30, 20, 5])
    found = _found(labels)
    kept = found.chosen(np.array([0, 2]))
    np.testing.assert_array_equal(kept.labels, np.repeat([1, -1, 0, -1], [10, 30, 20, 5]))
    for name in ("score", "chance_mean", "chance_std", "p"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(found, name)[[2, 0]])
    assert found.chosen(np.zeros(0, int)).groups == 0


def test_parts_take_the_place_of_their_group() -> None:
    found = _found(np.array([0, 0, 0, 0, 1, 1, 1, -1]), 0.5)
    # The group splits in two; one member is lost and one that was unaccounted is found.
    rows = np.array([0, 1, 2, 3, 7])
    parts = Found(np.array([1, 0, 0, -1, 1]), np.full(5, 0.7), *(np.array([0.3, 0.2]) for _ in range(4)))
    joined = splitting._with_parts(found, 0, rows, parts)
    np.testing.assert_array_equal(joined.labels, [2, 0, 0, -1, 1, 1, 1, 2])
    np.testing.assert_allclose(joined.score, [0.3, 0.8, 0.2])
    np.testing.assert_allclose(joined.agreeing, [0.7, 0.7, 0.7, 0.7, 0.5, 0.5, 0.5, 0.7])
    # What it was made of stays as it was.
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 0, 1, 1, 1, -1])


_MAPS = np.stack([DIFFERENCE, -DIFFERENCE + lump((-4.0, 2.0, 0.0), 1.2), -DIFFERENCE - lump((-4.0, 2.0, 0.0), 1.2)])


@pytest.mark.parametrize("mixed", [True, False])
def test_a_mixed_group_is_found_out_and_a_pure_one_left_alone(mixed: bool) -> None:
    count = 600
    rotations, ctfs = views(count, 3), transfer(count, 4)
    state = np.random.default_rng(5).integers(0, 3 if mixed else 2, count)
    maps = _MAPS if mixed else np.stack([DIFFERENCE, -DIFFERENCE])
    sections = np.stack([exact_sections(volume, rotations) for volume in maps])
    images = ctfs * sections[state, np.arange(count)] + noise(count, 6)
    told: list[str] = []
    task = small_task(band_data(images, ctfs, rotations), 0.3 * blobs(SIZE, 9))
    labels = np.where(state == 0, 1, 0) if mixed else state
    found = split_groups(task, _found(labels), 0.05, 30, told.append)
    if not mixed:
        np.testing.assert_array_equal(np.sort(np.bincount(found.labels)), np.sort(np.bincount(labels)))
        assert (found.groups, told) == (2, [])
        return
    assert found.groups == 3
    assert told == ["Generation 0: group 0 is mixed; it splits into 2."]
    for one in range(3):
        inside = state[found.labels == one]
        assert np.bincount(inside).max() > 0.95 * len(inside)
    assert (found.labels >= 0).mean() > 0.8
    sizes = np.bincount(found.labels[found.labels >= 0])
    assert (np.diff(sizes) <= 0).all()
