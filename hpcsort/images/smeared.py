"""Band-limited particles with several poses each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from hpcsort.images.band import BandData
from hpcsort.images.seen import Seen
from hpcsort.kernels import subtract_sections

__all__ = ["Poses", "SmearedData", "joined_poses", "pose_overlap"]

_BATCH = 256
_TURN, _SHIFT = 0.7, 1.0 / 6.0
"""Size of the cells in which poses are joined: radians times the band limit (0.7 voxels at the edge of the band), and
box edges times the band limit (a sixth of a turn of the phase there). Of 30 poses at steps of 1 degree and 0.36 px a
band of 18 px keeps 5 so, with half a voxel 27."""
_CHORD = 2.0 / 3.0
"""Mean distance of a section's pixels from the origin, in units of the band limit."""


@dataclass(frozen=True)
class Poses:
    """Poses of n particles, v in all.

    Attributes
    ----------
    first : int64 (n + 1,), rows first[i]:first[i + 1] are particle i's.
    rotations : float32 (v, 3, 3), view = rotation @ volume (x, y, z).
    shifts : float32 (v, 2), shift along x, y in units of the box edge on top of the one that the images have.
    weight : float32 (v,), probabilities, which sum to 1 for each particle.
    scored : float32 (v,), probabilities for scores: ``weight``, or 1 for the likeliest pose and 0 for the others.
    overlap : float32 (v,), see `pose_overlap`.
    """

    first: np.ndarray
    rotations: np.ndarray
    shifts: np.ndarray
    weight: np.ndarray
    scored: np.ndarray
    overlap: np.ndarray

    def places(self, particles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the poses of ``particles``, and their own ``first``."""
        counts = np.diff(self.first)[particles]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return np.arange(first[-1]) + np.repeat(self.first[particles] - first[:-1], counts), first

    def rows(self, particles: np.ndarray) -> Poses:
        """Poses of some particles."""
        places, first = self.places(particles)
        return Poses(
            first,
            self.rotations[places],
            self.shifts[places],
            self.weight[places],
            self.scored[places],
            self.overlap[places],
        )


def joined_poses(poses: Poses, radius: int) -> Poses:
    """Join poses that a band cannot tell apart: those of a particle in one cell of turns and shifts, at their mean.

    Cells are counted from the likeliest pose. What is left within a cell is a small error of the pose, which the
    nuisances of a sort take up; a refinement with fine steps has ten times as many poses as a sort's band can see.

    Parameters
    ----------
    poses : of n particles.
    radius : band limit in Fourier pixels.

    Returns
    -------
    Poses of the same particles, the likeliest first.
    """
    counts = np.diff(poses.first)
    owner = np.repeat(np.arange(len(counts)), counts)
    best = poses.rotations[poses.first[:-1]][owner].astype(np.float64)
    turn = Rotation.from_matrix(poses.rotations.astype(np.float64) @ best.transpose(0, 2, 1)).as_rotvec()
    shift = poses.shifts.astype(np.float64)
    offset = shift - shift[poses.first[:-1]][owner]
    cell = np.rint(np.concatenate([turn * (radius / _TURN), offset * (radius / _SHIFT)], axis=1)).astype(np.int64)
    _, place = np.unique(np.column_stack([owner, cell]), axis=0, return_inverse=True)
    place = place.reshape(-1)
    weight = poses.weight.astype(np.float64)
    total = np.bincount(place, weight)
    mean = [np.bincount(place, weight * column) / total for column in np.column_stack([turn, shift]).T]
    own = np.empty(len(total), np.int64)
    own[place] = owner
    order = np.lexsort((np.arange(len(total)), -total, own))
    first = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=len(counts)))]).astype(np.int64)
    turned = Rotation.from_rotvec(np.stack(mean[:3], axis=1)[order]).as_matrix()
    rotations = (turned @ poses.rotations[poses.first[:-1]][own[order]].astype(np.float64)).astype(np.float32)
    weights = total[order].astype(np.float32)
    only_best = bool((poses.scored != poses.weight).any())
    scored = np.zeros_like(weights)
    scored[first[:-1]] = 1.0
    return Poses(
        first,
        rotations,
        np.stack(mean[3:], axis=1)[order].astype(np.float32),
        weights,
        scored if only_best else weights,
        pose_overlap(first, rotations, weights, radius),
    )


def pose_overlap(first: np.ndarray, rotations: np.ndarray, weight: np.ndarray, radius: int) -> np.ndarray:
    """Share of a particle's contribution to a map that lies within a voxel of where each pose reads it, (v,) float32.

    A particle is inserted with all poses. A pose at an angle d from another reads the map at a distance of about d
    times the radius; trilinear weights end after one voxel. So a pose meets sum_m w_m max(0, 1 - 2/3 R d_m) of it.

    Parameters
    ----------
    first, rotations, weight : as in `Poses`.
    radius : band limit R in Fourier pixels.
    """
    found = np.empty(len(weight), np.float32)
    counts = np.diff(first)
    for count in np.unique(counts):
        chosen = np.flatnonzero(counts == count)
        for start in range(0, len(chosen), _BATCH):
            rows = first[chosen[start : start + _BATCH], None] + np.arange(count)
            turned = rotations[rows].astype(np.float64)
            trace = np.einsum("nacd,nbcd->nab", turned, turned)
            angle = np.arccos(np.clip(0.5 * (trace - 1.0), -1.0, 1.0))
            near = np.maximum(1.0 - _CHORD * radius * angle, 0.0)
            found[rows] = np.einsum("nab,nb->na", near, weight[rows])
    return found


@dataclass(frozen=True)
class _Taken:
    """Sections to be subtracted from every pose: ``coefficients`` (n, count) of maps, as in `subtract_sections`."""

    interleaved: np.ndarray
    count: int
    coefficients: np.ndarray
    pad: float


@dataclass(frozen=True)
class SmearedData:
    """Fourier data of particles that have several poses; where `BandData` serves, this serves too.

    Sections that are subtracted differ from pose to pose. They are subtracted each time the particles are looked at,
    or once and for all, as memory allows; the bits are the same.

    Attributes
    ----------
    data : n particles with their likeliest pose.
    poses : all poses.
    taken : what is subtracted from every pose.
    ready : complex64 (v, P), images of all poses with ``taken`` subtracted; None to make them when they are needed.
    precompute : whether images of all poses are made once.
    """

    data: BandData
    poses: Poses
    taken: tuple[_Taken, ...] = ()
    ready: np.ndarray | None = None
    precompute: bool = True

    def __len__(self) -> int:
        return len(self.data)

    @property
    def px(self) -> np.ndarray:
        """See `BandData`."""
        return self.data.px

    @property
    def py(self) -> np.ndarray:
        """See `BandData`."""
        return self.data.py

    @property
    def radius(self) -> int:
        """Band limit in Fourier pixels."""
        return self.data.radius

    @property
    def ctfs(self) -> np.ndarray:
        """CTFs of the particles, float32 (n, P)."""
        return self.data.ctfs

    @property
    def peak(self) -> np.ndarray:
        """At least the largest absolute value of any pixel of each particle, float64 (n,)."""
        largest = np.abs(self.data.images).max(axis=1, initial=0).astype(np.float64)
        contrast = np.abs(self.data.ctfs).max(axis=1, initial=0).astype(np.float64)
        for taken in self.taken:
            size = float(np.abs(taken.interleaved).max(initial=0)) * np.sqrt(2.0)
            largest += contrast * size * np.abs(taken.coefficients).sum(axis=1)
        return largest

    def seen(self, index: np.ndarray | slice) -> Seen:
        """Particles ``index`` as rows for the kernels."""
        particles = np.arange(len(self))[index]
        places, first = self.poses.places(particles)
        own = np.repeat(particles, np.diff(first))
        images = self._images(own, places) if self.ready is None else self.ready[places]
        data = replace(
            self.data,
            images=images,
            ctfs=self.data.ctfs[own],
            rotations=np.ascontiguousarray(self.poses.rotations[places]),
            groups=self.data.groups[own],
        )
        poses = self.poses
        return Seen(data, None, first, poses.weight[places], poses.scored[places], poses.overlap[places])

    def rows(self, index: np.ndarray | slice) -> SmearedData:
        """Take some of the particles."""
        particles = np.arange(len(self))[index]
        places, _ = self.poses.places(particles)
        taken = tuple(replace(one, coefficients=one.coefficients[particles]) for one in self.taken)
        ready = None if self.ready is None else self.ready[places]
        return replace(self, data=self.data.rows(particles), poses=self.poses.rows(particles), taken=taken, ready=ready)

    def cropped(self, radius: int) -> SmearedData:
        """Copy of the data inside a smaller band."""
        if radius >= self.radius:
            return self
        poses = joined_poses(self.poses, radius)
        # Cropping images that are ready would round differently from making them in the smaller band.
        return replace(self, data=self.data.cropped(radius), poses=poses, ready=None)._prepared()

    def whitened(self, sigma: np.ndarray) -> SmearedData:
        """Divide images and CTFs by the noise's standard deviation, float (groups, shells), before any subtraction."""
        if self.taken:
            raise ValueError("data are whitened before sections are subtracted")
        return replace(self, data=self.data.whitened(sigma), ready=None)

    def in_one_group(self) -> SmearedData:
        """Copy of the data with the noise of all particles in one group."""
        return replace(self, data=self.data.in_one_group())

    def with_images(self, images: np.ndarray) -> SmearedData:
        """Copy with other images (n, P), from which nothing has been subtracted."""
        return replace(self, data=self.data.with_images(images), taken=(), ready=None)

    def minus(self, interleaved: np.ndarray, count: int, coefficients: np.ndarray, pad: float) -> SmearedData:
        """Subtract from every pose a particle's combination of sections; see `subtract_sections`."""
        more = (*self.taken, _Taken(interleaved, count, coefficients, pad))
        return replace(self, taken=more, ready=None)._prepared()

    def _prepared(self) -> SmearedData:
        """Make the images of all poses, if that is wanted."""
        if not self.precompute:
            return self
        places = np.arange(self.poses.first[-1])
        own = np.repeat(np.arange(len(self)), np.diff(self.poses.first))
        ready = np.empty((len(places), self.px.size), np.complex64)
        for start in range(0, len(places), 4 * _BATCH):
            part = slice(start, start + 4 * _BATCH)
            ready[part] = self._images(own[part], places[part])
        return replace(self, ready=ready)

    def one_pose(self, chosen: np.ndarray) -> tuple[BandData, np.ndarray]:
        """Every particle with one of its poses.

        Parameters
        ----------
        chosen : int (n,), which of the particle's poses, from 0.

        Returns
        -------
        data : with the pose's rotation, its shift in the images, and everything subtracted.
        phase : complex64 (n, P), factor by which the shift multiplied the images.
        """
        places = self.poses.first[:-1] + chosen
        own = np.arange(len(self))
        images = self._images(own, places) if self.ready is None else self.ready[places]
        rotations = np.ascontiguousarray(self.poses.rotations[places])
        return replace(self.data, images=images, rotations=rotations), self._phase(places)

    def _phase(self, places: np.ndarray) -> np.ndarray:
        shifts = self.poses.shifts[places].astype(np.float64)
        return np.exp(-2j * np.pi * (shifts[:, :1] * self.px + shifts[:, 1:] * self.py)).astype(np.complex64)

    def _images(self, own: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Images of poses ``places`` of the particles ``own``, shifted, sections subtracted."""
        images = self.data.images[own] * self._phase(places)
        ctfs, rotations = self.data.ctfs[own], np.ascontiguousarray(self.poses.rotations[places])
        for one in self.taken:
            coefficients = np.ascontiguousarray(one.coefficients[own], np.float32)
            images = subtract_sections(
                one.interleaved, one.count, coefficients, images, ctfs, rotations, self.px, self.py, one.pad
            )
        return np.asarray(images)
