"""What `hpcsort --version` tells: this package, its kernels, Python and the MPI library."""

from __future__ import annotations

import platform

from hpcsort import __version__
from hpcsort.errors import LaunchError

__all__ = ["version_lines"]


def version_lines() -> list[str]:
    """Lines about everything on which results or speed depend; what cannot be loaded is told, and no error."""
    return [
        f"hpcsort {__version__}",
        f"kernels: {_kernels()}",
        f"MPI: {_mpi()}",
        f"Python {platform.python_version()} on {platform.machine()}",
    ]


def _kernels() -> str:
    try:
        from hpcsort.kernels import backend, instruction_set
    except LaunchError as error:
        return f"none: {error}"
    return f"compiled, {instruction_set()}" if backend() == "native" else "NumPy twins, slow"


def _mpi() -> str:
    """Name the library without starting MPI, which a login node may not allow."""
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return f"none, runs are serial ({' '.join(str(error).split())})"
    vendor, numbers = MPI.get_vendor()
    standard = ".".join(map(str, MPI.Get_version()))
    return f"{vendor} {'.'.join(map(str, numbers))}, MPI standard {standard}, by mpi4py {mpi4py.__version__}"
