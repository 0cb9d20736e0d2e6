"""Strong and weak scaling of sort3d, a model fitted to it, and what the model says of other machines.

    python benchmarks/scaling.py --work DIR --ranks 1,2                        on a workstation, by mpiexec
    python benchmarks/scaling.py --work DIR --nodes 1,2,4 --tasks-per-node 16  inside a SLURM allocation, by srun
    python benchmarks/scaling.py --work DIR --ranks 1 --particles 10000,20000,40000      cost against particles
    python benchmarks/scaling.py --work DIR --ranks 1 --depth-order 1,2,3                cost against chains

Particles of the built-in phantom are simulated in DIR and kept. All cases are run in turn, as often as --repeats says.
Writes measured.csv, bytes.csv, predicted.csv and scaling.png into DIR and prints the same as Markdown. Times are of one
run each; CPU seconds are between collectives, so that waiting for other ranks is not in them. Predictions are marked.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _scaling_bytes import read_course
from _scaling_model import Network, fit_model
from _scaling_plot import draw
from _scaling_runs import Run, run_of
from _scaling_tables import (
    MARK,
    bytes_rows,
    exponent,
    fit_rows,
    markdown,
    measured_rows,
    predicted_rows,
    write_csv,
)
from _sets import HPCSORT

_SORT = Path(__file__).with_name("_scaling_run.py")
_SPEEDS = {"1 Gb/s": (1.25e8, 50e-6), "10 Gb/s": (1.25e9, 20e-6), "100 Gb/s": (1.25e10, 2e-6)}
"""Bandwidth, and the latency that such networks have (Ethernet by TCP, the last one InfiniBand): assumed."""
_RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)


@dataclass(frozen=True)
class Case:
    """A sort to measure."""

    ranks: int
    nodes: int
    particles: int
    depth: int


def _cases(asked: argparse.Namespace) -> list[Case]:
    if asked.nodes or asked.emulated_nodes:
        places = [(nodes * asked.tasks_per_node, nodes) for nodes in asked.nodes or asked.emulated_nodes]
    else:
        places = [(ranks, 1) for ranks in asked.ranks]
    if asked.weak:
        sizes = [((ranks, nodes), count * ranks) for (ranks, nodes), count in product(places, asked.particles)]
    else:
        sizes = list(product(places, asked.particles))
    return [Case(*place, count, depth) for place, count in dict.fromkeys(sizes) for depth in asked.depth_order]


def _simulated(asked: argparse.Namespace, particles: int) -> Path:
    folder = Path(asked.work) / f"{particles}_{asked.box}px"
    star = folder / "particles.star"
    if not (folder / "truth.csv").exists():
        words = ["--box", str(asked.box), "--angpix", str(320 / asked.box), "--particles", str(particles)]
        words += ["--snr", "0.2", "--states", "3", "--seed", "1"]
        subprocess.run([*HPCSORT, "simulate", str(folder), *words], check=True, stdout=subprocess.DEVNULL)
    return star


def _measured(asked: argparse.Namespace, case: Case) -> Run:
    """Sort once and read what came out."""
    out, result = asked.work / "sorted", asked.work / "result.json"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, str(_SORT), str(_simulated(asked, case.particles)), str(out), str(result)]
    command += ["--depth-order", str(case.depth)]
    if asked.interface:
        command += ["--interface", asked.interface]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if asked.nodes:
        launcher = [*asked.srun.split(), f"--nodes={case.nodes}", f"--ntasks={case.ranks}"]
        launcher.append(f"--ntasks-per-node={asked.tasks_per_node}")
    else:
        launcher = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(case.ranks)]
    if asked.emulated_nodes:
        # MPICH takes so many ranks that follow each other for a node, and speaks TCP between nodes.
        environment |= {"MPIR_CVAR_NUM_CLIQUES": str(case.nodes), "MPIR_CVAR_CLIQUES_BY_BLOCK": "1"}
        environment["UCX_TLS"] = "tcp,self"
    subprocess.run([*launcher, *command], check=True, env=environment)
    return run_of(json.loads(result.read_text(encoding="utf-8")), read_course(out))


def _sweep(runs: list[Run]) -> list[str]:
    """Sentences on how CPU time grows with particles and with chains."""
    alone = [run for run in runs if run.ranks == 1]
    told = []
    for what, sizes in (("particles", [run.particles for run in alone]), ("chains", [run.chains for run in alone])):
        if len(set(sizes)) > 1:
            power = exponent(sizes, [run.busy for run in alone])
            each = ", ".join(f"{size}: {run.busy:.1f} s" for run, size in zip(alone, sizes, strict=True))
            told.append(f"CPU time of one rank by {what}: {each}; it grows as {what}^{power:.2f}.")
    return told


def _ranks(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of sets and results")
    parser.add_argument("--ranks", type=_ranks, default=[1, 2], help="numbers of ranks on this machine")
    parser.add_argument("--nodes", type=_ranks, help="numbers of nodes of the allocation")
    parser.add_argument("--tasks-per-node", type=int, default=1, help="ranks of a node, emulated ones' too")
    parser.add_argument("--srun", default="srun", help='how a job step is started, for example "srun --mpi=pmi2"')
    parser.add_argument("--emulated-nodes", type=_ranks, help="numbers of nodes that this machine stands for (MPICH)")
    parser.add_argument("--interface", help="network interface whose counter of sent bytes is read, for example lo")
    parser.add_argument("--particles", type=_ranks, default=[4000])
    parser.add_argument("--weak", action="store_true", help="--particles is for each rank")
    parser.add_argument("--depth-order", type=_ranks, default=[2])
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--predict-particles", type=int, help="of the predictions. [those measured]")
    parser.add_argument("--ranks-per-node", type=int, default=16, help="of the predictions")
    return parser.parse_args()


def main() -> None:
    """Measure, fit, predict, write."""
    asked = _parse()
    asked.work.mkdir(parents=True, exist_ok=True)
    runs = [_measured(asked, case) for case in _cases(asked) * asked.repeats]
    model = fit_model(runs)
    reference = max(runs, key=lambda run: (-run.ranks, run.particles))
    particles = asked.predict_particles or reference.particles
    networks = [Network(name, *speed) for name, speed in _SPEEDS.items()]
    predicted = predicted_rows(model, reference, networks, _RANKS, asked.ranks_per_node, particles)
    tables: dict[str, list[dict[str, Any]]] = {
        "measured": measured_rows(runs),
        "bytes": bytes_rows(runs),
        "predicted": predicted,
    }
    print("Measured\n\n" + markdown(tables["measured"]))
    print("\n".join(_sweep(runs)))
    print("\nBytes\n\n" + markdown(tables["bytes"]))
    print("Fitted rates\n\n" + markdown(fit_rows(model)))
    left = 100 * np.abs(model.residuals)
    print(f"Residuals of {len(left)} equations: {np.sqrt((left**2).mean()):.0f} % (rms), largest {left.max():.0f} %.")
    print(f"Not told by these runs: {', '.join(model.unmeasured) or 'nothing'}.\n")
    print(f"Predicted ({MARK}), {asked.ranks_per_node} ranks a node\n\n" + markdown(predicted))
    for name, rows in tables.items():
        write_csv(asked.work / f"{name}.csv", rows)
    draw(asked.work / "scaling.png", runs, model, reference, networks, _RANKS, asked.ranks_per_node, particles)


if __name__ == "__main__":
    main()
