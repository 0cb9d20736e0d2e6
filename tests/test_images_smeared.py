"""Particles with several poses: against single poses, direct sums, and each other's two ways of being kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import logsumexp

from hpcsort.images import BandData, Poses, Seen, SmearedData, half_plane, joined_poses, pose_overlap
from hpcsort.kernels import extract_sections, interleave
from hpcsort.volumes import BandGrid

GRID = BandGrid(24, 9)
COUNTS = np.array([1, 3, 2, 1, 4])
DRAW = np.random.default_rng(5)


def band_data() -> BandData:
    px, py = half_plane(GRID.radius)
    count = len(COUNTS)
    draw = np.random.default_rng(7)
    images = draw.standard_normal((count, px.size)) + 1j * draw.standard_normal((count, px.size))
    ctfs = draw.uniform(-1, 1, (count, px.size))
    turns = Rotation.random(count, random_state=1).as_matrix()
    groups = np.arange(count) % 2
    return BandData(
        px, py, images.astype(np.complex64), ctfs.astype(np.float32), turns.astype(np.float32), groups, GRID.radius
    )


def smeared(precompute: bool = True) -> SmearedData:
    data = band_data()
    first = np.concatenate([[0], np.cumsum(COUNTS)])
    owner = np.repeat(np.arange(len(COUNTS)), COUNTS)
    draw = np.random.default_rng(6)
    turned = Rotation.from_rotvec(0.1 * draw.standard_normal((len(owner), 3))).as_matrix() @ data.rotations[owner]
    weight = draw.uniform(0.2, 1, len(owner))
    weight = (weight / np.bincount(owner, weight)[owner]).astype(np.float32)
    shifts = 0.02 * draw.standard_normal((len(owner), 2))
    turned, shifts = turned.astype(np.float32), shifts.astype(np.float32)
    overlap = pose_overlap(first, turned, weight, GRID.radius)
    return SmearedData(data, Poses(first, turned, shifts, weight, weight, overlap), precompute=precompute)


@pytest.fixture
def volume() -> np.ndarray:
    return GRID.to_fourier(DRAW.standard_normal((24, 24, 24)).astype(np.float32))


def test_images_of_poses_are_shifted_and_subtracted(volume: np.ndarray) -> None:
    given = smeared()
    coefficients = DRAW.standard_normal((len(COUNTS), 1)).astype(np.float32)
    seen = given.minus(interleave(volume[None]), 1, coefficients, GRID.pad).seen(slice(None))
    owner = np.repeat(np.arange(len(COUNTS)), COUNTS)
    kx, ky = given.px.astype(float), given.py.astype(float)
    shift = given.poses.shifts.astype(float)
    phase = np.exp(-2j * np.pi * (shift[:, :1] * kx + shift[:, 1:] * ky))
    sections = extract_sections(volume, given.poses.rotations, given.px, given.py, GRID.pad)
    expected = given.data.images[owner] * phase - coefficients[owner] * given.ctfs[owner] * sections
    np.testing.assert_allclose(seen.data.images, expected, atol=1e-4 * np.abs(expected).max())


def test_both_ways_of_keeping_have_the_same_bits(volume: np.ndarray) -> None:
    ones = np.ones((len(COUNTS), 1), np.float32)
    first, second = (
        smeared(kept).minus(interleave(volume[None]), 1, ones, GRID.pad).cropped(6) for kept in (True, False)
    )
    assert first.ready is not None
    assert second.ready is None
    for rows in (slice(None), np.array([3, 1]), slice(1, 3)):
        one, two = first.seen(rows), second.seen(rows)
        np.testing.assert_array_equal(one.data.images, two.data.images)
        np.testing.assert_array_equal(one.overlap, two.overlap)
        np.testing.assert_array_equal(first.rows(rows).seen(slice(None)).data.images, one.data.images)
    np.testing.assert_array_equal(first.peak, second.peak)


def test_one_pose_each_is_plain_data(volume: np.ndarray) -> None:
    data = band_data()
    count = len(data)
    ones = np.ones(count, np.float32)
    none = np.zeros((count, 2), np.float32)
    poses = Poses(np.arange(count + 1), data.rotations, none, ones, ones, ones)
    lanes, unit = interleave(volume[None]), np.ones((count, 1), np.float32)
    plain = data.minus(lanes, 1, unit, GRID.pad).seen(slice(None))
    other = SmearedData(data, poses).minus(lanes, 1, unit, GRID.pad).seen(slice(None))
    np.testing.assert_array_equal(plain.data.images, other.data.images)
    np.testing.assert_array_equal(plain.data.rotations, other.data.rotations)


def test_peak_is_a_bound(volume: np.ndarray) -> None:
    ones = np.ones((len(COUNTS), 1), np.float32)
    given = smeared().minus(interleave(volume[None]), 1, ones, GRID.pad)
    seen = given.seen(slice(None))
    largest = np.maximum.reduceat(np.abs(seen.data.images).max(axis=1), given.poses.first[:-1])
    assert (largest <= given.peak * (1 + 1e-6)).all()


def test_expected_and_shared_values() -> None:
    seen = smeared().seen(np.array([1, 4, 0]))
    assert seen.weight is not None
    values = DRAW.standard_normal((8, 2))
    sums = [weighted.sum(axis=0) for weighted in np.split(seen.weight[:, None] * values, [3, 7])]
    np.testing.assert_allclose(seen.expected(values), sums, rtol=1e-6)
    shares = DRAW.standard_normal((3, 2))
    np.testing.assert_allclose(seen.weighted(shares), seen.weight[:, None] * shares[[0, 0, 0, 1, 1, 1, 1, 2]])


def test_marginal_is_the_mean_likelihood_and_a_bound_elsewhere() -> None:
    seen = smeared().seen(slice(None))
    assert seen.first is not None
    assert seen.weight is not None
    linear = 4 * DRAW.standard_normal((len(seen.weight), 3))
    power = DRAW.uniform(0, 5, linear.shape)
    terms = seen.marginal(linear, power)

    def brute(scale: float) -> np.ndarray:
        joint = np.log(seen.weight.astype(float))[:, None] + scale * linear - 0.5 * scale**2 * power
        return np.stack([logsumexp(part, axis=0) for part in np.split(joint, seen.first[1:-1])])

    found = terms[0] - 0.5 * terms[1] + terms[2]
    np.testing.assert_allclose(found, brute(1.0), rtol=1e-6, atol=1e-6)
    for scale in (0.5, 1.4):
        assert (scale * terms[0] - 0.5 * scale**2 * terms[1] + terms[2] <= brute(scale) + 1e-6).all()


def test_marginal_of_the_best_pose_alone() -> None:
    seen = smeared().seen(slice(None))
    assert seen.first is not None
    assert seen.weight is not None
    best = np.zeros_like(seen.weight)
    best[seen.first[:-1]] = 1
    linear, power, offset = replace(seen, scored=best).marginal(
        *(values := DRAW.standard_normal((2, len(best), 2)))
    )  # fmt: skip
    np.testing.assert_allclose(linear, values[0][seen.first[:-1]])
    np.testing.assert_allclose(power, values[1][seen.first[:-1]])
    np.testing.assert_allclose(offset, 0, atol=1e-12)


def test_no_particles() -> None:
    seen = smeared().seen(np.zeros(0, np.int64))
    assert seen.expected(np.zeros((0, 4))).shape == (0, 4)
    assert all(part.shape == (0, 4) for part in seen.marginal(np.zeros((0, 4)), np.zeros((0, 4))))
    assert Seen(band_data()).expected(np.ones(5)).sum() == 5


def test_overlap() -> None:
    same = np.repeat(np.eye(3)[None], 3, axis=0)
    weight = np.array([0.5, 0.3, 0.2], np.float32)
    first = np.array([0, 3])
    np.testing.assert_allclose(pose_overlap(first, same, weight, 10), 1.0, rtol=1e-6)
    apart = Rotation.from_euler("z", [[0], [90], [180]], degrees=True).as_matrix()
    np.testing.assert_allclose(pose_overlap(first, apart, weight, 10), weight, rtol=1e-6)


def test_poses_that_a_band_cannot_tell_apart_are_joined() -> None:
    draw = np.random.default_rng(3)
    counts = np.array([1, 40, 7])
    first = np.concatenate([[0], np.cumsum(counts)])
    base = np.repeat(Rotation.random(3, random_state=2).as_matrix(), counts, axis=0)
    turn = np.deg2rad(0.05) * draw.standard_normal((48, 3))
    turn[first[:-1]] = 0
    far = first[2] + np.array([3, 4])
    turn[far, 0] += np.deg2rad([30, 30])
    shifts = np.zeros((48, 2), np.float32)
    shifts[far[1], 0] = 0.2
    weight = np.ones(48)
    weight[first[:-1]] = 3
    weight /= np.repeat(np.add.reduceat(weight, first[:-1]), counts)
    rotations = (Rotation.from_rotvec(turn).as_matrix() @ base).astype(np.float32)
    given = Poses(first, rotations, shifts, *[weight.astype(np.float32)] * 2, np.ones(48, np.float32))
    joined = joined_poses(given, 10)
    assert np.diff(joined.first).tolist() == [1, 1, 3]
    np.testing.assert_allclose(np.add.reduceat(joined.weight, joined.first[:-1]), 1, rtol=1e-6)
    # The mean pose is that of the cell's members, to second order in their small turns.
    mean = Rotation.from_rotvec((weight[1:41, None] * turn[1:41]).sum(axis=0)).as_matrix() @ base[1]
    np.testing.assert_allclose(joined.rotations[1], mean, atol=1e-5)
    kept = joined.rotations[3:5] @ base[first[2]].T
    angles = np.rad2deg(Rotation.from_matrix(kept).magnitude())
    np.testing.assert_allclose(angles, 30, atol=0.3)
    np.testing.assert_allclose(np.sort(joined.shifts[3:5, 0]), [0.0, 0.2], atol=1e-6)
    fine = joined_poses(given, 4000)
    assert np.diff(fine.first).sum() > 40


def test_joining_changes_little_that_a_band_can_see(volume: np.ndarray) -> None:
    """The expected section of joined poses is that of all poses."""
    draw = np.random.default_rng(8)
    base = Rotation.random(1, random_state=4).as_matrix()[0]
    turn = np.deg2rad(1.0) * draw.standard_normal((60, 3))
    turn[0] = 0
    rotations = (Rotation.from_rotvec(turn).as_matrix() @ base).astype(np.float32)
    weight = np.full(60, 1 / 60, np.float32)
    shifts = (0.002 * draw.standard_normal((60, 2))).astype(np.float32)
    given = Poses(np.array([0, 60]), rotations, shifts, weight, weight, weight)
    joined = joined_poses(given, GRID.radius)
    assert len(joined.weight) < 20
    px, py = half_plane(GRID.radius)
    smooth = (volume * np.exp(-0.5 * (GRID.shell / 3.0) ** 2)).astype(np.complex64)
    mean = [
        (poses.weight[:, None] * extract_sections(smooth, poses.rotations, px, py, GRID.pad)).sum(axis=0)
        for poses in (given, joined)
    ]
    assert np.linalg.norm(mean[1] - mean[0]) < 0.05 * np.linalg.norm(mean[0])
