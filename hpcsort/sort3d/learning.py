"""Learning subspaces by expectation maximisation, all chains of a layer in lock step.

The E step is projection matching of all maps (`section_moments`), the M step back-projection of weighted residuals
with a J x J system in every voxel (`backproject_moments`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hpcsort.checkpoints import Journal, no_journal
from hpcsort.kernels import (
    backproject_moments,
    complete_friedel,
    latent_posteriors,
    moment_record_length,
    moment_weights,
)
from hpcsort.parallel import stream
from hpcsort.sort3d.coarse import coarser, refined
from hpcsort.sort3d.store import Block, ParticleStore, exact_total, sum_and_solve
from hpcsort.sort3d.subspace import NUISANCES, Subspace, local_weight, moments, unpack_lower

__all__ = ["SUBSPACE_ITERATIONS", "SubspaceRun", "learn_subspaces"]

SUBSPACE_ITERATIONS = 12
_LOCAL_ITERATIONS = 7
_COARSE_SHARE = 3
"""The first one in so many iterations is done in a narrower band."""
_SETTLING = 4
"""Iterations in which the nuisances keep their first spreads: states of different mass would pass for contrast."""
_LARGEST = np.array([0.15, *[3.0] * 3, *[np.deg2rad(6.0)] * 3])
"""Where the first order of the nuisances ends: contrast, px, radians."""


@dataclass(frozen=True)
class SubspaceRun:
    """One chain's learning of a subspace.

    Attributes
    ----------
    key : of the random start, independent of the ranks.
    learns : bool (n,), particles (of all ranks, in sort order) from which it learns.
    components : number J of maps.
    prior : float64 (shells,), prior variance of a map's Fourier voxel in each shell.
    """

    key: str
    learns: np.ndarray
    components: int
    prior: np.ndarray


@dataclass(frozen=True)
class _Learning:
    """State of one run between iterations: its own particles of this rank, and their posteriors.

    ``local`` are rows of the rank's own data, ``mean`` (n, T) and ``covariance`` (n, T(T+1)/2), packed, belong to them;
    the latents of ``current`` are ``transform`` (T, T) times these.
    """

    run: SubspaceRun
    local: np.ndarray
    current: Subspace
    mean: np.ndarray
    covariance: np.ndarray
    transform: np.ndarray

    @property
    def count(self) -> int:
        """Number of particles of all ranks from which the run learns."""
        return int(self.run.learns.sum())

    def within(self, block: Block) -> slice:
        """Return the own particles that lie in a block, as rows of ``mean``."""
        first, last = np.searchsorted(self.local, [block.local.start, block.local.stop])
        return slice(int(first), int(last))


def learn_subspaces(
    store: ParticleStore,
    start: Subspace,
    runs: list[SubspaceRun],
    *,
    seed: int,
    iterations: int = SUBSPACE_ITERATIONS,
    local_iterations: int = _LOCAL_ITERATIONS,
    step: Callable[[str], None] | None = None,
    journal: Journal | None = None,
) -> list[Subspace]:
    """Learn the maps of several runs from the residuals in ``store``. Collective; every rank gets the same subspaces.

    All runs do an iteration before any does the next. The first third of the iterations is done in a narrower band
    (`coarser`). The spreads of the nuisances are learned too (EM for their variances, one for the contrast, one for
    the shifts and one for the rotations), because poses may be much better or worse than the start assumes.

    Parameters
    ----------
    store : particles; ``data`` holds whitened residuals.
    start : gives grid, nuisance maps, the mask in which differences are allowed (``focus``) and the ``region``.
    runs : what each of them learns.
    seed : of the random starts.
    iterations, local_iterations : EM iterations in all, and the last ones in which the local weights act. Few are
        better than many: the maximum of the likelihood overfits the run's own particles (benchmarks/accuracy.md).
    step : called with a note after each iteration.
    journal : keeps the maps of the last iteration.
    """
    journal = journal or no_journal()
    first, kept = journal.saved("learning") or (0, None)
    bands = [coarser(store, start), (store, start)]
    widened = iterations // _COARSE_SHARE
    band, origin = bands[first >= widened]
    if kept is None:
        states = [_first_guess(band, origin, run, seed) for run in runs]
    else:
        states = [_blank(band, run, current) for run, current in zip(runs, kept, strict=True)]
    for iteration in range(first, iterations):
        if iteration == widened > first:
            band, origin = bands[1]
            # Latents are the particles'; with them the maps are made anew in the wider band.
            states = [replace(state, current=refined(state.current, origin)) for state in states]
        if iteration > first or kept is None:
            states = _maximise(band, states, origin, iteration >= iterations - local_iterations)
            # Latents follow from the maps; they need not be kept.
            journal.keep("learning", partial(_to_keep, iteration, states))
        states = _standardise(band, _posteriors(band, states), iteration >= _SETTLING)
        if step is not None:
            step(f"{len(runs)} subspaces: iteration {iteration + 1} of {iterations}")
    return [state.current for state in states]


def _to_keep(iteration: int, states: list[_Learning]) -> tuple[int, list[Subspace]]:
    return iteration, [state.current for state in states]


def _blank(store: ParticleStore, run: SubspaceRun, current: Subspace) -> _Learning:
    """Return a run whose posteriors are not known yet."""
    local, total = np.flatnonzero(run.learns[store.positions]), NUISANCES + current.components
    packed = total * (total + 1) // 2
    return _Learning(run, local, current, np.zeros((len(local), total)), np.zeros((len(local), packed)), np.eye(total))


def _maximise(store: ParticleStore, states: list[_Learning], start: Subspace, local: bool) -> list[_Learning]:
    """M step of all runs; each rank solves for the maps of its share of them."""
    comm = store.comm
    peak = store.pixel_limit**2
    solved = sum_and_solve(
        comm,
        len(states),
        lambda index: _record_sums(store, states[index], peak),
        lambda index, total: _solve_maps(states[index], total, start.focus, start.region, local),
    )
    # Maps exist once per node.
    pairs = [maps or (None, None) for maps in solved]
    return [
        replace(
            state,
            current=replace(
                state.current,
                free=comm.share(free, root=index % comm.size),
                focus=comm.share(focus, root=index % comm.size),
            ),
        )
        for index, (state, (free, focus)) in enumerate(zip(states, pairs, strict=True))
    ]


def _first_guess(store: ParticleStore, start: Subspace, run: SubspaceRun, seed: int) -> _Learning:
    """Nuisances as the start has them, random latents for the maps to be learned."""
    empty = replace(start, free=np.zeros((0, *start.grid.fourier_shape), np.complex64))
    (known,) = _posteriors(store, [_blank(store, run, empty)])
    # Drawn for all particles on every rank: the start must not depend on who owns which particle.
    draw = stream(seed, run.key, "latents").standard_normal((store.count, run.components))[store.positions]
    total = NUISANCES + run.components
    # The triangle of the nuisances comes first in that of all latents.
    covariance = np.zeros((len(known.local), total * (total + 1) // 2))
    covariance[:, : known.covariance.shape[1]] = known.covariance
    mean = np.concatenate([known.mean, draw[known.local]], axis=1)
    return replace(known, mean=mean, covariance=covariance, transform=np.eye(total))


def _posteriors(store: ParticleStore, states: list[_Learning]) -> list[_Learning]:
    """E step of all runs: posterior means (n, T) and packed covariances of all T latents."""
    volumes = [store.comm.once_per_node(state.current.volumes) for state in states]
    results = [_blank(store, state.run, state.current) for state in states]
    for block in store.blocks():
        for volume, state in zip(volumes, results, strict=True):
            rows, total = state.within(block), state.mean.shape[1]
            found = moments(store, volume, total, state.current.grid.pad, state.local[rows])
            state.mean[rows], state.covariance[rows] = latent_posteriors(*found)
    return results


def _record_sums(store: ParticleStore, state: _Learning, peak_data: float) -> np.ndarray:
    """Exact sums (Fourier volume, records) of a run's own particles; see `backproject_moments`. Collective."""
    z, q = moment_weights(state.mean, state.covariance, NUISANCES, state.transform)
    pad = state.current.grid.pad

    def fill(block: Block, scratch: np.ndarray) -> None:
        rows = state.within(block)
        seen = store.data.seen(state.local[rows])
        data = seen.source
        backproject_moments(
            data.images, data.ctfs, data.rotations, seen.weighted(z[rows]), seen.weighted(q[rows]), data.px, data.py,
            pad, scratch, seen.rows,
        )  # fmt: skip

    peak = max(store.comm.max(max(_peak(z), _peak(q))), 1.0)
    shape = (*state.current.grid.fourier_shape, moment_record_length(z.shape[1], q.shape[1]))
    return store.sum_blocks(shape, 8.0 * state.count * peak * peak_data, fill)


def _peak(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0))


def _solve_maps(
    state: _Learning, records: np.ndarray, mask: np.ndarray, region: np.ndarray, local: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the J x J system of every voxel, then weight the maps locally; returns maps and local weight."""
    current, components = state.current, state.run.components
    grid = current.grid
    sums = np.moveaxis(records, -1, 0)
    numerator = sums[:components] + 1j * sums[components : 2 * components]
    pairs = components * (components + 1) // 2
    weight = np.ascontiguousarray(sums[2 * components : 2 * components + pairs + components * NUISANCES])
    for volume in numerator:
        complete_friedel(volume, hermitian=True)
    for volume in weight:
        complete_friedel(volume, hermitian=False)
    inside = grid.support
    packed = weight[:, inside].T
    system = unpack_lower(packed[:, :pairs], components)
    cross = packed[:, pairs:].reshape(-1, components, NUISANCES)
    right = numerator[:, inside].T - np.einsum("bjn,nb->bj", cross, current.fixed[:, inside])
    system[:, np.arange(components), np.arange(components)] += 1.0 / grid.shell_fill(state.run.prior)[inside][:, None]
    free = np.zeros((components, *grid.fourier_shape), np.complex64)
    free[:, inside] = np.linalg.solve(system, right[..., None])[..., 0].T
    real = grid.to_real(free, corrected=False)
    focus = np.asarray(mask * local_weight(grid, real, region) if local else mask, np.float32)
    return grid.to_fourier(real * focus, corrected=False), focus


def _standardise(store: ParticleStore, states: list[_Learning], with_nuisances: bool) -> list[_Learning]:
    """Rescale and rotate the latents to unit covariance (and the maps inversely), ordered by the maps' power."""
    results = []
    for state in states:
        scatter = _second_moments(store, state) / max(state.count, 1)
        fixed_scale = _nuisance_scale(np.diag(scatter)[:NUISANCES]) if with_nuisances else np.ones(NUISANCES)
        fixed_scale = np.minimum(fixed_scale, _LARGEST / state.current.spread)
        factor = np.linalg.cholesky(scatter[NUISANCES:, NUISANCES:] + 1e-9 * np.eye(state.run.components))
        mixed = np.tensordot(factor.T, state.current.free, axes=1)
        weighted = mixed.reshape(len(mixed), -1) * np.sqrt(state.current.grid.multiplicity.ravel())
        values, vectors = np.linalg.eigh((weighted @ weighted.conj().T).real)
        vectors = vectors[:, np.argsort(values)[::-1]]
        vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(vectors))] < 0, -1.0, 1.0)
        transform = np.diag(np.concatenate([1.0 / fixed_scale, np.ones(len(factor))]))
        transform[NUISANCES:, NUISANCES:] = vectors.T @ np.linalg.inv(factor)
        current = replace(
            state.current,
            free=np.tensordot(vectors.T, mixed, axes=1).astype(np.complex64),
            fixed=(state.current.fixed * fixed_scale[:, None, None, None]).astype(np.complex64),
            spread=state.current.spread * fixed_scale,
        )
        results.append(replace(state, current=current, transform=transform))
    return results


def _second_moments(store: ParticleStore, state: _Learning) -> np.ndarray:
    """Exact sum of E[z z'] (T, T) over the run's own particles of all ranks."""
    total, sums = state.mean.shape[1], []
    for block in store.blocks():
        rows = state.within(block)
        mean, spread = state.mean[rows], state.covariance[rows].sum(axis=0, keepdims=True)
        sums.append(mean.T @ mean + unpack_lower(spread, total)[0])
    return exact_total(store.comm, sums, (total, total), len(store.chunks))


def _nuisance_scale(second: np.ndarray) -> np.ndarray:
    """Factors of the nuisances' standard deviations from their second moments: one a kind (contrast, shift, turn)."""
    kinds = [slice(0, 1), slice(1, 4), slice(4, 7)]
    scale = np.ones(NUISANCES)
    for kind in kinds:
        scale[kind] = np.sqrt(second[kind].mean())
    return np.maximum(scale, 1e-3)
