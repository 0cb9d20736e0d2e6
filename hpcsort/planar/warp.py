"""Images turned, shifted and mirrored into the frame of their references, and their averages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from hpcsort.planar.poses import PlanarPoses

__all__ = ["apply_poses", "average_images", "mirrored"]

Images = npt.NDArray[np.float32]


def apply_poses(images: Images, poses: PlanarPoses) -> Images:
    """Bring images into the frame of their references.

    The shift is exact (a phase); the rotation interpolates with cubic B-splines after twofold oversampling by Fourier
    padding. Content is taken as periodic before, and as zero outside the disc of half the box after.

    Parameters
    ----------
    images : float32 (n, box, box) [y, x].
    poses : of the n images.

    Returns
    -------
    float32 (n, box, box).
    """
    out = np.empty(images.shape, np.float32)
    for number, image in enumerate(_aligned(images, poses)):
        out[number] = image
    return out


def average_images(images: Images, poses: PlanarPoses) -> npt.NDArray[np.float64]:
    """Mean of images in the frame of their reference, float64 (box, box); zeros for no images."""
    total = np.zeros(images.shape[1:])
    for image in _aligned(images, poses):
        total += image
    return total / max(len(images), 1)


def mirrored(images: Images) -> Images:
    """Mirror images (..., box, box) in x about pixel ``box // 2``; for an even box the first column stays."""
    flipped = images[..., ::-1]
    return np.roll(flipped, 1, axis=-1) if images.shape[-1] % 2 == 0 else np.ascontiguousarray(flipped)


def _aligned(images: Images, poses: PlanarPoses) -> Iterator[Images]:
    if len(images) != len(poses):
        raise ValueError(f"{len(images)} images with {len(poses)} poses")
    box = images.shape[-1]
    shift = poses.shift_px
    coordinates = np.arange(box) - box // 2
    y, x = np.meshgrid(coordinates, coordinates, indexing="ij")
    inside = np.hypot(x, y) <= box / 2
    points = np.stack([x[inside], y[inside]])
    frequency_y = scipy.fft.fftfreq(box)
    frequency_x = scipy.fft.rfftfreq(box)
    sharpen_y, sharpen_x = (1.0 / _spline_transform(frequency / 2) for frequency in (frequency_y, frequency_x))
    kept = (box - 1) // 2
    for image, (shift_x, shift_y), matrix in zip(images, shift, poses.matrices, strict=True):
        # the fractional shift as a phase, the centre brought to the corner
        phase_y = np.exp(-2j * np.pi * frequency_y * (shift_y - box // 2)) * sharpen_y
        phase_x = np.exp(-2j * np.pi * frequency_x * (shift_x - box // 2)) * sharpen_x
        transform = scipy.fft.rfft2(image) * (phase_y[:, None] * phase_x).astype(np.complex64)
        padded = np.zeros((2 * box, box + 1), np.complex64)
        padded[: kept + 1, : kept + 1] = transform[: kept + 1, : kept + 1]
        padded[-kept:, : kept + 1] = transform[-kept:, : kept + 1]
        fine = scipy.fft.irfft2(padded, s=(2 * box, 2 * box)) * np.float32(4.0)
        # r = matrix x', so the value at r is taken from matrix^T r
        source = 2.0 * (matrix.T @ points)
        aligned = np.zeros((box, box), np.float32)
        aligned[inside] = scipy.ndimage.map_coordinates(
            fine, source[::-1], order=3, mode="grid-wrap", prefilter=False, output=np.float32
        )
        yield aligned


def _spline_transform(frequency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Transform of the cubic B-spline sampled at the integers, by which its coefficients differ from the values."""
    return np.asarray((2.0 + np.cos(2 * np.pi * frequency)) / 3.0)
