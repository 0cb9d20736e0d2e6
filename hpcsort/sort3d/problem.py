"""What stays fixed during a sort: particles in sort order, bands, consensus, nuisances, orientation groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from hpcsort.checkpoints import Journal, no_journal
from hpcsort.geometry import orientation_groups, relion_matrices
from hpcsort.images import SmearedData
from hpcsort.io import BadImage, ParticleTable
from hpcsort.parallel import Communicator
from hpcsort.sort3d.coarse import sorting_grid
from hpcsort.sort3d.consensus import Consensus, build_consensus, subtract_consensus, whiten, whiten_as_told
from hpcsort.sort3d.loading import half_sets, load_particles, shown_images
from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.screen import contrast_notes, emptiness
from hpcsort.sort3d.source import Source
from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import Subspace, nuisance_maps
from hpcsort.volumes import BandGrid, last_shell_above, resample_map, soft_sphere

__all__ = ["Band", "Problem", "pose_problem"]

_NARROW = 14
_WIDE = 18
"""Band limits in Fourier pixels, for a particle that fills its box: subspace, and finishing in map space."""
_MOST = 40
_WHITENINGS = 2
_MASK_EDGE = 0.05
_CONTRAST, _SHIFT_PX, _TURN_RAD = 0.05, 0.7, np.deg2rad(2.5)
_SPREAD = np.array([_CONTRAST, *[_SHIFT_PX] * 3, *[_TURN_RAD] * 3])
"""First standard deviations of the nuisances: share of the contrast, px of the full box, radians."""


@dataclass(frozen=True)
class Band:
    """One band limit of the sort and what depends on it.

    Attributes
    ----------
    store : whitened residuals from the consensus.
    grid : of the maps.
    region, mask : the particle, and where differences are allowed (a focus within it), float32 (size, size, size).
    fixed : complex64 (7, Fourier volume), nuisance maps scaled by their standard deviations.
    power : float64 (shells,), spectral power of the consensus; priors of differences are a share of it.
    """

    store: ParticleStore
    grid: BandGrid
    region: np.ndarray
    mask: np.ndarray
    fixed: np.ndarray
    power: np.ndarray

    def start(self) -> Subspace:
        """Subspace without learned maps."""
        empty = np.zeros((0, *self.grid.fourier_shape), np.complex64)
        return Subspace(self.grid, self.fixed, empty, self.mask, self.region, _SPREAD.copy())

    def scaled_nuisances(self, spread: np.ndarray) -> np.ndarray:
        """Nuisance maps for other standard deviations (7,) than those that they start with."""
        return np.asarray(self.fixed * (spread / _SPREAD)[:, None, None, None], np.complex64)


@dataclass(frozen=True)
class Problem:
    """A sort, ready to be solved.

    Attributes
    ----------
    options, table, comm : what is sorted, how, and by whom.
    rows : int64 (n,), table row of every particle in sort order.
    narrow, wide : bands for the subspace and for the finishing loop.
    consensus : map of all particles.
    half : int (n,), half-set of every particle in sort order.
    image : int (n,), number of the image that shows a particle; symmetry mates share one.
    orientation : int (n,), orientation group.
    empty : float64 (n,), probability that an image shows no particle.
    mask : float32 (box, box, box) given by the user, or None; on rank 0.
    bad : images that were left out.
    journal : of the sort's steps.
    """

    options: SortOptions
    table: ParticleTable
    comm: Communicator
    rows: np.ndarray
    narrow: Band
    wide: Band
    consensus: Consensus
    half: np.ndarray
    image: np.ndarray
    orientation: np.ndarray
    empty: np.ndarray
    mask: np.ndarray | None
    bad: list[BadImage]
    journal: Journal = field(default_factory=no_journal)

    @property
    def count(self) -> int:
        """Number of particles that are sorted."""
        return len(self.rows)

    def with_images(self, images: np.ndarray) -> Problem:
        """Return the sort of other images of the same particles, consensus and residuals made anew. Collective.

        Parameters
        ----------
        images : complex64 (n_local, P), Fourier data of this rank's particles on the pixels of ``wide.store``, in its
            units (noise of variance 1 a complex pixel); they are whitened once more by their own residuals.

        Notes
        -----
        Bands, masks, half-sets and the images without a particle stay, so that results of both sorts compare.
        """
        store = self.wide.store.with_data(self.wide.store.data.with_images(images))
        groups = _noise_groups(self.table)
        seen = np.where(self.empty > 0.5, -1, self.half)[store.positions]
        consensus, residual = _settle(store, self.wide.grid, seen, self.wide.region, groups)
        box = self.table.box_px
        assert box is not None
        wide, narrow = (
            _band(residual, consensus, band.grid, band.region, band.mask, box) for band in (self.wide, self.narrow)
        )
        return replace(self, narrow=narrow, wide=wide, consensus=consensus)

    def focused(self, focus: np.ndarray) -> Problem:
        """Return the same sort with differences allowed inside ``focus`` only, float (size, size, size) of any size."""
        wide, narrow = (
            replace(band, mask=(band.region * _resampled(focus, band.grid)).astype(np.float32))
            for band in (self.wide, self.narrow)
        )
        return replace(self, narrow=narrow, wide=wide)


def pose_problem(
    source: Source, comm: Communicator, tell: Callable[[str], None], journal: Journal | None = None
) -> Problem:
    """Read the images once and prepare all that the sort needs. Collective."""
    options, table, mask = source.options, source.table, source.mask
    assert table.box_px is not None
    box = table.box_px
    radius_px = options.radius_px(box)
    limit = _band_limit(options, box, radius_px, _WIDE)
    store, rows, bad = load_particles(options, table, comm, limit, radius_px)
    if bad:
        tell(f"{len(bad)} bad images are left out (--skip-bad), the first: {bad[0].describe()}.")
    image = shown_images(table, rows)
    half = half_sets(table, rows, image, options.seed)
    groups = _noise_groups(table)
    share = radius_px / box
    grid = sorting_grid(limit)
    sphere = _sorting_mask(comm, mask, grid, share)
    if table.noise_power is None:
        store, _ = whiten(store, store, groups)
    else:
        store = whiten_as_told(store, table.noise_power)
    consensus, residual = _settle(store, grid, half[store.positions], sphere, groups)
    empty = residual.gathered(emptiness(residual, consensus))
    if (empty > 0.5).any():
        # They dim the consensus and would pass for a difference in contrast.
        seen = np.where(empty > 0.5, -1, half)[store.positions]
        consensus, residual = _settle(store, grid, seen, sphere, groups)
        empty = residual.gathered(emptiness(residual, consensus))
        if (empty > 0.5).any():
            tell(f"{int((empty > 0.5).sum())} images show no particle; nothing is learned from them.")
    for note in contrast_notes(residual, consensus):
        tell(f"Warning: {note}")
    shell = max(last_shell_above(consensus.fsc, 0.143), min(6, limit))
    wide_grid = sorting_grid(min(limit, shell))
    region = _sorting_mask(comm, mask, wide_grid, share)
    wide = _band(residual, consensus, wide_grid, region, region, box)
    narrow_limit = min(wide.grid.radius, _band_limit(options, box, radius_px, _NARROW))
    narrow_grid = sorting_grid(narrow_limit)
    region = _sorting_mask(comm, mask, narrow_grid, share)
    narrow = _band(residual, consensus, narrow_grid, region, region, box)
    edge_A = box * table.pixel_size_A
    whole = "" if shell < limit else ", the end of the band that was read"
    tell(
        f"The consensus map of {len(rows)} particles is good to {edge_A / shell:.1f} A{whole}; differences are learned "
        f"to {edge_A / narrow_limit:.1f} A and finished to {edge_A / wide.grid.radius:.1f} A."
    )
    _tell_poses(narrow.store, wide.store, tell)
    matrices = relion_matrices(table.angles_deg[rows])
    orientation = orientation_groups(matrices, options.orientation_groups, 20, options.operators())
    problem = Problem(
        options, table, comm, rows, narrow, wide, consensus, half, image, orientation, empty, mask, bad,
        journal or no_journal(),
    )  # fmt: skip
    focus = comm.bcast(source.focus)
    return problem if focus is None else problem.focused(focus)


def _tell_poses(narrow: ParticleStore, wide: ParticleStore, tell: Callable[[str], None]) -> None:
    means = []
    for store in (narrow, wide):
        if not isinstance(store.data, SmearedData):
            return
        means.append(float(store.total(np.diff(store.data.poses.first).astype(np.float64))) / max(store.count, 1))
    tell(
        f"Poses that the bands cannot tell apart are joined: {means[0]:.1f} a particle are left for learning, "
        f"{means[1]:.1f} for finishing."
    )


def _band_limit(options: SortOptions, box: int, radius_px: int, limit: int) -> int:
    """Fourier pixels that reach the same detail in units of the particle, whatever its share of the box."""
    if options.nxinit is not None:
        return max(options.nxinit // 2 - 1, 4)
    filled = min(box / (2 * radius_px + 4), _MOST / limit)
    return min(round(limit * max(filled, 1.0)), box // 2 - 1)


def _noise_groups(table: ParticleTable) -> int:
    """Count the groups whose noise is measured; where a refinement tells, its groups need one common factor only."""
    if table.noise_power is not None:
        return 1
    return int(table.optics_group.max(initial=0)) + 1


def _settle(
    store: ParticleStore, grid: BandGrid, local_half: np.ndarray, mask: np.ndarray, groups: int
) -> tuple[Consensus, ParticleStore]:
    """Whiten by the residuals from a first consensus, then make consensus and residuals for good. Collective.

    Two rounds: images whitened by their own power leave the lowest shells, where the signal is many times the noise,
    with too small a weight, and the first consensus with it; a wrong noise level there looks like a structure.
    """
    for _ in range(_WHITENINGS):
        first = build_consensus(store, grid, local_half, mask)
        store, _ = whiten(store, subtract_consensus(store, first), groups)
    consensus = build_consensus(store, grid, local_half, mask)
    return consensus, subtract_consensus(store, consensus)


def _sorting_mask(comm: Communicator, mask: np.ndarray | None, grid: BandGrid, radius: float) -> np.ndarray:
    made = None
    if comm.is_root:
        edge = min(_MASK_EDGE, radius / 4)
        made = soft_sphere(grid.distance, radius - edge, edge)
        if mask is not None:
            made = _resampled(mask, grid)
    shared: np.ndarray = comm.bcast(made)
    return shared


def _resampled(mask: np.ndarray, grid: BandGrid) -> np.ndarray:
    return np.asarray(np.clip(resample_map(mask, grid.size), 0.0, 1.0), np.float32)


def _band(
    residual: ParticleStore, consensus: Consensus, grid: BandGrid, region: np.ndarray, mask: np.ndarray, box: int
) -> Band:
    # Fourier voxels are in units of the data on every grid, so the consensus moves by cropping its volume.
    inner = consensus.grid
    cut = slice(inner.half - grid.half, inner.half + grid.half + 1)
    volume = consensus.volume[cut, cut, : grid.half + 1] * grid.support
    reference = grid.to_real(volume, corrected=False) * grid.sinc2
    deviations = np.array([_CONTRAST, *[_SHIFT_PX * grid.size / box] * 3, *[_TURN_RAD] * 3], np.float32)
    maps = nuisance_maps(grid, reference, region) * deviations[:, None, None, None]
    power = np.maximum(grid.shell_mean(np.abs(volume) ** 2), 1e-9)
    # Shell 0 holds no data, and the last one is cut by the band limit.
    power[0], power[-1] = power[1], power[-2]
    return Band(
        residual.with_data(residual.data.cropped(grid.radius)), grid, region, mask, grid.to_fourier(maps), power
    )
