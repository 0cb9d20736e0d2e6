"""Which particles of a class are its core, and which of those stay together over the levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, norm

from hpcsort.cl2d.axes import principal_axes, projections
from hpcsort.cl2d.options import Cl2dOptions
from hpcsort.cl2d.state import State
from hpcsort.cl2d.stock import Stock

__all__ = ["Cores", "find_cores", "robust_z", "stable_members"]

_FEW = 10
"""Classes of so few particles are all core: there is nothing to compare them with."""
_TO_SIGMA = 1.4826
_LARGEST_Z = 37.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cores:
    """Core of every class of a level.

    Attributes
    ----------
    junk_z : float64 (N,), how unlike its class a particle is: the larger of two robust z-scores within the class, of
        what the class mean and its components leave unexplained, and of a low similarity to the class.
    pca_z : float64 (N,), distance from the middle of the class along its principal components, as the z-score a
        Gaussian variable would have at the same tail probability, so that it means the same for any number of
        components.
    member : bool (N,), in the core.
    """

    junk_z: Floats
    pca_z: Floats
    member: npt.NDArray[np.bool_]


def find_cores(stock: Stock, state: State, options: Cl2dOptions) -> Cores:
    """Find the core of every class: junk z-score and PCA z-score at most what the user allows. Collective."""
    every = np.arange(state.classes)
    axes = principal_axes(stock, state, every, options.pca_components, options.seed)
    along, residual = projections(stock, state, every, axes)
    count = len(state.labels)
    junk_z, pca_z = np.zeros(count), np.zeros(count)
    for label in every:
        members = np.flatnonzero(state.labels == label)
        if len(members) <= _FEW:
            continue
        unlike = robust_z(residual[members]), robust_z(-state.scores[members])
        junk_z[members] = np.maximum(*unlike)
        squares = sum(np.square(robust_z(part)) for part in along[members].T)
        tail = chi2.sf(squares, options.pca_components)
        pca_z[members] = np.minimum(norm.isf(tail / 2), _LARGEST_Z)
    member = (junk_z <= options.junk_zscore) & (pca_z <= options.pca_zscore)
    return Cores(junk_z, pca_z, member)


def stable_members(
    paths: Sequence[npt.NDArray[np.int64]], core: npt.NDArray[np.bool_], tolerance: int
) -> npt.NDArray[np.bool_]:
    """Core particles of the last of several levels that stay together, bool (N,).

    In every earlier level most of the core of a class are in one class; a particle is stable if it is in that class
    in all earlier levels but `tolerance`. Time and memory grow as particles times levels.

    Parameters
    ----------
    paths : int64 (N,) for each level up to this one, the labels.
    core : bool (N,), core of this level.
    tolerance : levels in which a particle may be apart.
    """
    current = paths[-1]
    together = np.zeros(len(core), np.int64)
    for earlier in paths[:-1]:
        most = _majority(current[core], earlier[core], int(current.max(initial=-1)) + 1)
        together += earlier == most[current]
    return core & (together >= len(paths) - 1 - tolerance)


def robust_z(values: npt.ArrayLike) -> Floats:
    """Distance from the median by the median absolute deviation, scaled to the standard deviation of a Gaussian."""
    given = np.asarray(values, np.float64)
    away = given - np.median(given)
    spread = _TO_SIGMA * np.median(np.abs(away))
    return np.asarray(away / spread) if spread > 0 else np.zeros_like(away)


def _majority(current: npt.NDArray[np.int64], earlier: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """Commonest earlier label in each class, int64 (classes,); -1 for a class without particles."""
    pairs, counts = np.unique(np.stack([current, earlier]), axis=1, return_counts=True)
    # by rising count, and of equal ones the smallest label last, so that it stays
    order = np.lexsort((-pairs[1], counts))
    most = np.full(classes, -1)
    most[pairs[0, order]] = pairs[1, order]
    return most
