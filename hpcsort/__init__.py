"""hpcsort: reproducible sorting of cryo-EM particles, in Python under MPI."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hpcsort")
except PackageNotFoundError:  # running from a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
