"""The command `hpcsort resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  hpcsort resume sorted
  mpiexec -n 8 hpcsort resume sorted --checkpoint-minutes 30
"""


@click.command("resume", short_help="Go on with a sort that was stopped.", epilog=_EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--checkpoint-minutes", type=float, help="Time between two checkpoints. [as before]")
@click.option("--watchdog-minutes", type=float, help="Report a rank that does not answer for so long. [as before]")
@click.option("--memory-per-node", type=float, help="Memory in GB that a node may use. [as before]")
@click.option("--overhead", type=float, help="Memory in GB a node that is left to others. [as before]")
@click.option("--quiet", is_flag=True, default=None, help="Write the story to log.txt only.")
def command(folder: Path, **changes: Any) -> None:
    """Go on with the sort in FOLDER from its last checkpoint.

    Options and input are those with which it began; a sort that has come to its end is left as it is. The number of
    ranks may be another: the results are the same bytes as those of a sort that was never stopped.
    """
    # imported late, so that the help answers at once
    from hpcsort.parallel import get_comm, together
    from hpcsort.sort3d import is_finished, options_of, sort3d

    comm = get_comm()
    with together(comm):
        options, finished = options_of(folder, **changes), is_finished(folder)
    if not finished:
        sort3d(options, comm)
    elif comm.is_root:
        click.echo(f"The sort in {folder} has come to its end; there is nothing to do.")
