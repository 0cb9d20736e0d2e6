"""Central sections of a map, accurate to about 1e-5, independent of the kernels that sort.

A non-uniform FFT of type 2 in NumPy: the map is divided by the transform of an interpolation kernel, zero-padded to
twice its edge and transformed; a section is read off with the "exponential of semicircle" kernel of Barnett,
Magland and af Klinteberg, SIAM J. Sci. Comput. 41 (2019) C479.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

_TAPS = 6
_PADDING = 2
_SHAPE = 2.3 * _TAPS


class SectionMaker:
    """Transform of one map, ready to be cut by central planes.

    Parameters
    ----------
    volume : array_like, shape (box, box, box)
        Density [z, y, x] with its origin at voxel ``box // 2``.

    Attributes
    ----------
    box_px : int
        Edge of the map.
    """

    def __init__(self, volume: npt.ArrayLike) -> None:
        density = np.asarray(volume, dtype=np.float32)
        if density.ndim != 3 or len(set(density.shape)) != 1:
            raise ValueError(f"sections need a cubic map, got shape {density.shape}")
        self.box_px = density.shape[0]
        edge = _PADDING * self.box_px
        offsets = np.arange(self.box_px) - self.box_px // 2
        gain = _kernel_transform(offsets / edge)
        padded = np.zeros((edge,) * 3, dtype=np.float32)
        wrapped = offsets % edge
        padded[np.ix_(wrapped, wrapped, wrapped)] = density / (
            gain[:, None, None] * gain[None, :, None] * gain[None, None, :]
        )
        self._half, self._origin = _with_margins(scipy.fft.rfftn(padded, overwrite_x=True), edge)

    def section(
        self, matrix: npt.NDArray[np.floating], px: npt.ArrayLike, py: npt.ArrayLike
    ) -> npt.NDArray[np.complex64]:
        """Return the transform of one projection.

        Parameters
        ----------
        matrix : ndarray, shape (3, 3)
            Rotation ``A``, volume (x, y, z) to view.
        px, py : ndarray, shape (P,)
            Pixels of the image's transform, integers from its centre, within radius ``box / 2``.

        Returns
        -------
        ndarray, shape (P,), complex64
            ``sum_r V(r) exp(-2 pi i k.r / box)`` at ``k = A^T (px, py, 0)``, r in voxels from the origin.
        """
        points = np.outer(np.asarray(px, np.float64), matrix[0]) + np.outer(np.asarray(py, np.float64), matrix[1])
        points *= _PADDING
        mirrored = points[:, 0] < 0
        points[mirrored] *= -1
        first = np.ceil(points - _TAPS / 2).astype(np.int64)
        distance = (first - points)[:, :, None] + np.arange(_TAPS)
        weights = _kernel(distance).astype(np.float32)
        x, y, z = (first[:, axis] + self._origin[axis] for axis in range(3))
        _, rows, columns = self._half.shape
        tap = np.arange(_TAPS)
        start = ((z[:, None, None] + tap[:, None]) * rows + (y[:, None, None] + tap)) * columns + x[:, None, None]
        lines = np.lib.stride_tricks.sliding_window_view(self._half.reshape(-1), _TAPS)[
            start.reshape(len(points), -1)
        ].view(np.float32)
        plane = (weights[:, 2, :, None] * weights[:, 1, None, :]).reshape(len(points), 1, -1)
        summed = np.matmul(plane, lines).reshape(len(points), _TAPS, 2)
        parts = (summed * weights[:, 0, :, None]).sum(axis=1)
        parts[mirrored, 1] *= -1
        return np.asarray(parts[:, 0] + 1j * parts[:, 1], dtype=np.complex64)


def half_plane(box_px: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pixels with ``px >= 0`` inside the largest disc of a square transform.

    Parameters
    ----------
    box_px : int
        Edge of the image.

    Returns
    -------
    tuple of two ndarrays, shape (P,), int64
        px and py; the column px = 0 is complete, so that the pixels fill an ``rfft2`` directly.
    """
    radius = (box_px - 1) // 2
    py, px = np.meshgrid(np.arange(-radius, radius + 1), np.arange(radius + 1), indexing="ij")
    inside = px**2 + py**2 <= radius**2
    return px[inside], py[inside]


def image_from_half_plane(
    values: npt.NDArray[np.complexfloating], px: npt.NDArray[np.integer], py: npt.NDArray[np.integer], box_px: int
) -> npt.NDArray[np.float32]:
    """Turn the transform on a half plane into an image.

    Parameters
    ----------
    values : ndarray, shape (P,)
        Transform relative to the origin at pixel ``box // 2``.
    px, py : ndarray, shape (P,), int
        Coordinates as from `half_plane`.
    box_px : int
        Edge of the image.

    Returns
    -------
    ndarray, shape (box, box), float32
        Image [y, x].
    """
    spectrum = np.zeros((box_px, box_px // 2 + 1), dtype=np.complex64)
    spectrum[py % box_px, px] = values
    image = scipy.fft.irfft2(spectrum, s=(box_px, box_px), overwrite_x=True)
    return np.asarray(scipy.fft.fftshift(image), dtype=np.float32)


def _kernel(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inside = np.maximum(1.0 - (2.0 * distance / _TAPS) ** 2, 0.0)
    return np.exp(_SHAPE * (np.sqrt(inside) - 1.0))


def _kernel_transform(frequency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Transform of the kernel by Gauss-Legendre quadrature; it has no closed form."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    distance = nodes * _TAPS / 2
    return np.asarray(np.cos(2 * np.pi * np.outer(frequency, distance)) @ (weights * _kernel(distance) * _TAPS / 2))


def _with_margins(
    transform: npt.NDArray[np.complexfloating], edge: int
) -> tuple[npt.NDArray[np.complex64], tuple[int, int, int]]:
    """Centre y and z, and add what the kernel touches beyond the half volume; returns it and where (x, y, z) = 0 is."""
    reach = _TAPS // 2 + 1
    side = np.arange(-edge // 2 - reach, edge // 2 + reach + 1)
    ahead = transform[np.ix_(side % edge, side % edge)]
    negative = np.arange(-reach, 0)
    behind = np.conj(transform[np.ix_((-side) % edge, (-side) % edge, -negative)])
    beyond = np.arange(edge // 2 + 1, edge // 2 + reach + 1)
    after = np.conj(transform[np.ix_((-side) % edge, (-side) % edge, (-beyond) % edge)])
    half = np.concatenate([behind, ahead, after], axis=2, dtype=np.complex64)
    return np.ascontiguousarray(half), (reach, edge // 2 + reach, edge // 2 + reach)
