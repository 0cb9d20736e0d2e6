"""Sorts of large sets: time of each stage, CPU time and memory of the node; prints the tables of large.md.

    python benchmarks/large.py --work DIR [--particles 100000] [--ranks 2]
    python benchmarks/large.py --work DIR --first 10000,20000,40000 --ranks 1    how cost grows with particles
    python benchmarks/large.py --work DIR --first 20000 --ranks 1,2              two ranks against one

The set (five states of the ribosome, or of the built-in phantom without its map) is simulated once, 6.6 GB for 100,000
images of 128 px, and kept in DIR. Memory is sampled twice a second: the proportional set sizes of all processes of the
run, in which what several of them share counts once; mapped files, such as libraries, are left out. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import starfile
from _sets import HPCSORT, SHARED

_MAP = "ribosome70S_65px_5A.mrc"
_EDGE_A, _DOMAIN_A = 320.0, 60.0
_PERIOD_S = 0.5


@dataclass(frozen=True)
class Run:
    """One sort: particles, ranks, CPU and wall seconds, peak of the node in GB, what its record says."""

    particles: int
    ranks: int
    cpu_s: float
    wall_s: float
    memory_GB: float
    stages: dict[str, float]
    groups: int
    accounted: int


def make_set(work: Path, particles: int, box: int) -> Path:
    """Return the STAR file of the simulated set."""
    folder = work / f"set_{particles}_{box}px"
    if not (folder / "truth.csv").exists():
        path = SHARED / "data" / "maps" / _MAP
        source = ["--map", str(path)] if path.exists() else []
        pixel_A = _EDGE_A / box
        snr = 0.2 * (64 / box) ** 2
        words = ["--box", box, "--angpix", pixel_A, "--particles", particles, "--states", 5, "--snr", snr]
        words += ["--domain-radius", _DOMAIN_A / pixel_A, "--seed", 21]
        subprocess.run([*HPCSORT, "simulate", str(folder), *source, *map(str, words)], check=True)
    return folder / "particles.star"


def first_particles(star: Path, count: int) -> Path:
    """Return a STAR file with the first particles of another."""
    tables = starfile.read(star, always_dict=True)
    if count >= len(tables["particles"]):
        return star
    path = star.parent / f"first_{count}.star"
    starfile.write({**tables, "particles": tables["particles"].iloc[:count]}, path, overwrite=True)
    return path


def sort(star: Path, particles: int, ranks: int, output: Path) -> Run:
    """Sort with default options and look at the processes meanwhile."""
    before, start = _children_s(), time.monotonic()
    process = subprocess.Popen(
        ["mpiexec", "-n", str(ranks), *HPCSORT, "sort3d", "--instack", str(star), "--output-dir", str(output),
         "--overwrite", "--quiet"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    most = 0
    while process.poll() is None:
        most = max(most, sum(_proportional_bytes(pid) for pid in _descendants(process.pid)))
        time.sleep(_PERIOD_S)
    if process.returncode:
        raise SystemExit(f"the sort of {star} ended with exit code {process.returncode}; its log is in {output}.")
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    sizes = [group["size"] for group in record["groups"]]
    return Run(
        particles, ranks, _children_s() - before, time.monotonic() - start, most / 1e9,
        record["seconds"], len(sizes), sum(sizes),
    )  # fmt: skip


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _descendants(root: int) -> list[int]:
    """Return a process and all that it started, and those started."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += parents.get(pid, [])
    return found


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def table(runs: list[Run]) -> str:
    """Format the runs as Markdown."""
    stages = list(runs[0].stages)
    lines = [
        "| particles | ranks | " + " | ".join(f"{stage} s" for stage in stages)
        + " | wall s | CPU s | CPU ms a particle | memory of the node GB | groups | accounted % |",
        "|" + "---:|" * (8 + len(stages)),
    ]  # fmt: skip
    for run in runs:
        spent = " | ".join(f"{run.stages[stage]:.1f}" for stage in stages)
        lines.append(
            f"| {run.particles} | {run.ranks} | {spent} | {run.wall_s:.0f} | {run.cpu_s:.0f} | "
            f"{1e3 * run.cpu_s / run.particles:.2f} | {run.memory_GB:.2f} | {run.groups} | "
            f"{100 * run.accounted / run.particles:.1f} |"
        )
    return "\n".join(lines) + "\n"


def exponent(runs: list[Run]) -> str:
    """Say how CPU time grows with particles, among runs of one rank number."""
    told = []
    for ranks in sorted({run.ranks for run in runs}):
        chosen = [run for run in runs if run.ranks == ranks]
        if len({run.particles for run in chosen}) > 1:
            slope = np.polyfit(np.log([r.particles for r in chosen]), np.log([r.cpu_s for r in chosen]), 1)[0]
            told.append(f"{ranks} rank{'s' if ranks > 1 else ''}: CPU time grows as particles^{slope:.2f}.\n")
    return "".join(told)


def main() -> None:
    """Simulate, sort, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--particles", type=int, default=100_000)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--first", help="sort the first particles only; several numbers, with commas")
    parser.add_argument("--ranks", default="2", help="several numbers, with commas, alternate")
    options = parser.parse_args()
    star = make_set(options.work, options.particles, options.box)
    counts = [int(word) for word in options.first.split(",")] if options.first else [options.particles]
    runs = [
        sort(first_particles(star, count), count, ranks, options.work / f"sorted_{count}_{ranks}")
        for count in counts
        for ranks in (int(word) for word in options.ranks.split(","))
    ]
    print(table(runs) + "\n" + exponent(runs), end="")


if __name__ == "__main__":
    main()
