"""The finishing loop in map space: all chains in lock step, leave-one-out scores, a wider band.

A chain's maps come from its own particles only; it then scores all particles. A particle's score for a class that it
is part of is corrected for its own contribution (leverage), or it would prefer whatever it already is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.special import softmax

from hpcsort.images import BandData
from hpcsort.kernels import (
    aligned_empty,
    backproject_moments,
    complete_friedel,
    interleave,
    leave_one_out_gains,
    moment_record_length,
    pack_ridge,
    subtract_sections,
)
from hpcsort.parallel import ExactSum
from hpcsort.sort3d.classmaps import ClassMaps, shrink_classes
from hpcsort.sort3d.marching import common_band
from hpcsort.sort3d.statistics import JUNK_KINDS, junk_scores, reduced_moments
from hpcsort.sort3d.store import ParticleStore, exact_total
from hpcsort.sort3d.subspace import NUISANCES, moments, unpack_lower

__all__ = ["Chain", "refine_chains", "with_junk"]

_SMALL_SHARE = 0.01
"""A particle that is part of a class by less than this does not bias its score for it."""
_SCALE_RANGE = (0.3, 5.0)
_LEAST_BAND = 8
MARCHING: int | None = None
"""Shells beyond those in which paired chains agree that particles are compared in; None is the whole band always."""
JUNK_SHARE = 0.001
"""Share that each kind of junk is given beforehand. It is not fitted: a broad component that may grow takes the place
of small classes."""


@dataclass(frozen=True)
class Chain:
    """One independent run in map space.

    Attributes
    ----------
    learns : bool (n,), particles (of all ranks, in sort order) that make its maps.
    maps : its classes, those of known groups first.
    weights : float64 (K + 2,), shares of the classes and of the kinds of junk among all particles.
    start : int (n,), classes of a start partition, -1 for none; the maps are then made from these before they are
        compared with anything. None starts from ``maps``.
    """

    learns: np.ndarray
    maps: ClassMaps
    weights: np.ndarray
    start: np.ndarray | None = None


@dataclass(frozen=True)
class _Seen:
    """How some particles see a chain's class maps, nuisances integrated out.

    The log-likelihood ratio of class k scaled by a is a ``linear`` - a^2 ``power`` / 2, (n, K) each; the expected
    nuisances are ``rest`` - a ``pull``, (n, 7) and (n, K, 7). ``junk`` (n, 2) as in `junk_scores`.
    """

    linear: np.ndarray
    power: np.ndarray
    rest: np.ndarray
    pull: np.ndarray
    junk: np.ndarray

    def scores(self, scale: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios (n, K + 2) of the scaled classes and of junk."""
        return np.concatenate([scale * self.linear - 0.5 * scale**2 * self.power, self.junk], axis=1)

    def nuisances(self, shares: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return the expected nuisances (n, 7) of particles that belong to the classes by ``shares`` (n, K)."""
        total = shares.sum(axis=1, keepdims=True)
        return np.asarray(total * self.rest - np.einsum("nk,nka->na", shares * scale, self.pull))


@dataclass(frozen=True)
class _State:
    """A chain between iterations. ``local``: own rows of this rank; ``shares`` (n, K), ``nuisances`` (n, 7) of them."""

    chain: Chain
    local: np.ndarray
    shares: np.ndarray
    nuisances: np.ndarray

    def within(self, rows: slice) -> slice:
        """Return the own particles among consecutive local rows, as rows of ``shares``."""
        first, last = np.searchsorted(self.local, [rows.start, rows.stop])
        return slice(int(first), int(last))


def refine_chains(
    store: ParticleStore,
    chains: list[Chain],
    known: np.ndarray,
    *,
    iterations: int,
    floor: float,
    step: Callable[[str], None] | None = None,
) -> tuple[list[Chain], list[np.ndarray]]:
    """Iterate all chains in lock step, each on its own particles, and score all particles with each. Collective.

    Parameters
    ----------
    store : particles; ``data`` holds whitened residuals from the consensus.
    chains : where they start.
    known : int (n,), class in which particles of known groups begin, -1 for the others. They may leave it: groups that
        were held to their sure members would stand too far apart, and a class between them would seem to be missing.
    iterations : number of estimates of the maps, not counting the one from a start partition.
    floor : smallest share of a class.
    step : called with a note after each iteration.

    Returns
    -------
    chains : as they end.
    joints : per chain float64 (n, K + 2), log of weight times likelihood ratio for every particle of all ranks; a
        particle that the chain learns from is scored with its own contribution left out.
    """
    states = [_begin(store, chain, known[store.positions], floor) for chain in chains]
    for iteration in range(iterations):
        maps = _estimate(store, states)
        states = [replace(state, chain=replace(state.chain, maps=new)) for state, new in zip(states, maps, strict=True)]
        view = _in_band(store, maps)
        seen = [_look(view, state.chain.maps, state.local, state.shares) for state in states]
        states = [_rescale(store, state, part) for state, part in zip(states, seen, strict=True)]
        if iteration + 1 < iterations:
            states = [_share_out(store, state, part, floor) for state, part in zip(states, seen, strict=True)]
        else:
            states = [_reweigh(store, state, part, floor) for state, part in zip(states, seen, strict=True)]
        if step is not None:
            step(f"finishing {len(chains)} chains: iteration {iteration + 1} of {iterations}")
    joints = []
    view = _in_band(store, [state.chain.maps for state in states])
    for index, state in enumerate(states):
        joint = np.empty((len(store.data), len(state.chain.weights)))
        if iterations:
            joint[state.local] = seen[index].scores(state.chain.maps.scale)
        others = np.setdiff1d(np.arange(len(store.data)), state.local if iterations else [])
        joint[others] = _look(view, state.chain.maps, others, None).scores(state.chain.maps.scale)
        joints.append(store.gathered(joint) + np.log(state.chain.weights))
    return [state.chain for state in states], joints


def _in_band(store: ParticleStore, maps: list[ClassMaps]) -> ParticleStore:
    """Crop particles to the band in which the chains of any pair agree about a class."""
    if MARCHING is None:
        return store
    # The last two are a pair; an odd number is led by a chain of all particles.
    pairs = [(maps[index - 1], maps[index]) for index in range(len(maps) - 1, 0, -2)]
    reach = max((common_band(one.grid, one.volumes, other.volumes) for one, other in pairs), default=store.data.radius)
    return store.with_data(store.data.cropped(max(reach + MARCHING, _LEAST_BAND)))


def _begin(store: ParticleStore, chain: Chain, pinned: np.ndarray, floor: float) -> _State:
    """First shares of the own particles: from a start partition or from the maps."""
    local = np.flatnonzero(chain.learns[store.positions])
    classes = chain.maps.classes
    blank = _State(chain, local, np.zeros((len(local), classes)), np.zeros((len(local), NUISANCES)))
    if chain.start is None:
        return _share_out(store, blank, _look(store, chain.maps, local, None), floor, pinned[local])
    begun = np.where(pinned >= 0, pinned, chain.start[store.positions])[local]
    shares = (begun[:, None] == np.arange(classes)).astype(np.float64)
    free = _look(store, replace(chain.maps, volumes=np.zeros_like(chain.maps.volumes)), local, None)
    state = replace(blank, shares=shares, nuisances=free.nuisances(shares, chain.maps.scale))
    (maps,) = _estimate(store, [state])
    state = replace(state, chain=replace(chain, maps=maps))
    seen = _look(store, maps, local, shares)
    return _share_out(store, _rescale(store, state, seen), seen, floor)


def _look(store: ParticleStore, maps: ClassMaps, local: np.ndarray, shares: np.ndarray | None) -> _Seen:
    """Compare this rank's particles ``local`` with the classes, their own ``shares`` in the maps left out."""
    classes, count = maps.classes, len(local)
    total = NUISANCES + classes
    volumes = interleave(np.concatenate([maps.fixed, maps.volumes]))
    ridge = None if shares is None else pack_ridge(maps.volumes, maps.ridge)
    fixed = interleave(maps.fixed)
    seen = _Seen(
        np.empty((count, classes)), np.empty((count, classes)), np.empty((count, NUISANCES)),
        np.empty((count, classes, NUISANCES)), np.empty((count, JUNK_KINDS)),
    )  # fmt: skip
    for rows in _pieces(store, local):
        joint, packed = moments(store, volumes, total, maps.grid.pad, local[rows])
        gram = unpack_lower(packed, total)
        seen.linear[rows], precision = reduced_moments(joint, gram, NUISANCES)
        seen.power[rows] = np.einsum("nkk->nk", precision)
        seen.rest[rows], seen.pull[rows] = _nuisance_means(joint, gram)
        seen.junk[rows] = junk_scores(joint, gram, maps.contrast)
        if shares is not None and ridge is not None:
            part = _Seen(*(getattr(seen, name)[rows] for name in ("linear", "power", "rest", "pull", "junk")))
            expected = part.nuisances(shares[rows], maps.scale).astype(np.float32)
            seen.linear[rows] += _own_corrections(
                store.data.rows(local[rows]), maps, ridge, fixed, expected, shares[rows]
            )
    return seen


def _pieces(store: ParticleStore, local: np.ndarray) -> list[slice]:
    """Cut rising local rows at the blocks of the store, so that results do not depend on the number of ranks."""
    edges = np.searchsorted(local, [block.local.start for block in store.blocks()] + [len(store.data)])
    return [slice(int(first), int(last)) for first, last in pairwise(edges) if last > first]


def _nuisance_means(linear: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    system = 2.0 * gram[:, :NUISANCES, :NUISANCES] + np.eye(NUISANCES)
    right = 2.0 * np.concatenate([linear[:, :NUISANCES, None], gram[:, :NUISANCES, NUISANCES:]], axis=2)
    solved = np.linalg.solve(system, right)
    return solved[:, :, 0], solved[:, :, 1:].transpose(0, 2, 1)


def _own_corrections(
    data: BandData, maps: ClassMaps, ridge: np.ndarray, fixed: np.ndarray, expected: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """Score without a particle's own contribution minus score with it, (n, K), for the classes it is part of."""
    geometry = (data.ctfs, data.rotations, data.px, data.py, maps.grid.pad)
    clean = subtract_sections(fixed, NUISANCES, expected, data.images, *geometry)
    none = np.zeros(len(data), np.float32)
    correction = np.zeros(shares.shape)
    for index in range(shares.shape[1]):
        share = shares[:, index]
        labels = np.where(share > _SMALL_SHARE, index, -1).astype(np.int32)
        if (labels < 0).all():
            continue
        leverage = (maps.leverage * share).astype(np.float32)
        without = leave_one_out_gains(ridge, None, labels, leverage, clean, *geometry)
        correction[:, index] = without - leave_one_out_gains(ridge, None, labels, none, clean, *geometry)
    return correction


def _estimate(store: ParticleStore, states: list[_State]) -> list[ClassMaps]:
    """Back-project the own particles of every chain into its classes, nuisances taken out, and shrink. Collective."""
    peak_data = store.largest(store.data.images) + store.largest(store.data.ctfs) + 1.0
    tasks = []
    for state in states:
        maps = state.chain.maps
        nuisances = np.ascontiguousarray(state.nuisances, np.float32)
        largest = float(store.comm.max(float(np.abs(nuisances).max(initial=0))))
        peak = peak_data * (1.0 + float(np.abs(maps.fixed).max()) * largest * NUISANCES)
        shape = (*maps.grid.fourier_shape, moment_record_length(maps.classes, maps.classes))
        total = ExactSum(shape, 8.0 * max(int(state.chain.learns.sum()), 1) * peak**2)
        shares = np.ascontiguousarray(state.shares, np.float32)
        tasks.append((state, interleave(maps.fixed), nuisances, shares, total, aligned_empty(shape, np.float32)))
    for block in store.blocks():
        for state, fixed, nuisances, shares, total, scratch in tasks:
            rows = state.within(block.local)
            data = store.data.rows(state.local[rows])
            geometry = (data.ctfs, data.rotations, data.px, data.py, state.chain.maps.grid.pad)
            clean = subtract_sections(fixed, NUISANCES, nuisances[rows], data.images, *geometry)
            scratch[...] = 0
            share = shares[rows]
            backproject_moments(
                clean, data.ctfs, data.rotations, share, share, data.px, data.py, state.chain.maps.grid.pad, scratch
            )
            total.add(scratch)
    for task in tasks:
        task[4].join(store.comm)
    solved = [
        _solve(task[0].chain.maps, task[4].total) if index % store.comm.size == store.comm.rank else None
        for index, task in enumerate(tasks)
    ]
    return [store.comm.bcast(maps, root=index % store.comm.size) for index, maps in enumerate(solved)]


def _solve(maps: ClassMaps, total: np.ndarray) -> ClassMaps:
    classes = maps.classes
    sums = np.moveaxis(total, -1, 0)
    numerator = sums[:classes] + 1j * sums[classes : 2 * classes]
    weight = np.ascontiguousarray(sums[2 * classes : 3 * classes])
    for index in range(classes):
        complete_friedel(numerator[index], hermitian=True)
        complete_friedel(weight[index], hermitian=False)
    return shrink_classes(maps, numerator, weight)


def _total(store: ParticleStore, state: _State, values: np.ndarray) -> np.ndarray:
    """Exact sum over the own particles of all ranks."""
    sums = [values[state.within(block.local)].sum(axis=0) for block in store.blocks()]
    return exact_total(store.comm, sums, values.shape[1:], len(store.chunks))


def _rescale(store: ParticleStore, state: _State, seen: _Seen) -> _State:
    """Scale of each class of highest leave-one-out likelihood.

    Shrinking gives a difference map its best shape but too small a size; its size is one number, which the particles
    determine well. Without this the two closest classes of a set merge (benchmarks/accuracy.md).
    """
    sums = _total(store, state, np.stack([state.shares * seen.linear, state.shares * seen.power], axis=1))
    scale = np.asarray(np.clip(sums[0] / np.maximum(sums[1], 1e-30), *_SCALE_RANGE))
    return replace(state, chain=replace(state.chain, maps=replace(state.chain.maps, scale=scale)))


def _share_out(
    store: ParticleStore, state: _State, seen: _Seen, floor: float, pinned: np.ndarray | None = None
) -> _State:
    """Shares of the own particles in the classes for the next maps, and the weights that follow from them."""
    state = _reweigh(store, state, seen, floor)
    classes = state.chain.maps.classes
    shares = softmax(seen.scores(state.chain.maps.scale) + np.log(state.chain.weights), axis=1)[:, :classes]
    if pinned is not None:
        shares[pinned >= 0] = np.eye(classes)[pinned[pinned >= 0]]
    return replace(state, shares=shares, nuisances=seen.nuisances(shares, state.chain.maps.scale))


def _reweigh(store: ParticleStore, state: _State, seen: _Seen, floor: float) -> _State:
    """Shares of the classes among the own particles."""
    classes = state.chain.maps.classes
    posterior = softmax(seen.scores(state.chain.maps.scale) + np.log(state.chain.weights), axis=1)
    sums = _total(store, state, posterior[:, :classes])
    return replace(
        state, chain=replace(state.chain, weights=with_junk(np.maximum(sums / max(sums.sum(), 1e-300), floor)))
    )


def with_junk(shares: np.ndarray) -> np.ndarray:
    """Weights (K + 2,) of classes with ``shares`` (K,), up to a factor, and of the kinds of junk; sum 1."""
    junk = np.full(JUNK_KINDS, JUNK_SHARE)
    return np.concatenate([shares / shares.sum() * (1.0 - junk.sum()), junk])
