from __future__ import annotations

import numpy as np
import pytest
from planar_cases import Blobs, angle_between, correlation, random_poses

from hpcsort.planar import (
    PlanarPoses,
    PolarGrid,
    Searcher,
    align_spectra,
    apply_poses,
    average_images,
    mirrored,
    refine_poses,
    shift_grid,
)

BOXES = [31, 32, 35, 37, 48, 64]


def close(a: PlanarPoses, b: PlanarPoses, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(angle_between(a.psi_deg, b.psi_deg), 0, atol=atol)
    np.testing.assert_allclose(a.shift_px, b.shift_px, atol=atol)
    np.testing.assert_array_equal(a.mirror, b.mirror)


def test_poses_compose_like_maps_of_the_plane() -> None:
    first, second = random_poses(40, 5.0, 1), random_poses(40, 5.0, 2)
    x = np.random.default_rng(3).normal(size=(40, 2))

    def where(poses: PlanarPoses, x: np.ndarray) -> np.ndarray:
        # the definition, written out
        x, y = (x + poses.shift_px).T
        x = np.where(poses.mirror, -x, x)
        angle = np.deg2rad(poses.psi_deg)
        return np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], axis=1)

    np.testing.assert_allclose(where(first.then(second), x), where(second, where(first, x)), atol=1e-12)
    np.testing.assert_allclose(where(first.inverse(), where(first, x)), x, atol=1e-12)
    close(PlanarPoses.from_matrices(first.matrices, first.offsets_px), first)
    close(first.then(first.inverse()), PlanarPoses.identity(40))
    close(first.rows(np.arange(3)).then(PlanarPoses.identity(3)), first.rows(slice(3)))


@pytest.mark.parametrize("box", BOXES)
def test_images_are_brought_into_the_frame_of_their_reference(box: int) -> None:
    blobs, poses = Blobs.random(box, 4), random_poses(12, 0.06 * box, 5)
    reference = blobs.draw(box, PlanarPoses.identity(1))[0]
    aligned = apply_poses(blobs.draw(box, poses), poses)
    np.testing.assert_allclose(aligned, np.broadcast_to(reference, aligned.shape), atol=0.01 * reference.max())
    mean = average_images(blobs.draw(box, poses), poses)
    assert correlation(mean, reference) > 0.9999


@pytest.mark.parametrize("box", [7, 8, 9, 31, 32])
def test_a_mirrored_image_is_the_image_mirrored_about_its_centre(box: int) -> None:
    image = np.random.default_rng(6).normal(size=(box, box)).astype(np.float32)
    flipped = mirrored(image)
    half = box // 2
    for x in range(-((box - 1) // 2), (box - 1) // 2 + 1):
        np.testing.assert_array_equal(flipped[:, half + x], image[:, half - x])
    np.testing.assert_array_equal(mirrored(flipped), image)
    np.testing.assert_array_equal(mirrored(np.stack([image, image]))[1], flipped)


@pytest.mark.parametrize("box", BOXES)
def test_spectra_turn_by_phases_and_mirror_by_conjugation(box: int) -> None:
    blobs, poses = Blobs.random(box, 7), random_poses(9, 0.06 * box, 8)
    grid = PolarGrid(box, box / 2, min(12, (box - 1) // 2))
    reference = grid.spectra(grid.samples(blobs.draw(box, PlanarPoses.identity(1))))
    samples = grid.samples(blobs.draw(box, poses))
    aligned = align_spectra(grid, samples, poses)
    error = np.linalg.norm((aligned - reference).reshape(9, -1), axis=1) / np.linalg.norm(reference)
    assert error.max() < 0.02
    np.testing.assert_allclose(grid.from_spectra(grid.spectra(samples)), samples, atol=1e-5 * np.abs(samples).max())


def test_samples_are_the_transform_at_their_frequencies() -> None:
    for box in (7, 8, 9, 30, 33):
        grid = PolarGrid(box, box / 2, (box - 1) // 2)
        image = np.random.default_rng(box).normal(size=(1, box, box)).astype(np.float32)
        axis = np.arange(box) - box // 2
        kx, ky = grid.frequencies
        wave = np.exp(-2j * np.pi / box * (kx[..., None, None] * axis + ky[..., None, None] * axis[:, None]))
        direct = (wave * (image[0] * grid.mask)).sum(axis=(-1, -2))
        # between the integer frequencies the cut at the band makes a difference
        whole = np.isclose(kx % 1, 0) & np.isclose(ky % 1, 0) & (np.hypot(kx, ky) < (box - 1) // 2 - 0.5)
        assert whole.any()
        np.testing.assert_allclose(grid.samples(image)[0][whole], direct[whole], atol=1e-4 * np.abs(direct).max())


@pytest.mark.parametrize(("box", "mirror"), [(32, True), (37, True), (48, False), (64, True)])
def test_known_angle_shift_mirror_and_class_are_found(box: int, mirror: bool) -> None:
    pictures = [Blobs.random(box, seed) for seed in (10, 11, 12)]
    reach = 0.07 * box
    poses = random_poses(30, reach, 13)
    poses = poses if mirror else PlanarPoses(poses.psi_deg, poses.shift_px, np.zeros(30, bool))
    truth = np.arange(30) % 3
    images = np.concatenate([pictures[k].draw(box, poses.rows(slice(i, i + 1))) for i, k in enumerate(truth)])
    references = np.concatenate([picture.draw(box, PlanarPoses.identity(1)) for picture in pictures])
    grid = PolarGrid(box, box / 2, 12)
    samples, targets = grid.samples(images), grid.samples(references)
    searcher = Searcher(grid, targets, reach, mirror=mirror)
    found = searcher.compare(grid.spectra(samples))
    np.testing.assert_array_equal(found.score.argmax(axis=1), truth)
    np.testing.assert_array_equal(found.mirror[np.arange(30), truth], poses.mirror)
    start = searcher.poses(found, np.arange(30), truth)
    fine, score = refine_poses(grid, samples, targets[truth], start, reach * 1.2, steps=3)
    assert np.abs(angle_between(fine.psi_deg, poses.psi_deg)).max() < 0.3
    assert np.hypot(*(fine.shift_px - poses.shift_px).T).max() < 0.1
    assert (score >= found.score[np.arange(30), truth] - 1e-5).all()
    assert score.min() > 0.99


@pytest.mark.parametrize(("count", "classes", "rotate"), [(1, 1, True), (35, 3, True), (5, 2, False)])
def test_scores_on_the_grid_are_those_of_brute_force(count: int, classes: int, rotate: bool) -> None:
    rng = np.random.default_rng(14)
    grid = PolarGrid(17, 8.0, 5)
    samples, targets = (
        grid.samples(rng.normal(size=(number, 17, 17)).astype(np.float32)) for number in (count, classes)
    )
    searcher = Searcher(grid, targets, 2.5, rotate=rotate)
    found = searcher.compare(grid.spectra(samples))
    reference = grid.spectra(targets)
    psi = 360.0 / grid.angles * np.arange(grid.angles) if rotate else [0.0]
    best = np.full((count, classes), -np.inf)
    for mirror in (False, True) if rotate else (False,):
        for angle in psi:
            for shift in searcher.shifts_px:
                turned = PlanarPoses(np.full(1, angle), np.zeros((1, 2)), np.full(1, mirror))
                poses = PlanarPoses.from_matrices(turned.matrices, shift[None])
                every = PlanarPoses(
                    *(np.repeat(part, count, axis=0) for part in (poses.psi_deg, poses.shift_px, poses.mirror))
                )
                aligned = align_spectra(grid, samples, every)
                inner = np.einsum("nrm,crm->nc", aligned, reference.conj()).real
                norms = np.linalg.norm(aligned.reshape(count, -1), axis=1)[:, None]
                # a moved reference has the norm of its own samples, as the grid of rings is the same
                best = np.maximum(best, inner / norms / np.linalg.norm(reference.reshape(classes, -1), axis=1))
    np.testing.assert_allclose(found.score, best, atol=2e-3)
    image, target = (place.ravel() for place in np.indices(found.score.shape))
    again = align_spectra(grid, samples[image], searcher.poses(found, image, target))
    inner = np.einsum("nrm,nrm->n", again, reference[target].conj()).real
    norms = [np.linalg.norm(values.reshape(len(image), -1), axis=1) for values in (again, reference[target])]
    np.testing.assert_allclose(inner / norms[0] / norms[1], found.score.ravel(), atol=2e-3)


def test_a_pair_compared_both_ways_has_one_score_and_opposite_poses() -> None:
    box = 40
    pictures = np.concatenate(
        [Blobs.random(box, 20).draw(box, random_poses(6, 2.0, 21)), np.zeros((1, box, box), "f4")]
    )
    grid = PolarGrid(box, box / 2, 10)
    samples = grid.samples(pictures)
    searcher = Searcher(grid, samples, 5.0)
    found = searcher.compare(grid.spectra(samples))
    np.testing.assert_allclose(found.score, found.score.T, atol=0.05)
    assert np.isfinite(found.score).all()
    np.testing.assert_array_equal(found.score[6], 0)
    here, there = refine_poses(
        grid, samples[[0]], samples[[3]], searcher.poses(found, np.array([0]), np.array([3])), 6.0
    )
    back, again = refine_poses(
        grid, samples[[3]], samples[[0]], searcher.poses(found, np.array([3]), np.array([0])), 6.0
    )
    np.testing.assert_allclose(there, again, atol=1e-3)
    close(here.inverse(), back, atol=0.3)


def test_no_images_and_no_references() -> None:
    grid = PolarGrid(16, 8.0, 4)
    none = grid.samples(np.zeros((0, 16, 16), np.float32))
    one = grid.samples(np.ones((1, 16, 16), np.float32))
    assert Searcher(grid, one, 1.0).compare(grid.spectra(none)).score.shape == (0, 1)
    assert Searcher(grid, none, 1.0).compare(grid.spectra(one)).score.shape == (1, 0)
    assert len(refine_poses(grid, none, none, PlanarPoses.identity(0), 1.0)[0]) == 0
    assert average_images(np.zeros((0, 16, 16), np.float32), PlanarPoses.identity(0)).max() == 0


def test_shifts_fill_a_circle_evenly() -> None:
    grid = shift_grid(4.0, 1.0)
    assert (grid[0] == 0).all()
    distances = np.hypot(*(grid[:, None] - grid).transpose(2, 0, 1)) + 9 * np.eye(len(grid))
    np.testing.assert_allclose(distances.min(axis=1), 1.0)
    assert np.hypot(*grid.T).max() <= 4.0
    np.testing.assert_array_equal(shift_grid(0.0, 1.0), [[0.0, 0.0]])
    with pytest.raises(ValueError, match="steps of 0"):
        shift_grid(1.0, 0.0)
