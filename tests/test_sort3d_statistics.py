"""A particle's statistics are its exact log-likelihood in the subspace, with the nuisances integrated out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sort3d_cases import (
    SIZE,
    band_data,
    blobs,
    exact_sections,
    make_store,
    noise,
    on_ranks,
    small_band,
    small_grid,
    transfer,
    views,
)

from hpcsort.kernels import extract_sections, marginal_moments
from hpcsort.parallel import Communicator
from hpcsort.sort3d import statistics as module
from hpcsort.sort3d.statistics import JUNK_KINDS, Statistics, integrated, junk_scores, particle_statistics
from hpcsort.sort3d.subspace import NUISANCES, Subspace, moments, unpack_lower


def _packed(gram: np.ndarray) -> np.ndarray:
    """Lower triangles (n, T(T+1)/2) in float32."""
    return np.ascontiguousarray(gram[:, *np.tril_indices(gram.shape[1])], np.float32)


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
    marginals = marginal_moments(linear.astype(np.float32), _packed(gram), nuisances, 1.0)
    statistics = Statistics(marginals.linear, unpack_lower(marginals.precision, components))
    points = draw.normal(size=(5, components))
    found = statistics.scores(points)
    for i in range(count):
        basis = _real(predicted[i].T).T
        covariance = 0.5 * np.eye(2 * pixels) + basis[:, :nuisances] @ basis[:, :nuisances].T
        means = points @ basis[:, nuisances:].T
        logs = [multivariate_normal(mean, covariance).logpdf(_real(images[i])) for mean in [*means, 0 * means[0]]]
        # The moments arrive in float32.
        np.testing.assert_allclose(found[i], np.array(logs[:-1]) - logs[-1], rtol=1e-5, atol=1e-5)


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
    np.testing.assert_array_equal(statistics.rows(np.array([4, 2])).linear, statistics.linear[[4, 2]])
    np.testing.assert_array_equal(statistics.scores(np.zeros((2, 3))), 0.0)


@pytest.mark.parametrize("components", [1, 2, 3])
def test_component_gains_are_gaussian_integrals(components: int) -> None:
    draw = np.random.default_rng(components)
    root = 0.6 * draw.normal(size=(4, components, components))
    statistics = Statistics(1.5 * draw.normal(size=(4, components)), root @ root.transpose(0, 2, 1))
    gains = statistics.component_gains()
    nodes, weights = hermegauss(60)
    for leading in range(components + 1):
        # Quadrature on a lattice of all latents.
        axes = np.meshgrid(*[nodes] * leading, indexing="ij") if leading else []
        points = np.stack([axis.ravel() for axis in axes], axis=1) if leading else np.zeros((1, 0))
        shares = np.log(weights / weights.sum())
        log_share = sum((np.meshgrid(*[shares] * leading, indexing="ij") if leading else [np.zeros(1)]), np.zeros(1))
        direct = logsumexp(statistics.leading(leading).scores(points) + np.ravel(log_share), axis=1)
        np.testing.assert_allclose(gains[:, leading], direct, rtol=1e-6, atol=1e-8)


def test_leading_statistics_are_those_of_the_leading_maps() -> None:
    subspace, rotations, ctfs, images, _ = _case(20)
    store = make_store(band_data(images, ctfs, rotations))
    whole, short = particle_statistics(store, [subspace, subspace.leading(2)])
    np.testing.assert_allclose(whole.leading(2).linear, short.linear, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(whole.leading(2).precision, short.precision, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(whole.component_gains()[:, :3], short.component_gains(), rtol=1e-4, atol=1e-4)


# Junk


@pytest.mark.parametrize(("components", "contrast"), [(0, 0.05), (1, 0.2), (3, 1.0)])
def test_junk_scores_are_marginal_likelihoods_of_pixels(components: int, contrast: float) -> None:
    draw = np.random.default_rng(components)
    count, pixels, total = 5, 11, NUISANCES + components
    predicted = 0.3 * (draw.normal(size=(count, pixels, total)) + 1j * draw.normal(size=(count, pixels, total)))
    # The contrast's map is the consensus times its standard deviation.
    consensus = predicted[:, :, 0] / contrast
    images = consensus * np.array([1, 1, 0, 0, 0.5])[:, None] + noise(count, 1)[:, :pixels]
    residual = images - consensus
    linear = np.einsum("npa,np->na", predicted.conj(), residual).real
    gram = np.einsum("npa,npb->nab", predicted.conj(), predicted).real
    moments_given = linear.astype(np.float32), _packed(gram)
    found = junk_scores(integrated(*moments_given), *moments_given, contrast)
    for i in range(count):
        basis = _real(predicted[i].T).T
        white = 0.5 * np.eye(2 * pixels)
        good = white + basis[:, :NUISANCES] @ basis[:, :NUISANCES].T
        broad = white + module._BREADTH**2 * basis @ basis.T
        particle = multivariate_normal(_real(consensus[i]), good).logpdf(_real(images[i]))
        empty = multivariate_normal(0 * _real(consensus[i]), white).logpdf(_real(images[i]))
        far = multivariate_normal(_real(consensus[i]), broad).logpdf(_real(images[i]))
        np.testing.assert_allclose(found[i], [empty - particle, far - particle], rtol=1e-5, atol=1e-5)


def test_junk_is_told_from_particles() -> None:
    count = 90
    volume = 2.0 * blobs(SIZE, 9)
    rotations, ctfs = views(count, 1), transfer(count, 2)
    sections = ctfs * exact_sections(volume, rotations)
    kind = np.arange(count) % 3
    # Particles, empty images, and something of the same strength that is not the particle.
    other = ctfs * exact_sections(2.0 * blobs(SIZE, 77), views(count, 5))
    images = np.select([kind[:, None] == 0, kind[:, None] == 1], [sections, 0 * sections], other) + noise(count, 3)
    band = small_band(make_store(band_data(images - sections, ctfs, rotations)), volume)
    subspace = band.start()
    found = moments(band.store, subspace.volumes(), NUISANCES, subspace.grid.pad, slice(0, count))
    junk = junk_scores(integrated(*found), *found, float(subspace.spread[0]))
    assert junk.shape == (count, JUNK_KINDS)
    assert (junk[kind == 0] < 0).all()
    assert (junk[kind == 1].argmax(axis=1) == 0).mean() > 0.9
    assert (junk[kind == 1].max(axis=1) > 0).all()
    assert (junk[kind == 2, 1] > 0).mean() > 0.9


def _case(count: int) -> tuple[Subspace, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    grid = small_grid()
    maps = [blobs(grid.size, seed) for seed in (1, 2, 3)]
    fixed = grid.to_fourier(np.stack([0.3 * blobs(grid.size, 10 + index) for index in range(NUISANCES)]))
    free = grid.to_fourier(np.stack(maps))
    whole = np.ones((grid.size,) * 3, np.float32)
    subspace = Subspace(grid, fixed, free, whole, whole, np.ones(NUISANCES))
    rotations, ctfs = views(count, 4), transfer(count, 5)
    sections = np.stack([exact_sections(volume, rotations) for volume in maps], axis=2)
    images = ctfs * (sections @ np.array([0.5, -0.2, 0.1])) + noise(count, 6)
    return subspace, rotations, ctfs, images, maps


def test_scores_are_differences_of_squared_distances() -> None:
    subspace, rotations, ctfs, images, maps = _case(150)
    bare = Subspace(subspace.grid, 0 * subspace.fixed, subspace.free, subspace.focus, subspace.region, subspace.spread)
    data = band_data(images, ctfs, rotations)
    points = np.array([[0.5, -0.2, 0.1], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [-0.3, 0.4, 0.0]])
    found = particle_statistics(make_store(data), [bare])[0].scores(points)
    # With the same trilinear sections all digits agree, with exact ones all that matter.
    for sections, tolerance in (
        ([extract_sections(v, data.rotations, data.px, data.py, 1.0) for v in subspace.free], 2e-4),
        ([exact_sections(volume, rotations) for volume in maps], 0.1),
    ):
        predicted = data.ctfs[:, :, None] * (np.stack(sections, axis=2) @ points.T)
        direct = (np.abs(images) ** 2).sum(axis=1)[:, None] - (np.abs(images[:, :, None] - predicted) ** 2).sum(axis=1)
        assert np.abs(found - direct).max() < tolerance * np.abs(direct).max()


@pytest.mark.parametrize("ranks", [2, 4])
def test_statistics_of_all_particles_reach_every_rank_with_the_same_bits(ranks: int) -> None:
    subspace, rotations, ctfs, images, _ = _case(300)

    def work(comm: Communicator) -> list[bytes]:
        found = particle_statistics(
            make_store(band_data(images, ctfs, rotations), comm), [subspace, subspace.leading(1)]
        )
        assert [len(statistics) for statistics in found] == [300, 300]
        return [part.tobytes() for one in found for part in (one.linear, one.precision)]

    (alone,) = on_ranks(1, work)
    for told in on_ranks(ranks, work):
        assert told == alone
    precision = np.frombuffer(alone[1]).reshape(300, 3, 3)
    np.testing.assert_array_equal(precision, precision.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(precision).min() > 0


def test_nuisances_lower_what_the_particles_tell() -> None:
    subspace, rotations, ctfs, images, _ = _case(20)
    store = make_store(band_data(images, ctfs, rotations))
    bare = Subspace(subspace.grid, 0 * subspace.fixed, subspace.free, subspace.focus, subspace.region, subspace.spread)
    without, along = particle_statistics(store, [bare, subspace])
    lost = without.precision - along.precision
    assert np.linalg.eigvalsh(lost).min() > -1e-3
    assert np.trace(lost.mean(axis=0)) > 1.0
