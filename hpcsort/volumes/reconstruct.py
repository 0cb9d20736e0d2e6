"""Maps from back-projected sections: sums with the same bits for any number of ranks, and their division."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hpcsort.kernels import complete_friedel
from hpcsort.parallel import Communicator, ExactSum
from hpcsort.volumes.fsc import fsc_of_full
from hpcsort.volumes.grid import BandGrid

__all__ = ["SectionSums", "reconstruct_map", "wiener_prior"]

_SLAB_VOXELS = 1 << 20
# A voxel that few sections come near is not divided by less than this share of its shell's mean weight.
_FLOOR = 1e-3


class SectionSums:
    """Exact sum of volumes filled by `insert_sections`, of the voxels that sections of the band can touch only.

    Parameters
    ----------
    grid : BandGrid
        Gives the shape (2h+1, 2h+1, h+1) of the volumes.
    bound : float, the same on every rank
        At least the largest sum of absolute values of any element; see `ExactSum`.
    """

    def __init__(self, grid: BandGrid, bound: float) -> None:
        self._grid = grid
        side = grid.fourier_shape[0]
        planes = max(1, _SLAB_VOXELS // (side * grid.fourier_shape[2]))
        support = np.stack([frequency <= grid.radius + np.sqrt(3.0) / grid.pad for _, frequency in _planes(grid)])
        self._slabs = []
        for start in range(0, side, planes):
            part = slice(start, start + planes)
            self._slabs.append((part, support[part], ExactSum((int(support[part].sum()), 3), bound)))

    @staticmethod
    def bytes_needed(grid: BandGrid) -> int:
        """Memory of one sum, about (three float64 and the support for pi / 6 of the half volume's box)."""
        voxels = int(np.prod(grid.fourier_shape, dtype=np.int64))
        return int(voxels * (np.pi / 6 * 24 + 1))

    def add(self, records: np.ndarray) -> None:
        """Add a volume of records (re, im, weight, 0), float32 (2h+1, 2h+1, h+1, 4)."""
        # One 16-byte item per record: picking them so is three times as fast as picking rows of floats.
        items = records.view(np.complex128)[..., 0]
        for part, support, total in self._slabs:
            total.add(items[part][support].view(np.float32).reshape(-1, 4)[:, :3])

    def join(self, comm: Communicator) -> tuple[np.ndarray, np.ndarray] | None:
        """Add the sums of all ranks and complete their Friedel symmetry. Collective, once.

        Returns
        -------
        numerator, weight : complex64 and float32 (2h+1, 2h+1, h+1) on rank 0; None elsewhere.
        """
        numerator = np.zeros(self._grid.fourier_shape if comm.is_root else 0, np.complex64)
        weight = np.zeros(numerator.shape, np.float32)
        while self._slabs:
            part, support, total = self._slabs.pop(0)
            sums = total.join(comm)
            if comm.is_root:
                numerator[part][support] = sums[:, 0] + 1j * sums[:, 1]
                weight[part][support] = sums[:, 2]
        if not comm.is_root:
            return None
        return complete_friedel(numerator, hermitian=True), complete_friedel(weight, hermitian=False)


def reconstruct_map(
    numerator: np.ndarray,
    weight: np.ndarray,
    grid: BandGrid,
    *,
    prior: np.ndarray | None = None,
    particle_radius: float | None = None,
) -> np.ndarray:
    """Divide back-projected sections by their weights, V / (W + prior), and return the map.

    Parameters
    ----------
    numerator : complex64 (2h+1, 2h+1, h+1), sum of t C F with trilinear weights t, Friedel symmetric.
    weight : float32 of the same shape, sum of t C^2.
    grid : the grid of both.
    prior : float (shells,), added to the weight of each shell, the last value beyond; None for none. In any case a
        weight below a thousandth of its shell's mean is raised to that.
    particle_radius : radius of the particle in units of the box edge. The images' mean is not part of their data;
        the map's mean is chosen such that the density outside this radius is 0 on average. None leaves it.

    Returns
    -------
    float32 (size, size, size): density whose sum along a view, times the CTF, is the image.
    """
    floor = _FLOOR * _shell_mean(weight, grid)
    added = np.zeros(1) if prior is None else np.asarray(prior, np.float64)
    volume = np.zeros(grid.fourier_shape, np.complex64)
    for plane, frequency in _planes(grid):
        shell = np.rint(frequency).astype(np.int64)
        denominator = weight[plane] + added[np.minimum(shell, len(added) - 1)]
        np.maximum(denominator, floor[np.minimum(shell, len(floor) - 1)], out=denominator)
        inside = (denominator > 0) & (frequency <= grid.radius + np.sqrt(3.0) / grid.pad)
        np.divide(numerator[plane], denominator, out=volume[plane], where=inside, casting="same_kind")
    density = grid.to_real(volume, corrected=False)
    if particle_radius is not None:
        outside = grid.distance > particle_radius
        if outside.any():
            density -= np.float32(density[outside].mean(dtype=np.float64))
    density /= grid.sinc2
    return density


def wiener_prior(weight: np.ndarray, half_fsc: np.ndarray, grid: BandGrid) -> np.ndarray:
    """Prior that shrinks a map of all data by its signal-to-noise ratio, which is taken from the halves' FSC.

    With F the FSC expected of all the data, SSNR = F / (1 - F), and the prior is the mean weight of the shell
    divided by SSNR (Rosenthal and Henderson, J. Mol. Biol. 333 (2003) 721).

    Parameters
    ----------
    weight : float32 (2h+1, 2h+1, h+1), of all data.
    half_fsc : float (shells,), between the maps of the halves.

    Returns
    -------
    float64 (shells,).
    """
    level = _shell_mean(weight, grid)
    full = fsc_of_full(half_fsc)[: len(level)]
    prior = level[: len(full)] * (1.0 - full) / np.maximum(full, 1e-3)
    prior[0] = prior[min(1, len(prior) - 1)]
    return prior


def _planes(grid: BandGrid) -> Iterator[tuple[int, np.ndarray]]:
    """Planes of a Fourier volume with each voxel's radial frequency (2h+1, h+1): the whole would be large."""
    axis = np.arange(-grid.half, grid.half + 1, dtype=np.float64) / grid.pad
    in_plane = axis[:, None] ** 2 + axis[None, grid.half :] ** 2
    for index, z in enumerate(axis.tolist()):
        yield index, np.sqrt(in_plane + z * z)


def _shell_mean(weight: np.ndarray, grid: BandGrid) -> np.ndarray:
    """Mean over shells 0..radius+1 of the full volume, float64."""
    shells = grid.radius + 2
    sums, counts = np.zeros(shells + 1), np.zeros(shells + 1)
    for plane, frequency in _planes(grid):
        shell = np.minimum(np.rint(frequency).astype(np.int64), shells)
        twice = np.full(shell.shape, 2.0)
        twice[:, 0] = 1.0
        sums += np.bincount(shell.ravel(), (twice * weight[plane]).ravel(), shells + 1)
        counts += np.bincount(shell.ravel(), twice.ravel(), shells + 1)
    return sums[:shells] / np.maximum(counts[:shells], 1.0)
