"""The command `hpcsort report`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from hpcsort.cli._command import ScriptedCommand

__all__ = ["command"]

_PROGRAMS = {
    "sort3d": ("hpcsort.report.sorting", "write_sort_report"),
    "cl2d": ("hpcsort.cl2d.report", "write_report"),
    "cluster-averages": ("hpcsort.averages.report", "write_report"),
    "extract-pairs": ("hpcsort.pairs.report", "write_report"),
}
"""Program -> module, and the function of it that draws the report of a folder."""

_EXAMPLES = """\b
Examples:
  hpcsort report sorted
  hpcsort report sorted --json
"""


@click.command(
    "report", cls=ScriptedCommand, short_help="Write the report page of a run's folder again.", epilog=_EXAMPLES
)
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> dict[str, Any]:
    """Write the report page of the run in FOLDER again, from the files there.

    Every run of sort3d, cl2d, cluster-averages and extract-pairs ends with it; it can be repeated at any time, also
    for a run that was stopped. Writes FOLDER/report.html, one page that needs nothing else to be read, and its panels
    as PNG and CSV in FOLDER/report.
    """
    # imported late, so that the help answers at once
    from hpcsort.errors import InputError
    from hpcsort.report import PANELS, program_of

    program = program_of(folder)
    if program not in _PROGRAMS:
        raise InputError(f"{folder} is one of {program}, which has no report; {', '.join(_PROGRAMS)} have.")
    module, name = _PROGRAMS[program]
    page = getattr(importlib.import_module(module), name)(folder)
    click.echo(f"The report is {page}.")
    return {"program": program, "report": page, "panels": folder / PANELS}
