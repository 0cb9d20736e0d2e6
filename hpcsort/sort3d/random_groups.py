"""FSC of random particles, as many as are in a group: what a group of one structure must surpass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hpcsort.io import write_text_atomically
from hpcsort.parallel import stream
from hpcsort.reconstruction import GroupMaps

__all__ = ["FSC_RANDOM", "draw_alike", "random_curves", "write_random_curves"]

FSC_RANDOM = "fsc_random.csv"
_ALIKE = 0.05
"""Groups whose sizes differ by less share one random group."""

Reconstruct = Callable[[list[np.ndarray]], list[GroupMaps] | None]


def draw_alike(
    members: Sequence[np.ndarray], pool: np.ndarray, half: np.ndarray, seed: int
) -> list[tuple[np.ndarray, list[int]]]:
    """Draw random particles, as many from either half as are in a group.

    Parameters
    ----------
    members : rows of the table in each group.
    pool : int64 (n,), rows that are drawn from: all good particles, those of the groups among them.
    half : int (N,), half of each particle of the table.
    seed : of the run.

    Returns
    -------
    Rising rows of the random particles, and the groups that they stand for; larger groups first.
    """
    drawn: list[tuple[np.ndarray, list[int]]] = []
    pools = [np.sort(pool[half[pool] == which]) for which in (0, 1)]
    for group in sorted(range(len(members)), key=lambda one: (-len(members[one]), one)):
        rows = members[group]
        if drawn and len(rows) >= (1.0 - _ALIKE) * len(drawn[-1][0]):
            drawn[-1][1].append(group)
            continue
        random = stream(seed, f"random group {group}")
        taken = [random.choice(own, int((half[rows] == which).sum()), replace=False) for which, own in enumerate(pools)]
        drawn.append((np.sort(np.concatenate(taken)), [group]))
    return drawn


def random_curves(
    members: Sequence[np.ndarray], pool: np.ndarray, half: np.ndarray, seed: int, reconstruct: Reconstruct
) -> list[np.ndarray]:
    """FSC (shells,) of random particles for each group on rank 0, an empty list elsewhere. Collective.

    One random group is reconstructed after the other, as its maps are not kept.

    Parameters
    ----------
    members, pool, half, seed : as in `draw_alike`.
    reconstruct : makes the maps of groups of rows, as those of the groups are made; collective.
    """
    curves: dict[int, np.ndarray] = {}
    for rows, groups in draw_alike(members, pool, half, seed):
        made = reconstruct([rows])
        if made is not None and made[0].fsc is not None:
            curves |= dict.fromkeys(groups, made[0].fsc)
    return [curves[group] for group in sorted(curves)]


def write_random_curves(folder: Path, curves: list[np.ndarray], box: int, voxel_A: float) -> None:
    """Write fsc_random.csv: shell, resolution in A, and a column for each group; nothing without groups."""
    if not curves:
        return
    shells = np.arange(len(curves[0]))
    with np.errstate(divide="ignore"):
        columns = {"shell": shells, "resolution_A": box * voxel_A / shells}
    frame = pd.DataFrame(columns | {f"random_{group:03d}": curve for group, curve in enumerate(curves)})
    text = str(frame.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
    write_text_atomically(folder / FSC_RANDOM, text)
