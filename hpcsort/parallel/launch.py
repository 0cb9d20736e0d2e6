"""Starting and ending together: launcher checks, and errors that end all ranks with one message."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpcsort.errors import HpcsortError, LaunchError
from hpcsort.parallel.comm import Communicator

_INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
_INTERRUPTED = 130
_LAUNCHER_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LAUNCHER_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")


def check_launch(comm: Communicator, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a launcher and an MPI library that do not know each other.

    Parameters
    ----------
    comm : Communicator
        Of this process.
    environ : mapping
        The environment the launcher left.

    Raises
    ------
    LaunchError
        The launcher started another number of processes than COMM_WORLD has: most often N
        processes that each believe to be alone and would do the same work N times.
    """
    claims = _claimed_sizes(environ)
    sizes = list(claims.values())
    if not sizes or (comm.size in sizes and (comm.size > 1 or max(sizes) == 1)):
        return
    name, claimed = max(claims.items(), key=lambda item: item[1])
    beside = Path(sys.executable).parent / "mpiexec"
    own = f"{beside}" if beside.exists() else "the mpiexec of the MPI that mpi4py was built for"
    raise LaunchError(
        f"{name}={claimed} says that {claimed} processes were started together, but MPI sees {comm.size}: "
        f"they do not know each other and would each do all the work; start with {own}, or point MPI4PY_LIBMPI "
        "at the launcher's MPI library (srun: choose the MPI with --mpi), or unset the variable where it is a leftover."
    )


def _claimed_sizes(environ: Mapping[str, str]) -> dict[str, int]:
    """Return what the innermost launcher says about the number of processes."""
    claims = {name: int(environ[name]) for name in _LAUNCHER_SIZES if environ.get(name, "").isdigit()}
    # mpiexec starts its own helpers with srun, so that SLURM's numbers then count nodes.
    if not claims and "SLURM_STEP_ID" in environ and "SLURM_PROCID" in environ:
        for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
            if environ.get(name, "").isdigit():
                return {name: int(environ[name])}
    return claims


@contextmanager
def abort_on_error(comm: Communicator) -> Iterator[None]:
    """Run a program so that an error on any rank ends all ranks, with one message on stderr.

    HpcsortError prints one line and ends with its exit code, other exceptions print the traceback
    and end with 70, Ctrl-C with 130. A single rank leaves through SystemExit; of several ranks the
    failing one calls MPI's Abort, unless all fail together (see `raise_together`): then rank 0
    speaks and all leave in order.
    """
    try:
        yield
    except HpcsortError as error:
        alone_but_silent = comm.size == 1 and isinstance(error, LaunchError) and not _is_first_process()
        text = "" if alone_but_silent else f"hpcsort: error: {error}"
        _end(comm, text, error.exit_code, getattr(error, "is_shared", False))
    except KeyboardInterrupt:
        _end(comm, "hpcsort: interrupted", _INTERRUPTED)
    except SystemExit as leave:
        if comm.size == 1 or leave.code in (None, 0):
            raise
        _end(comm, "", leave.code if isinstance(leave.code, int) else 1)
    except Exception as error:
        summary = f"hpcsort: internal error: {type(error).__name__}: {error}"
        _end(comm, f"{traceback.format_exc()}{summary}", _INTERNAL_ERROR, getattr(error, "is_shared", False))


def _end(comm: Communicator, text: str, code: int, is_shared: bool = False) -> None:
    """Speak once and leave with the exit code."""
    if comm.size == 1 or is_shared:
        if comm.is_root:
            _say(text)
        sys.exit(code)
    # Ranks that fail for the same reason do so at the same time: let them ask one after another,
    # rank 0 first, so that the first message ends the others before they repeat it.
    if not comm.is_root:
        time.sleep(0.5 + 1.5 * comm.rank / comm.size)
    if comm.claim():
        _say(f"{text} (rank {comm.rank} of {comm.size})" if text else "")
    else:
        time.sleep(5)
    comm.abort(code)


def _say(text: str) -> None:
    sys.stdout.flush()
    if text:
        print(text, file=sys.stderr, flush=True)


def _is_first_process() -> bool:
    """Whether this is the one of N unrelated processes that should speak for all."""
    return all(os.environ.get(name, "0") == "0" for name in _LAUNCHER_RANKS)


def raise_together(comm: Communicator, error: Exception | None) -> None:
    """Raise on every rank the error of the lowest rank that has one; collective.

    Parameters
    ----------
    comm : Communicator
        Of all ranks.
    error : HpcsortError or None
        What went wrong here. Other exceptions become a RuntimeError that names type and rank.
    """
    told: tuple[type[Exception], str] | None = None
    if isinstance(error, HpcsortError):
        told = (type(error), str(error))
    elif error is not None:
        told = (RuntimeError, f"{type(error).__name__} on rank {comm.rank}: {error}")
    failures = [failure for failure in comm.allgather(told) if failure is not None]
    if failures:
        kind, text = failures[0]
        shared: Exception = kind(text)
        shared.is_shared = True  # type: ignore[attr-defined]
        raise shared from error


@contextmanager
def together(comm: Communicator) -> Iterator[None]:
    """Run a block without communication; if it fails on any rank, all ranks raise the same error.

    For work of one rank or of each rank alone: `with together(comm): if comm.is_root: write(...)`.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    raise_together(comm, error)


@contextmanager
def chosen_ranks(comm: Communicator, member: bool) -> Iterator[Communicator | None]:
    """Run a block with a communicator of some ranks, None on the others, which wait. Collective.

    An error that all members raise alike is raised by all ranks; one of a single member ends the run, as everywhere.
    """
    part = comm.part(member)
    error: Exception | None = None
    try:
        yield part
    except Exception as caught:
        if not getattr(caught, "is_shared", False):
            raise
        error = caught
    else:
        if part is not None:
            part.close()
    raise_together(comm, error)
