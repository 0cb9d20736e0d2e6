"""Time of every kernel per Fourier pixel, and of exact sums, next to the memory speed of the same minute.

``python benchmarks/kernels.py [--markdown FILE]``: medians of CPU time over interleaved repeats, one thread. Particles
are sorted by view direction, as the programs deal them. "Aim" is what hand-tuned studies reached with -march=native.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcsort import kernels
from hpcsort.parallel import ExactSum

Array = NDArray[Any]
_CHUNK = 512  # particles summed in float32 before they go to an exact sum; the program takes 256 to 2048
_CHUNKS = 8  # one after another, as in the program: volumes are where the chunk before left them
_COPY_BYTES = 256 << 20


class Bench(NamedTuple):
    """One line of the table: `run` handles `pixels` Fourier pixels."""

    name: str
    pixels: int
    run: Callable[[], Any]
    aim_ns: float | None = None


class Particles(NamedTuple):
    """Noise at sorted orientations."""

    images: Array
    ctfs: Array
    rotations: Array
    px: Array
    py: Array
    pad: float
    half: int

    @property
    def data(self) -> tuple[Any, Any, Any, Any, Any, float]:
        """Arguments that most kernels end with."""
        return self.images, self.ctfs, self.rotations, self.px, self.py, self.pad

    def first(self, n: int) -> Particles:
        """Return the first n particles."""
        return self._replace(images=self.images[:n], ctfs=self.ctfs[:n], rotations=self.rotations[:n])


def sorted_rotations(n: int) -> Array:
    """Orientations that follow a spiral from pole to pole, with random in-plane angles."""
    rng = np.random.default_rng(0)
    cos_tilt = np.linspace(1, -1, n)
    sin_tilt = np.sqrt(1 - cos_tilt**2)
    rot, psi = np.pi * (1 + 5**0.5) * np.arange(n), rng.uniform(0, 2 * np.pi, n)
    # The golden spiral jumps around the axis; sorting by direction within bands of tilt brings neighbours together.
    order = np.lexsort((rot % (2 * np.pi), np.floor(np.arange(n) / np.sqrt(n))))
    rot, cos_tilt, sin_tilt = rot[order], cos_tilt[order], sin_tilt[order]
    view = np.stack([sin_tilt * np.cos(rot), sin_tilt * np.sin(rot), cos_tilt], axis=1)
    east = np.stack([-np.sin(rot), np.cos(rot), 0 * rot], axis=1)
    north = np.cross(view, east)
    c, s = np.cos(psi)[:, None], np.sin(psi)[:, None]
    return np.stack([c * east + s * north, -s * east + c * north, view], axis=1).astype(np.float32)


def particles(n: int, radius: int, pad: float) -> Particles:
    """Return n noise images whose disc of `radius` pixels is used."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-radius : radius + 1, 0 : radius + 1]
    keep = (x**2 + y**2 <= radius**2) & ((x > 0) | (y > 0))
    px, py = x[keep].astype(np.float32), y[keep].astype(np.float32)
    images = rng.standard_normal((n, 2 * px.size), np.float32).view(np.complex64)
    ctfs = rng.uniform(-1, 1, images.shape).astype(np.float32)
    return Particles(images, ctfs, sorted_rotations(n), px, py, pad, kernels.half_width(radius, pad))


def volumes(count: int, half: int) -> Array:
    """Return random half volumes."""
    shape = (count, 2 * half + 1, 2 * half + 1, half + 1)
    return np.random.default_rng(2).standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


def zeros(*shape: int) -> Array:
    """Return aligned float32 zeros."""
    out = kernels.aligned_empty(shape, np.float32)
    out[...] = 0
    return out


def class_kernels(p: Particles, count: int) -> list[Bench]:
    """Kernels of the classical loop with `count` references."""
    n, pixels = p.images.shape
    total, voxels = n * pixels, (2 * p.half + 1, 2 * p.half + 1, p.half + 1)
    maps = np.ascontiguousarray(volumes(count, p.half))
    mixed, sums = kernels.interleave(maps), zeros(count, *voxels, 4)
    records = kernels.pack_ridge(maps, np.full(maps.shape, 0.01, np.float32))
    labels = np.asarray(np.random.default_rng(3).integers(0, count, n), np.int32)
    ones, coefficients = np.ones(n, np.float32), np.ones((n, count), np.float32)
    scores, section = kernels.score_sections(mixed, count, *p.data), np.empty_like(p.images)
    note = f"R = {max(p.px):.0f}, pad {p.pad:g}"
    return [
        Bench(f"extract_sections, {note}", total, lambda: kernels.extract_sections(maps[0], *p.data[2:], out=section)),
        Bench(
            f"score_sections, {count} maps, {note}",
            total,
            lambda: kernels.score_sections(mixed, count, *p.data, out=scores),
            7.3,
        ),
        Bench(
            f"insert_sections, {count} classes, {note}",
            total,
            lambda: kernels.insert_sections(*p.data[:3], labels, ones, *p.data[3:], out=sums),
            5.7,
        ),
        Bench(
            f"subtract_sections, {count} maps, {note}",
            total,
            lambda: kernels.subtract_sections(mixed, count, coefficients, *p.data, out=section),
        ),
        Bench(
            f"leave_one_out_gains, {count} classes, {note}",
            total,
            lambda: kernels.leave_one_out_gains(records, None, labels, ones, *p.data),
        ),
    ]


def subspace_kernels(p: Particles, basis: int, moments: int, weights: int) -> list[Bench]:
    """Kernels of subspace learning: E step with `basis` maps, M step with `moments` and `weights`."""
    n, pixels = p.images.shape
    total, voxels = n * pixels, (2 * p.half + 1, 2 * p.half + 1, p.half + 1)
    mixed = kernels.interleave(np.ascontiguousarray(volumes(basis, p.half)))
    sums = zeros(*voxels, kernels.moment_record_length(moments, weights))
    z, q = np.ones((n, moments), np.float32), np.ones((n, weights), np.float32)
    out = kernels.section_moments(mixed, basis, *p.data)
    note = f"R = {max(p.px):.0f}, pad {p.pad:g}"
    return [
        Bench(
            f"section_moments, J = {basis}, {note}",
            total,
            lambda: kernels.section_moments(mixed, basis, *p.data, out=out),
        ),
        Bench(
            f"backproject_moments, J = {moments}, Q = {weights}, {note}",
            total,
            lambda: kernels.backproject_moments(*p.data[:3], z, q, *p.data[3:], out=sums),
        ),
    ]


class Pair(NamedTuple):
    """One line of the table of sums: the same with a plain and with an exact sum; pixels are floats of the sum."""

    name: str
    plain: Bench
    exact: Bench


def pair(name: str, block: Array, fill: Callable[[], Any] | None = None) -> Pair:
    """Return the sums of `block`; with `fill`, each sum has it filled first and cleared in its own way."""
    single, exact = zeros(*block.shape), ExactSum(block.shape, 1e12)

    def plainly() -> None:
        for _ in range(_CHUNKS):
            if fill:
                block[...] = 0
                fill()
            np.add(single, block, out=single)

    def exactly() -> None:
        for _ in range(_CHUNKS):
            if fill:
                fill()
            exact.add(block, clear=fill is not None)

    elements = _CHUNKS * block.size
    return Pair(name, Bench("plain", elements, plainly), Bench("exact", elements, exactly))


def sums(fine: Particles, coarse: Particles, classes: int, moments: int, weights: int) -> list[Pair]:
    """Return sums alone, and with the insertion or back-projection of the chunk that is added."""
    fine, coarse = fine.first(_CHUNK), coarse.first(_CHUNK)
    n = len(fine.images)
    labels = np.arange(n, dtype=np.int32) % classes
    ones, z, q = np.ones(n, np.float32), np.ones((n, moments), np.float32), np.ones((n, weights), np.float32)
    shape = (classes, 2 * fine.half + 1, 2 * fine.half + 1, fine.half + 1, 4)
    full, once, classed = zeros(*shape), zeros(*shape), zeros(*shape)
    full[...] = np.random.default_rng(4).standard_normal(full.shape, np.float32)
    side, length = 2 * coarse.half + 1, kernels.moment_record_length(moments, weights)
    moved = zeros(side, side, coarse.half + 1, length)

    def insert(out: Array) -> None:
        kernels.insert_sections(*fine.data[:3], labels, ones, *fine.data[3:], out=out)

    def backproject() -> None:
        kernels.backproject_moments(*coarse.data[:3], z, q, *coarse.data[3:], out=moved)

    insert(once)
    inserted = f"{n} particles into {classes} classes, R = {max(fine.px):.0f}"
    moment_note = f"{n} particles, J = {moments}, Q = {weights}, R = {max(coarse.px):.0f}"
    return [
        pair(f"a block of {full.nbytes / 2**20:.0f} MiB without zeros", full),
        pair(f"what insert_sections makes of {inserted}", once),
        pair(f"insert_sections of {inserted}, and its sum", classed, lambda: insert(classed)),
        pair(f"backproject_moments of {moment_note}, and its sum", moved, backproject),
    ]


def measure(benches: list[Bench], repeats: int) -> tuple[list[list[float]], list[float]]:
    """Return the seconds of each bench and of a plain copy; a repeat runs everything once, so that drift is shared."""
    source, target = np.ones(_COPY_BYTES // 8), np.zeros(_COPY_BYTES // 8)
    times: list[list[float]] = [[] for _ in benches]
    copies: list[float] = []
    for repeat in range(repeats + 1):
        for bench, kept in zip(benches, times, strict=True):
            start = time.thread_time()
            bench.run()
            if repeat:  # the first round warms caches and pages
                kept.append(time.thread_time() - start)
        start = time.thread_time()
        np.copyto(target, source)
        if repeat:
            copies.append(time.thread_time() - start)
    return times, copies


def table(benches: list[Bench], times: list[list[float]], copies: list[float]) -> str:
    """Format the result as Markdown."""
    lines = [
        f"Backend {kernels.backend()}, instruction set {kernels.instruction_set()}, {platform.machine()}, one thread; "
        f"plain copy of {_COPY_BYTES >> 20} MiB in the same run: {2 * _COPY_BYTES / median(copies) / 1e9:.1f} GB/s "
        "(read + written).",
        "",
        "| kernel | ns per Fourier pixel (median) | fastest | aim |",
        "|---|---:|---:|---:|",
    ]
    for bench, seconds in zip(benches, times, strict=True):
        scale = 1e9 / bench.pixels
        aim = f"{bench.aim_ns:.1f}" if bench.aim_ns else ""
        lines.append(f"| {bench.name} | {median(seconds) * scale:.2f} | {min(seconds) * scale:.2f} | {aim} |")
    return "\n".join(lines) + "\n"


def sums_table(pairs: list[Pair], times: list[list[float]]) -> str:
    """Format the sums as Markdown; `times` holds plain and exact in turn."""
    lines = [
        "| sum | plain float32, ns per element | exact, ns per element | exact / plain |",
        "|---|---:|---:|---:|",
    ]
    for line, plain, exact in zip(pairs, times[::2], times[1::2], strict=True):
        scale, ratio = 1e9 / line.exact.pixels, min(exact) / min(plain)
        lines.append(f"| {line.name} | {min(plain) * scale:.2f} | {min(exact) * scale:.2f} | {ratio:.2f} |")
    speed = 20 * pairs[0].exact.pixels / min(times[1]) / 1e9
    lines += [
        "",
        f"Fastest of {len(times[0])}; the exact sum of the first line moves {speed:.1f} GB/s (read + written).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to FILE")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--particles", type=int, default=1000)
    options = parser.parse_args()
    fine, coarse = particles(options.particles, 31, 1.0), particles(options.particles, 10, 1.0)
    benches = class_kernels(fine, 5) + subspace_kernels(coarse, 15, 8, 92)
    pairs = sums(fine, coarse, 5, 8, 92)
    times, copies = measure(benches + [bench for line in pairs for bench in line[1:]], options.repeats)
    result = table(benches, times[: len(benches)], copies) + "\n" + sums_table(pairs, times[len(benches) :])
    print(result, end="")
    if options.markdown:
        options.markdown.write_text(result, encoding="utf-8")


if __name__ == "__main__":
    main()
