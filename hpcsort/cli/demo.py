"""The command `hpcsort demo`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcsort.cli._command import ScriptedCommand
from hpcsort.errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from hpcsort.parallel import Communicator

__all__ = ["command"]

_STATES = 3
_POLL_S = 0.05

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  mpiexec -n 2 hpcsort demo
  mpiexec -n 2 hpcsort demo another_folder --particles 10000 --seed 3
"""


@click.command(
    "demo", cls=ScriptedCommand, short_help="Simulate a small data set, sort it, and compare with the truth.",
    epilog=_EXAMPLES,
)  # fmt: skip
@click.argument("out", type=click.Path(path_type=Path), default=Path("hpcsort_demo"))
@click.option("--particles", type=int, default=4000, show_default=True, help="Number of images of 64 pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the images and of the sort.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left in OUT.")
def command(out: Path, particles: int, seed: int, overwrite: bool) -> dict[str, Any] | None:
    """Simulate a small data set, sort it, and compare with the truth.

    Simulates particles of a phantom like a ribosome in three states into OUT/data, sorts them into OUT/sorted without
    knowing the states, and prints how many particles of each state each group holds. OUT is hpcsort_demo if not given.
    """
    # imported late, so that the help answers at once
    from hpcsort.cli._figures import sort_figures
    from hpcsort.parallel import Progress, get_comm, together
    from hpcsort.simulation import SimulationOptions, simulate
    from hpcsort.sort3d import SortOptions, sort3d

    comm = get_comm()
    data, found = out / "data", out / "sorted"
    with together(comm):
        simulation = SimulationOptions(out=data, particles=particles, states=_STATES, seed=seed, overwrite=overwrite)
        sorting = SortOptions(instack=data / "particles.star", output_dir=found, seed=seed, overwrite=overwrite)
        if comm.is_root:
            _check_folder(out, overwrite)
    if comm.size == 1:
        click.echo(f"Started on one rank; two sort in about half the time: {_mpiexec()} -n 2 hpcsort demo --overwrite")

    def make() -> None:
        click.echo(f"Simulating {particles} images of {_STATES} states into {data}.")
        with Progress("image", particles) as bar:
            simulate(simulation, lambda done, _: bar.step(done - bar.done))

    _on_root(comm, make)
    start = time.perf_counter()
    result = sort3d(sorting, comm)
    seconds = time.perf_counter() - start
    with together(comm):
        if comm.is_root:
            index = _compare(data / "truth.csv", result.labels)
            ranks = "1 rank" if comm.size == 1 else f"{comm.size} ranks"
            click.echo(f"The sort took {seconds:.0f} s on {ranks}; its story is in {found / 'log.txt'}.")
            return {**sort_figures(found), "adjusted_rand_index": index}
    return None


def _check_folder(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, but demo writes a folder; give another name")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise OutputError(f"{out} is not empty; give another folder, or --overwrite to replace the demo in it")


def _mpiexec() -> str:
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else "mpiexec"


def _on_root(comm: Communicator, work: Callable[[], Any]) -> None:
    """Let rank 0 work while the others sleep: a rank that waits inside MPI keeps a core busy. Collective."""
    import numpy as np

    from hpcsort.parallel import together

    state = comm.shared_array(1, np.int64)
    if comm.is_root:
        state.writable[0] = 1
    state.fence()
    is_beside_root = state.array[0] == 1
    state.fence()
    with together(comm):
        if comm.is_root:
            try:
                work()
            finally:
                state.writable[0] = 2
        while is_beside_root and state.array[0] != 2:
            time.sleep(_POLL_S)
    state.free()


def _compare(truth: Path, labels: np.ndarray) -> float:
    """Print the groups against the true states; returns the adjusted Rand index."""
    import pandas as pd
    from rich.console import Console

    from hpcsort.partitions import adjusted_rand_index

    states = pd.read_csv(truth)["state"].to_numpy()
    index = float(adjusted_rand_index(states, labels))
    Console(highlight=False).print(_truth_table(states, labels))
    share = 100 * float((labels >= 0).mean())
    click.echo(
        f"{share:.1f} % of the particles are accounted for; adjusted Rand index of groups and states {index:.3f}."
    )
    return index


def _truth_table(states: np.ndarray, labels: np.ndarray) -> Table:
    """Count the particles of each true state in each group; the last row holds the unaccounted ones."""
    import numpy as np
    from rich.table import Table

    from hpcsort.partitions import contingency_table, purities

    count = int(states.max(initial=-1)) + 1
    table = Table(title="Particles of the true states in the groups found")
    table.add_column("group")
    for state in range(count):
        table.add_column(f"state {state}", justify="right")
    table.add_column("purity", justify="right")
    pure = purities(states, labels)
    for group, row in enumerate(contingency_table(labels, states, groups_b=count).tolist()):
        table.add_row(str(group), *map(str, row), f"{100 * pure[group]:.1f} %")
    rest = np.bincount(states[(labels < 0) & (states >= 0)], minlength=count).tolist()
    table.add_row("unaccounted", *map(str, rest), "")
    return table
