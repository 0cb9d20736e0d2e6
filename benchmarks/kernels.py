"""Speed of every kernel beside what the machine can do at most, measured in the same run, and of exact sums.

    python benchmarks/kernels.py [--markdown FILE] [--repeats 4] [--bands 14,31]

FILE is written anew but for what follows its line "## Tried".

Bands of 14 and 18 Fourier pixels are those that sorting uses of a particle that fills its box, whatever the box; 31, 63
and 127 are the full bands of 64, 128 and 256 px. One thread; fastest of interleaved repeats in CPU time, each repeat
with orientations of its own. Particles are neighbours in a set sorted by view direction, as the programs deal them;
with smears each has 20 poses, rows of their own.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from _ceilings import LEVELS, Ceilings
from _kernel_cases import Array, Bench, latent_benches, particles, pixel_benches
from _kernel_sums import CHUNK, exact_sums, sums_table

from hpcsort import kernels

_BANDS, _PADS, _POSES, _MAPS = (14, 18, 31, 63, 127), (1, 2), (1, 20), (2, 5, 10, 40)
_KEPT = "## Tried"
_SHOWN, _SHOWN_MAPS = ((14, 1, 1), (18, 1, 20), (31, 2, 1), (127, 1, 1)), (5, 40)  # cases in the table of bounds
_CEILINGS = ("multiply-adds", "loads and stores", "L2", "L3", "memory")
_HALF = 0.5  # share of a ceiling from which it is said to bound

_NOTES = """\
Operations and bytes are counted from the loops (`_kernel_counts.py`): empty lanes count, and both halves of symmetric
tiles. Shares are those of the ceilings above, of the faster of reading and copying in a level. Loads and stores are the
traffic of L1; L2, L3 and memory bring what a section touches and the caches before have forgotten since it was last
met, an estimate that can exceed 100 %. What is used by half or more bounds a kernel; "scattered reads" where it moves
half or more of what single lines anywhere in that level can. "None alone": addresses, dependent operations and short
loops fill the time between. There is no stored operator of a particle's smears (smears.md says why): 20 poses are 20
rows.
"""
_SPEED_NOTES = """\
ns · GFLOP/s · GB/s of loads and stores; ns per Fourier pixel of a particle, a pose, or an entry. K maps or classes; in
section_moments 7 + K maps, in backproject_moments K moments and K (K + 1) / 2 + 7 K weights. Empty: the volumes are too
large for this benchmark.
"""

Case = tuple[int, int, int]  # band, pad, poses


class Result(NamedTuple):
    """Seconds an item of a bench: the fastest repeat and the median."""

    bench: Bench
    fastest: float
    usual: float

    @property
    def flops(self) -> float:
        """Operations a second."""
        return self.bench.count.operations / self.fastest

    @property
    def innermost(self) -> float:
        """Bytes a second that are loaded and stored."""
        return self.bench.count.bytes / self.fastest

    @property
    def outer(self) -> tuple[float, ...]:
        """Bytes a second from and to L2, L3 and memory."""
        return tuple(size / self.fastest for size in self.bench.traffic)


def measure(benches: list[Bench], repeats: int) -> list[Result]:
    """Time every bench once a repeat, so that all share what else the machine does."""
    times: list[list[float]] = [[] for _ in benches]
    for repeat in range(repeats + 1):
        for bench, kept in zip(benches, times, strict=True):
            start = time.thread_time()
            bench.run(repeat)
            if repeat:  # the first round warms caches
                kept.append((time.thread_time() - start) / bench.items)
    return [Result(bench, min(kept), median(kept)) for bench, kept in zip(benches, times, strict=True)]


def measure_all(
    bands: list[int], repeats: int, pixels: int, pool: Array, ceilings: Ceilings
) -> dict[Case, list[Result]]:
    """Results of all bands, pads, poses; the ceilings are taken before, between and after."""
    found = {}
    for band in bands:
        for pad in _PADS:
            ceilings.measure()
            for poses in _POSES:
                given = particles(pixels, band, pad, poses, repeats + 1)
                results = [measure(pixel_benches(given, maps, pool, ceilings.caches), repeats) for maps in _MAPS]
                found[band, pad, poses] = [result for part in results for result in part]
    ceilings.measure()
    return found


def ceilings_table(ceilings: Ceilings) -> str:
    """Format the ceilings."""
    single, double = (ceilings.flops[name] / 1e9 for name in ("single", "double"))
    lines = [
        f"Peak multiply-adds in registers: {single:.0f} GFLOP/s in single, {double:.0f} in double precision.",
        "",
        "| level | size, KiB | block, KiB | read, GB/s | copied, GB/s (both ways) | scattered lines read, GB/s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for level, size in zip(LEVELS, (*(str(size >> 10) for size in ceilings.caches), ""), strict=True):
        speeds = (ways[level] / 1e9 for ways in (ceilings.read, ceilings.copied, ceilings.scattered))
        cells = " | ".join(f"{speed:.1f}" for speed in speeds)
        lines.append(f"| {level} | {size} | {ceilings.sizes[level] >> 10} | {cells} |")
    return "\n".join(lines) + "\n"


def speed_tables(found: dict[Case, list[Result]]) -> str:
    """Format a table for each kernel: bands, pads and poses down, maps across."""
    lines = []
    for name in dict.fromkeys(result.bench.name for results in found.values() for result in results):
        lines += [
            f"### {name}",
            "",
            "| R | pad | poses | " + " | ".join(f"K = {maps}" for maps in _MAPS) + " |",
            "|---:|---:|---:|" + "---:|" * len(_MAPS),
        ]
        for (band, pad, poses), results in found.items():
            own = {result.bench.maps: result for result in results if result.bench.name == name}
            cells = [_cell(own[maps]) if maps in own else "" for maps in _MAPS]
            if own:
                lines.append(f"| {band} | {pad} | {poses} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(result: Result) -> str:
    return f"{result.fastest * 1e9:.1f} · {result.flops / 1e9:.0f} · {result.innermost / 1e9:.0f}"


def bounds_table(found: dict[Case, list[Result]], latents: list[Result], ceilings: Ceilings) -> str:
    """Format what bounds each kernel in some cases."""
    lines = [
        "| kernel | R, pad, poses | K | ns (median) | operations | FLOP/byte | "
        + " | ".join(_CEILINGS)
        + " | bound by |",
        "|---|---|---:|---:|---:|---:|" + "---:|" * len(_CEILINGS) + "---|",
    ]
    rows = [(", ".join(map(str, case)), result) for case in _SHOWN for result in found.get(case, [])]
    rows += [("", result) for result in latents]
    for note, result in sorted(rows, key=lambda row: row[1].bench.name):
        bench = result.bench
        if bench.maps in _SHOWN_MAPS:
            shares = _shares(result, ceilings)
            lines.append(
                f"| {bench.name} | {note} | {bench.maps} | {result.usual * 1e9:.1f} | {bench.count.operations:.0f} "
                f"| {bench.count.operations / bench.count.bytes:.2f} | "
                + " | ".join(f"{100 * share:.0f} %" if share else "" for share in shares)
                + f" | {_bound(result, shares, ceilings)} |"
            )
    return "\n".join(lines) + "\n"


def _shares(result: Result, ceilings: Ceilings) -> list[float]:
    """Achieved shares of the ceilings `_CEILINGS`."""
    moved = (result.innermost, *result.outer)
    best = [max(ceilings.read[level], ceilings.copied[level]) for level in LEVELS]
    flops = result.flops / ceilings.flops[result.bench.precision]
    return [flops, *(speed / most for speed, most in zip(moved, best, strict=True))]


def _bound(result: Result, shares: list[float], ceilings: Ceilings) -> str:
    share, name = max(zip(shares, _CEILINGS, strict=True))
    if share >= _HALF:
        return name
    for level, speed in zip(LEVELS[:0:-1], result.outer[::-1], strict=True):
        if speed >= _HALF * ceilings.scattered[level]:
            return f"scattered reads of {level}"
    return f"none alone; nearest {name}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables to FILE")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--pixels", type=int, default=200_000, help="Fourier pixels a call")
    parser.add_argument("--bands", default=",".join(map(str, _BANDS)), help="radii in Fourier pixels")
    parser.add_argument("--volumes-GiB", type=float, default=3.0, help="larger ones are left out; needs 1.5 GiB more")
    options = parser.parse_args()
    load, ceilings = os.getloadavg()[0], Ceilings()
    pool = kernels.aligned_empty((int(options.volumes_GiB * 2**28),), np.float32)
    pool[...] = 1.0
    found = measure_all(
        [int(band) for band in options.bands.split(",")], options.repeats, options.pixels, pool, ceilings
    )
    latents = measure([bench for maps in _MAPS for bench in latent_benches(maps)], options.repeats)
    fine, coarse = (particles(CHUNK * size, radius, 1).first(CHUNK) for radius, size in ((31, 1509), (10, 156)))
    text = "\n".join([
        "# Kernels\n",
        f"{date.today()}, by `python benchmarks/kernels.py --markdown FILE`.\n",
        __doc__.split("\n\n")[3],
        f"Backend {kernels.backend()}, instruction set {kernels.instruction_set()}, {platform.machine()}; "
        f"load average {load:.1f} on {os.cpu_count()} cores at the start.\n",
        "## Ceilings of one core, in the same run\n",
        ceilings_table(ceilings),
        "## What bounds each\n",
        _NOTES,
        bounds_table(found, latents, ceilings),
        "## Speed\n",
        _SPEED_NOTES,
        speed_tables(found),
        "## Exact sums\n",
        sums_table(exact_sums(fine, coarse, 5, 8, 92), options.repeats + 5),
    ])  # fmt: skip
    print(text, end="")
    if options.markdown:
        before = options.markdown.read_text(encoding="utf-8") if options.markdown.exists() else ""
        kept = before.partition(_KEPT)
        options.markdown.write_text(text + ("\n" + "".join(kept[1:]) if kept[1] else ""), encoding="utf-8")


if __name__ == "__main__":
    main()
