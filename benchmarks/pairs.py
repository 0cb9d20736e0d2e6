"""Time and memory of extract-pairs beside a plain read of the same micrographs.

    python benchmarks/pairs.py [--size 4096] [--pairs 20] [--particles 300] [--box 200] [--ranks 1] [--work DIR]

Makes micrographs of noise with dust (float32 MRC, 2 A), coordinates all over them and CTFs, reads the files once so
that they are in the page cache, and prints a table: each row is one run of the command, started anew;
CPU seconds a micrograph are without the start.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from hpcsort.io import write_stack, write_tables

PIXEL_A = 2.0
TILT_DEG = 50.0
ROWS: dict[str, list[str]] = {
    "windows only": ["--no-dust", "--normalize", "none"],
    "ramp, dust (the default)": [],
    "and phases flipped": ["--phase-flip", "CTFS"],
    "and downsampled by 2, half the box": ["--phase-flip", "CTFS", "--downsample", "2", "HALF"],
    "flipped along the gradient": ["--phase-flip", "CTFS", "--tilted-defocus", "gradient", "--tilt-sign", "+"],
}
_PEAK = """
import resource, runpy, sys
from pathlib import Path
from hpcsort.parallel import get_comm, peak_memory_of_node_GB
comm = get_comm()
out, sys.argv = sys.argv[1], ["hpcsort", *sys.argv[2:]]
from hpcsort.cli.main import main
main()
peak = peak_memory_of_node_GB(comm)
if comm.is_root:
    Path(out).write_text(str(peak))
"""


def make_set(folder: Path, size: int, pairs: int, particles: int) -> None:
    """Write micrographs, coordinates, CTFs and the table of pairs."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((size, size), np.float32) * 3 + 100
    for name in ("mics", "picks"):
        (folder / name).mkdir(parents=True)
    names: dict[str, list[str]] = {"u": [], "t": []}
    for number in range(pairs):
        untilted = rng.uniform(0, size - 1, (particles, 2))
        tilted = (untilted - size / 2) * [np.cos(np.deg2rad(TILT_DEG)), 1] + size / 2
        for letter, xy in (("u", untilted), ("t", tilted)):
            # other noise each time at the price of a shift
            image = np.roll(noise, rng.integers(0, size, 2), axis=(0, 1))
            image[rng.integers(0, size, size // 10), rng.integers(0, size, size // 10)] = 1000
            name = f"m{number:03d}_{letter}"
            write_stack(folder / f"mics/{name}.mrc", image[None], (1, size, size), PIXEL_A)
            table = pd.DataFrame({"rlnCoordinateX": xy[:, 0], "rlnCoordinateY": xy[:, 1]})
            write_tables(folder / f"picks/{name}.star", {"": table})
            names[letter].append(f"mics/{name}.mrc")
    write_tables(
        folder / "pairs.star",
        {"": pd.DataFrame({"hpcsortUntiltedMicrographName": names["u"], "hpcsortTiltedMicrographName": names["t"]})},
    )
    for letter in "ut":
        columns = {"rlnMicrographName": names[letter], "rlnDefocusU": 15000.0, "rlnDefocusV": 14000.0}
        scope = {"rlnDefocusAngle": 20.0, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7}
        frame = pd.DataFrame(columns | scope | {"rlnAmplitudeContrast": 0.1})
        write_tables(folder / f"ctf_{letter}.star", {"": frame})


def read_all(folder: Path) -> tuple[float, float]:
    """Read every micrograph into memory; seconds and GB."""
    start, total = time.perf_counter(), 0
    buffer = bytearray(1 << 24)
    for path in sorted((folder / "mics").iterdir()):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return time.perf_counter() - start, total / 1e9


def run(folder: Path, options: list[str], box: int, ranks: int) -> tuple[float, float, float, int]:
    """Run the command; seconds, CPU seconds, peak memory in GB, pairs kept."""
    words: list[str] = []
    for word in options:
        if word == "CTFS":
            words += ["--ctf-untilted", str(folder / "ctf_u.star"), "--ctf-tilted", str(folder / "ctf_t.star")]
        elif word != "HALF":
            words.append(word)
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    words += ["--pairs", str(folder / "pairs.star"), "--coordinates", str(folder / "picks"), "--invert", "--output"]
    words += [str(out), "--box", str(box // 2 if "HALF" in options else box), "--no-report", "--quiet"]
    launch = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)] if ranks > 1 else []
    command = [*launch, sys.executable, "-c", _PEAK, str(folder / "peak"), "extract-pairs", *words]
    start, used = time.perf_counter(), _cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, cpu = time.perf_counter() - start, _cpu_s() - used
    if done.returncode:
        raise SystemExit(done.stderr)
    size = (out / "untilted.mrcs").stat().st_size - 1024
    edge = box // 2 if "HALF" in options else box
    return wall, cpu, float((folder / "peak").read_text()), size // (4 * edge * edge)


def start_up() -> tuple[float, float]:
    """Seconds and CPU seconds until the program could begin."""
    start, used = time.perf_counter(), _cpu_s()
    subprocess.run([sys.executable, "-c", "import hpcsort.pairs, hpcsort.parallel as p; p.get_comm()"], check=True)
    return time.perf_counter() - start, _cpu_s() - used


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 4096), ("pairs", 20), ("particles", 300), ("box", 200), ("ranks", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--work", type=Path, help="folder for the files, which are removed")
    asked = parser.parse_args()
    print(f"{asked.pairs} pairs of {asked.size} px, {asked.particles} particles each, {asked.ranks} rank(s)")
    with tempfile.TemporaryDirectory(dir=asked.work) as name:
        folder = Path(name)
        make_set(folder, asked.size, asked.pairs, asked.particles)
        read_all(folder)
        wall, gigabytes = read_all(folder)
        print("\n| run | s | CPU s | CPU s a micrograph | GB of micrographs a CPU s | peak GB | pairs kept |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        count = 2 * asked.pairs
        print(f"| plain read, cached | {wall:.2f} | {wall:.2f} | {wall / count:.3f} | {gigabytes / wall:.2f} | | |")
        start_s, start_cpu = start_up()
        print(f"| start of the program | {start_s:.1f} | {start_cpu:.1f} | | | | |")
        for row, options in ROWS.items():
            wall, cpu, peak, kept = run(folder, options, asked.box, asked.ranks)
            work = cpu - start_cpu * asked.ranks
            speed = f"{work / count:.2f} | {gigabytes / work:.2f}"
            print(f"| {row} | {wall:.1f} | {cpu:.1f} | {speed} | {peak:.2f} | {kept} |", flush=True)


if __name__ == "__main__":
    main()
