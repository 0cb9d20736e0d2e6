"""Chooses between the compiled kernels and their NumPy twins, once, at import."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

from hpcsort.errors import LaunchError
from hpcsort.kernels import _reference


def _choose() -> tuple[ModuleType, str]:
    wanted = os.environ.get("HPCSORT_KERNELS", "")
    if wanted not in ("", "native", "numpy"):
        raise ImportError(f"HPCSORT_KERNELS={wanted!r} is unknown: set it to 'native' or 'numpy', or leave it unset")
    if wanted == "numpy":
        return _reference, "numpy"
    try:
        native = importlib.import_module("hpcsort.kernels._native")
    except ImportError as error:
        # A silent change to the twins would look like a hang: they are about a hundred times slower.
        raise LaunchError(
            f"the compiled kernels cannot be loaded ({error}): {Path(__file__).parents[1]} was not installed; install "
            "it with pip, start outside the source folder, or set HPCSORT_KERNELS=numpy to use the slow NumPy twins."
        ) from error
    return native, "native"


implementation, _name = _choose()


def backend() -> str:
    """Name what computes the kernels: ``"native"`` (C++) or ``"numpy"`` (the slow twins).

    The environment variable ``HPCSORT_KERNELS=numpy`` asks for the twins; without it a missing compiled module is a
    `LaunchError` at import.
    """
    return _name


def instruction_set() -> str:
    """Name the instruction set in use: ``"avx512"``, ``"avx2"`` or ``"baseline"`` (and ``"numpy"`` for the twins).

    Results are the same bits on every run on one instruction set; between instruction sets they differ by rounding.
    """
    return str(implementation.instruction_set())
