"""What the user asks of the cluster, validated once."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from hpcsort.errors import OptionError, require

__all__ = ["SubmitOptions"]


@dataclass(frozen=True)
class SubmitOptions:
    """Resources of a job and how it is submitted.

    Attributes
    ----------
    nodes : number of nodes.
    tasks_per_node : MPI ranks on each of them, a core each.
    time : limit, as the batch system writes it.
    memory_GB : for each rank.
    queue, account : names at the site; None where the site does not ask for them.
    job_name : name of the job; None is that of the results.
    seeds : number of runs with seeds that follow each other, each in a folder of its own; None is one run.
    scratch : folder on the nodes' own disks to which the stacks are copied first.
    environment : folder of the virtual environment on the nodes.
    launcher : words that start the ranks inside the job.
    template : the user's own script, with variables of RELION or cryoSPARC.
    variables : further variables of that template.
    submit_command : words before the name of the script.
    overwrite : replace an earlier script, and in the job earlier results.
    """

    nodes: int = 1
    tasks_per_node: int = 16
    time: str = "04:00:00"
    memory_GB: float = 4.0
    queue: str | None = None
    account: str | None = None
    job_name: str | None = None
    seeds: int | None = None
    scratch: str | None = None
    environment: str = sys.prefix
    launcher: str = "srun --mpi=pmix"
    template: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    submit_command: str = "sbatch"
    overwrite: bool = False

    def __post_init__(self) -> None:
        require("--nodes", self.nodes, self.nodes >= 1, "1 or more")
        require("--tasks-per-node", self.tasks_per_node, self.tasks_per_node >= 1, "1 or more")
        require("--memory", self.memory_GB, 0 < self.memory_GB < float("inf"), "GB for each rank")
        require("--seeds", self.seeds, self.seeds is None or self.seeds >= 1, "1 or more")
        if self.template is not None and self.scratch is not None:
            raise OptionError("--scratch belongs to the scripts of hpcsort; copy the stacks in your template instead.")
        if self.template is None and self.variables:
            raise OptionError(f"--set {next(iter(self.variables))} belongs to a template; name it with --template.")
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, str) and not is_one_line(value):
                raise OptionError(f"--{one.name.replace('_', '-')} {value!r} is not one line of text; correct it.")
        for name in ("launcher", "submit_command"):
            try:
                shlex.split(getattr(self, name))
            except ValueError as error:
                option = name.replace("_", "-")
                raise OptionError(f"--{option} {getattr(self, name)} is no command ({error}); correct it.") from error

    @property
    def ranks(self) -> int:
        """Number of MPI ranks in all."""
        return self.nodes * self.tasks_per_node


def is_one_line(text: str) -> bool:
    """Whether a text can stand in a line of a job script."""
    return bool(text) and re.search(r"[\x00-\x1f\x7f]", text) is None
