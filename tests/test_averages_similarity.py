"""Similarity of averages: structural similarity against direct sums, invariance, symmetry, poses, blank images."""

from __future__ import annotations

import numpy as np
import pytest
from averages_cases import families, random_poses, views

from hpcsort.averages import compare_all, find_blank, prepare, ssim
from hpcsort.planar import PlanarPoses, apply_poses


def _direct_ssim(a: np.ndarray, b: np.ndarray, data_range: float, inside: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13, window by window in double precision."""
    c1, c2, values = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2, []
    for y, x in zip(*np.nonzero(inside), strict=True):
        p, q = (image[y - 3 : y + 4, x - 3 : x + 4].astype(np.float64) for image in (a, b))
        (vp, cov), (_, vq) = np.cov(p.ravel(), q.ravel())
        mp, mq = p.mean(), q.mean()
        values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize("box", [16, 17, 23])
def test_ssim_is_that_of_direct_sums(box: int) -> None:
    rng = np.random.default_rng(box)
    a = rng.normal(size=(3, box, box)).astype(np.float32)
    b = (a + rng.normal(size=a.shape) * np.array([0, 0.5, 3])[:, None, None]).astype(np.float32)
    inside = np.zeros((box, box), bool)
    inside[3:-3, 3:-3] = rng.random((box - 6, box - 6)) < 0.7
    data_range = np.array([4.0, 5.0, 6.0])
    found = ssim(a, b, data_range, inside)
    direct = [_direct_ssim(p, q, r, inside) for p, q, r in zip(a, b, data_range, strict=True)]
    np.testing.assert_allclose(found, direct, atol=2e-5)
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found[2] < 0.5


@pytest.mark.parametrize("kind", ["ssim", "ncc"])
def test_similarity_is_symmetric_and_1_on_the_diagonal(kind: str) -> None:
    images, _ = families(views(3, 32), np.arange(9) % 3, 0.3, 1)
    found = compare_all(prepare(images), kind)
    assert np.array_equal(found.score, found.score.T)
    assert (np.diag(found.score) == 1).all()
    assert (found.distance >= 0).all()
    there, back = found.poses_onto(np.arange(9), 4), found.poses.rows(4 * 9 + np.arange(9))
    closed = there.then(back)
    np.testing.assert_allclose(closed.matrices, np.tile(np.eye(2), (9, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(closed.shift_px, 0, atol=1e-9)


@pytest.mark.parametrize("kind", ["ssim", "ncc"])
@pytest.mark.parametrize("box", [48, 49, 80])
def test_similarity_does_not_change_when_an_image_is_turned_shifted_or_mirrored(kind: str, box: int) -> None:
    # the same pair of views thrice, the second image as it is, moved, and both moved
    view = views(2, box, seed=3)
    poses = random_poses(4, 8, 0.05 * box)
    moved = apply_poses(np.repeat(view, 2, axis=0), poses)
    images = np.concatenate([view, moved])
    score = compare_all(prepare(images), kind).score
    pairs = [score[0, 1], *score[0, 4:], *score[2, 4:], *score[3, 4:], *score[2:4, 1]]
    copies = [score[0, 2], score[0, 3], score[2, 3], score[1, 4], score[4, 5]]
    # square windows do not turn with the images
    assert np.ptp(pairs) < (0.05 if kind == "ssim" else 0.02), pairs
    assert min(copies) > 0.97
    assert max(pairs) < min(copies) - 0.1


def test_poses_of_pairs_are_found() -> None:
    labels = np.zeros(8, np.int64)
    images, poses = families(views(1, 80, seed=4), labels, 0.1, 2, shift_px=5)
    prepared = prepare(images)
    small = compare_all(prepared, "ssim").poses_onto(np.arange(8), 3)
    found = PlanarPoses(small.psi_deg, prepared.scale * small.shift_px, small.mirror)
    error = found.then(poses.rows(np.arange(8)).then(poses.rows(np.full(8, 3)).inverse()).inverse())
    assert not error.mirror.any()
    assert np.abs((error.psi_deg + 180) % 360 - 180).max() < 1.5
    assert np.abs(error.shift_px).max() < 0.4
    aligned = apply_poses(images, found)
    flat = aligned.reshape(8, -1)
    assert np.corrcoef(flat).min() > 0.95


def test_an_offset_and_a_scale_of_grey_values_make_no_difference() -> None:
    images, _ = families(views(2, 32), np.arange(4) % 2, 0.2, 3)
    changed = images * np.array([1, 3, 0.01, 200], np.float32)[:, None, None]
    changed += np.array([0, -5, 0.1, 1000], np.float32)[:, None, None]
    for kind in ("ssim", "ncc"):
        a, b = (compare_all(prepare(some), kind).score for some in (images, changed))
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_threads_change_no_bit() -> None:
    images, _ = families(views(3, 24), np.arange(40) % 3, 0.3, 1)
    prepared = prepare(images)
    one, three = (compare_all(prepared, "ssim", workers) for workers in (1, 3))
    assert np.array_equal(one.score, three.score)
    assert np.array_equal(one.poses.psi_deg, three.poses.psi_deg)
    assert np.array_equal(one.poses.shift_px, three.poses.shift_px)


def test_one_average_is_like_itself() -> None:
    found = compare_all(prepare(views(1, 32)), "ssim")
    assert found.score.tolist() == [[1.0]]
    assert isinstance(found.poses, PlanarPoses)


def test_blank_and_broken_averages_are_told() -> None:
    images = views(8, 48)
    images[0] = 0
    images[1] = 7.3
    images[2, 5, 6] = np.nan
    images[3] = np.inf
    images[4] = 1000 + 1e-4 * images[4]  # lost in float32
    images[5] = 1000 + images[5]
    images[6] *= 1e-20
    assert find_blank(images).tolist() == [True, True, True, True, True, False, False, False]
