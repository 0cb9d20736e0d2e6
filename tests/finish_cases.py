"""Chains of the finishing loop on two states that differ in opposite ways, for its tests."""

from __future__ import annotations

from functools import cache

import numpy as np
from sort3d_cases import (
    SIZE,
    band_data,
    blobs,
    exact_sections,
    lump,
    make_store,
    noise,
    small_grid,
    transfer,
    views,
)

from hpcsort.parallel import Communicator
from hpcsort.sort3d.classmaps import ClassMaps
from hpcsort.sort3d.finish import Chain, refine_chains
from hpcsort.sort3d.statistics import JUNK_KINDS
from hpcsort.sort3d.store import ParticleStore
from hpcsort.sort3d.subspace import nuisance_maps
from hpcsort.volumes import soft_sphere

MASK = soft_sphere(small_grid().distance, 0.38, 0.08)
DIFFERENCES = np.stack([sign * lump((3.0, -3.0, 2.0), 0.5) for sign in (1, -1)]).astype(np.float32)
CONTRAST = 0.05


def scaled_nuisances(scale: float) -> np.ndarray:
    grid = small_grid()
    spread = scale * np.array([CONTRAST, *[0.3] * 3, *[0.04] * 3])
    maps = nuisance_maps(grid, blobs(SIZE, 9), MASK) * spread[:, None, None, None]
    return grid.to_fourier(maps.astype(np.float32))


def class_maps(real: np.ndarray, nuisances: float = 1.0, level: float = 0.3) -> ClassMaps:
    """Class maps of real differences; without nuisances an empty image is as likely as a particle at zero contrast."""
    grid = small_grid()
    volumes, prior = grid.to_fourier(real), np.full(grid.radius + 2, level)
    ridge = np.zeros(volumes.shape, np.float32)
    contrast = CONTRAST * max(nuisances, 1e-3)
    return ClassMaps(
        grid, scaled_nuisances(nuisances), contrast, volumes, np.ones(len(volumes)), ridge, 0.0, prior, MASK, MASK, MASK
    )


def empty_maps(classes: int, nuisances: float = 1.0, level: float = 0.3) -> ClassMaps:
    return class_maps(np.zeros((classes, SIZE, SIZE, SIZE), np.float32), nuisances, level)


def true_state(count: int) -> np.ndarray:
    return np.random.default_rng(11).permutation(count) % 2


@cache
def opposite_states(count: int, strength: float, seed: int = 0) -> ParticleStore:
    """Particles of two states with opposite differences; see `true_state`."""
    return share_of_states(count, strength, seed, None)


def share_of_states(count: int, strength: float, seed: int, comm: Communicator | None) -> ParticleStore:
    rotations, ctfs = views(count, seed + 3), transfer(count, seed + 4)
    signal = strength * np.where(true_state(count)[:, None] == 0, 1, -1) * exact_sections(DIFFERENCES[0], rotations)
    return make_store(band_data(ctfs * signal + noise(count, seed + 6), ctfs, rotations), comm)


def everybody(count: int) -> np.ndarray:
    return np.ones(count, bool)


def nobody(count: int) -> np.ndarray:
    return np.full(count, -1)


def even_half(count: int) -> np.ndarray:
    return np.random.default_rng(21).permutation(count) % 2 == 0


def refine(
    store: ParticleStore, chains: list[Chain], iterations: int = 3, floor: float = 0.02
) -> tuple[list[Chain], list[np.ndarray]]:
    return refine_chains(store, chains, nobody(store.count), iterations=iterations, floor=floor)


def class_scores(chain: Chain, joint: np.ndarray) -> np.ndarray:
    """Log-likelihood ratios of the classes."""
    return np.asarray((joint - np.log(chain.weights))[:, :-JUNK_KINDS])
