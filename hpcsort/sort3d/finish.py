"""The finishing loop in map space: all chains in lock step, leave-one-out scores, a wider band.

A chain's maps come from its own particles only; it then scores all particles. A particle's score for a class that it
is part of is corrected for its own contribution (leverage), or it would prefer whatever it already is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import softmax

from hpcsort.checkpoints import Journal, no_journal
from hpcsort.kernels import (
    complete_friedel,
    insert_sections,
    interleave,
    subtract_sections,
)
from hpcsort.sort3d.classmaps import ClassMaps, share_maps, shrink_classes
from hpcsort.sort3d.looks import Look, look
from hpcsort.sort3d.marching import common_band
from hpcsort.sort3d.statistics import JUNK_KINDS
from hpcsort.sort3d.store import Block, ParticleStore, exact_total, sum_and_solve
from hpcsort.sort3d.subspace import NUISANCES

__all__ = ["Chain", "refine_chains", "with_junk"]

_LEAST_SHARE = 0.001
"""A particle adds nothing to the map of a class in which its share is less than this part of its largest."""
_SCALE_RANGE = (0.3, 5.0)
_LEAST_BAND = 8
_SETTLED = 0.002
"""Mean share of particles that change classes below which the iterations end."""
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
    changes : share by which its particles have changed classes, one number an iteration.
    """

    learns: np.ndarray
    maps: ClassMaps
    weights: np.ndarray
    start: np.ndarray | None = None
    changes: tuple[float, ...] = ()


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
    until_settled: bool = False,
    step: Callable[[str], None] | None = None,
    journal: Journal | None = None,
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
    until_settled : end early where no chain's particles move any more. Likelihoods go on growing a little, so that only
        those after equally many iterations compare.
    step : called with a note after each iteration.
    journal : keeps the state after the last iteration.

    Returns
    -------
    chains : as they end.
    joints : per chain float64 (n, K + 2), log of weight times likelihood ratio for every particle of all ranks; a
        particle that the chain learns from is scored with its own contribution left out.
    """
    journal = journal or no_journal()
    first, kept = journal.saved("finishing") or (0, None)
    if kept is None:
        states = [_begin(store, chain, known[store.positions], floor) for chain in chains]
    else:
        states = [_again(store, chain, *own) for chain, own in zip(chains, kept, strict=True)]
    for iteration in range(first, iterations):
        maps = _estimate(store, states)
        states = [replace(state, chain=replace(state.chain, maps=new)) for state, new in zip(states, maps, strict=True)]
        view = _in_band(store, maps)
        seen = [look(view, state.chain.maps, state.local, state.shares) for state in states]
        states = [_rescale(store, state, part) for state, part in zip(states, seen, strict=True)]
        before = [state.shares for state in states]
        states = [_share_out(store, state, part, floor) for state, part in zip(states, seen, strict=True)]
        moved = [_moved(store, state, old) for state, old in zip(states, before, strict=True)]
        states = [
            replace(state, chain=replace(state.chain, changes=(*state.chain.changes, share)))
            for state, share in zip(states, moved, strict=True)
        ]
        if step is not None:
            step(f"finishing {len(chains)} chains: iteration {iteration + 1} of {iterations}")
        if until_settled and max(moved, default=0.0) < _SETTLED:
            break
        if iteration + 1 < iterations:
            journal.keep("finishing", partial(_to_keep, iteration + 1, store, states))
    joints = []
    view = _in_band(store, [state.chain.maps for state in states])
    for index, state in enumerate(states):
        joint = np.empty((len(store.data), len(state.chain.weights)))
        if iterations:
            joint[state.local] = seen[index].scores(state.chain.maps.scale)
        others = np.setdiff1d(np.arange(len(store.data)), state.local if iterations else [])
        joint[others] = look(view, state.chain.maps, others, None).scores(state.chain.maps.scale)
        joints.append(store.gathered(joint + np.log(state.chain.weights)))
    return [state.chain for state in states], joints


def _moved(store: ParticleStore, state: _State, before: np.ndarray) -> float:
    """Mean share by which a chain's own particles have changed classes. Collective."""
    total = float(_total(store, state, np.abs(state.shares - before).sum(axis=1)))
    return 0.5 * total / max(int(state.chain.learns.sum()), 1)


def _to_keep(iteration: int, store: ParticleStore, states: list[_State]) -> tuple[int, list[tuple[np.ndarray, ...]]]:
    """Gather what the next iteration starts from; the maps are made anew from it. Collective."""
    return iteration, [
        (
            state.chain.weights,
            np.array(state.chain.changes),
            store.gathered(state.shares),
            store.gathered(state.nuisances),
        )
        for state in states
    ]


def _again(
    store: ParticleStore,
    chain: Chain,
    weights: np.ndarray,
    changes: np.ndarray,
    shares: np.ndarray,
    nuisances: np.ndarray,
) -> _State:
    """Return to a chain between iterations, from what was kept of all ranks' particles."""
    start = int(chain.learns[: store.positions.start].sum())
    local = np.flatnonzero(chain.learns[store.positions])
    own = slice(start, start + len(local))
    chain = replace(chain, weights=weights, changes=tuple(changes.tolist()))
    return _State(chain, local, shares[own], nuisances[own])


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
        return _share_out(store, blank, look(store, chain.maps, local, None), floor, pinned[local])
    begun = np.where(pinned >= 0, pinned, chain.start[store.positions])[local]
    shares = (begun[:, None] == np.arange(classes)).astype(np.float64)
    free = look(store, replace(chain.maps, volumes=np.zeros_like(chain.maps.volumes)), local, None)
    state = replace(blank, shares=shares, nuisances=free.nuisances(shares, chain.maps.scale))
    (maps,) = _estimate(store, [state])
    state = replace(state, chain=replace(chain, maps=maps))
    seen = look(store, maps, local, shares)
    return _share_out(store, _rescale(store, state, seen), seen, floor)


def _estimate(store: ParticleStore, states: list[_State]) -> list[ClassMaps]:
    """Back-project the own particles of every chain into its classes, nuisances taken out, and shrink. Collective."""
    peak_data = store.pixel_limit
    comm = store.comm
    solved = sum_and_solve(
        comm,
        len(states),
        lambda index: _class_sums(store, states[index], peak_data),
        lambda index, total: _solve(states[index].chain.maps, total),
    )
    return [
        share_maps(comm, state.chain.maps, maps, root=index % comm.size)
        for index, (state, maps) in enumerate(zip(states, solved, strict=True))
    ]


def _class_sums(store: ParticleStore, state: _State, peak_data: float) -> np.ndarray:
    """Exact sums (K, Fourier volume, 4) of the records that a chain's own particles add to its classes. Collective."""
    maps = state.chain.maps
    pad, fixed = maps.grid.pad, interleave(maps.fixed)
    nuisances = np.ascontiguousarray(state.nuisances, np.float32)
    shares = np.ascontiguousarray(state.shares, np.float32)
    largest = float(store.comm.max(float(np.abs(nuisances).max(initial=0))))
    peak = peak_data * (1.0 + float(np.abs(maps.fixed).max()) * largest * NUISANCES)

    def fill(block: Block, scratch: np.ndarray) -> None:
        rows = state.within(block.local)
        poses = store.data.seen(state.local[rows])
        data, share = poses.data, poses.weighted(shares[rows])
        geometry = (data.ctfs, data.rotations, data.px, data.py, pad)
        clean = subtract_sections(fixed, NUISANCES, poses.per_pose(nuisances[rows]), data.images, *geometry)
        particles, labels = np.nonzero(share > _LEAST_SHARE * share.max(axis=1, keepdims=True, initial=0.0))
        insert_sections(
            clean, data.ctfs, data.rotations, labels.astype(np.int32), share[particles, labels], data.px, data.py, pad,
            scratch, particles.astype(np.int32),
        )  # fmt: skip

    shape = (maps.classes, *maps.grid.fourier_shape, 4)
    return store.sum_blocks(shape, 8.0 * max(int(state.chain.learns.sum()), 1) * peak**2, fill)


def _solve(maps: ClassMaps, total: np.ndarray) -> ClassMaps:
    numerator = total[..., 0] + 1j * total[..., 1]
    weight = np.ascontiguousarray(total[..., 2])
    for index in range(maps.classes):
        complete_friedel(numerator[index], hermitian=True)
        complete_friedel(weight[index], hermitian=False)
    return shrink_classes(maps, numerator, weight)


def _total(store: ParticleStore, state: _State, values: np.ndarray) -> np.ndarray:
    """Exact sum over the own particles of all ranks."""
    sums = [values[state.within(block.local)].sum(axis=0) for block in store.blocks()]
    return exact_total(store.comm, sums, values.shape[1:], len(store.chunks))


def _rescale(store: ParticleStore, state: _State, seen: Look) -> _State:
    """Scale of each class of highest leave-one-out likelihood.

    Shrinking gives a difference map its best shape but too small a size; its size is one number, which the particles
    determine well. Without this the two closest classes of a set merge (benchmarks/accuracy.md).
    """
    sums = _total(store, state, np.stack([state.shares * seen.linear, state.shares * seen.power], axis=1))
    scale = np.asarray(np.clip(sums[0] / np.maximum(sums[1], 1e-30), *_SCALE_RANGE))
    return replace(state, chain=replace(state.chain, maps=replace(state.chain.maps, scale=scale)))


def _share_out(
    store: ParticleStore, state: _State, seen: Look, floor: float, pinned: np.ndarray | None = None
) -> _State:
    """Shares of the own particles in the classes for the next maps, and the weights that follow from them."""
    state = _reweigh(store, state, seen, floor)
    classes = state.chain.maps.classes
    shares = softmax(seen.scores(state.chain.maps.scale) + np.log(state.chain.weights), axis=1)[:, :classes]
    if pinned is not None:
        shares[pinned >= 0] = np.eye(classes)[pinned[pinned >= 0]]
    return replace(state, shares=shares, nuisances=seen.nuisances(shares, state.chain.maps.scale))


def _reweigh(store: ParticleStore, state: _State, seen: Look, floor: float) -> _State:
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
