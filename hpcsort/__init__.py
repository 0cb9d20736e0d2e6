"""hpcsort: reproducible sorting of cryo-EM particles, in Python under MPI."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

try:
    __version__ = version("hpcsort")
except PackageNotFoundError:  # running from a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "__version__",
    "check",
    "cluster_averages",
    "convert",
    "extract_pairs",
    "match",
    "read_input",
    "reconstruct",
    "simulate",
]

if TYPE_CHECKING:
    from hpcsort.api import check, cluster_averages, convert, extract_pairs, match, read_input, reconstruct, simulate
else:

    def __getattr__(name: str) -> object:
        """Load the functions when they are asked for: the command line answers faster without them."""
        if name in __all__:
            return getattr(importlib.import_module("hpcsort.api"), name)
        raise AttributeError(f"module 'hpcsort' has no attribute {name!r}")
