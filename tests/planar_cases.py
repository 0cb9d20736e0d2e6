"""Blobs that can be drawn at any in-plane pose without interpolation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcsort.planar import PlanarPoses


@dataclass(frozen=True)
class Blobs:
    """A picture of Gaussian blobs; centres (b, 2) as x, y from the centre of the box."""

    centres: np.ndarray
    sigmas: np.ndarray
    masses: np.ndarray

    @classmethod
    def random(cls, box: int, seed: int, count: int = 7) -> Blobs:
        rng = np.random.default_rng(seed)
        centres = np.clip(rng.normal(0, 0.13 * box, (count, 2)), -0.28 * box, 0.28 * box)
        return cls(centres, rng.uniform(0.03, 0.05, count) * box, rng.uniform(0.5, 1.5, count))

    def draw(self, box: int, poses: PlanarPoses) -> np.ndarray:
        """Images (n, box, box) float32 whose content has the poses: at x lies what the picture has at r."""
        axis = np.arange(box) - box // 2
        y, x = np.meshgrid(axis, axis, indexing="ij")
        images = np.zeros((len(poses), box, box))
        for image, psi, shift, mirror in zip(images, poses.psi_deg, poses.shift_px, poses.mirror, strict=True):
            moved_x, moved_y = x + shift[0], y + shift[1]
            if mirror:
                moved_x = -moved_x
            cosine, sine = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
            r_x, r_y = cosine * moved_x - sine * moved_y, sine * moved_x + cosine * moved_y
            for (c_x, c_y), sigma, mass in zip(self.centres, self.sigmas, self.masses, strict=True):
                image += mass * np.exp(-((r_x - c_x) ** 2 + (r_y - c_y) ** 2) / (2 * sigma**2))
        return images.astype(np.float32)


def random_poses(count: int, reach: float, seed: int) -> PlanarPoses:
    rng = np.random.default_rng(seed)
    angle, distance = rng.uniform(0, 2 * np.pi, count), reach * np.sqrt(rng.random(count))
    shift = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)
    return PlanarPoses(rng.uniform(-180, 180, count), shift, rng.random(count) < 0.5)


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference of angles in degrees, -180 to 180."""
    return (a - b + 180.0) % 360.0 - 180.0


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])
