"""What one core of this machine can do at most, by small loops that the user's compiler makes for it.

Peak multiply-adds in single and double precision, and the bandwidth of every level of the memory. The package itself
holds none of this.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LEVELS = ("L1", "L2", "L3", "memory")
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC")
_USUAL_CACHES = (32 << 10, 1 << 20, 32 << 20)
_MOST_BYTES = 1 << 30
_SECONDS = 0.004  # of one measurement


def cache_bytes() -> tuple[int, ...]:
    """Sizes of the data caches L1, L2, L3 as Linux tells them, usual ones where it does not."""
    sizes = list(_USUAL_CACHES)
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and size.endswith("K") and 1 <= int(level) <= len(sizes):
            sizes[int(level) - 1] = int(size[:-1]) << 10
    return tuple(sizes)


def _library() -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "g++", "c++", "clang++"))), None)
    if compiler is None:
        raise SystemExit("The ceilings are measured by a compiled loop: install g++ or clang++, or name one by CXX.")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "ceilings.so"
        source = Path(__file__).with_name("_ceilings.cpp")
        subprocess.run([compiler, *_FLAGS, "-o", str(made), str(source)], check=True)
        library = ctypes.CDLL(str(made))
    library.operations.restype = ctypes.c_int64
    return library


class Ceilings:
    """Best speeds seen: `flops` by "single" and "double", and by level bytes/s of three ways.

    `read` and `copied` (read + written) go along a block, `scattered` reads single lines anywhere in it. Call `measure`
    several times between other work: the best of all rounds count.
    """

    def __init__(self) -> None:
        self._library = _library()
        self.caches = cache_bytes()
        part = [size // 4 // 1024 * 1024 for size in self.caches]
        # What is in L3 should not be in L2; no more is read than it takes.
        sizes = (part[0], part[1], max(min(part[2], 16 * self.caches[1]), part[1]), _MOST_BYTES // 2)
        self.sizes = dict(zip(LEVELS, sizes, strict=True))
        self._memory = np.ones(_MOST_BYTES // 4, np.float32)
        self.flops = {"single": 0.0, "double": 0.0}
        self.read = dict.fromkeys(LEVELS, 0.0)
        self.copied = dict.fromkeys(LEVELS, 0.0)
        self.scattered = dict.fromkeys(LEVELS, 0.0)

    def measure(self) -> None:
        """Measure everything once more."""
        for name, number in (("single", 4), ("double", 8)):
            run = getattr(self._library, f"multiply_add_{name}")
            speed = self._library.operations(ctypes.c_int64(number)) * _rate(run)
            self.flops[name] = max(self.flops[name], speed)
        for level, size in self.sizes.items():
            speed = size * _rate(self._library.read_memory, self._at(0), ctypes.c_int64(size))
            self.read[level] = max(self.read[level], speed)
            half = size // 2
            speed = 2 * half * _rate(self._library.copy_memory, self._at(0), self._at(half), ctypes.c_int64(half))
            self.copied[level] = max(self.copied[level], speed)
            power = 1 << (size.bit_length() - 1)
            speed = power * _rate(self._library.read_scattered, self._at(0), ctypes.c_int64(power))
            self.scattered[level] = max(self.scattered[level], speed)

    def _at(self, offset: int) -> ctypes.c_void_p:
        start = -self._memory.ctypes.data % 64
        return ctypes.c_void_p(self._memory.ctypes.data + start + offset)


def _rate(run: Callable[..., Any], *arguments: Any) -> float:
    """Return the rounds a second of a function that takes their number last."""
    rounds = 1
    while True:
        start = time.thread_time()
        run(*arguments, ctypes.c_int64(rounds))
        seconds = time.thread_time() - start
        if seconds >= _SECONDS:
            return rounds / seconds
        rounds *= 4
