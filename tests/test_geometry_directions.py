from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hpcsort.geometry import (
    direction_order,
    orientation_groups,
    point_group,
    relion_matrices,
    spiral_directions,
    view_directions,
)


def _random(count: int, seed: int = 0) -> np.ndarray:
    return Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix().reshape(-1, 3, 3)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 1009])
def test_spiral_directions_are_unit_vectors_and_distinct(count: int) -> None:
    directions = spiral_directions(count)
    assert directions.shape == (count, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, atol=1e-12)
    closest = directions @ directions.T - 2 * np.eye(count)
    assert count == 1 or closest.max() < 1 - 1.0 / count


def test_spiral_directions_cover_every_cap_in_proportion() -> None:
    directions = spiral_directions(2000)
    axes = view_directions(_random(20))
    share = (directions @ axes.T > 0.8).mean(axis=0)
    np.testing.assert_allclose(share, 0.1, atol=0.01)


def test_order_is_a_permutation_that_ignores_the_order_of_rows() -> None:
    matrices = _random(501)
    matrices[100:110] = matrices[100]
    names = np.array([f"{i:03d}@stack.mrcs" for i in range(501)])
    order = direction_order(matrices, names)
    assert sorted(order) == list(range(501))
    shuffle = np.random.default_rng(3).permutation(501)
    again = direction_order(matrices[shuffle], names[shuffle])
    np.testing.assert_array_equal(names[shuffle][again], names[order])


def test_order_makes_neighbours_of_particles_that_look_along_one_axis() -> None:
    matrices = _random(4000)
    sorted_axes = view_directions(matrices[direction_order(matrices, np.arange(4000))])
    similarity = np.abs((sorted_axes[1:] * sorted_axes[:-1]).sum(axis=1))
    assert np.median(similarity) > 0.997
    assert np.quantile(similarity, 0.01) > 0.9


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_order_of_few(count: int) -> None:
    assert sorted(direction_order(_random(count), np.arange(count))) == list(range(count))


def test_order_needs_one_identity_per_particle() -> None:
    with pytest.raises(ValueError, match="identities"):
        direction_order(_random(3), np.arange(2))


@pytest.mark.parametrize(("count", "symmetry"), [(1, "C1"), (2, "C1"), (20, "C1"), (101, "C1"), (7, "D3"), (20, "I")])
def test_groups_are_as_many_as_asked_for_and_even(count: int, symmetry: str) -> None:
    labels = orientation_groups(_random(400 * count), count, 1, point_group(symmetry))
    sizes = np.bincount(labels)
    assert len(sizes) == count
    assert sizes.max() < 2 * sizes.min() + 60


@pytest.mark.parametrize("symmetry", ["C1", "C4", "D2", "O"])
def test_mirror_and_symmetry_mates_share_a_group(symmetry: str) -> None:
    operators = point_group(symmetry)
    matrices = _random(200)
    from_behind = np.diag([-1.0, 1.0, -1.0]) @ matrices
    mates = matrices @ operators[len(operators) // 2]
    turned = relion_matrices([[0, 0, 77]])[0] @ matrices
    labels = orientation_groups(np.concatenate([matrices, from_behind, mates, turned]), 13, 0, operators)
    for copy in (1, 2, 3):
        np.testing.assert_array_equal(labels[:200], labels[200 * copy : 200 * (copy + 1)])


def test_small_groups_are_dissolved_into_neighbours() -> None:
    matrices = _random(300)
    labels = orientation_groups(matrices, 40, 20)
    sizes = np.bincount(labels)
    assert 2 <= len(sizes) < 40
    assert sizes.min() >= 20
    shuffle = np.random.default_rng(3).permutation(300)
    np.testing.assert_array_equal(orientation_groups(matrices[shuffle], 40, 20), labels[shuffle])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_one_group_remains_whatever_the_minimum(count: int) -> None:
    np.testing.assert_array_equal(orientation_groups(_random(count), 20, 1000), np.zeros(count))


def test_preferred_views_fill_few_groups_but_none_below_the_minimum() -> None:
    rng = np.random.default_rng(0)
    angles = np.stack([rng.uniform(-180, 180, 500), rng.normal(0, 5, 500), rng.uniform(-180, 180, 500)], axis=1)
    sizes = np.bincount(orientation_groups(relion_matrices(angles), 100, 25))
    assert sizes.min() >= 25
    assert sizes.sum() == 500
