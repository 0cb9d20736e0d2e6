"""The job scripts of a run: the package's own script or the user's template, with everything filled in."""

from __future__ import annotations

import getpass
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpcsort.cluster.options import SubmitOptions, is_one_line
from hpcsort.cluster.templates import fill_cryosparc, fill_relion, fill_shipped, shipped_script
from hpcsort.errors import InputError, OptionError

__all__ = ["JobScript", "Task", "job_scripts"]


@dataclass(frozen=True)
class Task:
    """What a job runs: hpcsort PROGRAM OUTPUT_OPTION OUTPUT WORDS.

    Attributes
    ----------
    program : command of hpcsort.
    output_option, output : where the results go.
    words : all other options.
    can_resume : whether the program goes on after a stop.
    first_seed : seed of the first run of several; None if the program has no seed.
    stacks : files of the images, for a copy on the nodes' own disks.
    """

    program: str
    output_option: str
    output: Path
    words: tuple[str, ...]
    can_resume: bool
    first_seed: int | None
    stacks: tuple[Path, ...] = ()

    def beside(self, ending: str) -> Path:
        """Return a path beside the results."""
        place = self.output.absolute()
        return place.with_name(place.name + ending)

    def command(self, options: SubmitOptions) -> list[str]:
        """Words of the whole command, without what starts the ranks."""
        begin = ["--overwrite"] if options.overwrite else ["--resume"] if self.can_resume else []
        program = str(Path(options.environment) / "bin" / "hpcsort")
        return [program, self.program, self.output_option, str(self.output), *begin, *self.words]


@dataclass(frozen=True)
class JobScript:
    """A script that is ready to be written.

    Attributes
    ----------
    path : of the script.
    text : of the script.
    stacks : file with the list of stacks that the script copies, if any.
    stack_list : what it holds.
    """

    path: Path
    text: str
    stacks: Path | None = None
    stack_list: str = ""


def job_scripts(task: Task, options: SubmitOptions) -> list[JobScript]:
    """Fill in the scripts of a task: one, or one for each seed where the user's template knows no arrays.

    Raises
    ------
    InputError, OptionError
        The template cannot be read or filled in, or an option does not belong to the program.
    """
    for text in (*task.words, str(task.output), *map(str, task.stacks)):
        if not is_one_line(text):
            raise OptionError(f"{text!r} is not one line of text and cannot stand in a job script; rename it.")
    if options.seeds is not None and task.first_seed is None:
        raise OptionError(f"--seeds needs random numbers, and {task.program} has none; leave it out.")
    if options.template is None:
        return [_own_script(task, options)]
    if options.seeds is None:
        return [_users_script(task, options, options.template)]
    assert task.first_seed is not None
    seeds = range(task.first_seed, task.first_seed + options.seeds)
    runs = [
        replace(task, output=task.output / f"seed_{seed}", words=(*task.words, "--seed", str(seed))) for seed in seeds
    ]
    return [_users_script(run, options, options.template) for run in runs]


def _own_script(task: Task, options: SubmitOptions) -> JobScript:
    source = shipped_script(task.program)
    number = "%j" if options.seeds is None else "%A_%a"
    log = str(task.beside("_")).replace("%", "%%") + f"{number}.out"
    directives = {
        "job-name": options.job_name or task.output.absolute().name,
        "output": log,
        "nodes": str(options.nodes),
        "ntasks-per-node": str(options.tasks_per_node),
        "mem-per-cpu": f"{math.ceil(options.memory_GB * 1e9 / 2**20)}M",
        "time": options.time,
        "chdir": str(Path.cwd()),
    }
    settings = {
        "environment": shlex.quote(options.environment),
        "launcher": f"({shlex.join(shlex.split(options.launcher))})",
        "output": shlex.quote(str(task.output)),
    }
    words = list(task.words)
    if options.queue is not None:
        directives["partition"] = options.queue
    if options.account is not None:
        directives["account"] = options.account
    if options.seeds is not None and task.first_seed is not None:
        directives["array"] = f"{task.first_seed}-{task.first_seed + options.seeds - 1}"
    if task.can_resume:
        settings["begin"] = "--overwrite" if options.overwrite else "--resume"
    elif options.overwrite:
        words.append("--overwrite")
    settings["options"] = f"({shlex.join(words)})"
    stacks = None
    if options.scratch is not None:
        stacks = task.beside(".stacks")
        settings |= {"scratch": shlex.quote(options.scratch), "stacks": shlex.quote(str(stacks))}
    text = fill_shipped(source.read_text(encoding="utf-8"), directives, settings)
    listed = "".join(f"{path.absolute()}\n" for path in task.stacks)
    return JobScript(task.beside(source.suffix), text, stacks, listed)


def _users_script(task: Task, options: SubmitOptions, source: Path) -> JobScript:
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the template {source} cannot be read ({error}); name another with --template.") from error
    if "XXXcommandXXX" in text:
        text = fill_relion(text, _relion_values(task, options), source)
    elif "{{" in text or "{%" in text:
        text = fill_cryosparc(text, _cryosparc_values(task, options), source)
    else:
        raise InputError(
            f"the template {source} has neither XXXcommandXXX, as RELION's, nor {{{{ run_cmd }}}}, as cryoSPARC's; add"
            " one."
        )
    return JobScript(task.beside(source.suffix or ".sh"), text)


def _relion_values(task: Task, options: SubmitOptions) -> dict[str, str]:
    """Variables of RELION's job submission; a rank is one thread."""
    queue = {} if options.queue is None else {"queue": options.queue}
    return {
        "name": options.job_name or task.output.absolute().name,
        "outfile": str(task.beside(".out")),
        "errfile": str(task.beside(".err")),
        "mpinodes": str(options.ranks),
        "threads": "1",
        "cores": str(options.ranks),
        "dedicated": str(options.tasks_per_node),
        "nodes": str(options.nodes),
        "command": shlex.join(task.command(options)),
        **queue,
        **options.variables,
    }


def _cryosparc_values(task: Task, options: SubmitOptions) -> dict[str, object]:
    """Variables of cryoSPARC's cluster_script.sh; projects and users are this folder and this user."""
    command, user = task.command(options), getpass.getuser()
    place = task.output.absolute()
    words: Sequence[str] = [*shlex.split(options.launcher), *command]
    return {
        "run_cmd": shlex.join(words),
        "num_cpu": options.ranks,
        "num_gpu": 0,
        "ram_gb": options.memory_GB * options.ranks,
        "job_dir_abs": str(place if task.output_option == "--output-dir" else place.parent),
        "project_dir_abs": str(Path.cwd()),
        "job_log_path_abs": str(task.beside(".out")),
        "worker_bin_path": command[0],
        "run_args": shlex.join(command[1:]),
        "project_uid": Path.cwd().name,
        "job_uid": options.job_name or place.name,
        "job_creator": user,
        "cryosparc_username": user,
        "job_type": task.program,
        **options.variables,
    }
