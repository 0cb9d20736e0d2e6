"""What two independent random partitions would agree on by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcsort.parallel import stream
from hpcsort.partitions.matching import jaccard, match_table


@dataclass(frozen=True)
class ChanceLevel:
    """Jaccard scores of matched groups of independent random partitions, per group of the first.

    Attributes
    ----------
    mean, std : (Ka,) float64
        Over the draws; std is that of one draw.
    draws : (draws, Ka) float64
        Every draw; 0 where a group found no partner.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    draws: NDArray[np.float64]


def chance_jaccard(sizes_a: ArrayLike, sizes_b: ArrayLike, total: int, draws: int = 1000, seed: int = 0) -> ChanceLevel:
    """Simulate the reproducibility of independent random partitions with the true sizes.

    The matching chooses the best of all pairings, so chance agreement exceeds that of a fixed
    pairing, the more so the fewer particles; K equal groups tend to 1 / (2 K - 1).

    Parameters
    ----------
    sizes_a : (Ka,) int
        Sizes of the groups of one partition.
    sizes_b : (Kb,) int
        Sizes of the groups of the other.
    total : int
        Number of particles. Those in no group are unassigned and take no part in the matching.
    draws : int
        Number of random contingency tables.
    seed : int
        Seed of the run.
    """
    rows, columns = (np.asarray(sizes, np.int64).reshape(-1) for sizes in (sizes_a, sizes_b))
    for sizes in (rows, columns):
        if (sizes < 0).any() or sizes.sum() > total:
            raise ValueError(f"groups of sizes {sizes.tolist()} cannot be made of {total} particles")
    if draws < 1:
        raise ValueError(f"a chance level needs at least one draw, not {draws}")
    tables = _random_tables(rows, columns, total, draws, stream(seed, "chance level"))
    scores = np.zeros((draws, rows.size))
    for score, table in zip(scores, tables, strict=True):
        i, j = match_table(table)
        score[i] = jaccard(table[i, j], rows[i], columns[j])
    return ChanceLevel(scores.mean(axis=0), scores.std(axis=0), scores)


def p_value(observed: ArrayLike, chance: ChanceLevel) -> NDArray[np.float64]:
    """Return for each group how often chance reaches its Jaccard score.

    Parameters
    ----------
    observed : (Ka,) or scalar
        Jaccard scores, 0..1, in the order of the groups of the chance level.
    chance : ChanceLevel
        From the sizes of the same groups.

    Returns
    -------
    (Ka,) float64: (1 + draws at least as high) / (1 + draws), so never 0 (Phipson & Smyth 2010).
    """
    reached = (chance.draws >= np.asarray(observed, np.float64)).sum(axis=0)
    return (1 + reached) / (1 + len(chance.draws))


def _random_tables(
    rows: NDArray[np.int64], columns: NDArray[np.int64], total: int, draws: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """Draw contingency tables (draws, Ka, Kb) of independent partitions with fixed sizes.

    Each row is multivariate hypergeometric given the rows before it; cell by cell that is a
    hypergeometric number, drawn for all tables at once.
    """
    tables = np.zeros((draws, rows.size, columns.size), np.int64)
    # Particles that no row has taken yet: of each column, and in all.
    left = np.broadcast_to(columns, (draws, columns.size)).copy()
    left_total = total
    for i, size in enumerate(rows.tolist()):
        wanted = np.full(draws, size)
        others = np.full(draws, left_total)
        for j in range(columns.size):
            others -= left[:, j]
            tables[:, i, j] = draw.hypergeometric(left[:, j], others, wanted)
            wanted -= tables[:, i, j]
        left -= tables[:, i]
        left_total -= size
    return tables
