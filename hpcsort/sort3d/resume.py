"""What a sort is a sort of, and going on with one."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from hpcsort import __version__
from hpcsort.checkpoints import JobRecord, read_record
from hpcsort.errors import InputError
from hpcsort.io import ParticleTable
from hpcsort.kernels import backend, instruction_set
from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.outputs import hash_inputs

__all__ = ["PROGRAM", "is_finished", "options_of", "record_of"]

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
    values = {
        name: str(value.absolute()) if isinstance(value, Path) else value for name, value in asdict(options).items()
    }
    return JobRecord(
        PROGRAM,
        __version__,
        {name: value for name, value in values.items() if name not in _WITHOUT_EFFECT},
        {name: value for name, value in values.items() if name in _WITHOUT_EFFECT},
        hash_inputs(options, table),
        f"{backend()} {instruction_set()}",
    )


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
    kinds = get_type_hints(SortOptions)
    known = {field.name for field in dataclasses.fields(SortOptions)}
    values = {name: value for name, value in (record.options | record.others).items() if name in known}
    for name, value in values.items():
        if value is not None and _is_path(kinds[name]):
            values[name] = Path(value)
    values |= {name: value for name, value in changes.items() if value is not None}
    try:
        return SortOptions(**values | {"output_dir": folder, "resume": True, "overwrite": False})
    except TypeError as error:
        raise InputError(
            f"the record of the sort in {folder} holds options of another kind ({error}); start anew with --overwrite."
        ) from error


def _is_path(kind: Any) -> bool:
    return kind is Path or (isinstance(kind, UnionType) and Path in get_args(kind))
