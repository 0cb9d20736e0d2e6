"""The command `hpcsort sort3d`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hpcsort.cli._command import ScriptedCommand

__all__ = ["command"]

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort sort3d --instack particles.star
  mpiexec -n 8 hpcsort sort3d --instack particles.star --output-dir sorted --radius 52
  mpiexec -n 8 hpcsort sort3d --instack particles.star --img-per-grp 5000 --mask3D mask.mrc
  srun hpcsort sort3d --instack particles.star --output-dir sorted --sym c4 --skip-bad
  mpiexec -n 8 hpcsort sort3d --refinement_dir meridien --nsmear 10 --memory_per_node 120
  mpiexec -n 8 hpcsort sort3d --instack particles.star --sym d7 --expand --focus subunit.mrc
"""


@click.command(
    "sort3d", cls=ScriptedCommand, short_help="Sort a particle stack into reproducible 3D groups.", epilog=_EXAMPLES
)
@click.option(
    "--instack", type=click.Path(path_type=Path), help="Particles with poses: STAR, cryoSPARC .cs or EMAN2's HDF."
)
@click.option("--refinement-dir", type=click.Path(path_type=Path), help="Instead: folder of a MERIDIEN refinement.")
@click.option("--niter-for-sorting", type=int, help="Iteration of the refinement. [the best]")
@click.option("--notapplybckgnoise", is_flag=True, help="Leave the refinement's noise spectra out of account.")
@click.option("--check-smearing", is_flag=True, help="Tell the smears of every iteration of the refinement, and end.")
@click.option("--nsmear", type=int, help="Use the likeliest so many poses of each particle. [all]")
@click.option(
    "--scores",
    type=click.Choice(["marginal", "best"]),
    default="marginal",
    show_default=True,
    help="Score particles with several poses by their mean likelihood, or by the likeliest pose alone.",
)
@click.option("--compute-on-the-fly", is_flag=True, help="Shift images for each pose when needed: saves memory.")
@click.option("--memory-per-node", type=float, help="Memory in GB that a node may use. [what it has]")
@click.option(
    "--overhead", type=float, default=1.0, show_default=True, help="Memory in GB a node that is left to others."
)
@click.option("--output-dir", type=click.Path(path_type=Path), help="Folder of the results. [sort3d_<date and time>]")
@click.option("--radius", type=int, help="Particle radius in pixels of the full box. [box // 2 - 2]")
@click.option("--sym", default="c1", show_default=True, help="Point group of the maps: c1, c4, d2, t, o, i ...")
@click.option(
    "--img-per-grp", type=int, help="Asked-for size of a group: the stack makes at most so many groups. [--max-groups]"
)
@click.option(
    "--nxinit", type=int, help="Window of the sort in pixels; its band is nxinit / 2 - 1. [from particle and FSC]"
)
@click.option(
    "--mask3D", "--mask3d", "mask3D", type=click.Path(path_type=Path), help="Mask of the particle. [a soft sphere]"
)
@click.option("--focus", type=click.Path(path_type=Path), help="Mask of the part whose differences are sorted.")
@click.option("--auto-focus", is_flag=True, help="Find that part: try balls all over the particle.")
@click.option("--expand", is_flag=True, help="Sort each particle once for each symmetry mate, to find broken symmetry.")
@click.option(
    "--orientation-groups",
    type=int,
    default=20,
    show_default=True,
    help="View directions in each of which every group holds its share of the minimum size.",
)
@click.option("--nstep", type=int, default=5, show_default=True, help="Steps in which the minimum size is lowered.")
@click.option(
    "--depth-order",
    type=int,
    default=2,
    show_default=True,
    help="A generation starts with 2^(depth order) boxes, each a pair of independent chains.",
)
@click.option(
    "--engine",
    type=click.Choice(["subspace", "maps"]),
    default="subspace",
    show_default=True,
    help="A learned subspace finished in map space, or the classical loop in map space from random starts.",
)
@click.option(
    "--independence",
    type=click.Choice(["halves", "starts"]),
    default="halves",
    show_default=True,
    help="The chains of a box learn from disjoint halves, or from all particles and different starts.",
)
@click.option("--use-umat", is_flag=True, help="With --engine maps: fuzzy membership takes part in the maps.")
@click.option(
    "--null",
    type=int,
    default=0,
    show_default=True,
    help="Sort so many simulated sets of one state too, for p-values of the groups; 19 or more.",
)
@click.option(
    "--num-core-set", type=int, help="Smallest core set that gets a map. [the minimum group size, at least 100]"
)
@click.option("--not-freeze-groups", is_flag=True, help="With --img-per-grp: lower the minimum size in steps.")
@click.option("--not-include-unaccounted", is_flag=True, help="Leave unaccounted particles out of the last cluster.")
@click.option("--components", type=int, help="Number of maps of the subspace. [from held-out likelihood]")
@click.option("--max-groups", type=int, default=24, show_default=True, help="Largest number of groups tried.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same groups.")
@click.option(
    "--map-format",
    type=click.Choice(["mrc", "hdf"]),
    default="mrc",
    show_default=True,
    help="Format of the maps: MRC, or EMAN2's HDF5.",
)
@click.option("--angpix", type=float, help="Pixel size in A where the STAR file lacks it.")
@click.option("--datadir", type=click.Path(path_type=Path), help="Folder in which image stacks are looked up as well.")
@click.option("--skip-bad", is_flag=True, help="Go on without images that are NaN, infinite or constant.")
@click.option(
    "--checkpoint-minutes",
    type=float,
    default=10.0,
    show_default=True,
    help="Time between two checkpoints, from which `hpcsort resume` goes on; 0 writes one after every step.",
)
@click.option(
    "--watchdog-minutes",
    type=float,
    default=60.0,
    show_default=True,
    help="Report a rank that does not answer for so long, and end the run; 0 waits for ever.",
)
@click.option("--resume", is_flag=True, help="Go on with this very sort where its folder holds one: for job scripts.")
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier sort.")
@click.option("--quiet", is_flag=True, help="Write the story to log.txt only.")
def command(
    output_dir: Path | None,
    not_freeze_groups: bool,
    not_include_unaccounted: bool,
    check_smearing: bool,
    **values: Any,
) -> dict[str, Any] | list[dict[str, Any]] | None:
    """Sort a particle stack into reproducible 3D groups.

    Orientations are those of the input (RELION 3.0, 3.1 or 5, cryoSPARC, EMAN2, or a refinement by MERIDIEN with all
    its smears) and stay fixed. Writes the particles of each group
    (Cluster_000.txt ...), its map and half-maps, the unaccounted rest, particles.star with a class for each particle,
    log.txt and run.json. Underscores serve as well as dashes: --output_dir is --output-dir.
    """
    # imported late, so that the help answers at once
    from hpcsort.checkpoints import is_finished
    from hpcsort.cli._figures import sort_figures
    from hpcsort.parallel import get_comm, together
    from hpcsort.sort3d import SortOptions, sort3d

    comm = get_comm()
    if check_smearing:
        with together(comm):
            return _tell_smearing(values["refinement_dir"]) if comm.is_root else None
    # ranks may start in different seconds
    folder = output_dir or Path(comm.bcast(f"sort3d_{datetime.now():%d_%b_%Y_%H_%M_%S}"))
    with together(comm):
        options = SortOptions(
            output_dir=folder,
            freeze_groups=not not_freeze_groups,
            include_unaccounted=not not_include_unaccounted,
            **values,
        )
        finished = options.resume and is_finished(folder)
    if not finished:
        sort3d(options, comm)
    elif comm.is_root and not options.quiet:
        click.echo(f"The run in {folder} has come to its end; there is nothing to do.")
    return sort_figures(folder) if comm.is_root else None


def _tell_smearing(folder: Path | None) -> list[dict[str, Any]]:
    """Print the smears of every iteration and the memory that their images would take."""
    from hpcsort.errors import OptionError
    from hpcsort.parallel import node_memory_GB
    from hpcsort.refinement import smearing_lines, smearing_report

    if folder is None:
        raise OptionError("--check-smearing reads a refinement; give its folder with --refinement-dir.")
    rows = smearing_report(folder)
    for line in smearing_lines(rows, memory_GB=node_memory_GB()):
        click.echo(line)
    return [vars(row) for row in rows]
