"""The central-section model's grid: real-space maps and the band-cropped Fourier volumes that kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.fft

from hpcsort.kernels import half_width

__all__ = ["BandGrid", "good_even_size"]


def good_even_size(minimum: int) -> int:
    """Smallest even number >= minimum whose only prime factors are 2, 3 and 5."""
    size = max(2, minimum + minimum % 2)
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


@dataclass(frozen=True)
class BandGrid:
    """Maps of ``size``^3 voxels and their Fourier volumes up to ``radius`` Fourier pixels.

    The unit of frequency is one over the box edge, whatever the size of the grid: a map on a small grid is the same
    box at coarser sampling, which is all that a band of few Fourier pixels needs.

    Parameters
    ----------
    size : int
        Edge of the real-space maps in voxels, at least ``2 * radius + 2``.
    radius : int
        Band limit in Fourier pixels of the (unpadded) box.
    pad : int
        Padding factor of the Fourier volumes. Trilinear reading is corrected by ``sinc^2`` in real space.

    Notes
    -----
    Fourier volumes are complex64 arrays ``[z, y, x]`` of shape ``(2h+1, 2h+1, h+1)``, z and y centred at ``h``, x >= 0
    (see `hpcsort.kernels.half_width`); voxel ``(z, y, x)`` holds the transform at frequency ``(x, y, z) / pad``.
    Transforms are unitary in the sense of images: a section of ``to_fourier(map)`` is the transform of the map's
    projection divided by the map's edge.
    """

    size: int
    radius: int
    pad: int = 1

    def __post_init__(self) -> None:
        if self.size < 2 * self.radius + 2:
            raise ValueError(f"a grid of {self.size} voxels does not hold a band of {self.radius} Fourier pixels")
        if self.pad < 1:
            raise ValueError(f"pad must be at least 1, got {self.pad}")

    @property
    def half(self) -> int:
        """Half width h of the Fourier volumes."""
        return half_width(self.radius, self.pad)

    @property
    def fourier_shape(self) -> tuple[int, int, int]:
        """Shape (2h+1, 2h+1, h+1) of one Fourier volume."""
        side = 2 * self.half + 1
        return side, side, self.half + 1

    @cached_property
    def frequency(self) -> np.ndarray:
        """Radial frequency of every voxel of a Fourier volume in Fourier pixels of the box, float32."""
        full = np.arange(-self.half, self.half + 1, dtype=np.float32)
        positive = np.arange(0, self.half + 1, dtype=np.float32)
        squared = full[:, None, None] ** 2 + full[None, :, None] ** 2 + positive[None, None, :] ** 2
        return np.asarray(np.sqrt(squared) / self.pad, np.float32)

    @cached_property
    def shell(self) -> np.ndarray:
        """Shell index of every voxel of a Fourier volume: frequency rounded to Fourier pixels, int64."""
        return np.asarray(np.rint(self.frequency), np.int64)

    @cached_property
    def support(self) -> np.ndarray:
        """Voxels that trilinear reading inside the band can touch, bool."""
        return self.frequency <= self.radius + np.sqrt(3.0) / self.pad

    @cached_property
    def multiplicity(self) -> np.ndarray:
        """How often a voxel counts in a sum over the full volume: 2, and 1 on the plane x = 0, float32."""
        weight = np.full(self.fourier_shape, 2.0, np.float32)
        weight[:, :, 0] = 1.0
        return weight

    @cached_property
    def distance(self) -> np.ndarray:
        """Distance of every voxel of a map from the centre in units of the box edge, float32 (size, size, size)."""
        axis = (np.arange(self.size, dtype=np.float32) - self.size // 2) / self.size
        squared = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
        return np.asarray(np.sqrt(squared), np.float32)

    @cached_property
    def sinc2(self) -> np.ndarray:
        """Real-space image of trilinear interpolation on the padded grid, float32 (size, size, size)."""
        axis = np.sinc((np.arange(self.size) - self.size // 2) / (self.size * self.pad)) ** 2
        return np.asarray(axis[:, None, None] * axis[None, :, None] * axis[None, None, :], np.float32)

    def to_fourier(self, maps: np.ndarray, *, corrected: bool = True) -> np.ndarray:
        """Transform real maps (..., size, size, size) into band-cropped Fourier volumes, complex64.

        Parameters
        ----------
        maps : float32 array (..., size, size, size), centre at ``size // 2``.
        corrected : bool
            Divide by ``sinc2`` first, so that trilinear sections are those of the map itself.
        """
        leading = maps.shape[:-3]
        out = np.empty((int(np.prod(leading, dtype=np.int64)), *self.fourier_shape), np.complex64)
        flat = maps.reshape(-1, self.size, self.size, self.size)
        for index, volume in enumerate(flat):
            out[index] = self._transform(volume / self.sinc2 if corrected else volume)
        return out.reshape(*leading, *self.fourier_shape)

    def to_real(self, volumes: np.ndarray, *, corrected: bool = True) -> np.ndarray:
        """Transform Fourier volumes (..., 2h+1, 2h+1, h+1) into real maps, float32 (..., size, size, size).

        Parameters
        ----------
        volumes : complex64 array in the layout of the class.
        corrected : bool
            Divide by ``sinc2`` afterwards, which undoes the blur of trilinear insertion.
        """
        leading = volumes.shape[:-3]
        flat = volumes.reshape(-1, *self.fourier_shape)
        out = np.empty((len(flat), self.size, self.size, self.size), np.float32)
        for index, volume in enumerate(flat):
            real = self._inverse(volume)
            out[index] = real / self.sinc2 if corrected else real
        return out.reshape(*leading, self.size, self.size, self.size)

    def embed(self, volumes: np.ndarray, narrow: BandGrid) -> np.ndarray:
        """Return Fourier volumes (..., narrow Fourier volume) of a narrower band on this grid, zero outside their band.

        Fourier voxels are in units of the data, whatever the sampling of the maps, so that values are kept.
        """
        if narrow.pad != self.pad or narrow.half > self.half:
            raise ValueError(f"band {narrow.radius} at pad {narrow.pad} does not lie in {self.radius} at {self.pad}")
        out = np.zeros((*volumes.shape[:-3], *self.fourier_shape), np.complex64)
        inner = slice(self.half - narrow.half, self.half + narrow.half + 1)
        out[..., inner, inner, : narrow.half + 1] = volumes
        return out

    def shell_mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of a real array (..., Fourier volume) over each shell 0..radius+1 of the full volume, float64."""
        shells = self.radius + 2
        index = np.minimum(self.shell, shells).ravel()
        weight = self.multiplicity.ravel().astype(np.float64)
        count = np.bincount(index, weight, shells + 1)[:shells]
        flat = values.reshape(-1, index.size)
        sums = np.stack([np.bincount(index, weight * row, shells + 1)[:shells] for row in flat])
        return (sums / np.maximum(count, 1)).reshape(*values.shape[:-3], shells)

    def shell_fill(self, curve: np.ndarray) -> np.ndarray:
        """Spread a curve over shells 0..radius+1 onto the voxels; the last value goes on beyond."""
        return np.asarray(curve)[np.minimum(self.shell, len(curve) - 1)]

    @property
    def _padded(self) -> int:
        return self.size * self.pad

    def _axis_index(self) -> np.ndarray:
        return np.arange(-self.half, self.half + 1)

    def _kept(self) -> tuple[np.ndarray, int]:
        """Frequencies of the padded grid that a Fourier volume stores (the grid may be narrower than the volume)."""
        frequencies = self._axis_index()
        inside = np.abs(frequencies) < self._padded // 2 + self._padded % 2
        return frequencies[inside], int(inside.argmax())

    def _transform(self, volume: np.ndarray) -> np.ndarray:
        kept, first = self._kept()
        positive = kept[kept >= 0]
        # One axis after the other: what the next one does not need is not transformed.
        spectrum = scipy.fft.rfft(self._spread(volume, self._wrapped(), 2), axis=2)[:, :, : len(positive)]
        for axis in (1, 0):
            spectrum = scipy.fft.fft(self._spread(spectrum, self._wrapped(), axis), axis=axis, overwrite_x=True)
            spectrum = np.take(spectrum, kept % self._padded, axis=axis)
        out = np.zeros(self.fourier_shape, np.complex64)
        inner = slice(first, first + len(kept))
        out[inner, inner, : len(positive)] = spectrum / self.size
        out *= self.support
        return out

    def _inverse(self, volume: np.ndarray) -> np.ndarray:
        kept, first = self._kept()
        inner = slice(first, first + len(kept))
        spectrum = volume[inner, inner, : int((kept >= 0).sum())]
        for axis in (0, 1):
            spectrum = scipy.fft.ifft(self._spread(spectrum, kept % self._padded, axis), axis=axis, overwrite_x=True)
            spectrum = np.take(spectrum, self._wrapped(), axis=axis)
        real = scipy.fft.irfft(spectrum, n=self._padded, axis=2)
        return np.asarray(np.take(real, self._wrapped(), axis=2) * np.float32(self.size), np.float32)

    def _wrapped(self) -> np.ndarray:
        """Places of the map's voxels along an axis of the padded box whose centre comes first."""
        return (np.arange(self.size) - self.size // 2) % self._padded

    def _spread(self, values: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
        """Lay values along an axis on these places of the padded one, zeros elsewhere."""
        shape = list(values.shape)
        shape[axis] = self._padded
        out = np.zeros(shape, values.dtype)
        index: list[Any] = [slice(None)] * 3
        index[axis] = places
        out[tuple(index)] = values
        return out
