"""The command `hpcsort check`."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcsort.cli._command import ScriptedCommand

if TYPE_CHECKING:
    from hpcsort.checking import CheckResult

__all__ = ["command"]

_UNUSABLE = 3
_WIDTH, _MARGIN = 110, 22
_MARKS = {"fine": "ok", "note": "note", "warning": "WARNING", "fault": "FAULT"}
_COLOURS = {"fine": "green", "note": None, "warning": "yellow", "fault": "red"}

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort check particles.star
  hpcsort check particles.star --radius 52 --sym c4
  hpcsort check J42_particles.cs --datadir /data/project
  hpcsort check --refinement-dir meridien
  hpcsort check particles.star --json > findings.json
"""


class _Check(ScriptedCommand):
    """Leaves with the exit code of an unusable input where one was found."""

    def invoke(self, ctx: click.Context) -> None:
        super().invoke(ctx)
        if not ctx.meta["hpcsort.usable"]:
            sys.exit(_UNUSABLE)


@click.command(
    "check", cls=_Check, short_help="Tell what was understood of an input, and what a sort of it takes.",
    epilog=_EXAMPLES,
)  # fmt: skip
@click.argument("source", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--refinement-dir", type=click.Path(path_type=Path), help="Instead: folder of a MERIDIEN refinement.")
@click.option("--radius", type=int, help="Particle radius in pixels of the full box. [box // 2 - 2]")
@click.option("--sym", default="c1", show_default=True, help="Point group of the particle.")
@click.option("--datadir", type=click.Path(path_type=Path), help="Folder in which image stacks are looked up as well.")
@click.option("--angpix", type=float, help="Pixel size in A where the table lacks it.")
def command(**values: Any) -> dict[str, Any]:
    """Tell what was understood of FILE, what is wrong with it, what a sort of it takes, and the command to run next.

    FILE is a STAR, .cs, .hdf or .xmd file of particles. Of large stacks at most 2,000 images are read, at even
    distances. Whether poses and contrast are right is seen from a map of half of these images, with which the other
    half is compared. Memory, time and disk are predictions: memory by the plan of the sort itself, time, roughly, from
    a short measurement on this machine, as if there were a core for each rank.

    Exit code 0: a sort would take the input, with or without warnings; 3: it would not.
    """
    # imported late, so that the help answers at once
    from hpcsort.checking import CheckOptions, check

    options = CheckOptions(**values)
    result = check(options)
    click.echo(f"Check of {options.place}")
    _show(result)
    click.get_current_context().meta["hpcsort.usable"] = result.usable
    return result.as_dict()


def _show(result: CheckResult) -> None:
    for finding in result.findings:
        mark = click.style(f"{_MARKS[finding.level]:8}", fg=_COLOURS[finding.level])
        body = textwrap.fill(finding.text, _WIDTH - _MARGIN, break_long_words=False, break_on_hyphens=False)
        click.echo(f"{mark} {finding.topic:12} {textwrap.indent(body, ' ' * _MARGIN).lstrip()}")
    if not result.usable:
        click.echo("\nA sort would refuse this input; see what is marked FAULT.")
        return
    click.echo(f"\nPrediction for a sort, all ranks on one node; results take about {result.disk_GB:.3g} GB of disk.")
    click.echo("  ranks   memory GB   time (a rough estimate: how many generations a sort takes is not known before)")
    for cost in result.costs:
        click.echo(f"  {cost.ranks:5d}   {cost.memory_GB:9.2f}   {_duration(cost.seconds)}")
    click.echo(f"\nNext:\n  {result.command}")


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 2:
        return f"{max(seconds, 1):.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
