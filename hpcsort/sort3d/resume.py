"""What a sort is a sort of."""

from __future__ import annotations

from typing import Any

from hpcsort.checkpoints import JobRecord, hash_files
from hpcsort.io import ParticleTable
from hpcsort.sort3d.options import SortOptions

__all__ = ["PROGRAM", "hash_inputs", "record_of"]

PROGRAM = "sort3d"
_WITHOUT_EFFECT = frozenset(
    {
        "checkpoint_minutes", "compute_on_the_fly", "memory_per_node", "output_dir", "overhead", "overwrite", "quiet",
        "resume", "watchdog_minutes",
    }
)  # fmt: skip
"""Options on which results do not depend, so that a run may go on with others."""


def record_of(options: SortOptions, table: ParticleTable) -> JobRecord:
    """Return what a sort is a sort of; reads the inputs' hashes."""
    return JobRecord.of(PROGRAM, options, _WITHOUT_EFFECT, hash_inputs(options, table))


def hash_inputs(options: SortOptions, table: ParticleTable) -> dict[str, dict[str, Any]]:
    """Hashes of the particles' table (or the refinement's texts), of the masks, and of the stacks."""
    tables = [options.source] if options.source.is_file() else sorted(options.source.glob("main*/*.txt"))
    return hash_files([*tables, *options.masks()], table.stack_paths)
