"""Half-sets of particles."""

from __future__ import annotations

import numpy as np

from hpcsort.io import ParticleTable
from hpcsort.parallel import stream

__all__ = ["half_sets"]


def half_sets(table: ParticleTable, rows: np.ndarray, seed: int) -> np.ndarray:
    """Half-sets of the refinement where the rows have both, else random ones of equal size.

    Rows that show the same image (repeats, symmetry mates) go into the same random half, and what is drawn for an
    image depends on the images of the rows and not on their order.

    Parameters
    ----------
    table : N particles.
    rows : int (n,), the rows that are used.
    seed : of the random halves.

    Returns
    -------
    int64 (N,): 0 or 1 for the rows, -1 for the others.
    """
    half = np.full(len(table), -1, np.int64)
    chosen = np.asarray(rows, np.int64)
    subset = table.random_subset[chosen]
    both = {1, 2} <= set(np.unique(subset).tolist())
    names = np.array(table.stack_names)[table.stack_id[chosen]]
    # Names and not numbers of stacks: these depend on what else is in the table.
    _, stack = np.unique(names, return_inverse=True)
    images = np.stack([stack, table.stack_index[chosen]], axis=1)
    unique, image = np.unique(images, axis=0, return_inverse=True)
    drawn = (stream(seed, "half-sets").permutation(len(unique)) % 2)[image.reshape(-1)]
    half[chosen] = np.where(np.isin(subset, (1, 2)) & both, subset - 1, drawn)
    return half
