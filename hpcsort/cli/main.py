"""The command `hpcsort`: finds the sub-command, catches errors, ends all ranks together."""

from __future__ import annotations

import importlib
import os
import sys
from difflib import get_close_matches

import click

from hpcsort import __version__

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
}


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


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _dashes, "max_content_width": 110},
)
@click.version_option(__version__, prog_name="hpcsort")
def cli() -> None:
    """Sort cryo-EM particles into reproducible groups.

    Every command runs alone or under an MPI launcher: mpiexec -n 4 hpcsort sort3d ...
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
    from hpcsort.parallel import abort_on_error, check_launch, get_comm

    comm = get_comm()
    with abort_on_error(comm):
        check_launch(comm)
        _run(comm.is_root)
    sys.stdout.flush()


def _only_asks(words: list[str]) -> bool:
    """Whether help or the version is asked for: that needs no MPI, which may not start on a login node."""
    return not words or not {"-h", "--help", "--version"}.isdisjoint(words)


def _run(speaks: bool) -> None:
    """Every rank parses the same words and fails alike; only one explains."""
    try:
        cli.main(prog_name="hpcsort", standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        if speaks:
            error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
