"""Exact sums next to plain ones: alone, and with the kernel that fills the block that is added."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _kernel_cases import Array, Particles

from hpcsort import kernels
from hpcsort.parallel import ExactSum

CHUNK = 512  # particles summed in float32 before they go to an exact sum; the program takes 256 to 2048
_CHUNKS = 8  # one after another, as in the program: volumes are where the chunk before left them


class Pair(NamedTuple):
    """The same with a plain and with an exact sum of `elements` floats."""

    name: str
    elements: int
    plain: Callable[[], Any]
    exact: Callable[[], Any]


def _zeros(*shape: int) -> Array:
    out = kernels.aligned_empty(shape, np.float32)
    out[...] = 0
    return out


def _pair(name: str, block: Array, fill: Callable[[], Any] | None = None) -> Pair:
    """Return the sums of `block`; with `fill`, each sum has it filled first and cleared in its own way."""
    single, exact = _zeros(*block.shape), ExactSum(block.shape, 1e12)

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

    return Pair(name, _CHUNKS * block.size, plainly, exactly)


def exact_sums(fine: Particles, coarse: Particles, classes: int, moments: int, weights: int) -> list[Pair]:
    """Return sums alone, and with the insertion or back-projection of the chunk that is added."""
    n = len(fine.images)
    labels = np.arange(n, dtype=np.int32) % classes
    ones = np.ones(n, np.float32)
    z, q = np.ones((len(coarse.images), moments), np.float32), np.ones((len(coarse.images), weights), np.float32)
    shape = (classes, 2 * fine.half + 1, 2 * fine.half + 1, fine.half + 1, 4)
    full, once, classed = _zeros(*shape), _zeros(*shape), _zeros(*shape)
    full[...] = np.random.default_rng(4).standard_normal(full.shape, np.float32)
    side, length = 2 * coarse.half + 1, kernels.moment_record_length(moments, weights)
    moved = _zeros(side, side, coarse.half + 1, length)

    def insert(out: Array) -> None:
        given = fine.data()
        kernels.insert_sections(*given[:3], labels, ones, *given[3:], out=out)

    def backproject() -> None:
        given = coarse.data()
        kernels.backproject_moments(*given[:3], z, q, *given[3:], out=moved)

    insert(once)
    inserted = f"{n} particles into {classes} classes, R = {max(fine.px):.0f}"
    moment_note = f"{len(z)} particles, J = {moments}, Q = {weights}, R = {max(coarse.px):.0f}"
    return [
        _pair(f"a block of {full.nbytes / 2**20:.0f} MiB without zeros", full),
        _pair(f"what insert_sections makes of {inserted}", once),
        _pair(f"insert_sections of {inserted}, and its sum", classed, lambda: insert(classed)),
        _pair(f"backproject_moments of {moment_note}, and its sum", moved, backproject),
    ]


def _seconds(run: Callable[[], Any]) -> float:
    start = time.thread_time()
    run()
    return time.thread_time() - start


def sums_table(pairs: list[Pair], repeats: int) -> str:
    """Time the pairs in turn and return a table in Markdown."""
    times = [[(_seconds(pair.plain), _seconds(pair.exact)) for pair in pairs] for _ in range(repeats + 1)]
    best = np.min(times[1:], axis=0)  # the first round warms caches and pages
    lines = [
        "| sum | plain float32, ns per element | exact, ns per element | exact / plain |",
        "|---|---:|---:|---:|",
    ]
    for pair, (plain, exact) in zip(pairs, best, strict=True):
        scale = 1e9 / pair.elements
        lines.append(f"| {pair.name} | {plain * scale:.2f} | {exact * scale:.2f} | {exact / plain:.2f} |")
    speed = 20 * pairs[0].elements / best[0][1] / 1e9
    lines += ["", f"Fastest of {repeats}; the exact sum of the first line moves {speed:.1f} GB/s (read + written)."]
    return "\n".join(lines) + "\n"
