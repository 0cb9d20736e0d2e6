from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cl2d_cases import BOX, PIXEL_A, Views, make_views, options
from planar_cases import Blobs, correlation, random_poses

from hpcsort.cl2d.axes import principal_axes
from hpcsort.cl2d.cores import find_cores, robust_z, stable_members
from hpcsort.cl2d.criterion import Criterion, Pictures
from hpcsort.cl2d.hierarchy import hierarchy_rows, hierarchy_text
from hpcsort.cl2d.levels import class_counts
from hpcsort.cl2d.source import read_source
from hpcsort.cl2d.splitting import grow, repair
from hpcsort.cl2d.state import State, aligned_features, centred, ring_weights, with_means
from hpcsort.cl2d.stock import Stock, load_stock
from hpcsort.io import write_stack
from hpcsort.parallel import SerialComm
from hpcsort.planar import PlanarPoses, PolarGrid


def true_state(views: Views, stock: Stock, labels: np.ndarray) -> State:
    empty = np.zeros((0, *stock.grid.shape), np.complex64)
    start = State(labels, views.poses, np.zeros(stock.count, np.float32), empty)
    return with_means(stock, start, int(labels.max()) + 1)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    return make_views(tmp_path_factory.mktemp("parts"), 400, 2, snr=1.0, seed=7)


@pytest.fixture(scope="module")
def stock(views: Views) -> Stock:
    asked = options(views, views.stack.parent / "out")
    return load_stock(asked, read_source(asked), SerialComm())


def test_classes_double_from_level_to_level() -> None:
    assert class_counts(4, 64) == [4, 8, 16, 32, 64]
    assert class_counts(3, 20) == [3, 6, 12, 20]
    assert class_counts(5, 5) == [5]


def test_a_class_that_mixes_two_views_is_split_into_them(views: Views, stock: Stock) -> None:
    state = true_state(views, stock, np.zeros(400, np.int64))
    split = grow(stock, state, 2, 0)
    share = np.mean(split.labels == views.kind)
    assert max(share, 1 - share) > 0.98
    # halves stay in the frame, and the means are those of the labels
    np.testing.assert_array_equal(split.poses.psi_deg, state.poses.psi_deg)
    np.testing.assert_allclose(with_means(stock, split, 2).means, split.means)
    spread = [np.linalg.norm(mean - state.means[0]) for mean in split.means]
    np.testing.assert_allclose(spread[0], spread[1], rtol=0.1)


@pytest.mark.parametrize("classes", [2, 3, 7, 64, 400])
def test_as_many_classes_as_asked_and_none_empty(views: Views, stock: Stock, classes: int) -> None:
    state = grow(stock, true_state(views, stock, np.zeros(400, np.int64)), classes, 0)
    assert state.classes == classes
    assert (state.sizes > 0).all()
    assert state.sizes.sum() == 400


def test_equal_particles_are_split_as_well(tmp_path: Path) -> None:
    image = np.random.default_rng(0).standard_normal((1, 16, 16), np.float32)
    images = np.repeat(image, 9, axis=0)
    write_stack(tmp_path / "particles.mrcs", images, images.shape, PIXEL_A)
    same = Views(tmp_path / "particles.mrcs", np.zeros(9, np.int64), PlanarPoses.identity(9), images)
    asked = options(same, tmp_path / "out", instack=same.stack, classes=9, initial_classes=1)
    stock = load_stock(asked, read_source(asked), SerialComm())
    state = grow(stock, true_state(same, stock, np.zeros(9, np.int64)), 9, 0)
    np.testing.assert_array_equal(np.sort(state.labels), np.arange(9))


def test_small_and_empty_classes_are_replaced(views: Views, stock: Stock) -> None:
    labels = np.where(views.kind == 0, 0, 1)
    labels[:3] = 2
    state = true_state(views, stock, labels)
    state = replace(state, means=np.concatenate([state.means, np.zeros_like(state.means[:1])]))
    mended, count = repair(stock, state, options(views, views.stack.parent / "out"))
    assert count == 2
    assert mended.classes == 4
    assert mended.sizes.min() > 20
    np.testing.assert_array_equal(np.flatnonzero(mended.labels < 0), [0, 1, 2])
    untouched, none = repair(stock, mended, options(views, views.stack.parent / "out"))
    assert none == 0
    assert untouched is mended


def test_classes_do_not_drift(views: Views, stock: Stock) -> None:
    state = true_state(views, stock, views.kind)
    moved = PlanarPoses(np.zeros(400), np.tile([1.5, -0.5], (400, 1)), np.zeros(400, bool))
    drifted = replace(state, poses=state.poses.then(moved))
    back = centred(drifted)
    for label in (0, 1):
        np.testing.assert_allclose(back.poses.offsets_px[back.labels == label].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(back.poses.psi_deg, state.poses.psi_deg, atol=1e-9)


def test_weights_of_rings_are_the_share_of_signal(views: Views, stock: Stock) -> None:
    whole = ring_weights(stock, true_state(views, stock, views.kind))
    assert whole[:, :3].min() > 0.97
    # a class of pure noise: poses that mean nothing
    wrong = replace(true_state(views, stock, np.arange(400) % 20), poses=random_poses(400, 0.0, 8))
    few = ring_weights(stock, with_means(stock, wrong, 20))
    assert few[:, -3:].mean() < whole[:, -3:].mean()
    assert few.max() <= 1.0


def test_axes_are_those_of_a_full_decomposition(views: Views, stock: Stock) -> None:
    state = true_state(views, stock, np.zeros(400, np.int64))
    axis = principal_axes(stock, state, np.array([0]), 1, 0)[0, 0]
    parts = [
        aligned_features(stock.grid, samples, state.poses.rows(rows))
        for rows, samples in zip(stock.rows(), stock.samples, strict=True)
    ]
    spread = np.concatenate(parts) - state.means.reshape(1, -1).view(np.float32)
    first = np.linalg.svd(spread, full_matrices=False)[2][0]
    assert abs(float(first @ axis)) > 0.999


def test_junk_is_in_no_core(tmp_path: Path) -> None:
    views = make_views(tmp_path, 300, 1, snr=2.0, seed=9)
    rng = np.random.default_rng(10)
    images = views.clean + rng.standard_normal(views.clean.shape, np.float32)
    images[:12] = 3 * rng.standard_normal((12, BOX, BOX), np.float32)
    images[12:24] += 8 * Blobs.random(BOX, 11, 2).draw(BOX, random_poses(12, 4.0, 12))
    write_stack(views.stack, images, images.shape, PIXEL_A, overwrite=True)
    asked = options(views, tmp_path / "out")
    stock = load_stock(asked, read_source(asked), SerialComm())
    state = true_state(views, stock, np.zeros(300, np.int64))
    mean = state.means.reshape(1, -1).view(np.float32)
    parts = [
        aligned_features(stock.grid, samples, state.poses.rows(rows))
        for rows, samples in zip(stock.rows(), stock.samples, strict=True)
    ]
    features = np.concatenate(parts)
    scores = (features @ mean[0]) / np.linalg.norm(features, axis=1) / np.linalg.norm(mean)
    cores = find_cores(stock, replace(state, scores=scores.astype(np.float32)), asked)
    assert cores.member[:24].mean() < 0.2
    assert cores.member[24:].mean() > 0.93
    few = find_cores(stock, true_state(views, stock, np.arange(300) % 40), asked)
    assert few.member.all()
    assert not few.junk_z.any()


def test_stable_members_are_those_of_a_direct_count() -> None:
    rng = np.random.default_rng(13)
    paths = [rng.integers(0, count, 200) for count in (2, 3, 5)]
    core = rng.random(200) < 0.8
    for tolerance in (0, 1, 2):
        found = stable_members(paths, core, tolerance)
        for particle in range(200):
            apart = 0
            for earlier in paths[:-1]:
                mates = earlier[core & (paths[-1] == paths[-1][particle])]
                counts = np.bincount(mates, minlength=5) if mates.size else np.zeros(5)
                apart += earlier[particle] != counts.argmax()
            assert found[particle] == (core[particle] and apart <= tolerance)
    nothing = stable_members(paths, np.zeros(200, bool), 1)
    assert not nothing.any()


def test_robust_z_of_gaussian_and_of_equal_values() -> None:
    values = np.random.default_rng(14).normal(5, 3, 20001)
    z = robust_z(np.append(values, 1e6))
    np.testing.assert_allclose(z[:-1].std(), 1.0, atol=0.03)
    assert z[-1] > 1e5
    np.testing.assert_array_equal(robust_z(np.full(7, 2.0)), 0)


def test_the_robust_value_is_the_product_of_two_shares() -> None:
    rng = np.random.default_rng(15)
    labels = rng.integers(0, 3, 3000)
    scores = rng.normal(0.3, 0.05, (3000, 3)).astype(np.float32)
    scores[np.arange(3000), labels] += np.array([0.3, 0.1, 0.05], np.float32)[labels]
    scores[rng.random((3000, 3)) < 0.1] = np.nan
    criterion = Criterion()
    plain = criterion.values(scores[:5], np.arange(3))
    np.testing.assert_array_equal(plain, scores[:5].astype(np.float64))
    criterion.learn(SerialComm(), [scores[:1000], scores[1000:]], [labels[:1000], labels[1000:]], 3)
    # a particle's score counts from its best other class
    margins = np.full(scores.shape, np.nan)
    for row, kind in np.argwhere(np.isfinite(scores)):
        others = [scores[row, other] for other in range(3) if other != kind and np.isfinite(scores[row, other])]
        margins[row, kind] = scores[row, kind] - max(others, default=0.0)
    chosen = np.isfinite(scores).all(axis=1)
    value = criterion.values(scores[chosen], np.arange(3))
    for kind in range(3):
        shares = []
        for group in (labels == kind, labels != kind):
            known = np.sort(margins[group & np.isfinite(margins[:, kind]), kind])
            shares.append(np.searchsorted(known, margins[chosen, kind]) / len(known))
        np.testing.assert_allclose(value[:, kind], shares[0] * shares[1], atol=0.03)


def test_beyond_all_scores_before_a_robust_value_is_clamped() -> None:
    rng = np.random.default_rng(19)
    scores = rng.normal(0.3, 0.05, (500, 2)).astype(np.float32)
    criterion = Criterion()
    criterion.learn(SerialComm(), [scores], [rng.integers(0, 2, 500)], 2)
    # better than all before is best, not worthless; worse than all before is still something
    asked = np.array([[5.0, 0.0], [0.0, 5.0], [0.3, 0.3]], np.float32)
    value = criterion.values(asked, np.arange(2))
    assert value[0, 0] > 0.99
    assert value[1, 1] > 0.99
    assert 0 < value[0, 1] < 1e-6
    assert (value[2] > 0.05).all()
    rising = np.stack([np.linspace(-1, 1, 50), np.zeros(50)], axis=1).astype(np.float32)
    assert (np.diff(criterion.values(rising, np.arange(2))[:, 0]) >= 0).all()


@pytest.mark.parametrize("box", [31, 32])
def test_pictures_show_the_image_inside_the_band(box: int) -> None:
    grid = PolarGrid(box, 0.42 * box, 12)
    blobs = Blobs.random(box, 16)
    images = blobs.draw(box, random_poses(3, 1.0, 17))
    pictures = Pictures(grid)
    drawn = pictures.draw(grid.samples(images))
    step = box / 26
    axis = np.arange(-int(0.42 * box / step), int(0.42 * box / step) + 1) * step
    y, x = np.meshgrid(axis, axis, indexing="ij")
    inside = np.hypot(x, y) <= 0.42 * box
    kx, ky = (part.ravel() for part in np.meshgrid(np.arange(-12, 13), np.arange(-12, 13)))
    pixel = np.arange(box) - box // 2
    for image, seen in zip(images * grid.mask, drawn, strict=True):
        wave = np.exp(
            -2j * np.pi / box * (np.multiply.outer(ky, pixel)[:, :, None] + np.multiply.outer(kx, pixel)[:, None])
        )
        transform = (wave * image).sum(axis=(1, 2)) * (np.hypot(kx, ky) <= 12.0) / box**2
        back = np.exp(2j * np.pi / box * (np.outer(x[inside], kx) + np.outer(y[inside], ky))) @ transform
        assert correlation(seen, back.real) > 0.995
        assert seen.std() == pytest.approx(back.real.std(), rel=0.05)
    same = pictures.correntropy(drawn, drawn, 1.0)
    np.testing.assert_allclose(same, 1.0)
    np.testing.assert_allclose(pictures.correntropy(drawn, drawn + 1, 1.0), np.exp(-0.5), atol=1e-6)


def test_the_hierarchy_counts_every_particle_once() -> None:
    rng = np.random.default_rng(18)
    paths = [rng.integers(0, count, 100) for count in (2, 4)]
    rows = hierarchy_rows(paths)
    assert sum(int(row["particles"]) for row in rows) == 100
    shares = [sum(row["percent_of_class"] for row in rows if row["class"] == number) for number in (1, 2)]
    np.testing.assert_allclose(shares, 100, atol=0.05)
    assert hierarchy_text(paths).count("comes from") == 4
    assert hierarchy_rows(paths[:1]) == []
