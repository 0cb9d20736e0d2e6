"""Small simulated sets and quiet sorts for the tests of the whole program."""

from __future__ import annotations

import hashlib
from pathlib import Path

import mrcfile
import numpy as np
import starfile

from hpcsort.io import write_tables
from hpcsort.parallel import SerialComm
from hpcsort.simulation import SimulationOptions, SimulationResult, simulate
from hpcsort.sort3d import SortOptions, SortResult, sort3d

BOX, PIXEL_A = 24, 13.3
MAIN = "from hpcsort.cli.main import main; main()"


def simulate_small(out: Path, particles: int, states: int = 2, **more: object) -> SimulationResult:
    given = {"box_px": BOX, "pixel_size_A": PIXEL_A, "snr": 0.5, "shift_sigma_px": 1.0, "seed": 3} | more
    return simulate(SimulationOptions(out=out, states=states, particles=particles, **given))  # type: ignore[arg-type]


def sort_quietly(star: Path, out: Path, **more: object) -> SortResult:
    """Sort as shortly as it goes."""
    given = {"max_groups": 2, "components": 2, "depth_order": 1, "quiet": True} | more
    return sort3d(SortOptions(instack=star, output_dir=out, **given), SerialComm())  # type: ignore[arg-type]


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every file that may not depend on ranks, time and place."""
    found = {path for path in out.rglob("*") if path.is_file() and path.parent.name != "checkpoint"}
    found -= {out / "log.txt", out / "run.json", out / "report.html"}
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


def read_ids(path: Path) -> np.ndarray:
    return np.array(path.read_text().split(), np.int64)


def break_images(made: SimulationResult, **faults: list[int]) -> None:
    with mrcfile.open(made.stack, "r+") as stack:
        stack.data[faults.get("nan", []), 3, 4] = np.nan
        stack.data[faults.get("inf", []), 0, 0] = np.inf
        stack.data[faults.get("constant", [])] = 2.5


def edit_table(made: SimulationResult, **columns: object) -> None:
    tables = starfile.read(made.star)
    for name, value in columns.items():
        if value is None:
            del tables["particles"][name]
        else:
            tables["particles"][name] = value
    write_tables(made.star, tables, overwrite=True)
