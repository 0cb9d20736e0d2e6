"""Chunks of few particles, so that every rank has some of a small stack. Run as a script, this is `hpcsort`.

The environment variable HPCSORT_TEST_DEAL, for example "2,0,1", says how many chunks each rank gets.
"""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np

from hpcsort.parallel import Communicator, cut_chunks, deal_chunks

CHUNK = 60


def deal_small_chunks(
    count: int, comm: Communicator, cost: np.ndarray | None = None
) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """What `deal_particles` does, with chunks of about `CHUNK` particles."""
    work = np.ones(count) if cost is None else cost.astype(np.float64)
    chunks = cut_chunks(work, CHUNK * (work.mean() if count else 1.0))
    if told := os.environ.get("HPCSORT_TEST_DEAL"):
        ends = np.cumsum([0, *map(int, told.split(","))])
        return chunks, [list(range(first, last)) for first, last in pairwise(ends.tolist())]
    return chunks, deal_chunks([work[start:stop].sum() for start, stop in chunks], comm.size)


if __name__ == "__main__":
    from hpcsort.cli.main import main
    from hpcsort.sort3d import loading

    loading.deal_particles = deal_small_chunks
    main()
