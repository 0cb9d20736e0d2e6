"""Particles as band-limited, centred Fourier data on the rank that owns them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft

from hpcsort.errors import InputError
from hpcsort.images.seen import Seen
from hpcsort.io.particles import ParticleTable
from hpcsort.kernels import subtract_sections
from hpcsort.optics import ctf

__all__ = ["BandData", "half_plane", "load_band"]

_FLAT = 1e-6
"""Range of a background, in units of that of the image, below which there is no noise in it."""


def half_plane(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Integer frequencies of the Friedel-unique half plane inside ``radius``, without the origin.

    Returns
    -------
    px, py : float32 arrays (P,), kx > 0 or (kx == 0 and ky > 0), in rows of growing ky.
    """
    limit = int(np.floor(radius))
    ky, kx = np.meshgrid(np.arange(-limit, limit + 1), np.arange(0, limit + 1), indexing="ij")
    chosen = (kx**2 + ky**2 <= radius**2) & ((kx > 0) | (ky > 0))
    return kx[chosen].astype(np.float32), ky[chosen].astype(np.float32)


@dataclass(frozen=True)
class BandData:
    """Fourier data of some particles up to a band limit.

    Attributes
    ----------
    px, py : float32 (P,), half-plane frequencies in Fourier pixels.
    images : complex64 (n, P), centred (shifted by the origin); transform divided by the box edge.
    ctfs : float32 (n, P). After `whitened` both are divided by the noise's standard deviation.
    rotations : float32 (n, 3, 3), view = rotation @ volume (x, y, z).
    groups : int64 (n,), optics (noise) group of each particle.
    radius : int, band limit in Fourier pixels.
    """

    px: np.ndarray
    py: np.ndarray
    images: np.ndarray
    ctfs: np.ndarray
    rotations: np.ndarray
    groups: np.ndarray
    radius: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shell(self) -> np.ndarray:
        """Shell of each pixel, radius rounded to Fourier pixels, int64 (P,)."""
        return np.asarray(np.rint(np.hypot(self.px, self.py)), np.int64)

    def rows(self, index: np.ndarray | slice) -> BandData:
        """Particles ``index`` as contiguous arrays."""
        return replace(
            self,
            images=np.ascontiguousarray(self.images[index]),
            ctfs=np.ascontiguousarray(self.ctfs[index]),
            rotations=np.ascontiguousarray(self.rotations[index]),
            groups=self.groups[index],
        )

    def cropped(self, radius: int) -> BandData:
        """Copy of the data inside a smaller band."""
        if radius >= self.radius:
            return self
        inside = self.px**2 + self.py**2 <= radius**2
        return replace(
            self,
            px=self.px[inside],
            py=self.py[inside],
            images=np.ascontiguousarray(self.images[:, inside]),
            ctfs=np.ascontiguousarray(self.ctfs[:, inside]),
            radius=radius,
        )

    def with_images(self, images: np.ndarray) -> BandData:
        """Copy with other images, for instance residuals."""
        return replace(self, images=images)

    def in_one_group(self) -> BandData:
        """Copy of the data with the noise of all particles in one group."""
        return replace(self, groups=np.zeros_like(self.groups))

    @property
    def peak(self) -> np.ndarray:
        """Largest absolute value of any pixel of each particle, (n,)."""
        return np.asarray(np.abs(self.images).max(axis=1, initial=0))

    def seen(self, index: np.ndarray | slice) -> Seen:
        """Particles ``index`` as rows for the kernels."""
        if isinstance(index, slice):
            return Seen(self.rows(index))
        return Seen(self, index.astype(np.int32))

    def minus(self, interleaved: np.ndarray, count: int, coefficients: np.ndarray, pad: float) -> BandData:
        """Subtract from every particle its combination of sections; see `subtract_sections`."""
        return self.with_images(
            subtract_sections(
                interleaved, count, coefficients, self.images, self.ctfs, self.rotations, self.px, self.py, pad
            )
        )

    def whitened(self, sigma: np.ndarray) -> BandData:
        """Divide images and CTFs by the noise's standard deviation, float (groups, shells)."""
        factor = (1.0 / sigma)[self.groups[:, None], np.minimum(self.shell, sigma.shape[1] - 1)[None, :]]
        factor = factor.astype(np.float32)
        return replace(self, images=self.images * factor, ctfs=self.ctfs * factor)


def load_band(
    table: ParticleTable,
    rows: np.ndarray,
    rotations: np.ndarray,
    radius: int,
    read: Callable[[np.ndarray], np.ndarray],
    *,
    particle_radius_px: float,
    batch: int = 256,
    inspect: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> BandData:
    """Read particles once and keep their band-limited, centred transforms.

    Parameters
    ----------
    table : the particles.
    rows : int array (n,), table rows in the order in which they are kept.
    rotations : (n, 3, 3), of these rows.
    radius : band limit in Fourier pixels, below half the box.
    read : maps table rows to float32 images (k, box, box).
    particle_radius_px : radius of the particle; mean and deviation of the background are measured outside it.
    batch : images transformed at a time.
    inspect : called with (rows, images) of each batch before anything else, for instance to refuse bad images.

    Raises
    ------
    InputError
        If the table was read without its stacks, or an image is constant outside the particle, as after masking.
    """
    box = table.box_px
    if box is None:
        raise InputError(f"no stack of {table.source} was found; name the folder that holds them with --datadir")
    px, py = half_plane(radius)
    images = np.empty((len(rows), px.size), np.complex64)
    outside = _background(box, particle_radius_px)
    for start, stop in _batches(len(rows), batch):
        chosen = rows[start:stop]
        real = read(chosen)
        if inspect is not None:
            inspect(chosen, real)
        background = real[:, outside]
        _refuse_flat(real, background, chosen, table, particle_radius_px)
        images[start:stop] = _band_transform(_normalised(real, background), px, py, table.shifts_px[chosen])
    ctfs = np.empty((len(rows), px.size), np.float32)
    for start, stop in _batches(len(rows), batch):
        ctfs[start:stop] = _ctfs(table, box, rows[start:stop], px, py)
    if table.image_scale is not None:
        # An image of low contrast keeps its noise: multiplied to the common scale, it would have to count for less.
        ctfs /= table.image_scale[rows, None].astype(np.float32)
    return BandData(
        px=px,
        py=py,
        images=images,
        ctfs=ctfs,
        rotations=np.ascontiguousarray(rotations, np.float32),
        groups=np.asarray(table.optics_group[rows], np.int64),
        radius=radius,
    )


def _batches(count: int, batch: int) -> Iterable[tuple[int, int]]:
    return ((start, min(start + batch, count)) for start in range(0, count, batch))


def _background(box: int, radius: float) -> np.ndarray:
    axis = np.arange(box) - box // 2
    outside = axis[:, None] ** 2 + axis[None, :] ** 2 > radius**2
    # A particle that fills the box leaves the corners; with less than 1 % of the pixels the whole image serves.
    return outside if outside.mean() > 0.01 else np.ones_like(outside)


def _refuse_flat(
    images: np.ndarray, background: np.ndarray, rows: np.ndarray, table: ParticleTable, radius: float
) -> None:
    """Refuse images whose noise cannot be measured; constant ones and those with NaN are for the caller to judge."""
    with np.errstate(invalid="ignore"):
        extent = np.ptp(images, axis=(1, 2))
        flat = np.flatnonzero((np.ptp(background, axis=1) <= _FLAT * extent) & (extent > 0) & np.isfinite(extent))
    if flat.size:
        star_row = int(table.source_row[rows[flat[0]]]) + 1
        raise InputError(
            f"{table.source}, row {star_row}: the image is constant outside the radius of {radius:g} px, so that its "
            "noise cannot be measured; give images that are not masked, or a smaller --radius."
        )


def _normalised(images: np.ndarray, background: np.ndarray) -> np.ndarray:
    # Infinite pixels are for the caller to judge; here they become NaN.
    with np.errstate(invalid="ignore", over="ignore"):
        mean = background.mean(axis=1, dtype=np.float64).astype(np.float32)
        apart = background - mean[:, None]
        # The mean is rounded to float32; what is left of it goes into the deviation only.
        deviation = np.sqrt(np.square(apart, out=apart).mean(axis=1, dtype=np.float64))
        factor = (1.0 / np.maximum(deviation, 1e-30)).astype(np.float32)
        scaled = images - mean[:, None, None]
        scaled *= factor[:, None, None]
    return scaled


def _band_transform(images: np.ndarray, px: np.ndarray, py: np.ndarray, shifts_px: np.ndarray) -> np.ndarray:
    box = images.shape[-1]
    spectra = scipy.fft.rfft2(images)
    x, y = px.astype(np.int64), py.astype(np.int64)
    columns, rows = np.arange(x.max(initial=0) + 1), np.arange(y.min(initial=0), y.max(initial=0) + 1)
    band = spectra[:, rows % box, : len(columns)]
    # The centre at box // 2 is moved to the origin together with the shift; its phases are products of both axes.
    turns = -2j * np.pi / box * (shifts_px - box // 2)
    band *= (np.exp(turns[:, :1] * columns) / box).astype(np.complex64)[:, None, :]
    band *= np.exp(turns[:, 1:] * rows).astype(np.complex64)[:, :, None]
    return np.ascontiguousarray(band[:, y - rows[0], x])


def _ctfs(table: ParticleTable, box: int, rows: np.ndarray, px: np.ndarray, py: np.ndarray) -> np.ndarray:
    return ctf(
        px,
        py,
        box,
        table.pixel_sizes_A[rows],
        table.defocus_u_A[rows],
        table.defocus_v_A[rows],
        table.defocus_angle_deg[rows],
        table.voltage_kV[rows],
        table.cs_mm[rows],
        table.amplitude_contrast[rows],
        phase_shift_deg=table.phase_shift_deg[rows],
        bfactor_A2=table.bfactor_A2[rows],
        scale=table.ctf_scale[rows],
    )
