"""What a sort will take on 1 to 64 ranks of this kind of machine: memory, time, disk."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from hpcsort.images import half_plane
from hpcsort.io import ParticleTable
from hpcsort.kernels import aligned_empty, insert_sections, interleave, score_sections
from hpcsort.sort3d import SortOptions
from hpcsort.sort3d.memory import estimate_memory
from hpcsort.volumes import BandGrid, good_even_size

__all__ = ["RANKS", "Cost", "Speed", "measure_speed", "predict_costs", "predict_disk_GB"]

RANKS = (1, 2, 4, 8, 16, 32, 64)
_BAND, _MAPS, _PARTICLES = 18, 16, 64
"""Of the work that is timed: the widest band of a sort, and as many maps as its lock-step loops compare at once."""
_PASSES, _SERIAL = 260.0, 3200.0
"""Passes over all particles, and particles' worth of work on volumes and decisions that ranks do not share.

Fitted to the sorting, without reading and maps, of 10,000, 20,000 and 40,000 simulated particles by one rank: 31, 50
and 100 s by the clock (model 31, 55 and 101 s). Hard sets, with more classes tried, take up to half as much again.
"""
_GROUPS = 5
_ROW_BYTES = 70
"""Of a row in the lists, and in the columns that a sort adds to particles.star, without those of each group."""


@dataclass(frozen=True)
class Speed:
    """Time of one core in seconds.

    Attributes
    ----------
    score : of comparing a particle with `_MAPS` maps in the band, and inserting it into one.
    insert : of inserting one Fourier pixel.
    read : of reading and judging an image.
    """

    score: float
    insert: float
    read: float


@dataclass(frozen=True)
class Cost:
    """Prediction for a number of ranks on one node; memory in GB of 10^9 bytes, time in seconds."""

    ranks: int
    memory_GB: float
    seconds: float


def measure_speed(read_s: float) -> Speed:
    """Time the kernels of this machine on random data; ``read_s`` is the time of reading an image, as measured."""
    draw = np.random.default_rng(0)
    grid = BandGrid(good_even_size(int(np.ceil(2.5 * _BAND)) + 2), _BAND)
    px, py = half_plane(_BAND)
    shape = (_MAPS, *grid.fourier_shape)
    maps = interleave((draw.normal(size=shape) + 1j * draw.normal(size=shape)).astype(np.complex64))
    images = draw.normal(size=(_PARTICLES, 2 * px.size)).astype(np.float32).view(np.complex64)
    ctfs = np.ones((_PARTICLES, px.size), np.float32)
    turns = np.linalg.qr(draw.normal(size=(_PARTICLES, 3, 3)))[0].astype(np.float32)
    labels, weights = np.zeros(_PARTICLES, np.int32), np.ones(_PARTICLES, np.float32)
    sums = aligned_empty((1, *grid.fourier_shape, 4), np.float32)
    sums[...] = 0
    scoring, inserting = [], []
    for _ in range(3):
        start = time.perf_counter()
        score_sections(maps, _MAPS, images, ctfs, turns, px, py, float(grid.pad))
        middle = time.perf_counter()
        insert_sections(images, ctfs, turns, labels, weights, px, py, float(grid.pad), sums)
        scoring.append(middle - start)
        inserting.append(time.perf_counter() - middle)
    score, insert = min(scoring) / _PARTICLES, min(inserting) / _PARTICLES
    return Speed(score + insert, insert / px.size, read_s)


def predict_costs(table: ParticleTable, options: SortOptions, speed: Speed) -> list[Cost]:
    """Predict memory and time of a sort for every number in `RANKS`, all on one node."""
    assert table.box_px is not None
    count = len(table)
    poses = 1.0 if table.smears is None else len(table.smears.weight) / count
    final = speed.insert * np.pi / 2 * (table.box_px / 2) ** 2
    shared = count * (_PASSES * poses * speed.score + 2 * (speed.read + poses * final))
    alone = _SERIAL * _PASSES * speed.score
    return [Cost(ranks, estimate_memory(table, options, ranks, ranks).total, shared / ranks + alone) for ranks in RANKS]


def predict_disk_GB(table: ParticleTable, table_bytes: int) -> float:
    """Size of the results in GB, if five groups are found: maps, half-maps, lists and tables."""
    assert table.box_px is not None
    maps = 3 * (_GROUPS + 1) * 4.0 * table.box_px**3
    return (maps + table_bytes + len(table) * (_ROW_BYTES + 9 * _GROUPS)) / 1e9
