"""Folders of the generations and the master files, laid out as SORT3D_DEPTH's, so that scripts for it find them.

Lists of particles name rows of the particle table, rising; partitions are rows "class id". Tables for the eye have
comments that start with #, so that what reads numbers reads them too. Scores in gen_rep.txt are per cent, as there.
Rank 0 calls these functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcsort.errors import OutputError
from hpcsort.io import ParticleTable
from hpcsort.sort3d._lists import FileBatch, Listing
from hpcsort.sort3d.records import Box, Comparison, Generation, Layer

__all__ = ["write_generation_clusters", "write_generations", "write_master_files"]


def write_generations(
    folder: Path,
    generations: Sequence[Generation],
    rows: np.ndarray,
    *,
    include_unaccounted: bool,
    frequencies: Sequence[float],
    seed: int,
) -> None:
    """Write generation_GGG/ with its layers and boxes for every generation.

    Parameters
    ----------
    folder : existing folder of the results.
    generations : all that were sorted.
    rows : int64 (n,), table row of every position in sort order.
    include_unaccounted : whether what a generation with groups left over is its last cluster as well.
    frequencies : where the FSC of each group's map falls below 0.143, in cycles per pixel; groups of all generations in
        the order found. What is not finite is written as 0.
    seed : of the sort.

    Raises
    ------
    OutputError
        If a file or folder cannot be made, or exists.
    ValueError
        If there are not as many frequencies as groups.
    """
    counts = [_count(generation.labels) for generation in generations]
    if sum(counts) != len(frequencies):
        raise ValueError(f"{len(frequencies)} frequencies for {sum(counts)} groups")
    first = 0
    for generation, count in zip(generations, counts, strict=True):
        place = _make(folder / f"generation_{generation.number:03d}")
        own = [float(value) if math.isfinite(value) else 0.0 for value in frequencies[first : first + count]]
        with FileBatch() as files:
            files.json(
                place / "freq_cutoff.json", {f"Cluster_{group:03d}.txt": value for group, value in enumerate(own)}
            )
            _write_generation(files, place, generation, rows, include_unaccounted, seed)
        with FileBatch() as files:
            files.json(place / "state.json", {"done": True})
        first += count


def write_generation_clusters(
    folder: Path, members: Sequence[np.ndarray], left: np.ndarray, include_unaccounted: bool
) -> None:
    """Write Cluster_NNN.txt, Core_set.txt and final_partition.txt of a generation.

    Parameters
    ----------
    folder : of the generation; made if absent.
    members : rising table rows of each group.
    left : rising table rows of the particles in none.
    include_unaccounted : whether they are the last cluster as well, where there are groups.
    """
    with FileBatch() as files:
        _write_clusters(files, _make(folder), members, left, include_unaccounted)


def write_master_files(
    folder: Path,
    table: ParticleTable,
    rows: np.ndarray,
    half: np.ndarray,
    fsc: np.ndarray,
    labels: np.ndarray,
    *,
    core_has_map: bool = False,
) -> None:
    """Write the files beside the generations: half-sets, poses, FSC and partition.

    These are indexes.txt, chunk_0.txt and chunk_1.txt, refinement_parameters.txt (one row for each row of the table:
    phi, theta, psi in degrees, the shifts in pixels that centre the image, half-set or -1 for an image that was left
    out), fsc_global.txt (one value for each Fourier pixel of the box, zero beyond the band) and
    generation_partition.txt (all particles that maps are made of).

    Parameters
    ----------
    folder : existing folder of the results.
    table : N particles.
    rows : int64 (n,), table row of every position in sort order; bad images are missing.
    half : int (n,), half-set 0 or 1, in sort order.
    fsc : float64 (shells,), between the half-sets, by Fourier pixels of the box.
    labels : int64 (N,), group of every particle of the table, -1 for none.
    core_has_map : whether a map is made of the unaccounted particles too; they are the last class then.
    """
    sets = np.full(len(table), -1, np.int64)
    sets[rows] = half
    curve = np.zeros(table.box_px // 2 + 1 if table.box_px else len(fsc))
    curve[: len(fsc)] = np.nan_to_num(fsc[: len(curve)])
    known = np.sort(rows)
    classes = np.where((labels < 0) & core_has_map, _count(labels), labels)
    with FileBatch() as files:
        files.ids(folder / "indexes.txt", known)
        for number in (0, 1):
            files.ids(folder / f"chunk_{number}.txt", np.flatnonzero(sets == number))
        poses = folder / "refinement_parameters.txt"
        files.rows(poses, "{:.5f} {:.5f} {:.5f} {:.5f} {:.5f} {}", *table.angles_deg.T, *table.shifts_px.T, sets)
        files.rows(folder / "fsc_global.txt", "{:.6f}", curve)
        Listing(files, known).classes(folder / "generation_partition.txt", classes[known])


def _write_clusters(
    files: FileBatch, place: Path, members: Sequence[np.ndarray], left: np.ndarray, include_unaccounted: bool
) -> None:
    lists = [*members, left] if include_unaccounted and len(members) and len(left) else list(members)
    for number, ids in enumerate(lists):
        files.ids(place / f"Cluster_{number:03d}.txt", ids)
    files.ids(place / "Core_set.txt", left)
    listing = Listing(files, np.concatenate([np.zeros(0, np.int64), *lists]))
    listing.classes(place / "final_partition.txt", np.repeat(np.arange(len(lists)), [len(ids) for ids in lists]))


def _write_generation(
    files: FileBatch, place: Path, generation: Generation, rows: np.ndarray, include_unaccounted: bool, seed: int
) -> None:
    active = rows[generation.active]
    labels = generation.labels if len(generation.labels) else np.full(len(active), -1, np.int64)
    members = [np.sort(active[labels == group]) for group in range(_count(labels))]
    left = np.sort(active[labels < 0])
    _write_clusters(files, place, members, left, include_unaccounted)
    files.ids(place / "indexes_next_generation.txt", left)
    files.rows(place / "gen_rep.txt", "{:.4f} {:.4f} {:.4f}", *(100 * _scores(generation, labels, len(members)).T))
    listing = Listing(files, active)
    before: Layer | None = None
    for layer in generation.layers:
        inner = _make(place / f"layer{layer.number}")
        for box in layer.boxes:
            _write_box(files, _make(inner / f"nbox{box.plan.number}"), box, listing, rows, before)
        for pair, comparison in enumerate(layer.comparisons):
            title = f"Boxes {2 * pair} and {2 * pair + 1} of layer {layer.number}, {len(active)} particles"
            files.text(inner / f"comparison_{pair}.txt", _as_table(comparison, title))
        files.json(inner / "state.json", {"done": True})
        before = layer
    tracker = {
        "generation": generation.number,
        "total_stack": len(active),
        "number_of_groups": generation.classes,
        "current_img_per_grp": len(active) // max(generation.classes, 1),
        "minimum_grp_size": [min(generation.minimum, default=0), max(generation.minimum, default=0)],
        "minimum_grp_size_schedule": generation.minimum,
        "depth_order": len(generation.layers),
        "cluster_sizes": [len(ids) for ids in members],
        "unaccounted": len(left),
        "held_out": generation.held,
        "held_out_after_finishing": generation.finished,
        "seed": seed,
    }
    files.json(place / "Tracker.json", tracker)


def _write_box(
    files: FileBatch, place: Path, box: Box, listing: Listing, rows: np.ndarray, before: Layer | None
) -> None:
    plan, stable = box.plan, box.comparison.labels
    count = _count(stable)
    if plan.start is None:
        listing.where(place / "previous_all_indexes.txt", np.ones(len(stable), bool))
    else:
        for chain, start in enumerate(plan.start):
            listing.classes(place / f"random_assignment_{chain:03d}.txt", start)
        if before is not None and plan.number < len(before.comparisons):
            given = before.comparisons[plan.number].labels
            listing.classes(place / "previous_NACC.txt", given)
            listing.where(place / "previous_NUACC.txt", given < 0)
    for chain in (0, 1):
        files.ids(place / f"half_{chain:03d}.txt", np.sort(rows[plan.learns[chain]]))
        listing.classes(place / f"independent_index_{chain:03d}.txt", box.chains.labels[chain])
    for group in range(count):
        listing.where(place / f"Cluster_{group:03d}.txt", stable == group)
    # A box without stable sets has an empty partition, which is how the original marks it.
    listing.classes(place / "partition.txt", np.where(stable >= 0, stable, count if count else -1))
    sizes = " and ".join(str(int((chain >= 0).sum())) for chain in box.chains.labels)
    title = f"Chains of box {plan.number} of layer {plan.layer}, {plan.classes} classes that hold {sizes} particles"
    files.text(place / "box.txt", _as_table(box.comparison, title))
    files.text(place / "changes.csv", _changes(box.chains.changes))
    state = {
        "done": True,
        "number_of_groups": plan.classes,
        "current_img_per_grp": len(stable) // max(plan.classes, 1),
        "rand_index": box.comparison.rand,
        "adjusted_rand_index": box.comparison.ari,
        "nruns": 1,
    }
    files.json(place / "state.json", state)


def _as_table(comparison: Comparison, title: str) -> str:
    numbers = np.full(len(comparison.overlap), -1)
    numbers[_accepted(comparison)] = np.arange(int(comparison.accepted.sum()))
    lines = [
        f"# {title}",
        f"# Rand index {comparison.rand:.4f}, adjusted Rand index {comparison.ari:.4f}; group -1 is rejected",
        "# group  size_a  size_b overlap jaccard_% chance_%  std_%        p",
    ]
    for row, number in enumerate(numbers.tolist()):
        sizes, chance, std = comparison.sizes[row], comparison.chance_mean[row], comparison.chance_std[row]
        lines.append(
            f"{number:7d} {sizes[0]:7d} {sizes[1]:7d} {comparison.overlap[row]:7d} {100 * comparison.jaccard[row]:9.2f}"
            f" {100 * chance:8.2f} {100 * std:6.2f} {comparison.p[row]:8.2g}"
            + (f"  # {comparison.reasons[row]}" if comparison.reasons[row] else "")
        )
    return "\n".join(lines) + "\n"


def _changes(changes: tuple[tuple[float, ...], tuple[float, ...]]) -> str:
    """Per cent of either chain's particles that changed their class, a row an iteration."""
    rows = [
        f"{chain},{iteration},{100 * share:.4f}"
        for chain, shares in enumerate(changes)
        for iteration, share in enumerate(shares, 1)
    ]
    return "\n".join(["chain,iteration,changed_percent", *rows]) + "\n"


def _accepted(comparison: Comparison) -> np.ndarray:
    """Rows of the accepted pairs in the order of their labels, that of falling overlap."""
    rows = np.flatnonzero(comparison.accepted)
    return rows[np.argsort(-comparison.overlap[rows], kind="stable")]


def _scores(generation: Generation, labels: np.ndarray, count: int) -> np.ndarray:
    """Jaccard score and its mean and deviation by chance, (count, 3), of the last layer's pair nearest to each group.

    Where there was nothing to compare, all agree on one group, by chance as well.
    """
    scores = np.tile([1.0, 1.0, 0.0], (count, 1))
    best = np.full(count, -1.0)
    for comparison in generation.layers[-1].comparisons if generation.layers else []:
        for label, row in enumerate(_accepted(comparison)):
            inside = comparison.labels == label
            for group in range(count):
                both = int((inside & (labels == group)).sum())
                near = both / max(int((inside | (labels == group)).sum()), 1)
                if near > best[group]:
                    best[group] = near
                    scores[group] = comparison.jaccard[row], comparison.chance_mean[row], comparison.chance_std[row]
    return scores


def _count(labels: np.ndarray) -> int:
    return int(labels.max(initial=-1)) + 1


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}; choose another place.") from error
    return folder
