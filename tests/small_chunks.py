"""Chunks of few particles, so that every rank has some of a small stack. Run as a script, this is `hpcsort`."""

from __future__ import annotations

import numpy as np

from hpcsort.parallel import Communicator, cut_chunks, deal_chunks

CHUNK = 60


def deal_small_chunks(count: int, comm: Communicator) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """What `deal_particles` does, with chunks of about `CHUNK` particles."""
    chunks = cut_chunks(np.ones(count), CHUNK)
    return chunks, deal_chunks([stop - start for start, stop in chunks], comm.size)


if __name__ == "__main__":
    from hpcsort.cli.main import main
    from hpcsort.sort3d import problem

    problem.deal_particles = deal_small_chunks
    main()
