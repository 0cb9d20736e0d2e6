"""What a sort is a sort of, and going on with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcsort import __version__
from hpcsort.checkpoints import JobRecord, hash_files, options_as_json, options_from_json, read_record
from hpcsort.errors import InputError
from hpcsort.io import ParticleTable
from hpcsort.kernels import backend, instruction_set
from hpcsort.sort3d.options import SortOptions

__all__ = ["PROGRAM", "hash_inputs", "is_finished", "options_of", "record_of"]

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
    values = options_as_json(options)
    return JobRecord(
        PROGRAM,
        __version__,
        {name: value for name, value in values.items() if name not in _WITHOUT_EFFECT},
        {name: value for name, value in values.items() if name in _WITHOUT_EFFECT},
        hash_inputs(options, table),
        f"{backend()} {instruction_set()}",
    )


def hash_inputs(options: SortOptions, table: ParticleTable) -> dict[str, dict[str, Any]]:
    """Hashes of the particles' table (or the refinement's texts), of the masks, and of the stacks."""
    tables = [options.source] if options.source.is_file() else sorted(options.source.glob("main*/*.txt"))
    return hash_files([*tables, *options.masks()], table.stack_paths)


def is_finished(folder: Path) -> bool:
    """Tell whether a folder holds a sort that has come to its end."""
    record = read_record(folder)
    return record is not None and record.finished


def options_of(folder: Path, **changes: Any) -> SortOptions:
    """Return the options with which the sort in a folder goes on.

    Parameters
    ----------
    folder : of the sort.
    changes : options on which results do not depend; None leaves one as it was.

    Raises
    ------
    InputError
        There is no sort in the folder, or its record is damaged.
    """
    record = read_record(folder)
    if record is None or record.program != PROGRAM:
        raise InputError(f"{folder} holds no sort that could go on; name the --output-dir of one.")
    values = record.options | record.others | {name: value for name, value in changes.items() if value is not None}
    return options_from_json(SortOptions, values | {"output_dir": folder, "resume": True, "overwrite": False})
