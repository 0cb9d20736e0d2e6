"""The estimate of a sort's memory against what sorts have used.

    python benchmarks/memory.py [--work DIR] [--rows NAME,...]

Each row simulates particles (the built-in phantom in three states, SNR 0.2), gives them smears where it says so, and
sorts them. It prints the estimate made before, the same told of the number of groups and the last good shell of the FSC
that were found, and the measured peak of the node: the sum over its ranks of their largest resident sets, with
libraries and shared arrays once.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from _sets import HPCSORT

from hpcsort.io import Smears, read_input, read_particles, write_particles, write_smears
from hpcsort.sort3d import SortOptions
from hpcsort.sort3d.memory import estimate_memory

HEADS = (
    "particles",
    "box px",
    "poses",
    "ranks",
    "options",
    "groups",
    "shell",
    "before GB",
    "told of them",
    "measured",
    "error %",
)
_SORT = """
import json, sys
from pathlib import Path
from hpcsort.parallel import abort_on_error, get_comm, peak_memory_of_node_GB
from hpcsort.sort3d import SortOptions, sort3d
comm = get_comm()
with abort_on_error(comm):
    star, out, more = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    result = sort3d(SortOptions(instack=star, output_dir=out, quiet=True, **more), comm)
    peak = peak_memory_of_node_GB(comm)
    groups = comm.bcast(len(result.groups))
    if comm.is_root:
        Path(sys.argv[4]).write_text(json.dumps({"peak": peak, "groups": groups}))
"""
_BRIEF: dict[str, object] = {"components": 2, "max_groups": 2, "depth_order": 1}


@dataclass(frozen=True)
class Row:
    """A sort: particles, box, poses of each particle, ranks, options."""

    particles: int
    box_px: int
    poses: int = 1
    ranks: int = 1
    options: dict[str, object] = field(default_factory=dict)


ROWS = {
    "small": Row(1500, 32),
    "ranks": Row(1500, 32, ranks=2),
    "many": Row(6000, 32),
    "both": Row(6000, 32, ranks=2),
    "middle": Row(3000, 64),
    "large": Row(300, 128),
    "smears": Row(3000, 64, 20, options=_BRIEF),
    "fly": Row(3000, 64, 20, options=_BRIEF | {"compute_on_the_fly": True}),
    "shared": Row(1500, 32, 10, ranks=2, options=_BRIEF),
    "crowd": Row(20000, 32, options=_BRIEF),
    "window": Row(1500, 64, options=_BRIEF | {"nxinit": 60}),
}


def make_input(row: Row, work: Path) -> Path:
    """Simulate the particles of a row, or take those that an earlier row made; returns the table."""
    folder = work / f"{row.particles}_{row.box_px}"
    star = folder / "particles.star"
    if not star.exists():
        angpix = str(320 / row.box_px)
        asked = ["--particles", str(row.particles), "--box", str(row.box_px), "--angpix", angpix, "--snr", "0.2"]
        subprocess.run(
            [*HPCSORT, "simulate", str(folder), *asked, "--states", "3", "--seed", "1"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return star if row.poses == 1 else _with_smears(star, row.poses)


def _with_smears(star: Path, poses: int) -> Path:
    """Give each particle poses around the true one."""
    out = star.with_name(f"smears_{poses}.star")
    if out.exists():
        return out
    table = read_particles(star)
    draw = np.random.default_rng(0)
    owner = np.repeat(np.arange(len(table)), poses)
    angles = table.angles_deg[owner] + draw.normal(scale=1.5, size=(len(owner), 3))
    shifts = table.shifts_px[owner] + draw.normal(scale=0.3, size=(len(owner), 2))
    smears = Smears.of_lists(owner, angles, shifts, draw.random(len(owner)) + 0.1)
    best = smears.first[:-1]
    table = replace(table, angles_deg=smears.angles_deg[best], shifts_px=smears.shifts_px[best])
    write_smears(out.with_suffix(".h5"), smears, table.frame["rlnImageName"].tolist())
    write_particles(out, table, smear_table=out.with_suffix(".h5").name)
    return out


def sort_and_measure(star: Path, row: Row, work: Path) -> tuple[float, int, float]:
    """Measured peak in GB, number of groups, and resolution in A to which the sort was finished."""
    out, told = work / "sorted", work / "told.json"
    shutil.rmtree(out, ignore_errors=True)
    launcher = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(row.ranks)]
    command = [sys.executable, "-c", _SORT, str(star), str(out), json.dumps(row.options), str(told)]
    subprocess.run((launcher if row.ranks > 1 else []) + command, check=True)
    result = json.loads(told.read_text())
    said = re.search(r"finished to ([\d.]+) A", (out / "log.txt").read_text())
    assert said
    return float(result["peak"]), int(result["groups"]), float(said[1])


def compare(name: str, work: Path) -> str:
    """Line of the table."""
    row = ROWS[name]
    star = make_input(row, work)
    options = SortOptions(instack=star, output_dir=work / "sorted", **row.options)  # type: ignore[arg-type]
    table = read_input(star)
    measured, groups, resolution_A = sort_and_measure(star, row, work)
    reach = round(row.box_px * table.pixel_size_A / resolution_A)
    before = estimate_memory(table, options, row.ranks, row.ranks)
    after = estimate_memory(table, options, row.ranks, row.ranks, groups, reach)
    said = " ".join(f"{key}={value}" for key, value in row.options.items()) or "-"
    error = 100 * (before.total / measured - 1)
    cells = (
        row.particles,
        row.box_px,
        row.poses,
        row.ranks,
        said,
        groups,
        reach,
        f"{before.total:.2f}",
        f"{after.total:.2f}",
    )
    return "| " + " | ".join(map(str, (*cells, f"{measured:.2f}", f"{error:+.0f}"))) + " |"


def main() -> None:
    """Measure the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of the sets, kept. [a temporary one]")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        print("| " + " | ".join(HEADS) + " |")
        print("| " + " | ".join(["---:"] * len(HEADS)) + " |", flush=True)
        for name in asked.rows.split(","):
            print(compare(name, work), flush=True)


if __name__ == "__main__":
    main()
