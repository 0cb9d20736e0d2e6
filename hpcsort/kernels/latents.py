"""Small dense systems of many particles: posteriors of latents, and latents integrated out.

Latents have independent standard normal priors. ``gram`` and ``linear`` are the moments of `section_moments`; as
whitened complex noise has E|n|^2 = 1 a pixel, the log-likelihood of latents z is ``2 linear . z - z . gram z``. Packed
triangles hold element (a, b), b <= a, at a(a+1)/2 + b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcsort.kernels._backend import implementation
from hpcsort.kernels._checks import check_array

__all__ = ["Marginals", "latent_posteriors", "marginal_moments", "moment_weights"]

_Float = NDArray[np.float32]
_Double = NDArray[np.float64]


def latent_posteriors(linear: _Float, gram: _Float) -> tuple[_Double, _Double]:
    """Return the posterior of every particle's latents.

    Parameters
    ----------
    linear : float32 (n, T)
    gram : float32 (n, T(T+1)/2)

    Returns
    -------
    mean : float64 (n, T)
    covariance : float64 (n, T(T+1)/2), packed.

    Raises
    ------
    ValueError
        For wrong shapes or dtypes.
    """
    n, size = _check_moments(linear, gram)
    mean, covariance = np.empty((n, size)), np.empty((n, size * (size + 1) // 2))
    implementation.latent_posteriors(linear, gram, mean, covariance)
    return mean, covariance


def moment_weights(mean: _Double, covariance: _Double, fixed: int, transform: _Double) -> tuple[_Float, _Float]:
    """Return what `backproject_moments` needs of latents z' = transform z.

    Parameters
    ----------
    mean : float64 (n, T)
    covariance : float64 (n, T(T+1)/2), packed.
    fixed : int
        F; the first F latents are only scaled, the other J = T - F are mixed among themselves.
    transform : float64 (T, T)
        Diagonal in its first F rows and columns, zero between them and the others.

    Returns
    -------
    first : float32 (n, J)
        E[z'] of the mixed latents.
    second : float32 (n, J(J+1)/2 + JF)
        E[z'_j z'_l], l <= j, packed, then E[z'_j z'_a] of mixed j with scaled a at j F + a.

    Raises
    ------
    ValueError
        For wrong shapes or dtypes.
    """
    check_array("mean", mean, np.float64, (None, None))
    n, size = mean.shape
    check_array("covariance", covariance, np.float64, (n, size * (size + 1) // 2))
    check_array("transform", transform, np.float64, (size, size))
    free = _check_fixed(fixed, size)
    first = np.empty((n, free), np.float32)
    second = np.empty((n, free * (free + 1) // 2 + free * fixed), np.float32)
    implementation.moment_weights(mean, covariance, fixed, transform, first, second)
    return first, second


@dataclass(frozen=True)
class Marginals:
    """Moments of n particles with F latents integrated out; J = T - F are left.

    Attributes
    ----------
    linear : float64 (n, J), b.
    precision : float64 (n, J(J+1)/2), M packed: log p(y | z) - log p(y | 0) = b . z - z . M z / 2.
    rest : float64 (n, F), expected integrated latents at z = 0.
    pull : float64 (n, J, F), by how much each unit of z lowers them.
    evidence : float64 (n, 2), log-likelihood ratio with all others zero and the F latents integrated out, and with all
        T integrated out under a prior of standard deviation ``breadth``.
    """

    linear: _Double
    precision: _Double
    rest: _Double
    pull: _Double
    evidence: _Double


def marginal_moments(linear: _Float, gram: _Float, fixed: int, breadth: float) -> Marginals:
    """Integrate the first ``fixed`` latents out (a Schur complement).

    Parameters
    ----------
    linear : float32 (n, T)
    gram : float32 (n, T(T+1)/2)
    fixed : int
        F, at most T.
    breadth : float
        See `Marginals.evidence`.

    Raises
    ------
    ValueError
        For wrong shapes or dtypes.
    """
    n, size = _check_moments(linear, gram)
    free = _check_fixed(fixed, size)
    found = Marginals(
        np.empty((n, free)),
        np.empty((n, free * (free + 1) // 2)),
        np.empty((n, fixed)),
        np.empty((n, free, fixed)),
        np.empty((n, 2)),
    )
    implementation.marginal_moments(
        linear, gram, fixed, breadth, found.linear, found.precision, found.rest, found.pull, found.evidence
    )
    return found


def _check_moments(linear: _Float, gram: _Float) -> tuple[int, int]:
    check_array("linear", linear, np.float32, (None, None))
    n, size = linear.shape
    check_array("gram", gram, np.float32, (n, size * (size + 1) // 2))
    return n, size


def _check_fixed(fixed: int, size: int) -> int:
    if not 0 <= fixed <= size:
        raise ValueError(f"fixed {fixed} is outside 0..{size}, the number of latents")
    return size - fixed
