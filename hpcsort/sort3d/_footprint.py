"""Memory of one rank in each phase of a sort, as the sum of the arrays that are alive at the phase's peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcsort.geometry import relion_matrices
from hpcsort.images import Poses, half_plane, joined_poses
from hpcsort.io import ParticleTable
from hpcsort.kernels import lane_count, moment_record_length
from hpcsort.parallel import SerialComm
from hpcsort.reconstruction.insertion import _BATCH_PIXELS, _BUDGET_BYTES
from hpcsort.sort3d.coarse import coarse_radius, sorting_grid
from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.problem import _NARROW, _WIDE, _band_limit
from hpcsort.sort3d.sizes import smallest_group
from hpcsort.sort3d.statistics import JUNK_KINDS
from hpcsort.sort3d.store import deal_particles
from hpcsort.sort3d.subspace import NUISANCES
from hpcsort.sort3d.survey import COMPONENTS, PRIOR_SHARES
from hpcsort.volumes import BandGrid, SectionSums

__all__ = ["Footprint"]

_LAYER_COMPONENTS = 6
_GROUPS = 5
"""Assumed: components that boxes of the first layer learn, and groups that are found."""
_COMPLEX, _DATA = 8, 12
"""Bytes of a pixel of an image; with its CTF."""
_SEEN, _MAKING = 32, 64
"""Bytes a pixel of a block: copies of it and of the block before, and one without nuisances; and where images of its
poses are made, whose phases are computed in double precision."""
_NOISE = 20
"""Bytes a pixel while a block's noise is measured."""
_POSE_BYTES, _JOINING = 60, 650
"""Bytes of a pose, and of one of the input's while those that a band cannot tell apart are joined."""
_SAMPLE = 500
"""Particles whose poses are joined to count them."""
_ROW_BYTES = 250
"""What every rank keeps of a particle while they are dealt: matrices, names, order."""
_LOADED, _LOADING = 256, 22
"""Images that are read at a time, and bytes a pixel of theirs meanwhile (`load_band`)."""


@dataclass(frozen=True)
class Footprint:
    """Sizes of a sort from which its arrays follow; methods give bytes of one rank.

    Attributes
    ----------
    options : of the sort.
    count, own, block : particles of all ranks, of this one, and of a block, the unit of sums.
    sharing : ranks of a node, which hold results of all particles, and maps, together.
    poses_given : mean number of poses of a particle in the input.
    poses_read, poses_wide, poses_narrow : mean number of those that the bands can tell apart.
    smeared : particles have several poses.
    box : edge of the images in px.
    read, wide, narrow : grids of the band that is read, and of those that are sorted.
    groups : number of groups.
    """

    options: SortOptions
    count: int
    own: float
    block: float
    sharing: int
    poses_given: float
    poses_read: float
    poses_wide: float
    poses_narrow: float
    smeared: bool
    box: int
    read: BandGrid
    wide: BandGrid
    narrow: BandGrid
    groups: int

    @classmethod
    def of(
        cls,
        table: ParticleTable,
        options: SortOptions,
        ranks: int,
        sharing: int = 1,
        groups: int | None = None,
        reach: int | None = None,
    ) -> Footprint:
        """Sizes that follow from the input; ``groups`` and ``reach`` of the FSC are assumed where they are None."""
        assert table.box_px is not None
        box, count = table.box_px, len(table)
        smears = table.smears
        chunks, _ = deal_particles(count, SerialComm(), None if smears is None else smears.counts)
        block = max(stop - start for start, stop in chunks)
        own = max(count / ranks, block)
        limits = [_band_limit(options, box, options.radius_px(box), limit) for limit in (_WIDE, _NARROW)]
        if groups is None:
            most = options.max_groups if options.img_per_grp is None else count // options.img_per_grp
            expected = _GROUPS if options.img_per_grp is None else most
            groups = max(min(expected, most, count // smallest_group(count)), 1)
        reach = limits[0] if reach is None else min(reach, limits[0])
        radii = limits[0], reach, min(limits[1], reach)
        joined = _mean_poses(table, radii)
        return cls(
            options=options,
            count=count,
            own=own,
            block=block,
            sharing=sharing,
            poses_given=1.0 if smears is None else len(smears.weight) / count,
            poses_read=joined[0],
            poses_wide=joined[1],
            poses_narrow=joined[2],
            smeared=smears is not None,
            box=box,
            read=sorting_grid(radii[0]),
            wide=sorting_grid(radii[1]),
            narrow=sorting_grid(radii[2]),
            groups=groups,
        )

    def images(self) -> float:
        """Both bands; one where they are the same."""
        return self.own * _DATA * self._both_bands() + 100 * self.own

    def poses(self) -> float:
        """Poses, and the images of all of them in both bands."""
        if not self.smeared:
            return 0.0
        bands = {self.wide.radius: (self.wide, self.poses_wide), self.narrow.radius: (self.narrow, self.poses_narrow)}
        ready = 0 if self.options.compute_on_the_fly else _COMPLEX
        return sum(self.own * poses * (ready * _pixels(grid) + _POSE_BYTES) for grid, poses in bands.values())

    def consensus(self) -> float:
        """Read images, or whiten them by the residuals of a first consensus; beyond what stays."""
        pixels, voxels = _pixels(self.read), _voxels(self.read)
        ready = self.smeared and not self.options.compute_on_the_fly
        residual = _COMPLEX * pixels * self.own * (self.poses_read if ready else 1.0)
        block = self.block * self.poses_read
        stays = self.images() + self.poses()
        reading = self.own * _DATA * pixels + min(_LOADED, self.own) * _LOADING * self.box**2
        joining = self.own * (_DATA * pixels + _JOINING * self.poses_given) if self.smeared else 0.0
        # Data as read, whitened once, and being whitened again with their factors; the residuals that say by what.
        settling = self.own * (3 * _DATA + 4) * pixels + residual + block * _NOISE * pixels
        inserting = self.own * 2 * _DATA * pixels + self._seen(block, self.read, making=self.smeared)
        cropping = self.own * _DATA * pixels + stays
        peak = max(reading, joining, settling, inserting, cropping) + 200 * voxels + _ROW_BYTES * self.count
        return max(peak - stays, 0.0) + self._again()

    def learning(self) -> float:
        """Subspaces of the survey, or those of the boxes of a layer while the survey's statistics are kept."""
        components = self.options.components or COMPONENTS[0]
        runs = 2 * len(PRIOR_SHARES)
        survey = self._learning(runs, runs * self.own / 2, components)
        boxes = self._chains()
        layer = self._learning(boxes, boxes * self._share() * self.own, self.options.components or _LAYER_COMPONENTS)
        coarse = self.own * _DATA * _pixels(sorting_grid(coarse_radius(self.narrow.radius)))
        return max(survey, layer + self._surveyed()) + coarse + self._again()

    def statistics(self) -> float:
        """Linear terms and precisions of all runs of the survey, and mixtures that are fitted to halves of two."""
        size = self.options.components or COMPONENTS[0]
        runs = 2 * len(PRIOR_SHARES)
        row = 8 * (size + size**2)
        gathered = runs * self.count * row
        packed = 8 * (size * (size + 1) // 2 + size)
        fitting = self.count * row + self.count / 2 * (packed + 16 * size**2 + 40 * self._most_classes())
        held_out = 16 * self.count * self._most_classes()
        return gathered / self.sharing + max(runs * self.own * row, fitting) + held_out + self._again()

    def volumes(self) -> float:
        """Class maps of all chains of a layer, and how their particles see them."""
        classes, voxels = self.groups, _voxels(self.wide)
        chains = self._chains()
        if self.options.engine == "maps":
            return max(self._finishing(chains, classes, voxels), self._classical(voxels))
        return self._finishing(chains, classes, voxels)

    def final_maps(self) -> tuple[float, float]:
        """Full-size sums of each rank, and what rank 0 needs besides for its maps."""
        grid = BandGrid(self.box, self.box // 2 - 1, 2)
        voxels, cube = _voxels(grid), float(self.box) ** 3
        one = SectionSums.bytes_needed(grid)
        slots = 2 * (self.groups + 1)
        held = min(slots, max(1, (_BUDGET_BYTES - 16 * voxels) // one))
        members = max(self.count / slots / 32, self.box)
        batch = min(max(1, _BATCH_PIXELS // self.box**2), members) * _LOADING * self.box**2
        inserting = held * one + 16 * voxels + batch * (2 if self.smeared else 1) + 28 * min(voxels, 1 << 20)
        # Both halves and their sum (12 bytes a voxel each), the quotient, its padded transform, and all maps.
        finishing = (held - 2) * one + 44 * voxels + 12 * 8 * cube + 4 * cube * (3 * self.groups + 6)
        rest = self._records()
        return inserting + rest, max(finishing - inserting, 0.0)

    def _both_bands(self) -> int:
        """Pixels of both bands."""
        wide = _pixels(self.wide)
        return wide if self.narrow.radius == self.wide.radius else wide + _pixels(self.narrow)

    def _again(self) -> float:
        """Images of a simulated set beside the data."""
        return self.images() + self.poses() if self.options.null else 0.0

    def _most_classes(self) -> int:
        return min(self.options.max_groups, max(self.count // smallest_group(self.count), 1))

    def _chains(self) -> int:
        """Chains of a first layer that learn; those of box 0 are the survey's."""
        boxes: int = 2**self.options.depth_order
        return 2 * (boxes - 1 if self.options.independence == "halves" else boxes)

    def _share(self) -> float:
        return 0.5 if self.options.independence == "halves" else 1.0

    def _surveyed(self) -> float:
        """Statistics of two runs that stay until the end of a generation."""
        size = self.options.components or COMPONENTS[0]
        return 2.0 * self.count * 8 * (size + size**2) / self.sharing

    def _records(self) -> float:
        """Scores that chains of all layers gave all particles."""
        scores = 2.0 * 2 ** (self.options.depth_order + 1) * self.count * 8 * (self.groups + JUNK_KINDS + 1)
        return scores / self.sharing

    def _seen(self, poses: float, grid: BandGrid, making: bool = False) -> float:
        """Copy a block's particles, a row for each pose; ``making``: even where images are kept."""
        made = making or (self.smeared and self.options.compute_on_the_fly)
        return poses * _pixels(grid) * (_MAKING if made else _SEEN)

    def _learning(self, runs: int, rows: float, components: int) -> float:
        """Learning of runs with ``rows`` particles in all."""
        total, voxels = NUISANCES + components, _voxels(self.narrow)
        pairs = components * (components + 1) // 2 + components * NUISANCES
        record = moment_record_length(components, pairs)
        # Of one run sums and their float32 scratch, or what is made of the sums; maps of all.
        solving = 8 * record + 16 * components + 12 * pairs + 9 * components**2
        sums = voxels * (max(12 * record, solving) + 8 * runs * components / self.sharing)
        # Means and packed covariances, those of the last iteration until the new ones are there.
        state = rows * 4 * (total**2 + 3 * total)
        backprojecting = sums + state + 4 * rows * (components + pairs)
        half = self.block * rows / runs / self.own * self.poses_narrow
        packed = half * 6 * total * (total + 1)
        return max(backprojecting, 2 * state) + self._seen(half, self.narrow) + packed

    def _finishing(self, chains: int, classes: int, voxels: int) -> float:
        total = NUISANCES + classes
        # Of one chain records (re, im, weight, 0) in float32 and summed in float64, numerators, weights; maps of all.
        sums = voxels * (72 * classes + 8 * lane_count(NUISANCES) + 12 * chains * classes / self.sharing)
        looking = voxels * (40 * classes + 8 * lane_count(total) + 8 * lane_count(NUISANCES))
        rows = chains * self._share() * self.own
        seen = 8 * rows * ((10 * classes + 11) + 3 * (classes + NUISANCES))
        joints = chains * self.count * 8 * (classes + JUNK_KINDS) / self.sharing + 8 * self.own * (11 * classes + 11)
        block_poses = self.block * self.poses_wide
        block = self._seen(block_poses, self.wide) + 16 * block_poses * total**2
        return sums + looking + seen + joints + block + self._surveyed()

    def _classical(self, voxels: int) -> float:
        """Chains of the classical engine, which keep images without the nuisances."""
        chains, classes = 2 * 2**self.options.depth_order, self.options.max_groups
        if self.options.img_per_grp is not None:
            classes = max(self.count // self.options.img_per_grp, 2)
        cleaned = self.own * (1.0 if self.options.compute_on_the_fly else self.poses_wide)
        sums = 12 * min(4 * voxels * chains * classes, max(1 << 25, 4 * voxels * classes))
        maps = chains * classes * voxels * (12 + 16 + 8)
        scores = chains * self.own * classes * 24
        block = self._seen(self.block * self.poses_wide, self.wide)
        return cleaned * _COMPLEX * _pixels(self.wide) + sums + maps + scores + block + self._surveyed()


def _mean_poses(table: ParticleTable, radii: tuple[int, ...]) -> list[float]:
    """Mean number of poses of a particle that bands can tell apart, counted in some of the particles."""
    if table.smears is None:
        return [1.0] * len(radii)
    smears = table.smears.rows(np.unique(np.linspace(0, len(table) - 1, _SAMPLE).astype(np.int64)))
    weight = smears.weight.astype(np.float32)
    shifts = (smears.shifts_px / (table.box_px or 1)).astype(np.float32)
    rotations = relion_matrices(smears.angles_deg).astype(np.float32)
    poses = joined_poses(Poses(smears.first, rotations, shifts, weight, weight, weight), radii[0])
    return [
        len((poses if radius == radii[0] else joined_poses(poses, radius)).weight) / len(smears) for radius in radii
    ]


def _pixels(grid: BandGrid) -> int:
    return len(half_plane(grid.radius)[0])


def _voxels(grid: BandGrid) -> int:
    return int(np.prod(grid.fourier_shape, dtype=np.int64))
