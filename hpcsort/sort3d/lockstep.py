"""What many chains of K-means do in one pass over the data: make class maps, and score particles with them.

All chains see the same particles: their maps are scored side by side in one array, and their sums are made in one
reduction. Every chain's numbers are the same bits as if it ran alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from hpcsort.images import Seen
from hpcsort.kernels import (
    complete_friedel,
    insert_sections,
    interleave,
    leave_one_out_gains,
    pack_ridge,
    score_sections,
)
from hpcsort.sort3d.classmaps import leverage_ratio
from hpcsort.sort3d.statistics import JUNK_KINDS, integrated, junk_scores
from hpcsort.sort3d.store import Block, ParticleStore
from hpcsort.sort3d.subspace import NUISANCES, local_weight, moments
from hpcsort.volumes import BandGrid

__all__ = ["SCALE_RANGE", "Chain", "ClassVolumes", "Field", "clean_residuals", "make_maps", "weigh_classes"]

SCALE_RANGE = (0.3, 5.0)
"""Factors that a shrunk map may be given."""
_MOST_FLOATS = 2**25
"""Sums of chains that are held at a time."""


@dataclass(frozen=True)
class Field:
    """What all chains share.

    Attributes
    ----------
    store : particles that are sorted; ``data`` holds `clean_residuals`.
    grid, mask, region : of the maps, where differences are allowed, and where their noise is measured.
    prior : float64 (shells,), prior variance of the differences' Fourier voxels.
    orientation : int (n,), orientation group of every particle of the store.
    known : float64 (n_local, G), scores of groups that are known already.
    junk : float64 (n_local, 2), scores of the kinds of junk.
    leave_one_out : score a particle for its own class without its own contribution.
    local : weight the maps by their local variance.
    """

    store: ParticleStore
    grid: BandGrid
    mask: np.ndarray
    region: np.ndarray
    prior: np.ndarray
    orientation: np.ndarray
    known: np.ndarray
    junk: np.ndarray
    leave_one_out: bool = True
    local: bool = True

    @property
    def here(self) -> slice:
        """Particles of this rank."""
        return self.store.positions


@dataclass(frozen=True)
class ClassVolumes:
    """Difference maps of one chain.

    Attributes
    ----------
    volumes : complex64 (K, Fourier volume), before ``scale``.
    ridge : float32 (K, Fourier volume), 1 / (weight + 1 / prior).
    leverage : factor of the ridge for the local weight and the interpolation.
    """

    volumes: np.ndarray
    ridge: np.ndarray
    leverage: float


@dataclass
class Chain:
    """One chain of K-means.

    Attributes
    ----------
    own : bool (n,), particles that make its maps.
    labels : int64 (n,), class of its own particles, -1 for the others and for those without a new class.
    classes : number K of classes.
    fuzziness : how much of a particle's membership follows the probabilities of the classes instead of its label,
        0 to 1.
    maps, scale : last maps and their factors (K,), None before the first iteration.
    scores : float64 (n_local, K), log-likelihood ratios of this rank's own particles for the last maps.
    shares : float32 (n_local, K), memberships with which the last maps were made.
    """

    own: np.ndarray
    labels: np.ndarray
    classes: int
    fuzziness: float = 0.0
    maps: ClassVolumes | None = None
    scale: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scores: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    shares: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def with_rows(self, change: Callable[[np.ndarray], np.ndarray]) -> Chain:
        """Return the chain with another choice of particles in ``scores`` and ``shares``."""
        return replace(self, scores=change(self.scores), shares=change(self.shares))


def clean_residuals(
    store: ParticleStore, fixed: np.ndarray, pad: int, contrast: float
) -> tuple[ParticleStore, np.ndarray]:
    """Subtract from every residual its expected nuisances as if there were no difference of structure.

    Parameters
    ----------
    store : particles; ``data`` holds whitened residuals.
    fixed, pad : nuisance maps, and the padding of their Fourier volumes.
    contrast : standard deviation of the contrast for which its map is scaled.

    Returns
    -------
    store : with cleaned images.
    junk : float64 (n_local, 2), `junk_scores`.

    Notes
    -----
    A class map's linear term with the cleaned image is exactly that of the likelihood with the nuisances integrated
    out, P' (N N' + 1)^-1 y. Its power is taken without them, which is too high by the small share of a difference that
    nuisances can imitate; the factor of the map makes up for it.
    """
    volumes = interleave(fixed)
    junk = np.empty((len(store.data), JUNK_KINDS))
    expected = np.empty((len(store.data), NUISANCES), np.float32)
    for block in store.blocks():
        linear, gram = moments(store, volumes, NUISANCES, pad, block.local)
        found = integrated(linear, gram)
        junk[block.local] = junk_scores(found, linear, gram, contrast)
        expected[block.local] = found.rest
    return store.with_data(store.data.minus(volumes, NUISANCES, expected, pad)), junk


def make_maps(field: Field, chains: list[Chain], shares: list[np.ndarray]) -> list[ClassVolumes]:
    """Make the maps of all chains, as many at a time as memory allows."""
    voxels = int(np.prod(field.grid.fourier_shape))
    maps: list[ClassVolumes] = []
    first = 0
    while first < len(chains):
        last, classes = first + 1, chains[first].classes
        while last < len(chains) and (classes + chains[last].classes) * voxels * 4 <= _MOST_FLOATS:
            classes += chains[last].classes
            last += 1
        maps += _make_batch(field, chains[first:last], shares[first:last])
        first = last
    return maps


def _make_batch(field: Field, chains: list[Chain], shares: list[np.ndarray]) -> list[ClassVolumes]:
    store, grid = field.store, field.grid
    starts = np.concatenate([[0], np.cumsum([chain.classes for chain in chains])])
    peak = store.pixel_limit

    def fill(block: Block, out: np.ndarray) -> None:
        poses = store.data.seen(block.local)
        data = poses.data
        for chain, share, start in zip(chains, shares, starts, strict=False):
            for labels, weights in _single_labels(chain, share[block.local]):
                insert_sections(
                    data.images, data.ctfs, data.rotations, poses.per_pose(labels), poses.weighted(weights),
                    data.px, data.py, grid.pad, out=out[start : start + chain.classes],
                )  # fmt: skip

    sums = store.sum_blocks((int(starts[-1]), *grid.fourier_shape, 4), 8.0 * store.count * peak**2, fill)
    # Each rank shrinks the maps of its share of the chains.
    comm = store.comm
    done = {
        index: _shrink(field, sums[starts[index] : starts[index + 1]])
        for index in range(comm.rank, len(chains), comm.size)
    }
    gathered: dict[int, ClassVolumes] = {}
    for part in comm.allgather(done):
        gathered.update(part)
    return [gathered[index] for index in range(len(chains))]


def _single_labels(chain: Chain, share: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Memberships as (labels, weights) for kernels that take one class a particle: all at once where they are hard."""
    if not chain.fuzziness:
        weights = share.max(axis=1, initial=0.0)
        return [(np.where(weights > 0, share.argmax(axis=1), -1).astype(np.int32), np.ascontiguousarray(weights))]
    return [
        (np.where(share[:, index] > 0, index, -1).astype(np.int32), np.ascontiguousarray(share[:, index]))
        for index in range(chain.classes)
    ]


def _shrink(field: Field, sums: np.ndarray) -> ClassVolumes:
    """Ridge by the prior variance of differences, then local weights by their variance across classes."""
    grid = field.grid
    numerator = sums[..., 0] + 1j * sums[..., 1]
    weight = np.ascontiguousarray(sums[..., 2])
    for index in range(len(sums)):
        complete_friedel(numerator[index], hermitian=True)
        complete_friedel(weight[index], hermitian=False)
    ridge = np.where(grid.support, 1.0 / (weight + 1.0 / grid.shell_fill(field.prior)), 0.0)
    real = grid.to_real((numerator * ridge).astype(np.complex64), corrected=False)
    focus = field.mask * local_weight(grid, real, field.region) if field.local else field.mask
    volumes = grid.to_fourier(real * focus, corrected=False)
    return ClassVolumes(volumes, ridge.astype(np.float32), leverage_ratio(grid, focus))


def weigh_classes(
    field: Field, chains: list[Chain], shares: list[np.ndarray] | None, *, own_only: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Linear and power terms (n_local, K) of each chain: the score of a map times a is a linear - a^2 power / 2.

    Parameters
    ----------
    field, chains : particles and maps.
    shares : memberships with which the maps were made; a particle's contribution is left out of its score. None
        scores as if none had contributed.
    own_only : leave a chain's other particles at zero.
    """
    store, pad = field.store, field.grid.pad
    count = len(store.data)
    found = [(np.zeros((count, chain.classes)), np.zeros((count, chain.classes))) for chain in chains]
    packed = (
        [store.comm.once_per_node(partial(_records, chain)) for chain in chains]
        if shares is not None and field.leave_one_out
        else []
    )
    batches = [
        (
            np.ones(count, bool) if not own_only else chains[batch[0]].own[field.here],
            batch,
            store.comm.once_per_node(partial(_interleaved, chains, batch)),
        )
        for batch in _batches(chains, own_only)
    ]
    for block in store.blocks():
        for rows, batch, volumes in batches:
            chosen = np.arange(block.local.start, block.local.stop)[rows[block.local]]
            poses = store.data.seen(chosen)
            data = poses.data
            geometry = (data.ctfs, data.rotations, data.px, data.py, pad)
            cross, power = score_sections(volumes, sum(chains[i].classes for i in batch), data.images, *geometry)
            start = 0
            for index in batch:
                lanes = slice(start, start + chains[index].classes)
                start = lanes.stop
                linear = 2.0 * cross[:, lanes].astype(np.float64)
                if shares is not None and packed:
                    with_itself = 2.0 * cross[:, lanes] - power[:, lanes]
                    linear += _own_corrections(
                        chains[index], packed[index], shares[index][chosen], poses, pad, with_itself
                    )
                found[index][0][chosen] = poses.expected(linear)
                found[index][1][chosen] = poses.expected(2.0 * power[:, lanes])
    return found


def _own_corrections(
    chain: Chain, packed: np.ndarray, share: np.ndarray, poses: Seen, pad: int, with_itself: np.ndarray
) -> np.ndarray:
    """Gain without a particle's own contribution minus gain with it, (v, K), for the classes it is part of."""
    assert chain.maps is not None
    data = poses.data
    correction = np.zeros(with_itself.shape)
    reach = chain.maps.leverage if poses.overlap is None else chain.maps.leverage * poses.overlap
    for labels, weights in _single_labels(chain, share):
        own, factors = poses.per_pose(labels), (reach * poses.per_pose(weights)).astype(np.float32)
        gains = leave_one_out_gains(
            packed, None, own, factors, data.images, data.ctfs, data.rotations, data.px, data.py, pad
        )
        part = np.flatnonzero(own >= 0)
        correction[part, own[part]] += gains[part] - with_itself[part, own[part]]
    return correction


def _records(chain: Chain) -> np.ndarray:
    assert chain.maps is not None
    return pack_ridge(chain.maps.volumes, chain.maps.ridge)


def _batches(chains: list[Chain], own_only: bool) -> list[list[int]]:
    """Chains that score the same particles are scored together."""
    batches: dict[bytes, list[int]] = {}
    for index, chain in enumerate(chains):
        key = chain.own.tobytes() if own_only else b""
        batches.setdefault(key, []).append(index)
    return list(batches.values())


def _interleaved(chains: list[Chain], batch: list[int]) -> np.ndarray:
    return interleave(np.concatenate([chains[index].maps.volumes for index in batch]))  # type: ignore[union-attr]
