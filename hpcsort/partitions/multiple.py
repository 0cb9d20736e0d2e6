"""Correcting p-values for the number of tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return p-values corrected by Holm's step-down rule: below a level with chance at most the level in all.

    Parameters
    ----------
    p : (M,) float
        P-values, 0..1; NaN for a test that could not be made, which stays NaN and is not counted.

    Returns
    -------
    (M,) float64, in the order given (Holm 1979); valid whatever the dependence between the tests.
    """
    values, order = _tested(p)
    steps = values[order] * np.arange(order.size, 0, -1)
    corrected = np.full(values.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Return q-values: keeping all tests with q below a level, that share of the kept is false on average.

    Parameters
    ----------
    p : (M,) float
        P-values, 0..1; NaN for a test that could not be made, which stays NaN and is not counted.

    Returns
    -------
    (M,) float64, in the order given (Benjamini & Hochberg 1995); valid for independent and for positively
    dependent tests (Benjamini & Yekutieli 2001).
    """
    values, order = _tested(p)
    steps = values[order] * order.size / np.arange(1, order.size + 1)
    corrected = np.full(values.shape, np.nan)
    corrected[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return corrected


def _tested(p: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the p-values, and the positions of those that are not NaN by rising p."""
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or ((values < 0) | (values > 1)).any():
        raise ValueError(f"p-values must be a list of numbers from 0 to 1, not {values}")
    tested = np.flatnonzero(~np.isnan(values))
    return values, tested[np.argsort(values[tested], kind="stable")]
