"""How the functions of `hpcsort.api` turn what they are given into the options of a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from hpcsort.errors import InputError
from hpcsort.io import ParticleTable, read_input, write_particles
from hpcsort.io.star import HPCSORT_BLOCK
from hpcsort.parallel import Communicator, check_launch, get_comm, together

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["FilePath", "make_options", "options_with_particles", "ranks_of", "teller"]

FilePath = str | os.PathLike[str]
Options = TypeVar("Options", bound="DataclassInstance")

_READ_BACK = ("angles_deg", "shifts_px", "defocus_u_A", "defocus_v_A", "defocus_angle_deg", "random_subset")
"""What a table in memory and the file written of it must agree on."""


def ranks_of(comm: Communicator | None) -> Communicator:
    """Take all ranks of the launcher where none are given; refuse a launcher of another MPI."""
    if comm is None:
        comm = get_comm()
        check_launch(comm)
    return comm


def teller(quiet: bool) -> Callable[[str], None]:
    """Return what tells people the story, or nothing."""
    return (lambda text: None) if quiet else print


def make_options(kind: type[Options], options: Options | None, keywords: Mapping[str, Any]) -> Options:
    """Make or change a record of options."""
    hints = get_type_hints(kind)
    values = {name: _with_paths(hints.get(name), value) for name, value in keywords.items()}
    return kind(**values) if options is None else replace(options, **values)


def _with_paths(hint: Any, value: Any) -> Any:
    """Turn text into paths where an option is one or several."""
    if Path not in (hint, *get_args(hint)):
        return value
    if get_origin(hint) is tuple:
        several: Sequence[FilePath] = [value] if isinstance(value, (str, os.PathLike)) else value
        return tuple(map(Path, several))
    return Path(value) if isinstance(value, str) else value


def options_with_particles(
    kind: type[Options],
    particles: FilePath | ParticleTable | None,
    options: Options | None,
    keywords: Mapping[str, Any],
    output: str,
    comm: Communicator,
) -> Options:
    """Make the options of a program that reads particles from a file; a table becomes that file. Collective."""
    if particles is None:
        return make_options(kind, options, keywords)
    if not isinstance(particles, ParticleTable):
        return make_options(kind, options, {**keywords, "instack": Path(particles)})
    place = Path(keywords[output] if output in keywords else getattr(options, output))
    source = place.with_name(f"{place.name.removesuffix('.star')}_input.star")
    chosen = make_options(kind, options, {**keywords, "instack": source})
    with together(comm):
        if comm.is_root:
            _write_table(particles, source, chosen)
    return chosen


def _write_table(table: ParticleTable, place: Path, options: Any) -> None:
    """Write a table and make sure that a program will read what it holds."""
    unwritten = table.smears is not None and HPCSORT_BLOCK not in table.other_blocks
    if unwritten or table.image_scale is not None or table.noise_power is not None:
        raise InputError(
            "the table holds smears, norms or noise spectra that are in no STAR file; of a MERIDIEN refinement give the"
            " folder as refinement_dir"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    replaced = options.overwrite or getattr(options, "resume", False)
    write_particles(place, table, overwrite=replaced)
    again = read_input(
        place, datadir=options.datadir, angpix=options.angpix, need_images=False, need_poses=False, need_ctf=False
    )
    for name in _READ_BACK:
        if not np.allclose(getattr(again, name), getattr(table, name), rtol=1e-9, atol=1e-9, equal_nan=True):
            raise InputError(f"{name} of the table is not what its columns say; change the columns of its frame too")
