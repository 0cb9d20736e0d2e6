"""The simulated sets that the benchmarks share."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("HPCSORT_SHARED", ROOT.parent / "shared"))
"""Folder of reference files: the map of the ribosome and the set dev5."""

HPCSORT = [sys.executable, "-c", "from hpcsort.cli.main import main; main()"]
"""The command, of the package that this Python imports."""
_FIVE = ("--states", "5", "--snr", "0.2", "--domain-radius", "12")
_SIXTEEN = (
    "9076,14378,23547,44366,30647,38500,3915,3980,12740,11975,17988,5001,35367,37448,40540,5772"  # of 335,240 particles
)


@dataclass(frozen=True)
class BenchmarkSet:
    """A set: what it is, the options of `hpcsort simulate` that make it, its number of states (kinds of junk too)."""

    told: str
    options: tuple[str, ...] = ()
    states: int = 5
    map: str | None = "ribosome70S_65px_5A.mrc"
    box: tuple[str, str] = ("64", "5")


SETS: dict[str, BenchmarkSet] = {
    "seed": BenchmarkSet(
        "17,280 ribosomes, five even states, SNR 0.2", ("--particles", "17280", *_FIVE, "--seed", "1")
    ),
    "dev5": BenchmarkSet("5,000 ribosomes by another simulator, five states, one lacks 4 % of the mass"),
    "uneven": BenchmarkSet(
        "6,000 ribosomes, 60/20/10/7/3 %", ("--particles", "6000", *_FIVE, "--sizes", "60,20,10,7,3", "--seed", "3")
    ),
    "junk": BenchmarkSet(
        "6,000 ribosomes, 20 % junk", ("--particles", "6000", *_FIVE, "--junk", "0.2", "--seed", "4"), 7
    ),
    "poses": BenchmarkSet(
        "6,000 ribosomes, pose errors of 2 degrees and 0.5 px per axis",
        ("--particles", "6000", *_FIVE, "--angle-error", "2", "--shift-error", "0.5", "--seed", "5"),
    ),
    "preferred": BenchmarkSet(
        "6,000 ribosomes, 60 % in a cone of views",
        ("--particles", "6000", *_FIVE, "--preferred", "0.6", "--seed", "8"),
    ),
    "rotation": BenchmarkSet(
        "6,000 ribosomes, a domain turned in five steps of 4 degrees",
        ("--particles", "6000", *_FIVE, "--rotate", "4", "--seed", "9"),
    ),
    "low": BenchmarkSet(
        "8,000 ribosomes, SNR 0.1, domains of 10 px",
        ("--particles", "8000", "--states", "5", "--snr", "0.1", "--domain-radius", "10", "--seed", "7"),
    ),
    "single": BenchmarkSet(
        "6,000 ribosomes of one state", ("--particles", "6000", "--states", "1", "--snr", "0.2", "--seed", "2"), 1
    ),
    "phantom": BenchmarkSet(
        "4,000 particles of the built-in phantom, three states (the demo)",
        ("--particles", "4000", "--states", "3", "--seed", "6"),
        3,
        None,
    ),
    "coloured": BenchmarkSet(
        "5,000 of the phantom at 48 px, four states, coloured noise, SNR 0.1",
        ("--particles", "5000", "--states", "4", "--snr", "0.1", "--noise", "coloured", "--seed", "11"),
        4,
        None,
        ("48", "7"),
    ),
    "sixteen": BenchmarkSet(
        "40,000 ribosomes, sixteen nested states of 1.2 to 13.2 %, each lacks 5 % of the mass more, SNR 0.05",
        (
            "--particles",
            "40000",
            "--nested",
            "--domain-share",
            "0.05",
            "--sizes",
            _SIXTEEN,
            "--snr",
            "0.05",
            "--seed",
            "16",
        ),
        16,
    ),
}


def make_set(name: str, work: Path, shared: Path = SHARED) -> Path | None:
    """Return the folder of a set, simulated unless it is there; None where dev5 is absent.

    Without the map of the ribosome the built-in phantom takes its place.
    """
    made = SETS[name]
    if not made.options:
        folder = shared / "data" / name
        return folder if folder.is_dir() else None
    folder = work / name
    if not (folder / "truth.csv").exists():
        path = shared / "data" / "maps" / made.map if made.map else None
        source = ["--map", str(path)] if path and path.exists() else []
        command = [*HPCSORT, "simulate", str(folder), *source]
        words = ["--box", made.box[0], "--angpix", made.box[1], *made.options]
        subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)
    return folder
