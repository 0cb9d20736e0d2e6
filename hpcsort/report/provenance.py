"""Where results come from: the record of a run as rows of a table."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hpcsort import __version__
from hpcsort.checkpoints import CHECKPOINTS
from hpcsort.errors import InputError
from hpcsort.io import write_text_atomically

__all__ = ["RECORD", "machine", "program_of", "provenance_rows", "read_json", "write_run_record"]

RECORD = "run.json"
_MOST_INPUTS = 20
_PACKAGES = ("numpy", "scipy", "mpi4py", "h5py", "mrcfile", "starfile", "pandas")

_HASHES = {"sha256": "the file", "sha256_of_pieces": "pieces of it", "sha256_of_ends": "its ends"}


def write_run_record(
    folder: Path,
    program: str,
    options: dict[str, Any],
    inputs: dict[str, dict[str, Any]],
    ranks: int,
    begun: datetime,
    results: dict[str, Any] | None = None,
) -> None:
    """Write run.json: the command, versions, options, hashes of the inputs, machine and times of a run.

    Parameters
    ----------
    folder : of the run.
    program : its name.
    options : as JSON knows them.
    inputs : hashes of each file.
    ranks : number of processes.
    begun : when.
    results : what else is to be kept.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    record = {
        "program": f"hpcsort {program}",
        "version": __version__,
        "command": sys.argv,
        "options": options,
        "ranks": ranks,
        "machine": machine(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "inputs": inputs,
        "started": begun.isoformat(" ", "seconds"),
        "finished": datetime.now().isoformat(" ", "seconds"),
        **(results or {}),
    }
    write_text_atomically(folder / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n", overwrite=True)


def machine() -> dict[str, Any]:
    """Name, system and cores of the machine that rank 0 is on."""
    return {"host": platform.node(), "system": platform.platform(), "cores": os.cpu_count()}


def program_of(folder: Path) -> str:
    """Name of the program whose run a folder holds.

    Raises
    ------
    InputError
        If it holds none, or its record is damaged.
    """
    for record in (folder / RECORD, folder / CHECKPOINTS / "job.json"):
        program = str(read_json(record).get("program", "")).removeprefix("hpcsort ")
        if program:
            return program
    raise InputError(f"{folder} holds no run: neither {RECORD} nor {CHECKPOINTS}/job.json; name the folder of one.")


def provenance_rows(folder: Path) -> list[tuple[str, str]]:
    """Return what run.json tells of a run, or the record of its checkpoints where it has not come to its end.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    run = read_json(folder / RECORD) or read_json(folder / CHECKPOINTS / "job.json")
    rows = [("program", f"{run.get('program', 'unknown')} {run.get('version', '')}".strip())]
    if "command" in run:
        rows.append(("command", shlex.join(run["command"])))
    # the record of checkpoints tells whether, not when, a run has finished
    rows += [
        (name, str(run[name])) for name in ("started", "finished", "ranks") if run.get(name) not in (None, True, False)
    ]
    if "machine" in run:
        rows.append(("machine", _joined(run["machine"])))
    if "kernels" in run:
        rows.append(("kernels", _joined(run["kernels"])))
    if "packages" in run:
        rows.append(("packages", f"Python {run.get('python', '')}, {_joined(run['packages'])}"))
    if "seconds" in run:
        rows.append(("times", ", ".join(f"{stage} {value:.1f} s" for stage, value in run["seconds"].items())))
    if "peak_memory_GB_of_a_node" in run:
        rows.append(("memory", f"at most {run['peak_memory_GB_of_a_node']:.2f} GB of a node"))
    inputs = list(run.get("inputs", {}).items())
    for path, known in inputs[:_MOST_INPUTS]:
        told = [f"SHA-256 of {what} {known[name]}" for name, what in _HASHES.items() if name in known]
        size = [f"{known['bytes']} bytes"] if "bytes" in known else []
        rows.append(("input", "; ".join([path, *size, *told])))
    if len(inputs) > _MOST_INPUTS:
        rows.append(("more inputs", f"{len(inputs) - _MOST_INPUTS}, in {RECORD}"))
    changed = {
        name: value for name, value in run.get("options", {}).items() if value is not None and value is not False
    }
    rows.append(("options", _joined(changed)))
    return rows


def read_json(path: Path) -> dict[str, Any]:
    """Read a record; an empty one where there is no file.

    Raises
    ------
    InputError
        If it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it to make a report of the rest.") from error
    return content


def _joined(values: dict[str, Any] | str) -> str:
    return values if isinstance(values, str) else ", ".join(f"{name} {value}" for name, value in values.items())
