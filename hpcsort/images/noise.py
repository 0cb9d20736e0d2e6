"""Radial noise spectra of groups of images."""

from __future__ import annotations

import numpy as np

from hpcsort.images.band import BandData

__all__ = ["noise_spectrum"]


def noise_spectrum(
    data: BandData, images: np.ndarray, groups: int, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the power and count the pixels of ``images`` per noise group and shell.

    Parameters
    ----------
    data : gives frequencies and groups.
    images : complex64 (n, P), images or residuals.
    groups : number of noise groups.
    weight : float (n,), by which each image counts; None for one each.

    Returns
    -------
    power, count : float64 (groups, radius + 1); power / count is the variance of one complex pixel.
    """
    shell = data.shell
    shells = data.radius + 1
    power = np.zeros((groups, shells))
    count = np.zeros((groups, shells))
    per_shell = np.bincount(shell, minlength=shells)[:shells].astype(np.float64)
    squared = images.real.astype(np.float32) ** 2 + images.imag.astype(np.float32) ** 2
    order = np.argsort(shell, kind="stable")
    starts = np.concatenate([[0], np.cumsum(per_shell)[:-1]]).astype(np.int64)
    filled = per_shell > 0
    sums = np.zeros((len(images), shells))
    if len(images):
        sums[:, filled] = np.add.reduceat(squared[:, order].astype(np.float64), starts[filled], axis=1)
    if weight is not None:
        sums *= weight[:, None]
    for group in range(groups):
        members = data.groups == group
        power[group] = sums[members].sum(axis=0)
        count[group] = (members.sum() if weight is None else weight[members].sum(dtype=np.float64)) * per_shell
    return power, count
