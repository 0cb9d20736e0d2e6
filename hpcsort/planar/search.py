"""Exhaustive comparison of images and references over in-plane angle, mirror and shift by products of matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcsort.planar.polar import PolarGrid, Samples
from hpcsort.planar.poses import PlanarPoses

__all__ = ["GridMatches", "Searcher", "shift_grid"]

_SIDE = 32
"""Images compared at a time."""
_COLUMNS = 1280
"""Images times shifts compared at a time, about: what is made of them stays in the cache."""


def shift_grid(radius_px: float, step_px: float) -> npt.NDArray[np.float64]:
    """Shifts (S, 2) on a hexagonal lattice inside a circle, the zero shift first, then by distance."""
    if not (radius_px >= 0 and step_px > 0):
        raise ValueError(f"shifts up to {radius_px} px in steps of {step_px} px")
    reach = int(np.ceil(radius_px / (step_px * np.sqrt(0.75)))) + 1
    a, b = np.meshgrid(np.arange(-2 * reach, 2 * reach + 1), np.arange(-2 * reach, 2 * reach + 1), indexing="ij")
    points = np.stack([a + b / 2, b * np.sqrt(0.75)], axis=-1).reshape(-1, 2) * step_px
    distance = np.hypot(*points.T)
    inside = distance <= radius_px + 1e-9
    points, distance = points[inside], distance[inside]
    return np.asarray(points[np.lexsort((points[:, 0], points[:, 1], distance.round(6)))])


@dataclass(frozen=True, eq=False)
class GridMatches:
    """Best pose on the grid of every image against every reference.

    Attributes
    ----------
    score : float32 (n, C), correlation coefficients inside the band.
    angle : int16 (n, C), place of psi on the grid of angles.
    shift : int16 (n, C), place in the list of shifts, which move the reference.
    mirror : bool (n, C).
    """

    score: npt.NDArray[np.float32]
    angle: npt.NDArray[np.int16]
    shift: npt.NDArray[np.int16]
    mirror: npt.NDArray[np.bool_]


class Searcher:
    """References at all shifts, ready to be compared with images at all angles.

    With the spectra a = x + i y of an image and b = u + i v of a shifted reference, the inner product at angle psi is
    sum_m (xu + yv) cos(m psi) + (yu - xv) sin(m psi), and that of the mirrored image the same with -y for y. The
    products over rings are one product of matrices for each m, the sums over m another for all angles.

    Parameters
    ----------
    grid : of images and references.
    references : complex64 (C, R, T / 2), samples of the references; a reference of zeros scores 0.
    max_shift_px, shift_step_px : radius and spacing of the grid of shifts; the step None follows the band.
    mirror : whether mirrored images are tried.
    rotate : whether images are turned, shifted and mirrored at all.

    Attributes
    ----------
    shifts_px : float64 (S, 2), displacements of the image's centre from the reference's.
    """

    def __init__(
        self,
        grid: PolarGrid,
        references: Samples,
        max_shift_px: float,
        *,
        shift_step_px: float | None = None,
        mirror: bool = True,
        rotate: bool = True,
    ) -> None:
        self.grid, self.mirror, self.rotate = grid, mirror and rotate, rotate
        # the widest hexagonal lattice from which a band-limited correlation can be recovered
        step = grid.box_px / (np.sqrt(3.0) * grid.band_px) if shift_step_px is None else shift_step_px
        self._order = np.r_[0 : grid.orders : 2, 1 : grid.orders : 2]
        self._even = (grid.orders + 1) // 2
        self.shifts_px = shift_grid(max_shift_px if rotate else 0.0, step)
        self._classes = len(references)
        together = max(_COLUMNS // (_SIDE * len(self.shifts_px)), 1)
        self._groups = [
            (slice(first, first + together), self._columns(references[first : first + together]))
            for first in range(0, self._classes, together)
        ]
        half = grid.angles // 2 if rotate else 1
        psi = 2 * np.pi * np.arange(half) / grid.angles
        self._turns = []
        self._memory: dict[str, npt.NDArray[np.float32]] = {}
        for orders in (self._order[: self._even], self._order[self._even :]):
            cosine, sine = np.cos(np.outer(psi, orders)), np.sin(np.outer(psi, orders))
            for_x = np.stack([cosine, -sine], axis=-1).reshape(half, -1)
            for_y = np.stack([sine, cosine], axis=-1).reshape(half, -1)
            self._turns.append((for_x.astype(np.float32), for_y.astype(np.float32)))

    def compare(self, spectra: Samples) -> GridMatches:
        """Compare images with all references.

        Parameters
        ----------
        spectra : complex64 (n, R, M + 1) from `PolarGrid.spectra`.
        """
        shape = (len(spectra), self._classes)
        found = GridMatches(
            np.zeros(shape, np.float32), np.zeros(shape, np.int16), np.zeros(shape, np.int16), np.zeros(shape, bool)
        )
        norm = np.sqrt(np.einsum("nrm,nrm->n", spectra, spectra.conj()).real)
        unit = spectra / np.maximum(norm, np.finfo(np.float32).tiny)[:, None, None].astype(np.float32)
        for start in range(0, len(spectra), _SIDE):
            rows = slice(start, start + _SIDE)
            # even orders, then odd; the real parts of all images, then their imaginary parts: (M + 1, 1, 2 n, R)
            parts = np.concatenate([unit[rows].real, unit[rows].imag])
            images = parts.transpose(2, 0, 1)[self._order, None]
            for classes, columns in self._groups:
                self._compare_block(images, columns, rows, classes, found)
        return found

    def poses(
        self, found: GridMatches, image: npt.NDArray[np.integer], reference: npt.NDArray[np.integer]
    ) -> PlanarPoses:
        """Poses of chosen pairs of image and reference, (k,) each."""
        psi = found.angle[image, reference] * (360.0 / self.grid.angles)
        turned = PlanarPoses(psi.astype(np.float64), np.zeros((len(psi), 2)), found.mirror[image, reference])
        return PlanarPoses.from_matrices(turned.matrices, self.shifts_px[found.shift[image, reference]])

    def _columns(self, references: Samples) -> npt.NDArray[np.float32]:
        """Normalised spectra of references at all shifts, (M + 1, 2, R, C S): u and v, shifts fastest."""
        grid = self.grid
        # the image lies displaced by t when its content is compared with the reference moved by -t
        moved = grid.spectra(references[:, None] * grid.phases(-self.shifts_px))
        norm = np.sqrt(np.einsum("csrm,csrm->cs", moved, moved.conj()).real)
        moved *= np.where(norm > 0, 1.0 / np.maximum(norm, np.finfo(np.float32).tiny), 0.0)[:, :, None, None]
        flat = moved.reshape(-1, *grid.shape)
        return np.stack([flat.real, flat.imag]).transpose(3, 0, 2, 1)[self._order]

    def _compare_block(
        self,
        images: npt.NDArray[np.float32],
        columns: npt.NDArray[np.float32],
        rows: slice,
        classes: slice,
        found: GridMatches,
    ) -> None:
        count, shifts = images.shape[2] // 2, len(self.shifts_px)
        width = count * columns.shape[-1]
        products = self._room("products", (len(images), 2, 2 * count, columns.shape[-1]))
        np.matmul(images, columns, out=products)
        terms = products.reshape(2 * len(images), 2, width)
        # sums over even and over odd orders: at psi + 180 degrees the odd ones change sign
        sums = self._room("sums", (2, 2, len(self._turns[0][0]), width))
        for place, orders in enumerate((slice(0, 2 * self._even), slice(2 * self._even, None))):
            for part, turn in enumerate(self._turns[place]):
                np.matmul(turn, terms[orders, part], out=sums[part, place])
        if not self.rotate:
            found.score[rows, classes] = sums.sum(axis=(0, 1)).reshape(count, -1)
            return
        # halves[part, 0] and [part, 1]: at psi and at psi + 180 degrees; a mirror changes the sign of part 1
        halves = self._room("halves", sums.shape)
        np.add(sums[:, 0], sums[:, 1], out=halves[:, 0])
        np.subtract(sums[:, 0], sums[:, 1], out=halves[:, 1])
        best = np.abs(halves[1], out=sums[0]) if self.mirror else halves[1]
        best = np.add(halves[0], best, out=sums[1])
        peak = np.maximum(best[0], best[1], out=sums[0, 0]).max(axis=0).reshape(-1, shifts)
        shift = peak.argmax(axis=1)
        pair = np.arange(len(shift))
        place = pair * shifts + shift
        chosen = best[:, :, place].reshape(-1, len(pair))
        angle = chosen.argmax(axis=0)
        size = (count, -1)
        found.score[rows, classes] = chosen[angle, pair].reshape(size)
        found.angle[rows, classes] = angle.reshape(size)
        found.shift[rows, classes] = shift.reshape(size)
        if self.mirror:
            change = halves[1][:, :, place].reshape(-1, len(pair))
            found.mirror[rows, classes] = (change[angle, pair] < 0).reshape(size)

    def _room(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Memory that is used again: taking it from the system each time costs more than the arithmetic."""
        size = int(np.prod(shape))
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(size, np.float32)
        return self._memory[name][:size].reshape(shape)
