"""Images as polar Fourier samples and rotational spectra, in which a rotation is a phase and a mirror a conjugation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

__all__ = ["PolarGrid", "soft_disc"]

_EDGE_PX = 4.0

Samples = npt.NDArray[np.complex64]


class PolarGrid:
    """Polar grid in Fourier space for masked images.

    An image f has the transform F(k) = sum f(x) exp(-2 pi i k.x / box) with x counted from the centre ``box // 2``.
    It is sampled on rings k_r (Fourier pixels) at T angles, of which half suffice, as F(-k) is the conjugate of F(k).
    The spectrum of an image is a_m(r) = sqrt(c_m k_r) / T sum_j F(k_r, phi_j) exp(-i m phi_j) for m = 0 ... M with
    c_0 = 1 and c_m = 2, so that Re sum a conj(b) is the inner product of two images inside the band, up to a factor.

    Parameters
    ----------
    box_px : edge of the images.
    mask_radius_px : radius of the disc outside which images are zero; sets how dense rings and angles must be.
    band_px : largest frequency in Fourier pixels, below box / 2.

    Attributes
    ----------
    radii : float64 (R,), of the rings in Fourier pixels.
    angles : int, T; even.
    orders : int, M + 1.
    frequencies : float32 (2, R, T / 2), kx and ky of the samples.
    mask : float32 (box, box), the soft disc.
    """

    def __init__(self, box_px: int, mask_radius_px: float, band_px: float) -> None:
        if not 1 <= band_px <= (box_px - 1) // 2:
            raise ValueError(f"a band of {band_px} Fourier pixels for images of {box_px} px")
        self.box_px, self.mask_radius_px, self.band_px = box_px, float(mask_radius_px), float(band_px)
        self.mask = soft_disc(box_px, mask_radius_px)
        step = max(box_px / (2.0 * mask_radius_px), 1.0)
        self.radii = np.arange(step, band_px + 1e-6, step) if step <= band_px else np.array([float(band_px)])
        reach = 2 * np.pi * self.radii[-1] * mask_radius_px / box_px
        # the Bessel functions J_m(z) of a plane wave vanish beyond m = z + 2 z^(1/3)
        self.orders = int(np.ceil(reach + 2.0 * np.cbrt(reach))) + 1
        self.angles = 2 * scipy.fft.next_fast_len(self.orders, real=True)
        phi = 2 * np.pi * np.arange(self.angles // 2) / self.angles
        self.frequencies = (self.radii[:, None] * np.stack([np.cos(phi), np.sin(phi)])[:, None]).astype(np.float32)
        self._work = 2 * int(np.ceil(band_px)) + 2
        x = scipy.fft.fftfreq(self._work, 1 / self._work)
        wave = np.exp(-2j * np.pi / self._work * np.multiply.outer(self.frequencies.astype(np.float64), x))
        pixels = wave[1].reshape(-1, self._work, 1) * wave[0].reshape(-1, 1, self._work)
        self._transform = _real_and_imaginary(pixels.reshape(len(pixels), -1).T)
        order = np.arange(self.orders)
        self._ring = np.sqrt(self.radii)[:, None].astype(np.float32)
        weight = np.sqrt(np.where(order > 0, 2.0, 1.0))
        even = order % 2 == 0
        # of F(phi) and its conjugate at phi + pi the real part has only even orders, the imaginary part only odd ones
        turn = weight * np.exp(-1j * np.outer(phi, order)) * (2.0 / self.angles)
        both = np.stack([np.where(even, turn, 0), np.where(even, 0, 1j * turn)], axis=1)
        self._forward = _real_and_imaginary(both.reshape(-1, self.orders))
        back = weight * np.exp(-1j * np.outer(phi, order))
        both = np.stack([np.where(even, back, 0), np.where(even, 0, 1j * back)], axis=1)
        self._backward = np.ascontiguousarray(_real_and_imaginary(both.reshape(-1, self.orders)).T)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (R, M + 1) of a spectrum."""
        return len(self.radii), self.orders

    def samples(self, images: npt.NDArray[np.floating]) -> Samples:
        """Sample the transforms of images on the polar grid; the images are masked first.

        Parameters
        ----------
        images : float32 (n, box, box) [y, x].

        Returns
        -------
        complex64 (n, R, T / 2).
        """
        box, work = self.box_px, self._work
        if images.shape[1:] != (box, box):
            raise ValueError(f"images of shape {images.shape[1:]} for a grid of {box} px")
        masked = scipy.fft.ifftshift(images * self.mask, axes=(1, 2))
        whole = scipy.fft.rfft2(masked.astype(np.float32, copy=False))
        kept = int(np.ceil(self.band_px))
        cut = np.zeros((len(images), work, work // 2 + 1), np.complex64)
        rows = np.r_[0 : kept + 1, -kept:0]
        cut[:, rows, : kept + 1] = whole[:, rows, : kept + 1]
        small = scipy.fft.irfft2(cut, s=(work, work)).astype(np.float32, copy=False)
        flat = small.reshape(len(images), work * work) @ self._transform
        return flat.view(np.complex64).reshape(len(images), *self.frequencies.shape[1:])

    def spectra(self, samples: Samples) -> Samples:
        """Weighted rotational spectra of samples; complex64 (..., R, T / 2) to (..., R, M + 1)."""
        flat = np.ascontiguousarray(samples, np.complex64).reshape(-1, samples.shape[-1]).view(np.float32)
        spectra = (flat @ self._forward).view(np.complex64).reshape(*samples.shape[:-1], self.orders)
        spectra *= self._ring
        return spectra

    def from_spectra(self, spectra: Samples) -> Samples:
        """Turn back weighted rotational spectra to samples; complex64 (..., R, M + 1) to (..., R, T / 2)."""
        flat = np.ascontiguousarray(spectra, np.complex64).reshape(-1, self.orders).view(np.float32)
        samples = (flat @ self._backward).view(np.complex64).reshape(*spectra.shape[:-1], self.angles // 2)
        samples /= self._ring
        return samples

    def shifted(self, samples: Samples, shift_px: npt.NDArray[np.floating]) -> Samples:
        """Move the content of images given by their samples (n, R, T / 2) by (n, 2) pixels (x, y)."""
        return samples * self.phases(shift_px)

    def phases(self, shift_px: npt.NDArray[np.floating]) -> Samples:
        """exp(-2 pi i k.s / box), complex64 (n, R, T / 2), of (n, 2) shifts."""
        turn = np.tensordot(
            np.asarray(shift_px, np.float32) * np.float32(-2 * np.pi / self.box_px), self.frequencies, axes=1
        )
        phases = np.empty(turn.shape, np.complex64)
        np.cos(turn, out=phases.real)
        np.sin(turn, out=phases.imag)
        return phases


def soft_disc(box_px: int, radius_px: float) -> npt.NDArray[np.float32]:
    """Disc about pixel ``box // 2``: 1 inside, a raised cosine of 4 px that ends at the radius, 0 outside."""
    x = np.arange(box_px) - box_px // 2
    inside = np.clip((radius_px - np.hypot(x[:, None], x)) / _EDGE_PX, 0.0, 1.0)
    return (0.5 - 0.5 * np.cos(np.pi * inside)).astype(np.float32)


def _real_and_imaginary(matrix: npt.NDArray[np.complexfloating]) -> npt.NDArray[np.float32]:
    """Real matrix whose products have real and imaginary parts side by side, as complex64 has them."""
    pairs = np.stack([matrix.real, matrix.imag], axis=-1)
    return np.ascontiguousarray(pairs.reshape(len(matrix), -1), np.float32)
