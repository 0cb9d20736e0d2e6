from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from hpcsort.geometry import point_group, relion_matrices, view_directions
from hpcsort.matching.grids import (
    angles_between,
    direction_spacing_deg,
    distinct_rotations,
    fold_rotations,
    healpix_directions,
    rotation_ball,
    rotation_grid,
    shift_disc,
    turned,
)

GROUPS = ["c1", "c3", "d2", "d7", "t", "o", "i1"]


def views(count: int, seed: int = 0) -> np.ndarray:
    return np.asarray(Rotation.random(count, random_state=np.random.default_rng(seed)).as_matrix())


@pytest.mark.parametrize("nside", [1, 2, 3, 8])
def test_healpix_centres_are_distinct_unit_vectors_that_integrate_low_harmonics(nside: int) -> None:
    found = healpix_directions(nside)
    assert found.shape == (12 * nside**2, 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0)
    # cells of equal area: first moments vanish, second ones are isotropic but for the cells' size
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(3) / 3, atol=0.05 / nside**2)
    nearest = cKDTree(found).query(found, k=2)[0][:, 1]
    assert np.rad2deg(nearest.min()) > 0.6 * direction_spacing_deg(nside)


def test_healpix_of_nside_one_and_two_are_the_published_centres() -> None:
    # Gorski et al. (2005), figure 3 and the ring scheme's table: z and phi of rings
    one = healpix_directions(1)
    np.testing.assert_allclose(np.unique(np.round(one[:, 2], 9)), [-2 / 3, 0, 2 / 3], atol=1e-9)
    assert np.rad2deg(np.arctan2(one[0, 1], one[0, 0])) == pytest.approx(45)
    assert np.rad2deg(np.arctan2(one[4, 1], one[4, 0])) == pytest.approx(0)
    two = healpix_directions(2)
    rings = np.unique(np.round(two[:, 2], 9), return_counts=True)
    np.testing.assert_allclose(rings[0], [-11 / 12, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 11 / 12], atol=1e-9)
    assert rings[1].tolist() == [4, 8, 8, 8, 8, 8, 4]


@pytest.mark.parametrize("name", GROUPS)
def test_every_pose_has_a_grid_pose_within_a_spacing(name: str) -> None:
    operators = point_group(name)
    grid = rotation_grid(4, operators)
    both = np.concatenate([grid, np.diag([-1.0, -1.0, 1.0]) @ grid])
    poses = fold_rotations(views(60), operators)
    mates = (poses[:, None] @ operators).reshape(-1, 3, 3)
    traces = (mates.reshape(-1, 9) @ both.reshape(-1, 9).T).max(axis=1).reshape(len(poses), -1).max(axis=1)
    worst = np.rad2deg(np.arccos(np.clip((traces.min() - 1) / 2, -1, 1)))
    assert worst < 1.1 * direction_spacing_deg(4)
    # and no more than the asymmetric unit and its edge
    whole = 2 * len(rotation_grid(4, point_group("c1")))
    assert len(both) < whole / len(operators) + 40 * np.sqrt(whole / len(operators))


@pytest.mark.parametrize("name", GROUPS)
def test_folding_keeps_the_particle_and_is_the_same_for_all_mates(name: str) -> None:
    operators = point_group(name)
    poses = views(20)
    folded = fold_rotations(poses, operators)
    for operator in operators[:7]:
        np.testing.assert_allclose(fold_rotations(poses @ operator, operators), folded, atol=1e-9)
    relative = poses.transpose(0, 2, 1) @ folded
    assert all(np.abs(operators - turn).max(axis=(1, 2)).min() < 1e-9 for turn in relative)


def test_distinct_rotations_are_the_best_and_apart_even_from_mates() -> None:
    operators = point_group("d2")
    base = relion_matrices([[10, 50, 20], [80, 70, 100]])
    near = turned(base[0], np.array([0.02, 0, 0]))
    poses = np.stack([near @ operators[2], base[0], base[1]])
    chosen = distinct_rotations(poses, np.array([1.0, 3.0, 2.0]), 3, 5.0, operators)
    assert chosen.tolist() == [1, 2]
    assert distinct_rotations(poses, np.array([1.0, 3.0, 2.0]), 1, 5.0, operators).tolist() == [1]
    assert distinct_rotations(poses, np.array([1.0, 3.0, 2.0]), 3, 5.0, operators[:1]).tolist() == [1, 2, 0]


def test_lattices_contain_the_centre_and_what_is_inside() -> None:
    ball = rotation_ball(6.0, 2.0)
    assert (np.abs(ball).sum(axis=1) == 0).sum() == 1
    assert np.rad2deg(np.linalg.norm(ball, axis=1)).max() <= 6.0 + 1e-9
    assert len(rotation_ball(0.0, 2.0)) == len(shift_disc(0.0, 1.0)) == 1
    assert len(shift_disc(1.0, 1.0)) == 5
    assert len(shift_disc(1.5, 1.0)) == 9


def test_a_turn_is_about_the_axes_of_the_view() -> None:
    pose = views(1)
    vector = np.array([[0.0, 0.0, 0.3]])
    found = turned(pose, vector)
    assert angles_between(found, pose)[0] == pytest.approx(0.3)
    # about the beam: the direction stays
    np.testing.assert_allclose(view_directions(found), view_directions(pose), atol=1e-12)
