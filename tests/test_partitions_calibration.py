"""Reliability of probabilities, and temperatures that make them honest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from hpcsort.partitions import (
    agreement_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability_diagram,
    split_temperature,
    tempered,
)


def _particles(
    draw: np.random.Generator, groups: int, separation: float, count: int = 12_000, spread: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian mixture in six dimensions with an own precision for each particle (its CTF).

    Returns true groups, precisions (n,), data (n, 6), means (K, 6) and shares (K,).
    """
    means = draw.normal(size=(groups, 6))
    distances = ((means[:, None] - means) ** 2).sum(axis=-1)[np.triu_indices(groups, 1)]
    means *= np.sqrt(separation / np.median(distances))
    shares = np.arange(groups, 0, -1) / np.arange(groups + 1).sum()
    truth = draw.choice(groups, count, p=shares)
    precision = np.exp(spread * draw.normal(size=count) - spread**2 / 2)
    data = precision[:, None] * means[truth] + np.sqrt(precision)[:, None] * draw.normal(size=(count, 6))
    return truth, precision, data, means, shares


def _scores(precision: np.ndarray, data: np.ndarray, means: np.ndarray) -> np.ndarray:
    return data @ means.T - 0.5 * precision[:, None] * (means**2).sum(axis=1)


def _error(posterior: np.ndarray, truth: np.ndarray) -> float:
    return expected_calibration_error(posterior.max(axis=1), posterior.argmax(axis=1) == truth)


def test_diagram_is_the_table_of_its_bins() -> None:
    said = np.array([0.0, 0.05, 0.55, 0.6, 1.0, 1.0])
    diagram = reliability_diagram(said, [0, 1, 1, 0, 1, 1], bins=4)
    assert diagram.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert diagram.counts.tolist() == [2, 0, 2, 2]
    assert diagram.confidence == pytest.approx([0.025, np.nan, 0.575, 1], nan_ok=True)
    assert diagram.accuracy == pytest.approx([0.5, np.nan, 0.5, 1], nan_ok=True)
    assert diagram.error == pytest.approx((2 * 0.475 + 2 * 0.075) / 6)
    assert np.isnan(expected_calibration_error([], []))
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability_diagram([1.2], [True])
    with pytest.raises(ValueError, match="assignments"):
        reliability_diagram([0.2], [True, False])


def test_honest_probabilities_have_no_error() -> None:
    draw = np.random.default_rng(0)
    said = draw.random(100_000)
    assert expected_calibration_error(said, draw.random(100_000) < said) < 0.01
    assert expected_calibration_error(said, draw.random(100_000) < said**2) == pytest.approx(1 / 6, abs=0.01)


@pytest.mark.parametrize(("groups", "separation"), [(2, 4), (2, 10), (5, 4), (5, 10), (5, 25)])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_agreement_makes_noisy_chains_honest(groups: int, separation: float, noise: float) -> None:
    """Two chains' scores are the true ones and independent noise of a share of the separation."""
    draw = np.random.default_rng([groups, separation, int(2 * noise)])
    truth, precision, data, means, shares = _particles(draw, groups, separation)
    true = _scores(precision, data, means)
    chains = true + np.sqrt(noise * separation / 2) * draw.normal(size=(2, *true.shape))
    raw = tempered(chains.mean(axis=0), shares, 1.0)
    temperature = agreement_temperature(chains, shares)
    assert _error(tempered(chains.mean(axis=0), shares, temperature), truth) <= 0.03
    assert temperature == pytest.approx(fit_temperature(chains.mean(axis=0), shares, truth), rel=0.12)
    if noise:
        assert _error(raw, truth) > _error(tempered(chains.mean(axis=0), shares, temperature), truth)


def test_agreement_of_maps_with_errors() -> None:
    """Errors of the maps, not of the scores: particles share them, and every chain has drawn but one."""
    draw = np.random.default_rng(4)
    errors, raw = [], []
    for _ in range(8):
        truth, precision, data, means, shares = _particles(draw, 5, 10.0, 6000)
        noise = np.sqrt(0.3 * 10 / 12) * draw.normal(size=(4, *means.shape))
        chains = np.array([_scores(precision, data, means + own) for own in noise])
        mean = chains.mean(axis=0)
        errors.append(_error(tempered(mean, shares, agreement_temperature(chains, shares)), truth))
        raw.append(_error(tempered(mean, shares, 1.0), truth))
    assert np.mean(errors) <= 0.03
    assert np.mean(errors) < np.mean(raw)


def test_agreement_cannot_see_what_all_chains_share() -> None:
    truth, precision, data, means, shares = _particles(np.random.default_rng(1), 3, 6.0)
    scores = 2 * _scores(precision, data, means)
    assert agreement_temperature([scores, scores, scores], shares) == pytest.approx(1, rel=1e-3)
    assert fit_temperature(scores, shares, truth) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(("groups", "separation"), [(2, 4), (5, 4), (5, 25)])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_halves_of_the_pixels_find_the_scale(groups: int, separation: float, scale: float) -> None:
    draw = np.random.default_rng([groups, separation])
    truth, precision, data, means, shares = _particles(draw, groups, separation)
    # Half of the pixels carry half of the precision and a half of the data with independent noise.
    part = data / 2 + np.sqrt(precision)[:, None] / 2 * draw.normal(size=data.shape)
    halves = scale * np.array([_scores(precision / 2, half, means) for half in (part, data - part)])
    temperature = split_temperature(halves, shares)
    assert temperature == pytest.approx(scale, rel=0.1)
    assert _error(tempered(halves.sum(axis=0), shares, temperature), truth) <= 0.03
    if scale != 1:
        assert _error(tempered(halves.sum(axis=0), shares, 1.0), truth) > 0.03


def test_tempered_posteriors_keep_the_shares() -> None:
    scores = np.random.default_rng(0).normal(size=(7, 3))
    assert tempered(scores, [5, 3, 2], 1e9) == pytest.approx(np.tile([0.5, 0.3, 0.2], (7, 1)))
    assert tempered(scores, [1, 1, 1], 1.0) == pytest.approx(softmax(scores, axis=1))
    assert tempered(scores + 100, [1, 2, 1], 2.0) == pytest.approx(tempered(scores, [1, 2, 1], 2.0))


def test_what_cannot_be_calibrated_is_refused() -> None:
    scores = np.zeros((2, 4, 3))
    with pytest.raises(ValueError, match="two chains"):
        agreement_temperature(scores[:1], [1, 1, 1])
    with pytest.raises(ValueError, match="two halves"):
        split_temperature(np.zeros((3, 4, 3)), [1, 1, 1])
    with pytest.raises(ValueError, match="do not fit"):
        agreement_temperature(scores, [1, 1])
    with pytest.raises(ValueError, match="finite"):
        tempered([[0.0, -np.inf]], [1, 1], 1.0)
