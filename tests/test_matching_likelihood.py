from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sort3d_cases import blobs, exact_sections, noise, transfer, views

from hpcsort.geometry import point_group
from hpcsort.images import BandData, half_plane
from hpcsort.matching.grids import angles_between, rotation_grid, shift_disc, turned
from hpcsort.matching.model import Candidates, Model, shift_phases
from hpcsort.matching.posterior import FinestGrid, Limits, pose_probabilities
from hpcsort.matching.propose import StartGrid, propose_global, propose_local
from hpcsort.matching.references import share_references
from hpcsort.matching.refine import evaluate, refine
from hpcsort.parallel import SerialComm

BOX, BAND = 24, 9
MAPS = [blobs(BOX, seed, count=9, spread=5.0, width=1.5) for seed in (3, 4)]


def small_model(maps: list[np.ndarray], strength: float = 1.0) -> Model:
    references, _ = share_references(SerialComm(), maps, BAND, 0.5, BOX)
    amplitude = np.full((len(maps), BAND + 1), strength)
    return Model(references, amplitude, np.ones((1, BAND + 1)), BOX)


def particles(
    model: Model, count: int, strength: float, shifts: np.ndarray, noisy: bool = True
) -> tuple[BandData, np.ndarray]:
    """Images by exact sections, which share no code with the references, and the true rotations."""
    rotations = views(count, 11)
    px, py = half_plane(BAND)
    ctfs = transfer(count, 12, BAND, BOX)
    clean = strength * ctfs * exact_sections(MAPS[0], rotations, BAND) * shift_phases(-shifts, px, py, BOX)
    images = clean + (noise(count, 13, BAND) if noisy else 0.0)
    data = BandData(
        px, py, images.astype(np.complex64), ctfs, rotations.astype(np.float32), np.zeros(count, np.int64), BAND
    )
    return data, rotations


def at(rotations: np.ndarray, shifts: np.ndarray) -> Candidates:
    count = len(rotations)
    blank = np.zeros((count, 5, 5))
    return Candidates(np.arange(count), np.zeros(count, int), rotations, shifts, np.zeros(count), blank)


def test_phases_move_the_content_by_whole_pixels() -> None:
    image = np.random.default_rng(0).normal(size=(7, 7))
    px, py = half_plane(3)
    fourier = np.fft.rfft2(np.fft.ifftshift(image))[py.astype(int) % 7, px.astype(int)]
    moved = np.fft.rfft2(np.fft.ifftshift(np.roll(image, (2, -1), axis=(0, 1))))[py.astype(int) % 7, px.astype(int)]
    np.testing.assert_allclose(fourier * shift_phases(np.array([-1.0, 2.0]), px, py, 7), moved, atol=1e-5)


def direct_scores(data: BandData, rotations: np.ndarray, shifts: np.ndarray, strength: float) -> np.ndarray:
    """The same by exact sections."""
    y = data.images * shift_phases(shifts, data.px, data.py, BOX)
    predicted = strength * data.ctfs * exact_sections(MAPS[0], rotations, BAND)
    return np.asarray((np.abs(y) ** 2 - np.abs(y - predicted) ** 2).sum(axis=1))


def test_scores_are_the_direct_sums_and_the_gradient_is_theirs() -> None:
    model = small_model(MAPS[:1], 0.7)
    shifts = np.array([[0.6, -0.4], [0.0, 0.3], [-1.0, 0.8]])
    data, rotations = particles(model, 3, 1.0, shifts)
    found, gradient = evaluate(model, data, at(rotations, shifts))
    np.testing.assert_allclose(found.scores, direct_scores(data, rotations, shifts, 0.7), rtol=0.02)
    step = 2e-3
    for place in range(5):
        move = np.zeros((3, 5))
        move[:, place] = step
        up = direct_scores(data, turned(rotations, move[:, :3]), shifts + move[:, 3:], 0.7)
        down = direct_scores(data, turned(rotations, -move[:, :3]), shifts - move[:, 3:], 0.7)
        np.testing.assert_allclose((up - down) / (2 * step), gradient[:, place], atol=0.03 * np.abs(gradient).max())


def test_climbing_from_nearby_ends_at_the_pose_that_made_the_image() -> None:
    model = small_model(MAPS[:1])
    shifts = np.random.default_rng(1).uniform(-1, 1, (12, 2))
    data, rotations = particles(model, 12, 1.0, shifts, noisy=False)
    start = turned(rotations, np.deg2rad(6.0) * np.random.default_rng(2).uniform(-1, 1, (12, 3)))
    found = refine(model, data, at(start, np.zeros((12, 2))), steps=8, reach=0.1)
    assert np.rad2deg(angles_between(found.rotations, rotations)).max() < 0.7
    assert np.abs(found.shifts - shifts).max() < 0.1


def test_the_likelihood_is_calibrated_at_the_truth() -> None:
    # twice the rise from the truth to the maximum follows chi-squared with five degrees of freedom
    count, strength = 200, 4.0
    model = small_model(MAPS[:1], strength)
    data, rotations = particles(model, count, strength, np.zeros((count, 2)))
    truth, _ = evaluate(model, data, at(rotations, np.zeros((count, 2))))
    top = refine(model, data, truth, steps=6, reach=0.1)
    rise = 2 * (top.scores - truth.scores)
    assert (rise >= 0).all()
    assert rise.mean() == pytest.approx(5.0, abs=4 * np.sqrt(10 / count))


def test_the_global_grid_holds_the_pose_and_scores_as_the_local_product_does() -> None:
    model = small_model(MAPS)
    shifts = shift_disc(2.0, 1.0)
    grid = StartGrid(rotation_grid(4, point_group("c1")), shifts, 16.0, 6, point_group("c1"))
    true_shifts = shifts[[1, 4, 7, 9]]
    data, rotations = particles(model, 4, 1.0, true_shifts, noisy=False)
    narrow = data.cropped(5)
    found = propose_global(model, narrow, grid, scale_free=False)
    assert set(found.owner.tolist()) == {0, 1, 2, 3}
    for particle in range(4):
        mine = found.rows(np.flatnonzero((found.owner == particle) & (found.reference == 0)))
        near = np.argmin(angles_between(mine.rotations, rotations[particle][None]))
        assert np.rad2deg(angles_between(mine.rotations, rotations[particle][None])[near]) < 15.0
        np.testing.assert_allclose(mine.shifts[near], true_shifts[particle], atol=1.01)
    again, _ = evaluate(model, narrow, found)
    np.testing.assert_allclose(again.scores, found.scores, rtol=1e-3, atol=1e-2)
    # the same from the poses: a lattice of one rotation
    alone = StartGrid(np.zeros((1, 3)), shifts, 1.0, 1, point_group("c1"))
    best = propose_local(model, narrow, alone, scale_free=True)
    np.testing.assert_allclose(best.shifts[best.reference == 0], true_shifts)


def test_probabilities_sum_to_one_and_narrow_with_the_signal() -> None:
    spreads = []
    for strength in (2.0, 8.0):
        model = small_model(MAPS[:1], strength)
        data, rotations = particles(model, 6, strength, np.zeros((6, 2)))
        top = refine(model, data, at(rotations, np.zeros((6, 2))), steps=6, reach=0.1)
        poses = pose_probabilities(model, data, top, FinestGrid(np.deg2rad(1.5), 0.2), None)
        for found in poses:
            assert found.probability.sum() == pytest.approx(1.0)
            assert (np.diff(found.probability) <= 0).all()
        angle = [angles_between(p.rotations, p.rotations[:1]) @ p.probability for p in poses]
        spreads.append(np.mean(angle))
    assert spreads[0] > 2 * spreads[1]


def test_the_spread_of_the_poses_is_that_of_laplace_where_the_image_is_clear() -> None:
    model = small_model(MAPS[:1], 6.0)
    data, rotations = particles(model, 8, 6.0, np.zeros((8, 2)))
    top = refine(model, data, at(rotations, np.zeros((8, 2))), steps=6, reach=0.1)
    expected = np.linalg.inv(top.information)[:, [0, 1, 2], [0, 1, 2]].sum(axis=1)
    step = 0.5 * float(np.sqrt(expected.mean() / 3))
    poses = pose_probabilities(model, data, top, FinestGrid(step, 0.05), None)
    found = [(angles_between(p.rotations, top.rotations[i : i + 1]) ** 2) @ p.probability for i, p in enumerate(poses)]
    np.testing.assert_allclose(np.mean(found), expected.mean(), rtol=0.25)


def test_a_mode_given_twice_counts_once() -> None:
    model = small_model(MAPS[:1], 3.0)
    data, rotations = particles(model, 1, 3.0, np.zeros((1, 2)))
    top = refine(model, data, at(rotations, np.zeros((1, 2))), steps=6, reach=0.1)
    grid = FinestGrid(np.deg2rad(2.0), 0.3)
    alone = pose_probabilities(model, data, top, grid, None)[0]
    twice = pose_probabilities(model, data, top.rows(np.array([0, 0])), grid, None)[0]
    np.testing.assert_allclose(twice.probability[:50], alone.probability[:50], rtol=1e-4)


def test_a_local_search_lists_nothing_beyond_its_limits() -> None:
    model = small_model(MAPS[:1], 0.5)
    data, rotations = particles(model, 3, 0.5, np.zeros((3, 2)))
    top = evaluate(model, data, at(rotations, np.zeros((3, 2))))[0]
    grid = FinestGrid(np.deg2rad(2.0), 0.3)
    limits = Limits(np.deg2rad(5.0), 0.5)
    for index, found in enumerate(pose_probabilities(model, data, top, grid, limits)):
        assert np.rad2deg(angles_between(found.rotations, rotations[index : index + 1])).max() <= 6.0 + 1e-6
        assert np.hypot(*found.shifts.T).max() <= 0.65 + 1e-6


def test_the_likelier_reference_wins_with_its_probability() -> None:
    model = small_model(MAPS, 3.0)
    data, rotations = particles(model, 4, 3.0, np.zeros((4, 2)))
    own = refine(model, data, at(rotations, np.zeros((4, 2))), steps=4, reach=0.1)
    other = evaluate(model, data, replace(own, reference=np.ones(4, int)))[0]
    both = Candidates(
        *(
            np.concatenate([getattr(part, name) for part in (own, other)])
            for name in ("owner", "reference", "rotations", "shifts", "scores", "information")
        )
    )
    both = both.rows(np.argsort(both.owner, kind="stable"))
    for found in pose_probabilities(model, data, both, FinestGrid(np.deg2rad(2.0), 0.3), None):
        assert found.reference == 0
        assert found.references.sum() == pytest.approx(1.0)
        assert found.references[0] > 0.99
