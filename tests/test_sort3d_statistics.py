"""A particle's statistics are its exact log-likelihood in the subspace, with the nuisances integrated out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sort3d_cases import band_data, blobs, exact_sections, make_store, noise, on_ranks, small_grid, transfer, views

from hpcsort.kernels import extract_sections
from hpcsort.parallel import Communicator
from hpcsort.sort3d.statistics import Statistics, particle_statistics, reduced_moments
from hpcsort.sort3d.subspace import NUISANCES, Subspace, unpack_lower


def _real(values: np.ndarray) -> np.ndarray:
    """Complex pixels as real numbers; noise of E|n|^2 = 1 has variance 1/2 in each."""
    return np.concatenate([values.real, values.imag], axis=-1)


@pytest.mark.parametrize(("nuisances", "components"), [(0, 1), (1, 2), (3, 2), (7, 4)])
def test_reduced_moments_are_the_marginal_likelihood(nuisances: int, components: int) -> None:
    draw = np.random.default_rng(nuisances)
    count, pixels, total = 4, 9, nuisances + components
    predicted = draw.normal(size=(count, pixels, total)) + 1j * draw.normal(size=(count, pixels, total))
    images = draw.normal(size=(count, pixels)) + 1j * draw.normal(size=(count, pixels))
    linear = np.einsum("npa,np->na", predicted.conj(), images).real
    gram = np.einsum("npa,npb->nab", predicted.conj(), predicted).real
    statistics = Statistics(*reduced_moments(linear, gram, nuisances))
    points = draw.normal(size=(5, components))
    found = statistics.scores(points)
    for i in range(count):
        basis = _real(predicted[i].T).T
        covariance = 0.5 * np.eye(2 * pixels) + basis[:, :nuisances] @ basis[:, :nuisances].T
        means = points @ basis[:, nuisances:].T
        logs = [multivariate_normal(mean, covariance).logpdf(_real(images[i])) for mean in [*means, 0 * means[0]]]
        np.testing.assert_allclose(found[i], np.array(logs[:-1]) - logs[-1], rtol=1e-8, atol=1e-8)


def test_rows_latents_and_scores_belong_together() -> None:
    draw = np.random.default_rng(0)
    root = draw.normal(size=(7, 3, 3))
    statistics = Statistics(draw.normal(size=(7, 3)), root @ root.transpose(0, 2, 1))
    latents = statistics.latents()

    def posterior(points: np.ndarray) -> np.ndarray:
        return np.array([statistics.rows(np.array([i])).scores(points[i : i + 1])[0, 0] for i in range(7)]) - 0.5 * (
            points**2
        ).sum(axis=1)

    best = posterior(latents)
    for _ in range(20):
        assert (posterior(latents + 0.1 * draw.normal(size=(7, 3))) < best).all()
    assert len(statistics) == 7
    np.testing.assert_array_equal(statistics.scores(np.zeros((2, 3))), 0.0)


def test_unpacked_triangles_are_symmetric() -> None:
    packed = np.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(unpack_lower(packed, 3)[0], [[0, 1, 3], [1, 2, 4], [3, 4, 5]])
    np.testing.assert_array_equal(unpack_lower(packed, 3)[1], [[6, 7, 9], [7, 8, 10], [9, 10, 11]])


def _case(count: int) -> tuple[Subspace, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    grid = small_grid()
    maps = [blobs(grid.size, seed) for seed in (1, 2, 3)]
    fixed = grid.to_fourier(np.stack([0.3 * blobs(grid.size, 10 + index) for index in range(NUISANCES)]))
    free = grid.to_fourier(np.stack(maps))
    subspace = Subspace(grid, fixed, free, np.ones((grid.size,) * 3, np.float32), np.ones(NUISANCES))
    rotations, ctfs = views(count, 4), transfer(count, 5)
    sections = np.stack([exact_sections(volume, rotations) for volume in maps], axis=2)
    images = ctfs * (sections @ np.array([0.5, -0.2, 0.1])) + noise(count, 6)
    return subspace, rotations, ctfs, images, maps


def test_scores_are_differences_of_squared_distances() -> None:
    subspace, rotations, ctfs, images, maps = _case(150)
    bare = Subspace(subspace.grid, 0 * subspace.fixed, subspace.free, subspace.focus, subspace.spread)
    data = band_data(images, ctfs, rotations)
    points = np.array([[0.5, -0.2, 0.1], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [-0.3, 0.4, 0.0]])
    found = particle_statistics(make_store(data), bare).scores(points)
    # With the same trilinear sections all digits agree, with exact ones all that matter.
    for sections, tolerance in (
        ([extract_sections(v, data.rotations, data.px, data.py, 1.0) for v in subspace.free], 2e-4),
        ([exact_sections(volume, rotations) for volume in maps], 0.1),
    ):
        predicted = data.ctfs[:, :, None] * (np.stack(sections, axis=2) @ points.T)
        direct = (np.abs(images) ** 2).sum(axis=1)[:, None] - (np.abs(images[:, :, None] - predicted) ** 2).sum(axis=1)
        assert np.abs(found - direct).max() < tolerance * np.abs(direct).max()


def test_statistics_of_all_particles_reach_every_rank_with_the_same_bits() -> None:
    subspace, rotations, ctfs, images, _ = _case(300)

    def work(comm: Communicator) -> tuple[bytes, bytes]:
        statistics = particle_statistics(make_store(band_data(images, ctfs, rotations), comm), subspace)
        assert len(statistics) == 300
        return statistics.linear.tobytes(), statistics.precision.tobytes()

    (alone,) = on_ranks(1, work)
    for ranks in (2, 4):
        assert set(on_ranks(ranks, work)) == {alone}
    precision = np.frombuffer(alone[1]).reshape(300, 3, 3)
    np.testing.assert_array_equal(precision, precision.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(precision).min() > 0


def test_nuisances_lower_what_the_particles_tell() -> None:
    subspace, rotations, ctfs, images, _ = _case(20)
    store = make_store(band_data(images, ctfs, rotations))
    bare = Subspace(subspace.grid, 0 * subspace.fixed, subspace.free, subspace.focus, subspace.spread)
    lost = particle_statistics(store, bare).precision - particle_statistics(store, subspace).precision
    assert np.linalg.eigvalsh(lost).min() > -1e-3
    assert np.trace(lost.mean(axis=0)) > 1.0
