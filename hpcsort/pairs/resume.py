"""What a run of extract-pairs is a run of."""

from __future__ import annotations

import hashlib
from typing import Any

from hpcsort.checkpoints import JobRecord, hash_files
from hpcsort.pairs.options import PairOptions
from hpcsort.pairs.plan import Plan, PlannedPair

__all__ = ["PROGRAM", "record_of"]

PROGRAM = "extract-pairs"
_WITHOUT_EFFECT = frozenset({"output", "overwrite", "quiet", "resume", "watchdog_minutes", "workers"})
"""Options on which results do not depend, so that a run may go on with others."""


def record_of(options: PairOptions, plan: Plan) -> JobRecord:
    """Return what a run is a run of; reads pieces of all micrographs."""
    inputs: dict[str, dict[str, Any]] = hash_files([], [side.path for pair in plan.pairs for side in pair.sides])
    inputs |= {f"{pair.key} (coordinates, CTF)": {"sha256": _digest(pair)} for pair in plan.pairs}
    return JobRecord.of(PROGRAM, options, _WITHOUT_EFFECT, inputs)


def _digest(pair: PlannedPair) -> str:
    """Hash of what the tables say of a pair."""
    digest = hashlib.sha256(repr([side.ctf for side in pair.sides]).encode())
    for array in (pair.ids, pair.pair_ids, *(side.xy_px for side in pair.sides)):
        digest.update(array.tobytes())
    return digest.hexdigest()
