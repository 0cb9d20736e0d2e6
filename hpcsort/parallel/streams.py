"""Random numbers that belong to a place in the work, never to a rank."""

from __future__ import annotations

import hashlib
import operator
from typing import SupportsIndex

import numpy as np


def stream(seed: int, *keys: SupportsIndex | str) -> np.random.Generator:
    """Return the random generator of one place in the work.

    Parameters
    ----------
    seed : int
        Seed of the run.
    *keys : int or str
        The place: purpose, run, iteration, particle... The order counts, 1 and "1" differ.

    Returns
    -------
    Generator over the counter-based Philox 4x64 (Salmon et al. 2011), whose 128-bit key is the
    BLAKE2b hash of seed and keys: the same on every rank, machine and day.
    """
    digest = hashlib.blake2b(digest_size=16, person=b"hpcsort stream")
    for key in (seed, *keys):
        word = f"s{key}" if isinstance(key, str) else f"i{operator.index(key)}"
        data = word.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))
