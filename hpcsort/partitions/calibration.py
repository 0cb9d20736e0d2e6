"""Whether probabilities are honest, and the temperature that makes them so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax

_LOG_T = (-3.0, 4.0)
"""Range of ln T that is searched: 0.05 to 55."""
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram.

    Attributes
    ----------
    edges : (B + 1,) float64
        Limits of the bins of probability.
    confidence, accuracy : (B,) float64
        Mean probability of the particles of a bin, and the share of them that are right; NaN in an empty bin.
    counts : (B,) int64
        Particles in each bin.
    error : float
        Expected calibration error: mean over particles of |confidence - accuracy| of their bin.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    counts: NDArray[np.int64]
    error: float


def reliability_diagram(probability: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Compare how probable assignments were said to be with how many are right (Guo et al., ICML 2017).

    Parameters
    ----------
    probability : (N,) float
        Probability of the group that each particle was given, 0..1.
    correct : (N,) bool
        Whether it is the right one.
    bins : int
        Number of bins of equal width; the last one holds 1.
    """
    said, right = np.asarray(probability, np.float64), np.asarray(correct, bool)
    if said.ndim != 1 or said.shape != right.shape:
        raise ValueError(f"{said.shape} probabilities for {right.shape} assignments")
    if not ((said >= 0) & (said <= 1)).all():
        raise ValueError("probabilities must be numbers from 0 to 1")
    place = np.minimum((said * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values, bins) for values in (said, right.astype(np.float64))]
    empty = np.full(bins, np.nan)
    confidence, accuracy = (np.divide(values, counts, out=empty.copy(), where=counts > 0) for values in sums)
    error = float(np.abs(sums[0] - sums[1]).sum() / said.size) if said.size else float("nan")
    return Reliability(np.linspace(0, 1, bins + 1), confidence, accuracy, counts, error)


def expected_calibration_error(probability: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Return the mean difference between probability and share right; parameters of `reliability_diagram`."""
    return reliability_diagram(probability, correct, bins).error


def tempered(log_likelihoods: ArrayLike, shares: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Return posteriors (N, K), the softmax of ln(share) + ln(likelihood) / T.

    Parameters
    ----------
    log_likelihoods : (N, K) float
        Without the shares.
    shares : (K,) float
        Shares of the groups, positive.
    temperature : float
        T; above 1 for likelihoods that claim too much.
    """
    scores, prior = _checked(log_likelihoods, shares, 2)
    return np.asarray(softmax(prior + scores / temperature, axis=1))


def fit_temperature(log_likelihoods: ArrayLike, shares: ArrayLike, truth: ArrayLike) -> float:
    """Return the T with the highest likelihood of known groups (a simulation's): temperature scaling, Guo et al. 2017.

    Parameters
    ----------
    log_likelihoods, shares : (N, K), (K,) float
        As in `tempered`.
    truth : (N,) int
        True column of each particle.
    """
    scores, prior = _checked(log_likelihoods, shares, 2)
    rows, columns = np.arange(len(scores)), np.asarray(truth, np.int64)
    return _lowest(lambda T: -float(log_softmax(prior + scores / T, axis=1)[rows, columns].sum()))


def agreement_temperature(log_likelihoods: ArrayLike, shares: ArrayLike) -> float:
    """Return the T that makes the mean of independent chains honest, from their agreement alone.

    Each chain's log-likelihoods are s_c = s + e_c: true scores s plus errors of the chain's maps, independent between
    chains that learned from disjoint halves. Their mean, taken at face value, is over-confident. T minimises the
    expected cross-entropy of the unknown true groups z,

        E[ln sum_k w_k exp(mean_k / T)] - E[s_z] / T,    E[s_z] = E[phi(s)],    phi(s) = sum_k softmax(ln w + s)_k s_k,

    where the last step holds for honest s. E[phi(s)] without errors is extrapolated from their presence (SIMEX: Cook &
    Stefanski, JASA 89 (1994) 1314): the mean of C chains carries 1 / C of the variance of one chain's errors, and mean
    +- t (s_c - mean) carries 1 / C + t^2 (1 - 1 / C); a parabola through t^2 = 0, 1, 3 is taken to 0.

    Equal chains give T = 1: errors that all chains share (a wrong noise level, wrong poses) cannot be seen in their
    agreement; `split_temperature` sees the former. Nor do equal labels tell: the chains score the same images, so with
    perfect maps they agree wholly though images at low signal remain uncertain. A T at which the predicted
    agreement sum_k p_Ak p_Bk is the observed one, or with the highest sum of its logarithm, tends to 0 there.

    Parameters
    ----------
    log_likelihoods : (C, N, K) float
        Of C >= 2 chains, aligned groups, without the shares; a constant for each particle does not matter.
    shares : (K,) float
        Shares of the groups, positive.

    Returns
    -------
    T of `tempered(mean over chains, shares, T)`.
    """
    chains, prior = _checked(log_likelihoods, shares, 3)
    count = len(chains)
    if count < 2:
        raise ValueError("agreement needs at least two chains")
    chains = chains - chains.mean(axis=2, keepdims=True)
    mean = chains.mean(axis=0)
    levels, values = [], []
    for squared in (0.0, 1.0, 3.0):
        levels.append(1 / count + squared * (1 - 1 / count))
        noisy = [mean + step * (chain - mean) for chain in chains for step in (-np.sqrt(squared), np.sqrt(squared))]
        values.append(np.mean([_own_score(scores, prior) for scores in (noisy if squared else [mean])]))
    target = float(np.polyval(np.polyfit(levels, values, 2), 0.0))
    return _lowest(lambda T: float(logsumexp(prior + mean / T, axis=1).mean()) - target / T)


def split_temperature(log_likelihoods: ArrayLike, shares: ArrayLike) -> float:
    """Return the T that makes log-likelihoods honest, from disjoint halves of each particle's pixels.

    Given the group, the noise in two sets of pixels is independent, so that the posteriors p_A and p_B by either alone
    are as a pair sum_k p_Ak p_Bk / w_k times as probable as by chance. The T with the highest mean logarithm of that is
    found: it holds for a wrong noise level and partly for errors of the maps and poses, which both halves share.

    Parameters
    ----------
    log_likelihoods : (2, N, K) float
        By either half of the pixels with the same maps, without the shares; they sum to those of all pixels.
    shares : (K,) float
        Shares of the groups, positive.

    Returns
    -------
    T of `tempered(sum of both, shares, T)`.
    """
    halves, prior = _checked(log_likelihoods, shares, 3)
    if len(halves) != 2:
        raise ValueError(f"pixels are split into two halves, not {len(halves)}")

    def loss(T: float) -> float:
        one, other = (softmax(prior + scores / T, axis=1) for scores in halves)
        # With the mean posteriors for shares, chance pairs have the mean 1 at any T.
        share = np.sqrt(one.mean(axis=0) * other.mean(axis=0))
        return -float(np.log((one * other / np.maximum(share / share.sum(), 1e-300)).sum(axis=1) + 1e-300).mean())

    return _lowest(loss)


def _checked(
    log_likelihoods: ArrayLike, shares: ArrayLike, axes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scores, weights = np.asarray(log_likelihoods, np.float64), np.asarray(shares, np.float64)
    if scores.ndim != axes or scores.shape[-1:] != weights.shape or 0 in scores.shape:
        raise ValueError(f"log-likelihoods of shape {scores.shape} do not fit {weights.shape} shares")
    if not (np.isfinite(scores).all() and np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError("log-likelihoods must be finite, and shares positive")
    return scores, np.log(weights / weights.sum())


def _own_score(scores: NDArray[np.float64], prior: NDArray[np.float64]) -> float:
    """Mean over particles of the log-likelihood that the posterior expects of the true group."""
    total = 0.0
    for start in range(0, len(scores), _CHUNK):
        part = scores[start : start + _CHUNK]
        total += float((softmax(prior + part, axis=1) * part).sum())
    return total / len(scores)


def _lowest(loss: Callable[[float], float]) -> float:
    found = minimize_scalar(lambda log_T: loss(float(np.exp(log_T))), bounds=_LOG_T, method="bounded")
    return float(np.exp(found.x))
