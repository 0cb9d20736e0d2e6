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
from hpcsort.kernels import aligned_empty, backproject_moments, complete_friedel, moment_record_length
from hpcsort.parallel import ExactSum, stream
from hpcsort.sort3d.store import Block, ParticleStore, exact_total
from hpcsort.sort3d.subspace import NUISANCES, Subspace, local_weight, moments, unpack_lower

__all__ = ["SUBSPACE_ITERATIONS", "SubspaceRun", "learn_subspaces"]

SUBSPACE_ITERATIONS = 12
_LOCAL_ITERATIONS = 7
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

    ``local`` are rows of the rank's own data, ``latent`` (n, T) and ``covariance`` (n, T, T) belong to them.
    """

    run: SubspaceRun
    local: np.ndarray
    current: Subspace
    latent: np.ndarray
    covariance: np.ndarray

    @property
    def count(self) -> int:
        """Number of particles of all ranks from which the run learns."""
        return int(self.run.learns.sum())

    def within(self, block: Block) -> slice:
        """Return the own particles that lie in a block, as rows of ``latent``."""
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

    All runs advance in lock step: each block of particles is visited by every run while it lies in the cache. The
    spreads of the nuisances are learned too (EM for their variances, one for the contrast, one for the shifts and one
    for the rotations), because poses may be much better or worse than the start assumes.

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
    saved = journal.saved("learning")
    first, kept = saved or (0, None)
    states = [_first_guess(store, start, run, seed) for run in runs] if kept is None else _again(store, runs, kept)
    for iteration in range(first, iterations):
        if iteration > first or kept is None:
            states = _maximise(store, states, start, iteration >= iterations - local_iterations)
            # Latents follow from the maps; they need not be kept.
            journal.keep("learning", partial(_to_keep, iteration, states))
        states = _standardise(store, _posteriors(store, states), iteration >= _SETTLING)
        if step is not None:
            step(f"{len(runs)} subspaces: iteration {iteration + 1} of {iterations}")
    return [state.current for state in states]


def _to_keep(iteration: int, states: list[_Learning]) -> tuple[int, list[Subspace]]:
    return iteration, [state.current for state in states]


def _again(store: ParticleStore, runs: list[SubspaceRun], kept: list[Subspace]) -> list[_Learning]:
    """Return to runs as `_maximise` left them."""
    states = []
    for run, current in zip(runs, kept, strict=True):
        local, total = np.flatnonzero(run.learns[store.positions]), NUISANCES + run.components
        blank = np.zeros((len(local), total)), np.zeros((len(local), total, total))
        states.append(_Learning(run, local, current, *blank))
    return states


def _maximise(store: ParticleStore, states: list[_Learning], start: Subspace, local: bool) -> list[_Learning]:
    """M step of all runs; each rank solves for the maps of its share of them."""
    sums, comm = _backproject(store, states), store.comm
    solved: list[tuple[np.ndarray, np.ndarray] | None] = [
        _solve_maps(state.current, *sums[index], state.run.prior, start.focus, start.region, local)
        if index % comm.size == comm.rank
        else None
        for index, state in enumerate(states)
    ]
    results = []
    for index, state in enumerate(states):
        free, focus = comm.bcast(solved[index], root=index % comm.size)
        results.append(replace(state, current=replace(state.current, free=free, focus=focus)))
    return results


def _first_guess(store: ParticleStore, start: Subspace, run: SubspaceRun, seed: int) -> _Learning:
    """Nuisances as the start has them, random latents for the maps to be learned."""
    grid = start.grid
    local = np.flatnonzero(run.learns[store.positions])
    empty = replace(start, free=np.zeros((0, *grid.fourier_shape), np.complex64))
    blank = np.zeros((len(local), NUISANCES))
    state = _Learning(run, local, empty, blank, np.zeros((len(local), NUISANCES, NUISANCES)))
    (state,) = _posteriors(store, [state])
    # Drawn for all particles on every rank: the start must not depend on who owns which particle.
    draw = stream(seed, run.key, "latents").standard_normal((store.count, run.components))[store.positions][local]
    latent = np.concatenate([state.latent, draw], axis=1)
    covariance = np.pad(state.covariance, ((0, 0), (0, run.components), (0, run.components)))
    return replace(state, latent=latent, covariance=covariance)


def _posteriors(store: ParticleStore, states: list[_Learning]) -> list[_Learning]:
    """E step of all runs: posterior means (n, T) and covariances (n, T, T) of all T latents."""
    totals = [NUISANCES + state.current.components for state in states]
    volumes = [state.current.volumes() for state in states]
    means = [np.empty((len(state.local), total)) for state, total in zip(states, totals, strict=True)]
    covariances = [np.empty((len(state.local), total, total)) for state, total in zip(states, totals, strict=True)]
    for block in store.blocks():
        for index, state in enumerate(states):
            rows = state.within(block)
            pad = state.current.grid.pad
            linear, gram = moments(store, volumes[index], totals[index], pad, state.local[rows])
            precision = 2.0 * unpack_lower(gram, totals[index]) + np.eye(totals[index])
            covariances[index][rows] = np.linalg.inv(precision)
            means[index][rows] = np.einsum("nab,nb->na", covariances[index][rows], 2.0 * linear)
    return [
        replace(state, latent=mean, covariance=covariance)
        for state, mean, covariance in zip(states, means, covariances, strict=True)
    ]


def _backproject(store: ParticleStore, states: list[_Learning]) -> list[tuple[np.ndarray, np.ndarray]]:
    """M step sums of all runs: numerators (J, ...) and weights (pairs, ...) over voxels; pairs as in `_pairs`."""
    tasks = []
    peak_data = (store.largest(store.data.peak) + store.largest(store.data.ctfs) + 1.0) ** 2
    for state in states:
        components = state.run.components
        rows, columns = _pairs(components)
        second = state.latent[:, rows] * state.latent[:, columns] + state.covariance[:, rows, columns]
        peak = max(store.comm.max(max(_peak(state.latent), _peak(second))), 1.0)
        shape = (*state.current.grid.fourier_shape, moment_record_length(components, len(rows)))
        total = ExactSum(shape, 8.0 * state.count * peak * peak_data)
        z = np.ascontiguousarray(state.latent[:, NUISANCES:], np.float32)
        scratch = aligned_empty(shape, np.float32)
        scratch[...] = 0
        tasks.append((state, z, np.ascontiguousarray(second, np.float32), total, scratch))
    for block in store.blocks():
        for state, z, q, total, scratch in tasks:
            rows_here = state.within(block)
            seen = store.data.seen(state.local[rows_here])
            data = seen.data
            backproject_moments(
                data.images, data.ctfs, data.rotations, seen.weighted(z[rows_here]), seen.weighted(q[rows_here]),
                data.px, data.py, state.current.grid.pad, scratch,
            )  # fmt: skip
            total.add(scratch, clear=True)
    results = []
    for state, _, q, total, _ in tasks:
        total.join(store.comm)
        sums = np.moveaxis(total.total, -1, 0)
        components = state.run.components
        numerator = sums[:components] + 1j * sums[components : 2 * components]
        weight = np.ascontiguousarray(sums[2 * components : 2 * components + q.shape[1]])
        for volume in numerator:
            complete_friedel(volume, hermitian=True)
        for volume in weight:
            complete_friedel(volume, hermitian=False)
        results.append((numerator, weight))
    return results


def _peak(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0))


def _pairs(components: int) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs of second moments: free with free (lower triangle), then free with fixed."""
    rows, columns = np.tril_indices(components)
    free_fixed = np.indices((components, NUISANCES)).reshape(2, -1)
    return (
        np.concatenate([rows + NUISANCES, free_fixed[0] + NUISANCES]),
        np.concatenate([columns + NUISANCES, free_fixed[1]]),
    )


def _solve_maps(
    current: Subspace,
    numerator: np.ndarray,
    weight: np.ndarray,
    prior: np.ndarray,
    mask: np.ndarray,
    region: np.ndarray,
    local: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the J x J system of every voxel, then weight the maps locally; returns maps and local weight."""
    grid = current.grid
    components = len(numerator)
    inside = grid.support
    packed = weight[:, inside].T
    pairs = components * (components + 1) // 2
    system = unpack_lower(packed[:, :pairs], components)
    cross = packed[:, pairs:].reshape(-1, components, NUISANCES)
    right = numerator[:, inside].T - np.einsum("bjn,nb->bj", cross, current.fixed[:, inside])
    system[:, np.arange(components), np.arange(components)] += 1.0 / grid.shell_fill(prior)[inside][:, None]
    free = np.zeros((components, *grid.fourier_shape), np.complex64)
    free[:, inside] = np.linalg.solve(system, right[..., None])[..., 0].T
    real = grid.to_real(free, corrected=False)
    focus = np.asarray(mask * local_weight(grid, real, region) if local else mask, np.float32)
    return grid.to_fourier(real * focus, corrected=False), focus


def _standardise(store: ParticleStore, states: list[_Learning], with_nuisances: bool) -> list[_Learning]:
    """Rescale and rotate the latents to unit covariance (and the maps inversely), ordered by the maps' power."""
    results = []
    for state in states:
        latent, covariance = state.latent, state.covariance
        second = covariance + np.einsum("ni,nj->nij", latent, latent)
        scatter = _total_within(store, state, second) / max(state.count, 1)
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
        results.append(
            replace(
                state,
                current=current,
                latent=latent @ transform.T,
                covariance=np.einsum("ab,nbc,dc->nad", transform, covariance, transform, optimize=True),
            )
        )
    return results


def _total_within(store: ParticleStore, state: _Learning, per_particle: np.ndarray) -> np.ndarray:
    """Exact sum over the run's own particles of all ranks."""
    sums = [per_particle[state.within(block)].sum(axis=0) for block in store.blocks()]
    return exact_total(store.comm, sums, per_particle.shape[1:], len(store.chunks))


def _nuisance_scale(second: np.ndarray) -> np.ndarray:
    """Factors of the nuisances' standard deviations from their second moments: one a kind (contrast, shift, turn)."""
    kinds = [slice(0, 1), slice(1, 4), slice(4, 7)]
    scale = np.ones(NUISANCES)
    for kind in kinds:
        scale[kind] = np.sqrt(second[kind].mean())
    return np.maximum(scale, 1e-3)
