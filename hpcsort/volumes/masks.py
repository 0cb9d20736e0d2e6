"""Real-space masks."""

from __future__ import annotations

import numpy as np

__all__ = ["soft_sphere"]


def soft_sphere(distance: np.ndarray, radius: float, edge: float) -> np.ndarray:
    """Soft spherical mask: 1 inside ``radius``, a raised cosine of width ``edge`` beyond it, 0 outside.

    Parameters
    ----------
    distance : distance of each voxel from the centre, any unit.
    radius, edge : in the same unit; ``edge`` > 0.
    """
    position = np.clip((distance - radius) / edge, 0.0, 1.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * position), np.float32)
