"""The command `hpcsort cl2d`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpcsort.cli._command import ScriptedCommand

__all__ = ["command"]

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort cl2d --instack particles.star --output-dir classes2d
  mpiexec -n 8 hpcsort cl2d --instack particles.star --output-dir classes2d --classes 128 --ctf flip --robust
  hpcsort cl2d --instack picked.mrcs --angpix 3.2 --output-dir first_look --classes 16
  hpcsort cl2d --instack particles.star --references averages.mrcs --output-dir again --classes 50
"""


@click.command(
    "cl2d", cls=ScriptedCommand, short_help="Classify particles in 2D: levels, cores, stable cores.", epilog=_EXAMPLES
)
@click.option(
    "--instack", type=click.Path(path_type=Path), required=True, help="Particles: STAR, .cs, HDF, or a bare .mrcs."
)
@click.option("--output-dir", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--classes", type=int, default=64, show_default=True, help="Classes in the last level.")
@click.option("--initial-classes", type=int, default=4, show_default=True, help="Classes in the first level.")
@click.option("--references", type=click.Path(path_type=Path), help="Stack of averages to start from instead.")
@click.option("--iterations", type=int, default=10, show_default=True, help="Iterations in each level, at most.")
@click.option(
    "--comparison",
    type=click.Choice(["correlation", "correntropy"]),
    default="correlation",
    show_default=True,
    help="What ranks the classes of a particle.",
)
@click.option("--robust/--classical", default=False, help="Score by what is usual for the class, or plain. [classical]")
@click.option("--core/--no-core", default=True, help="Find the core of each class. [core]")
@click.option("--junk-zscore", type=float, default=3.0, show_default=True, help="Limit for unlikeness to the class.")
@click.option("--pca-zscore", type=float, default=3.0, show_default=True, help="Limit for distance within the class.")
@click.option("--pca-components", type=int, default=2, show_default=True, help="Components in which that is measured.")
@click.option("--stable-core/--no-stable-core", default=True, help="Find particles that stay together. [stable-core]")
@click.option("--tolerance", type=int, default=1, show_default=True, help="Levels a stable particle may be apart.")
@click.option("--analyze-rejected", is_flag=True, help="Classify what is in no core by itself.")
@click.option("--max-shift", type=float, default=0.1, show_default=True, help="Largest shift, a share of the box.")
@click.option("--mask-radius", "mask_radius_px", type=float, help="Radius of the particle in px. [half the box]")
@click.option("--resolution", "resolution_A", type=float, help="Band limit in A. [0.45 Nyquist, at most 24 px]")
@click.option(
    "--ctf", type=click.Choice(["none", "flip", "wiener"]), default="none", show_default=True, help="CTF correction."
)
@click.option("--mirror/--no-mirror", default=True, help="Whether particles may be mirrored. [mirror]")
@click.option("--align/--no-align", default=True, help="Whether particles are turned and shifted. [align]")
@click.option(
    "--min-size", "min_size_percent", type=float, default=20.0, show_default=True,
    help="Classes below this percentage of the mean size are replaced.",
)  # fmt: skip
@click.option("--mirrored-stack", is_flag=True, help="Write a stack with mirrored particles mirrored back.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all random numbers.")
@click.option("--angpix", type=float, help="Pixel size in A where the table lacks it.")
@click.option("--datadir", type=click.Path(path_type=Path), help="Folder in which image stacks are looked up as well.")
@click.option(
    "--checkpoint-minutes", type=float, default=10.0, show_default=True,
    help="Time between two checkpoints, from which `hpcsort resume` goes on; 0 writes one after every step.",
)  # fmt: skip
@click.option(
    "--watchdog-minutes", type=float, default=60.0, show_default=True,
    help="Report a rank that does not answer for so long, and end the run; 0 waits for ever.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with this very run where its folder holds one: for job scripts.")
@click.option("--overwrite", is_flag=True, help="Replace existing output.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def command(robust: bool, **values: Any) -> dict[str, Any] | None:
    """Classify particles in 2D, in levels that double the classes.

    Every level is written with averages, a STAR file with class, angle, origin and mirror of each particle, Xmipp
    metadata, the core of each class (particles that neither are unlike their class nor far from its middle), from the
    third level on the stable core (particles that also stay together over the levels), and sizes and resolutions.
    Origins centre the images as they lie in their stacks; then the mirror acts, where hpcsortMirror is 1, then the
    angle. Orientations in the input are not used.
    """
    # imported late, so that the help answers at once
    from hpcsort.checkpoints import is_finished
    from hpcsort.cl2d import Cl2dOptions, cl2d
    from hpcsort.cli._figures import cl2d_figures
    from hpcsort.parallel import get_comm, together

    comm = get_comm()
    with together(comm):
        options = Cl2dOptions(clustering="robust" if robust else "classical", **values)
        finished = options.resume and is_finished(options.output_dir)
    result = None if finished else cl2d(options, comm)
    if finished and comm.is_root and not options.quiet:
        click.echo(f"The run in {options.output_dir} has come to its end; there is nothing to do.")
    return cl2d_figures(options.output_dir, result) if comm.is_root else None
