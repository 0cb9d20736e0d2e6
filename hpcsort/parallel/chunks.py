"""Cutting particles into fixed chunks and dealing the chunks to ranks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cut_chunks(weights: ArrayLike, target: float) -> list[tuple[int, int]]:
    """Cut rows into consecutive chunks of nearly equal weight, whatever the number of ranks.

    Parameters
    ----------
    weights : (N,) non-negative
        Work of each row, for example its number of smears.
    target : float, > 0
        Wanted weight of a chunk; no chunk weighs more than this, or the mean row if that is
        heavier, plus its heaviest row.

    Returns
    -------
    List of (start, stop), none empty, that covers the rows 0..N in order. Empty for N = 0.
    """
    loads = _checked(weights)
    if not target > 0:
        raise ValueError(f"the weight of a chunk must be positive, not {target}")
    if loads.size == 0:
        return []
    total = float(loads.sum())
    number = int(min(max(np.ceil(total / target), 1), loads.size))
    parts = _midpoint_parts(loads, number)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(parts)) + 1, [loads.size]]).tolist()
    return list(pairwise(edges))


def deal_chunks(chunk_weights: ArrayLike, ranks: int) -> list[list[int]]:
    """Deal chunks to ranks in contiguous blocks of nearly equal weight.

    Parameters
    ----------
    chunk_weights : (C,) non-negative
        Work of each chunk.
    ranks : int, >= 1
        Number of ranks; those beyond the number of chunks get none.

    Returns
    -------
    For each rank its chunk numbers in rising order. No rank carries more than the mean load plus
    the heaviest chunk.
    """
    loads = _checked(chunk_weights)
    if ranks < 1:
        raise ValueError(f"chunks are dealt to at least one rank, not {ranks}")
    parts = _midpoint_parts(loads, ranks)
    return [np.flatnonzero(parts == rank).tolist() for rank in range(ranks)]


def owned_rows(chunks: Sequence[tuple[int, int]], owned: Sequence[int]) -> tuple[int, int]:
    """Return the rows (start, stop) of a contiguous block of chunks; (0, 0) for no chunks.

    Parameters
    ----------
    chunks : list of (start, stop)
        From `cut_chunks`.
    owned : chunk numbers of one rank
        From `deal_chunks`.
    """
    if len(owned) == 0:
        return 0, 0
    if list(owned) != list(range(owned[0], owned[0] + len(owned))):
        raise ValueError("the chunks of a rank must follow each other")
    return chunks[owned[0]][0], chunks[owned[-1]][1]


def row_counts(chunks: Sequence[tuple[int, int]], dealt: Sequence[Sequence[int]]) -> list[int]:
    """Return how many rows each rank owns, as `Communicator.allgather_rows` wants them."""
    return [stop - start for start, stop in (owned_rows(chunks, owned) for owned in dealt)]


def _midpoint_parts(loads: NDArray[np.float64], parts: int) -> NDArray[np.int64]:
    """Return to each item the part in which the middle of its load falls; never falling."""
    if loads.sum() == 0:
        loads = np.ones_like(loads)
    ends = np.cumsum(loads)
    total = ends[-1] if ends.size else 1.0
    return np.minimum(((ends - loads / 2) * (parts / total)).astype(np.int64), parts - 1)


def _checked(weights: ArrayLike) -> NDArray[np.float64]:
    loads = np.asarray(weights, np.float64).reshape(-1)
    if not (np.isfinite(loads).all() and (loads >= 0).all()):
        raise ValueError("weights of chunks must be finite and not negative")
    return loads
