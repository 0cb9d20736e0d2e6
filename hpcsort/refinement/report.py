"""How much smearing there is, and what it would cost to keep all smeared images in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcsort.io import Smears
from hpcsort.refinement._halves import read_halves
from hpcsort.refinement._structure import read_structures, structure_folder
from hpcsort.refinement._tracker import complete_iterations, read_tracker

_BYTES_PER_PIXEL = 4


@dataclass(frozen=True)
class SmearingRow:
    """Smearing of one iteration.

    Attributes
    ----------
    iteration, particles, window_px : int
        The iteration, its particles, and the edge of the images that are counted.
    mean_smears : float
        Mean number of poses of a particle.
    most_smears : int
        The largest.
    mean_orientations : float
        Mean number of different orientations of a particle: poses that differ in their shift are one image.
    memory_GB : float
        Memory of all smeared images of ``window_px`` in 10^9 bytes: one of float32 for each orientation.
    """

    iteration: int
    particles: int
    window_px: int
    mean_smears: float
    most_smears: int
    mean_orientations: float
    memory_GB: float


def smearing_report(folder: str | os.PathLike[str], *, window_px: int | None = None) -> list[SmearingRow]:
    """Count the smears of every iteration from the second on that has them.

    Parameters
    ----------
    folder
        A MERIDIEN refinement.
    window_px
        Edge of the smeared images; that of each iteration if not given.

    Returns
    -------
    list of SmearingRow, ascending; iterations whose smears have been removed (no folder oldparamstructure) are left
    out.

    Raises
    ------
    InputError
        If a file is missing or damaged.
    """
    place = Path(folder)
    iterations = complete_iterations(place)
    halves = read_halves(place)
    particles = len(halves.ids)
    rows = []
    for iteration in iterations:
        if iteration < 2 or not structure_folder(place, iteration).is_dir():
            continue
        window = window_px or read_tracker(place, iteration, particles).window_px
        structures = read_structures(place, iteration, halves.chunks, halves.ids)
        counts = np.concatenate([structure.counts for structure in structures])
        orientations = sum(structure.orientations for structure in structures)
        rows.append(
            SmearingRow(
                iteration=iteration,
                particles=particles,
                window_px=window,
                mean_smears=float(counts.mean()),
                most_smears=int(counts.max()),
                mean_orientations=orientations / particles,
                memory_GB=orientations * window**2 * _BYTES_PER_PIXEL / 1e9,
            )
        )
    return rows


def smearing_lines(rows: Sequence[SmearingRow], *, memory_GB: float | None = None) -> list[str]:
    """Format a report as lines of text, with the share of ``memory_GB`` (all nodes together) if given."""
    if not rows:
        return ["No iteration from the second on has smears."]
    head = f"{'iteration':>9} {'smears':>8} {'most':>6} {'orientations':>12} {'window px':>9} {'memory GB':>10}"
    lines = [head if memory_GB is None else f"{head} {'share %':>8}"]
    for row in rows:
        line = (
            f"{row.iteration:>9} {row.mean_smears:>8.1f} {row.most_smears:>6} {row.mean_orientations:>12.1f}"
            f" {row.window_px:>9} {row.memory_GB:>10.3f}"
        )
        lines.append(line if memory_GB is None else f"{line} {100 * row.memory_GB / memory_GB:>8.1f}")
    return lines


def smear_note(smears: Smears) -> str:
    """One sentence: how many poses the particles have and how much probability their lists lack."""
    if not len(smears):
        return "Smears: no particles."
    counts, dropped = smears.counts, smears.dropped
    return (
        f"Smears: mean {counts.mean():.1f}, median {np.median(counts):g}, most {counts.max()} poses a particle;"
        f" probability left out: mean {100 * dropped.mean():.2f} %, most {100 * dropped.max():.2f} %."
    )
