"""The command `hpcsort submit`."""

from __future__ import annotations

import importlib
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hpcsort.cli._command import ScriptedCommand

if TYPE_CHECKING:
    from hpcsort.io import ParticleTable

__all__ = ["command"]

Options = TypeVar("Options")

_PROGRAMS = ("sort3d", "cl2d", "match")
_MARGIN = 1.2
"""Memory that is asked for, as a multiple of the estimate; benchmarks/memory.md says how good that is."""

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort submit sort3d --instack particles.star --output-dir sorted --nodes 2 --time 08:00:00 --queue compute
  hpcsort submit sort3d --instack particles.star --output-dir sorted --seeds 5 --scratch /scratch
  hpcsort submit cl2d --instack particles.star --output-dir classes2d --launcher mpiexec --dry-run
  hpcsort submit match --instack particles.star --ref map.mrc --output matched.star --template relion_qsub.sh
"""


def _variables(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Read NAME=VALUE."""
    pairs = [one.partition("=") for one in given]
    wrong = next((name for name, mark, _ in pairs if not (name.isidentifier() and mark)), None)
    if wrong is not None:
        raise click.BadParameter(f"'{wrong}' is not of the form NAME=VALUE.", ctx, param)
    return {name: value for name, _, value in pairs}


_OPTIONS: list[click.Parameter] = [
    click.Option(["--nodes"], type=int, default=1, show_default=True, help="Nodes."),
    click.Option(["--tasks-per-node"], type=int, default=16, show_default=True, help="MPI ranks a node, a core each."),
    click.Option(["--time"], default="04:00:00", show_default=True, help="Time limit, as SLURM writes it."),
    click.Option(["--memory", "memory_GB"], type=float, help="GB a rank. [sort3d: from its estimate; others: 4]"),
    click.Option(["--queue", "--partition"], help="Partition, where the site asks for it."),
    click.Option(["--account"], help="Account, where the site asks for it."),
    click.Option(["--job-name"], help="Name of the job. [that of the results]"),
    click.Option(["--seeds"], type=int, help="Run so often, with --seed and those that follow it, as an array."),
    click.Option(["--scratch"], help="Folder on the nodes' own disks to which image stacks are copied first."),
    click.Option(["--environment"], help="Folder of the virtual environment on the nodes. [this one's]"),
    click.Option(
        ["--launcher"], default="srun --mpi=pmix", show_default=True, help="Starts the ranks: srun --mpi=..., mpiexec."
    ),
    click.Option(
        ["--template"], type=click.Path(path_type=Path), help="Your script, with RELION's or cryoSPARC's variables."
    ),
    click.Option(
        ["--set", "variables"], multiple=True, callback=_variables, metavar="NAME=VALUE", help="Another one; repeat."
    ),
    click.Option(["--submit-command"], default="sbatch", show_default=True, help="Submits the script."),
    click.Option(["--dry-run"], is_flag=True, help="Print the script and submit nothing."),
    click.Option(["--overwrite"], is_flag=True, help="Replace an earlier script, and in the job earlier results."),
]
_OWN = frozenset(option.name for option in _OPTIONS)


class _Programs(click.Group):
    """Programs with their own options and those of the job."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Programs that can be submitted."""
        return list(_PROGRAMS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Join the options of a program with those of the job."""
        if cmd_name not in _PROGRAMS:
            ctx.fail(f"'{cmd_name}' cannot be submitted; choose one of {', '.join(_PROGRAMS)}.")
        program: click.Command = importlib.import_module(f"hpcsort.cli.{cmd_name}").command
        theirs = [option for option in program.params if option.name not in {*_OWN, "resume", "as_json"}]
        return ScriptedCommand(
            cmd_name,
            params=[*_OPTIONS, *theirs],
            callback=partial(_submit, cmd_name),
            short_help=program.short_help,
            help=f"Submit {cmd_name} with options of the job and of {cmd_name}.",
        )


@click.group("submit", cls=_Programs, short_help="Submit a program to a cluster's batch system.", epilog=_EXAMPLES)
def command() -> None:
    """Submit a program to a cluster's batch system.

    The script of the program (folder jobs/ of hpcsort), or your own with the variables of RELION or cryoSPARC, is
    filled in, written beside the results, and handed to sbatch. The input is read first, so that what is wrong with it
    is said before the job waits in the queue.
    """


def _submit(program: str, /, dry_run: bool, **values: Any) -> dict[str, Any]:
    # imported late, so that the help answers at once
    from hpcsort.cluster import SubmitOptions, Task, job_scripts, submit_job
    from hpcsort.errors import OptionError

    job = {name: values.pop(name) for name in _OWN & values.keys()}
    options = SubmitOptions(**{name: value for name, value in job.items() if value is not None})
    output = "output" if "output" in values else "output_dir"
    if values[output] is None:
        raise OptionError("the results need a place that does not depend on when the job starts; give --output-dir.")
    table, estimate_GB = _read(program, values, options.ranks, options.tasks_per_node)
    if job["memory_GB"] is None and estimate_GB is not None:
        options = replace(options, memory_GB=estimate_GB)
    task = Task(
        program=program,
        output_option=f"--{output.replace('_', '-')}",
        output=values[output],
        words=tuple(_words(click.get_current_context(), {output, *({"seed"} if options.seeds else ())})),
        can_resume=program != "match",
        first_seed=values.get("seed"),
        stacks=tuple(table.stack_paths),
    )
    jobs: list[dict[str, Any]] = []
    for script in job_scripts(task, options):
        if dry_run:
            click.echo(script.text, nl=False)
            jobs.append({"script": script.path, "job": None})
            continue
        number = submit_job(script, options.submit_command, overwrite=options.overwrite)
        click.echo(f"Submitted {script.path} as job {number}.")
        jobs.append({"script": script.path, "job": number})
    return {"jobs": jobs}


def _words(ctx: click.Context, without: set[str]) -> list[str]:
    """Options of the program as the user gave them, written out again."""
    words: list[str] = []
    for option in ctx.command.params:
        name = option.name or ""
        if name in without or name in _OWN or ctx.get_parameter_source(name) != click.core.ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        if isinstance(option, click.Option) and option.is_flag:
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            for one in value if option.multiple else [value]:
                words += [option.opts[0], str(one)]
    return words


def _read(program: str, values: dict[str, Any], ranks: int, per_node: int) -> tuple[ParticleTable, float | None]:
    """Read the input; returns its table, and the memory in GB that a rank should be given where it is estimated."""
    if program == "sort3d":
        from hpcsort.parallel import SerialComm
        from hpcsort.sort3d import SortOptions
        from hpcsort.sort3d.memory import estimate_memory
        from hpcsort.sort3d.source import read_source

        source = read_source(_taken(SortOptions, values), SerialComm())
        needed = _MARGIN * estimate_memory(source.table, source.options, ranks, per_node).total
        return source.table, (needed + source.options.overhead) / per_node
    if program == "cl2d":
        from hpcsort.cl2d import Cl2dOptions
        from hpcsort.cl2d.source import read_source as read_images

        return read_images(_taken(Cl2dOptions, values)), None
    from hpcsort.io import read_input
    from hpcsort.matching import MatchOptions

    options = _taken(MatchOptions, values | {"use_ctf": not values["no_ctf"], "local": not values["everywhere"]})
    table = read_input(
        options.instack,
        datadir=options.datadir,
        angpix=options.angpix,
        need_poses=options.local,
        need_ctf=options.use_ctf,
        smears=False,
    )
    return table, None


def _taken(kind: type[Options], values: dict[str, Any]) -> Options:
    """Options of a program, as far as they have the names of the command line."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})
