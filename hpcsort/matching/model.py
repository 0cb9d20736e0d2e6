"""What the images are compared with: references, their amplitudes, and the noise of the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcsort.images import BandData
from hpcsort.matching.references import References

__all__ = ["Candidates", "Model", "shift_phases"]


@dataclass(frozen=True)
class Model:
    """Gaussian model of images: y = a c P exp(shift) + noise, whitened.

    Attributes
    ----------
    references : K maps.
    amplitude : float64 (K, shells), factor a of each map's transform in each shell.
    sigma : float64 (groups, shells), noise of each optics group.
    box : edge of the images in px.
    """

    references: References
    amplitude: np.ndarray
    sigma: np.ndarray
    box: int

    def gains(self, data: BandData, number: int, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Factor of one map's section in whitened images: amplitude times CTF, float32 (n, P)."""
        shell = np.minimum(data.shell, self.amplitude.shape[1] - 1)
        return np.asarray(data.ctfs[rows] * self.amplitude[number][shell].astype(np.float32), np.float32)


@dataclass(frozen=True)
class Candidates:
    """Poses under trial, T in all, in the order of their owners.

    Attributes
    ----------
    owner : int64 (T,), particle of the chunk.
    reference : int64 (T,).
    rotations : float64 (T, 3, 3), volume to view.
    shifts : float64 (T, 2), px, added to the given origin.
    scores : float64 (T,), logarithm of the likelihood ratio to no particle.
    information : float64 (T, 5, 5), Fisher information of (rotation vector in the view's frame, shift); radians, px.
    """

    owner: np.ndarray
    reference: np.ndarray
    rotations: np.ndarray
    shifts: np.ndarray
    scores: np.ndarray
    information: np.ndarray

    def __len__(self) -> int:
        return len(self.owner)

    def rows(self, index: np.ndarray) -> Candidates:
        """Only the candidates ``index``."""
        return Candidates(
            self.owner[index],
            self.reference[index],
            self.rotations[index],
            self.shifts[index],
            self.scores[index],
            self.information[index],
        )


def shift_phases(shifts: np.ndarray, px: np.ndarray, py: np.ndarray, box: int) -> np.ndarray:
    """Factors that add shifts (..., 2) in px to the origin of images of ``box`` px, complex64 (..., P)."""
    # tables along the axes: sines of every pixel would cost more than what they are used for
    limit = int(max(np.abs(px).max(), np.abs(py).max()))
    axis = np.exp((-2j * np.pi / box) * shifts[..., None] * np.arange(-limit, limit + 1)).astype(np.complex64)
    across, along = axis[..., 0, :], axis[..., 1, :]
    factors = np.take(across, px.astype(np.int64) + limit, axis=-1)
    factors *= np.take(along, py.astype(np.int64) + limit, axis=-1)
    return np.asarray(factors)
