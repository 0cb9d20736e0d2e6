"""Independent chains of a sort: what they say about particles, and how far they agree."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.partitions import match_groups

__all__ = ["Chain", "aligned_chains", "coassignment", "read_chains"]

_BOXES = ["generation", "layer", "what", "ari"]
_CHANGES = ["generation", "layer", "box", "chain", "iteration", "changed_percent"]


@dataclass(frozen=True, eq=False)
class Chain:
    """What one chain of the first layer says; chains of a generation are independent of each other.

    Attributes
    ----------
    generation, box, number : place of the chain; two are in a box.
    ids : int64 (n,), rows of the particle table.
    labels : int64 (n,), class of each, -1 for none.
    """

    generation: int
    box: int
    number: int
    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    @property
    def name(self) -> str:
        """Short name."""
        return f"box {self.box} {'ab'[self.number]}"


def read_chains(folder: Path) -> tuple[list[Chain], pd.DataFrame, pd.DataFrame]:
    """Read the generations of a sort.

    Returns
    -------
    chains : of the first layers.
    boxes, changes : as in `SortedRun`.
    """
    chains: list[Chain] = []
    agreement: list[tuple[int, int, str, float]] = []
    changes: list[pd.DataFrame] = []
    for place in sorted(folder.glob("generation_*/layer*/nbox*"), key=_numbers):
        generation, layer, box = _numbers(place)
        state = place / "state.json"
        if state.is_file():
            ari = json.loads(state.read_text(encoding="utf-8"))["adjusted_rand_index"]
            agreement.append((generation, layer, f"chains of box {box}", ari))
        moved = place / "changes.csv"
        if moved.is_file():
            changes.append(pd.read_csv(moved).assign(generation=generation, layer=layer, box=box))
        for number in (0, 1) if layer == 0 else ():
            listed = place / f"independent_index_{number:03d}.txt"
            if listed.is_file():
                rows = pd.read_csv(listed, sep=" ", header=None, dtype=np.int64).to_numpy()
                chains.append(Chain(generation, box, number, rows[:, 1], rows[:, 0]))
    for path in sorted(folder.glob("generation_*/layer*/comparison_*.txt"), key=_numbers):
        generation, layer, pair = _numbers(path)
        found = re.search(r"adjusted Rand index (-?[\d.]+)", path.read_text(encoding="utf-8"))
        if found:
            agreement.append((generation, layer, f"boxes {2 * pair} and {2 * pair + 1}", float(found[1])))
    moved_all = pd.concat(changes, ignore_index=True)[_CHANGES] if changes else pd.DataFrame(columns=_CHANGES)
    return chains, pd.DataFrame(agreement, columns=_BOXES), moved_all


def aligned_chains(chains: Sequence[Chain], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Labels of the chains in the numbers of the final groups.

    Parameters
    ----------
    chains : of one generation.
    labels : int64 (N,), final group of each particle of the table, -1 for none.

    Returns
    -------
    int64 (chains, N): the group whose particles a class shares most; classes without a group are numbered after
    the groups; -1 where the chain has no class for the particle, -2 where it did not sort it.
    """
    groups = int(labels.max(initial=-1)) + 1
    aligned = np.full((len(chains), len(labels)), -2, np.int64)
    for row, chain in zip(aligned, chains, strict=True):
        names = groups + np.arange(int(chain.labels.max(initial=-1)) + 1)
        matching = match_groups(chain.labels, labels[chain.ids])
        names[matching.pairs[:, 0]] = matching.pairs[:, 1]
        row[chain.ids] = np.where(chain.labels >= 0, names[chain.labels], -1)
    return aligned


def coassignment(chains: Sequence[Chain], parts: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
    """Mean over the chains of the share of pairs of particles that a chain puts into one class.

    Parameters
    ----------
    chains : of one generation.
    parts : int64 (N,), part that each particle of the table is in, -1 for none.
    count : number of parts.

    Returns
    -------
    float64 (count, count): row and column are the parts that the two particles are taken from; NaN without pairs.
    """
    total = np.zeros((count, count))
    for chain in chains:
        part = parts[chain.ids]
        known = part >= 0
        classes = int(chain.labels.max(initial=-1)) + 1
        cells = np.zeros((count, classes + 1))
        np.add.at(cells, (part[known], np.where(chain.labels < 0, classes, chain.labels)[known]), 1.0)
        sizes = cells.sum(axis=1)
        together = cells[:, :classes] @ cells[:, :classes].T - np.diag(cells[:, :classes].sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            total += together / (np.outer(sizes, sizes) - np.diag(sizes))
    return total / max(len(chains), 1)


def _numbers(path: Path) -> tuple[int, int, int]:
    """Return generation, layer and number of a box or comparison."""
    found = re.search(r"generation_(\d+)/layer(\d+)/(?:nbox|comparison_)(\d+)", path.as_posix())
    assert found is not None
    return int(found[1]), int(found[2]), int(found[3])
