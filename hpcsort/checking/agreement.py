"""Whether images agree with their poses: maps of half the images, compared with the images of the other half.

Each image is scored against the section, at its pose, of a map that it has no part in. With poses dealt out among the
particles at random such a map is a round blur, which images still resemble; what the true poses add to that, and its
standard error over the images, says whether the poses are those of the images. Other readings of the angles are scored
the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import skew

from hpcsort.geometry import relion_matrices
from hpcsort.images import BandData, load_band, noise_spectrum
from hpcsort.io import ParticleTable
from hpcsort.kernels import aligned_empty, complete_friedel, insert_sections, interleave, score_sections
from hpcsort.parallel import stream
from hpcsort.volumes import BandGrid, fsc_of_full, good_even_size, last_shell_above, map_fsc, soft_sphere

__all__ = ["BAND", "Agreement", "measure_agreement"]

BAND = 16
"""Fourier pixels: enough to tell poses apart, and few enough for a map of some hundred images."""
_EDGE = 0.05
_SHUFFLES = 3
_SURE = 5.0
"""Standard errors."""
_BETTER = 1.1
_LEAST_SHIFT_PX = 0.1
"""Root mean square of shifts below which other readings of shifts are not tried."""
_LEAST_SKEWNESS = -0.5
"""Maps of particles that are bright have a skewness of 0.4 to 3 in a sphere around the particle (as in sort3d)."""

Floats = npt.NDArray[np.float64]
Move = Callable[[Floats, Floats, float], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Agreement:
    """How well images agree with their poses.

    Attributes
    ----------
    images : number of images that were compared.
    resolution_A : of their map (FSC 0.143), at best the end of the band; infinite for none.
    correlation, shuffled : mean correlation of image and section, and with poses dealt out at random.
    z : excess over shuffled poses in standard errors.
    negative : images that surely show the negative of the map.
    dark : the map is darker inside than outside.
    better : how the angles or shifts fit better if they are read otherwise; empty if as they are.
    """

    images: int
    resolution_A: float
    correlation: float
    shuffled: float
    z: float
    negative: int
    dark: bool
    better: str

    @property
    def sure(self) -> bool:
        """Whether the poses are those of the images."""
        return self.z > _SURE


def measure_agreement(
    table: ParticleTable, rows: npt.NDArray[np.int64], read: Callable[[np.ndarray], np.ndarray], radius_px: float
) -> Agreement:
    """Measure how well the images of ``rows`` of the table agree with their poses.

    Parameters
    ----------
    table : particles with poses and CTF, images of one pixel size.
    rows : (n,) rows of good images, at least 40.
    read : maps rows to images, float32 (k, box, box).
    radius_px : radius of the particle.

    Raises
    ------
    InputError
        If an image is constant outside the particle.
    """
    assert table.box_px is not None
    box = table.box_px
    angles, shifts = table.angles_deg[rows], table.shifts_px[rows]
    band = min(BAND, box // 2 - 1)
    data = load_band(table, rows, relion_matrices(angles), band, read, particle_radius_px=radius_px)
    power, count = noise_spectrum(data, data.images, len(table.optics_group_names))
    level = np.divide(power, count, out=np.ones_like(power), where=(count > 0) & (power > 0))
    data = data.whitened(np.sqrt(level))
    grid = BandGrid(good_even_size(int(np.ceil(2.5 * band)) + 2), band)
    share = radius_px / box
    mask = soft_sphere(grid.distance, share - min(_EDGE, share / 4), min(_EDGE, share / 4))
    comparison = _Comparison(data, grid, mask)
    score, whole, shell = comparison.scores(data.rotations)
    draws = [stream(0, "check", number).permutation(len(rows)) for number in range(_SHUFFLES)]
    shuffled = np.mean([comparison.scores(data.rotations[draw])[0] for draw in draws], axis=0)
    gain = score - shuffled
    best, better = score.mean(), ""
    pixel_A = float(table.pixel_sizes_A[0])
    for sentence, move in _other_readings(shifts):
        turned, moved = move(angles, shifts, pixel_A)
        other = comparison.moved(moved - shifts, box).scores(relion_matrices(turned).astype(np.float32))[0]
        if _z(other - score) > _SURE and other.mean() > max(_BETTER * best, 0):
            best, better = other.mean(), sentence
    density = whole[whole != 0].astype(np.float64)
    norm = np.sqrt((np.abs(data.images) ** 2).sum(axis=1) * 2)
    return Agreement(
        images=len(rows),
        resolution_A=box * pixel_A / shell if shell > 0 else np.inf,
        correlation=float((score / norm).mean()),
        shuffled=float((shuffled / norm).mean()),
        z=_z(gain),
        negative=int((score < -_SURE).sum()),
        dark=bool(density.size and density.mean() < 0 and skew(density) < _LEAST_SKEWNESS),
        better=better,
    )


def _z(values: Floats) -> float:
    return float(values.mean() / max(values.std() / np.sqrt(len(values)), 1e-12))


def _other_readings(shifts_px: Floats) -> list[tuple[str, Move]]:
    """Ways in which angles and shifts are misread: a sentence, and the angles and shifts that would be right."""
    found: list[tuple[str, Move]] = [
        ("the rotations are inverted", lambda angles, shifts, _: (_inverted(angles), shifts)),
        ("psi has the opposite sign", lambda angles, shifts, _: (angles * [1, 1, -1], shifts)),
        ("the images are mirrored (rot and psi have the opposite sign)",
         lambda angles, shifts, _: (angles * [-1, 1, -1], shifts)),
    ]  # fmt: skip
    if np.sqrt((shifts_px**2).sum(axis=1).mean()) > _LEAST_SHIFT_PX:
        found += [
            ("the shifts have the opposite sign", lambda angles, shifts, _: (angles, -shifts)),
            ("the shifts are in Angstrom and not in pixels", lambda angles, shifts, pixel: (angles, shifts / pixel)),
            ("the shifts are in pixels and not in Angstrom", lambda angles, shifts, pixel: (angles, shifts * pixel)),
        ]
    return found


def _inverted(angles_deg: Floats) -> Floats:
    """Angles of the transposed matrices."""
    return np.stack([-angles_deg[:, 2], -angles_deg[:, 1], -angles_deg[:, 0]], axis=1)


@dataclass(frozen=True)
class _Comparison:
    """Whitened images, and how maps are made of them."""

    data: BandData
    grid: BandGrid
    mask: npt.NDArray[np.float32]

    def moved(self, by_px: Floats, box: int) -> _Comparison:
        """Return the same images, their content shifted further."""
        data = self.data
        if not by_px.any():
            return self
        phase = np.exp(-2j * np.pi / box * (by_px[:, :1] * data.px + by_px[:, 1:] * data.py))
        return replace(self, data=data.with_images((data.images * phase).astype(np.complex64)))

    def scores(self, rotations: npt.NDArray[np.float32]) -> tuple[Floats, npt.NDArray[np.float32], int]:
        """Score images against sections of the map of the other half, in standard deviations of noise alone (n,).

        Returns also the map of both halves, and the last shell in which the halves agree.
        """
        data, grid = self.data, self.grid
        half = (np.arange(len(data)) % 2).astype(np.int32)
        sums = aligned_empty((2, *grid.fourier_shape, 4), np.float32)
        sums[...] = 0
        ones = np.ones(len(data), np.float32)
        insert_sections(data.images, data.ctfs, rotations, half, ones, data.px, data.py, float(grid.pad), sums)
        wide = sums.astype(np.float64)
        numerator, weight = wide[..., 0] + 1j * wide[..., 1], np.ascontiguousarray(wide[..., 2])
        for part in range(2):
            complete_friedel(numerator[part], hermitian=True)
            complete_friedel(weight[part], hermitian=False)
        bare = [self._map(numerator[part], weight[part], np.ones(1)) for part in range(2)]
        fsc = map_fsc(*bare)[: grid.radius + 1]
        score = np.zeros(len(data))
        for part in range(2):
            volume = interleave(grid.to_fourier(self._map(numerator[part], weight[part], fsc))[None])
            rows = np.flatnonzero(half != part)
            these = data.rows(rows)
            cross, power = score_sections(
                volume, 1, these.images, these.ctfs, np.ascontiguousarray(rotations[rows]), data.px, data.py,
                float(grid.pad),
            )  # fmt: skip
            score[rows] = cross[:, 0] / np.sqrt(np.maximum(power[:, 0], 1e-12) / 2)
        whole = self._map(numerator.sum(axis=0), weight.sum(axis=0), fsc_of_full(fsc))
        return score, whole, last_shell_above(fsc, 0.143)

    def _map(self, numerator: npt.NDArray, weight: npt.NDArray, fsc: Floats) -> npt.NDArray[np.float32]:
        """Divide by the weight, filtered by the signal-to-noise ratio FSC / (1 - FSC), and mask."""
        grid = self.grid
        level = grid.shell_mean(weight)
        good = np.clip(fsc, 1e-3, 1.0)
        prior = level[: len(good)] * (1.0 - good) / good if len(good) > 1 else np.zeros(1)
        below = weight + grid.shell_fill(prior) + 1e-3 * weight.mean() + 1e-30
        return grid.to_real((numerator / below * grid.support).astype(np.complex64)) * self.mask
