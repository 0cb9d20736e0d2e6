"""Averages made on the spot: views of blobs, turned, shifted and mirrored at random, with noise as averages have it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from hpcsort.planar import PlanarPoses, apply_poses

Images = npt.NDArray[np.float32]


def views(count: int, box: int, seed: int = 0) -> Images:
    """Different asymmetric views: sums of Gaussian blobs within a third of the box."""
    rng = np.random.default_rng(seed)
    x = np.arange(box) - box // 2
    out = np.zeros((count, box, box), np.float32)
    for image in out:
        for _ in range(10):
            radius, angle = 0.3 * box * np.sqrt(rng.random()), 2 * np.pi * rng.random()
            width = box * rng.uniform(0.03, 0.07)
            square = (x[:, None] - radius * np.sin(angle)) ** 2 + (x - radius * np.cos(angle)) ** 2
            image += rng.uniform(0.5, 1.5) * np.exp(-square / (2 * width**2))
    return out


def random_poses(count: int, seed: int, shift_px: float, mirror: bool = True) -> PlanarPoses:
    rng = np.random.default_rng(seed)
    psi, shift = rng.uniform(-180, 180, count), rng.uniform(-shift_px, shift_px, (count, 2))
    return PlanarPoses(psi, shift, (rng.random(count) < 0.5) & mirror)


def families(
    view: Images,
    labels: npt.NDArray[np.int64],
    noise: float,
    seed: int,
    shift_px: float = 3.0,
    mirror: bool = True,
) -> tuple[Images, PlanarPoses]:
    """Copies of views with noise of the given share of their standard deviation, and the poses that undo the moves."""
    rng = np.random.default_rng(seed)
    poses = random_poses(len(labels), seed + 1, shift_px, mirror)
    moved = apply_poses(view[labels], poses.inverse())
    coloured = scipy.ndimage.gaussian_filter(rng.standard_normal(moved.shape), (0, 1.5, 1.5))
    coloured *= noise * view.std() / coloured.std()
    return (moved + coloured).astype(np.float32), poses
