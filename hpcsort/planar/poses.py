"""In-plane poses: what angle, shift and mirror mean, and how they follow each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

__all__ = ["PlanarPoses"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PlanarPoses:
    """Poses of n images in the frame of their references.

    The content at x = (x, y) of an image, in pixels from its centre ``box // 2``, lies at

        r = Rz(psi)^T M (x + o),    Rz(t) = [[cos t, sin t], [-sin t, cos t]],    M = diag(-1, 1) if mirrored, else 1

    of the reference: first the shift, then the mirror, then the rotation. Without mirror psi and o are RELION's
    rlnAnglePsi and rlnOrigin. The origin centres the image as it lies in its stack, mirrored or not; in a stack of
    mirrored images the x of the origin changes its sign and all else stays.

    Attributes
    ----------
    psi_deg : float64 (n,), degrees.
    shift_px : float64 (n, 2), o as (x, y) in pixels of the image.
    mirror : bool (n,).
    """

    psi_deg: Floats
    shift_px: Floats
    mirror: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        count = len(self.psi_deg)
        if self.shift_px.shape != (count, 2) or self.mirror.shape != (count,):
            raise ValueError(f"{count} angles with shifts {self.shift_px.shape} and mirrors {self.mirror.shape}")

    def __len__(self) -> int:
        return len(self.psi_deg)

    @classmethod
    def identity(cls, count: int) -> Self:
        """No rotation, no shift, no mirror."""
        return cls(np.zeros(count), np.zeros((count, 2)), np.zeros(count, bool))

    @classmethod
    def from_matrices(cls, matrices: Floats, offsets: Floats) -> Self:
        """Poses whose maps are r = matrix x + offset; (n, 2, 2) orthogonal matrices, (n, 2) offsets."""
        mirror = np.linalg.det(matrices) < 0
        flip = np.where(mirror, -1.0, 1.0)
        psi = np.rad2deg(np.arctan2(flip * matrices[:, 1, 0], flip * matrices[:, 0, 0]))
        shift = np.einsum("nji,nj->ni", matrices, offsets)
        return cls(psi, shift, mirror)

    @property
    def matrices(self) -> Floats:
        """Rz(psi)^T M, float64 (n, 2, 2)."""
        angle = np.deg2rad(self.psi_deg)
        cosine, sine, flip = np.cos(angle), np.sin(angle), np.where(self.mirror, -1.0, 1.0)
        return np.stack([np.stack([cosine * flip, -sine], -1), np.stack([sine * flip, cosine], -1)], -2)

    @property
    def offsets_px(self) -> Floats:
        """Where the centre of the image lies in the reference, Rz(psi)^T M o, float64 (n, 2) as (x, y)."""
        return np.einsum("nij,nj->ni", self.matrices, self.shift_px)

    def rows(self, index: slice | npt.NDArray[np.integer]) -> PlanarPoses:
        """Poses of the chosen images."""
        return PlanarPoses(self.psi_deg[index], self.shift_px[index], self.mirror[index])

    def then(self, other: PlanarPoses) -> PlanarPoses:
        """Join poses: image to reference by `self`, reference to its own reference by `other`."""
        matrices = other.matrices @ self.matrices
        offsets = np.einsum("nij,nj->ni", other.matrices, self.offsets_px) + other.offsets_px
        return PlanarPoses.from_matrices(matrices, offsets)

    def inverse(self) -> PlanarPoses:
        """Poses of the references in the frame of the images."""
        return PlanarPoses.from_matrices(np.swapaxes(self.matrices, 1, 2), -self.shift_px)
