"""The command `hpcsort`: finds the sub-command, catches errors, ends all ranks together."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hpcsort.parallel import Communicator

__all__ = ["cli", "main"]

_COMMANDS = {
    "sort3d": "Sort a particle stack into reproducible 3D groups.",
    "resume": "Go on with a run that was stopped.",
    "match": "Find the poses of particles by projection matching.",
    "reconstruct": "Reconstruct a map, its half-maps and their FSC.",
    "cl2d": "Classify particles in 2D: levels, cores, stable cores.",
    "cluster-averages": "Group class averages into families of like views.",
    "extract-pairs": "Cut particle pairs from untilted and tilted micrographs.",
    "simulate": "Simulate particles of a molecule in several states.",
    "demo": "Simulate a small data set, sort it, and compare with the truth.",
    "check": "Tell what was understood of an input, and what a sort of it takes.",
    "convert": "Convert particle tables between programs.",
    "report": "Write the report page of a finished run again.",
    "submit": "Write a SLURM script for a command and submit it.",
    "completion": "Print a script that completes words in a shell.",
}
_ALONE = {"check", "convert", "report", "submit"}
"""Commands of one process, which work where MPI does not start, on a login node for example."""

_EXIT_CODES = """\b
Exit codes:
  0    done
  2    an option that cannot be used
  3    a file or table that cannot be used
  4    a result that cannot be written, or would overwrite something
  5    the launcher and the MPI library do not belong together
  70   a bug: please report the traceback
  75   stopped by a signal after a checkpoint; `hpcsort resume` goes on
  130  interrupted by Ctrl-C
  137  a rank was killed; the message says which (9 under some launchers)

\b
Examples:
  mpiexec -n 2 hpcsort demo
  hpcsort check particles.star
  mpiexec -n 8 hpcsort sort3d --instack particles.star --output-dir sorted
"""


class _Commands(click.Group):
    """Sub-commands imported when they are called, so that --help and typing errors answer at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which a newcomer needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a sub-command."""
        if cmd_name not in _COMMANDS:
            near = get_close_matches(cmd_name, _COMMANDS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; choose one of {', '.join(_COMMANDS)}."
            ctx.fail(f"there is no command '{cmd_name}'{hint}")
        module = cmd_name.replace("-", "_")
        command: click.Command = importlib.import_module(f"hpcsort.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _dashes(name: str) -> str:
    """Accept --output_dir for --output-dir; click asks with the name alone."""
    return name.replace("_", "-")


def _tell_versions(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    """Show what --version asks for, and leave."""
    if wanted and not ctx.resilient_parsing:
        from hpcsort.cli.versions import version_lines

        click.echo("\n".join(version_lines()))
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _dashes, "max_content_width": 110},
    epilog=_EXIT_CODES,
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_versions,
    help="Show versions, MPI library and instruction set of the kernels, and leave.",
)  # fmt: skip
def cli() -> None:
    """Sort cryo-EM particles into reproducible groups.

    What computes runs alone or under an MPI launcher: mpiexec -n 4 hpcsort sort3d ... Each command has --help with
    examples; --json prints its result for scripts, and --quiet silences the story. Colours and moving lines are for
    terminals only; the environment variable NO_COLOR switches colours off there too.
    """


def main() -> None:
    """Run the command line; an error on any rank ends all ranks with one message and a non-zero exit code."""
    # One rank is one thread; a BLAS that starts more would only make ranks fight for the cores. NumPy reads this when
    # it is loaded, so nothing above may load it.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if _only_asks(sys.argv[1:]):
        _run(speaks=True)
        return
    alone = sys.argv[1] in _ALONE
    if not alone:
        _start_mpi()
    from hpcsort.parallel import abort_on_error, get_comm

    comm = get_comm(serial=alone)
    with abort_on_error(comm):
        _check_start(comm, alone)
        _run(comm.is_root)
    sys.stdout.flush()


def _start_mpi() -> None:
    """Start MPI before NumPy is loaded: under `srun --mpi=pmi2` of SLURM 22.05 MPICH hangs at some starts otherwise."""
    # As in `get_comm`, which goes on without MPI where there is none, and says what its warnings mean.
    os.environ.setdefault("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1")
    with contextlib.suppress(ImportError, RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        importlib.import_module("mpi4py.MPI")


def _only_asks(words: list[str]) -> bool:
    """Whether help, the version or completion is asked for: that needs no MPI, which may not start on a login node."""
    return words[:1] in ([], ["completion"]) or not {"-h", "--help", "--version"}.isdisjoint(words)


def _check_start(comm: Communicator, alone: bool) -> None:
    """Refuse a launcher that this process does not belong to."""
    from hpcsort.errors import LaunchError
    from hpcsort.parallel import check_launch

    try:
        check_launch(comm)
    except LaunchError as error:
        if not alone:
            raise
        raise LaunchError(f"hpcsort {sys.argv[1]} is one process; start it without mpiexec or srun.") from error


def _run(speaks: bool) -> None:
    """Every rank parses the same words and fails alike; only one explains."""
    try:
        # rich honours NO_COLOR by itself, click does not
        cli.main(prog_name="hpcsort", standalone_mode=False, color=False if os.environ.get("NO_COLOR") else None)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        if speaks:
            error.show()
        sys.exit(error.exit_code)
    except click.Abort as error:
        raise KeyboardInterrupt from error
