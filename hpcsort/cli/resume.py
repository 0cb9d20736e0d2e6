"""The command `hpcsort resume`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from hpcsort.cli._command import ScriptedCommand

__all__ = ["command"]

_PROGRAMS = {
    "sort3d": ("hpcsort.sort3d", "resume_sort"),
    "cl2d": ("hpcsort.cl2d", "resume_cl2d"),
    "extract-pairs": ("hpcsort.pairs", "resume_pairs"),
}
"""Program -> package, and the function of it that goes on; that returns None where there is nothing to do."""

_EXAMPLES = """\b
Examples:
  hpcsort resume sorted
  mpiexec -n 8 hpcsort resume sorted --checkpoint-minutes 30
"""


@click.command("resume", cls=ScriptedCommand, short_help="Go on with a run that was stopped.", epilog=_EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--checkpoint-minutes", type=float, help="Time between two checkpoints. [as before]")
@click.option("--watchdog-minutes", type=float, help="Report a rank that does not answer for so long. [as before]")
@click.option("--memory-per-node", type=float, help="Memory in GB that a node may use. [as before]")
@click.option("--overhead", type=float, help="Memory in GB a node that is left to others. [as before]")
@click.option("--quiet", is_flag=True, default=None, help="Write the story to log.txt only.")
def command(folder: Path, **changes: Any) -> dict[str, Any] | None:
    """Go on with the run in FOLDER from its last checkpoint.

    Options and input are those with which it began; a run that has come to its end is left as it is. The number of
    ranks may be another: the results are the same bytes as those of a run that was never stopped.
    """
    # imported late, so that the help answers at once
    from hpcsort.checkpoints import read_record
    from hpcsort.cli._figures import cl2d_figures, pairs_figures, sort_figures
    from hpcsort.errors import InputError
    from hpcsort.parallel import get_comm, together

    comm = get_comm()
    with together(comm):
        record = read_record(folder)
        if record is None or record.program not in _PROGRAMS:
            raise InputError(f"{folder} holds no run that could go on; name the output folder of one.")
    package, name = _PROGRAMS[record.program]
    result = getattr(importlib.import_module(package), name)(folder, comm, **changes)
    if not comm.is_root:
        return None
    if result is None and not changes["quiet"]:
        click.echo(f"The run in {folder} has come to its end; there is nothing to do.")
    if record.program == "sort3d":
        return sort_figures(folder)
    return cl2d_figures(folder, result) if record.program == "cl2d" else pairs_figures(folder, result)
