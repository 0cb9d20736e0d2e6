"""Band marching: how far into Fourier space the differences of classes agree between independent chains."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.optimize import linear_sum_assignment

from hpcsort.volumes import BandGrid, last_shell_above, shell_correlation

__all__ = ["common_band"]

_THRESHOLD = 0.143


def common_band(grid: BandGrid, first: np.ndarray, second: np.ndarray) -> int:
    """Last shell in which any class of one chain agrees with its match in the other chain.

    Parameters
    ----------
    grid : of both.
    first, second : complex64 (K, Fourier volume) and (L, Fourier volume), differences from the consensus, learned from
        disjoint halves of the particles: what they share is not noise.

    Returns
    -------
    The largest of the matched classes' last shells with an FSC above 0.143 (Rosenthal & Henderson, J. Mol. Biol. 333,
    721, 2003), from 0 to the grid's radius. Classes are matched by their correlation over the whole band.
    """
    if not len(first) or not len(second):
        return 0
    power = [np.array([grid.shell_mean(np.abs(one) ** 2) for one in volumes]) for volumes in (first, second)]
    cross = np.zeros((len(first), len(second), power[0].shape[1]))
    for one, other in product(range(len(first)), range(len(second))):
        cross[one, other] = grid.shell_mean((first[one] * second[other].conj()).real)
    # Voxels of a shell grow as its area; the mean alone would let the innermost shells decide.
    area = np.arange(cross.shape[2]) ** 2
    norm = np.sqrt(np.outer((power[0] * area).sum(axis=1), (power[1] * area).sum(axis=1)))
    likeness = (cross * area).sum(axis=2) / np.maximum(norm, 1e-300)
    found = 0
    for one, other in np.transpose(linear_sum_assignment(-likeness)).tolist():
        fsc = shell_correlation(cross[one, other], power[0][one], power[1][other])
        found = max(found, last_shell_above(fsc[: grid.radius + 1], _THRESHOLD))
    return found
