"""The command `hpcsort cluster-averages`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpcsort.cli._command import ScriptedCommand

__all__ = ["command"]

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort cluster-averages --averages run_it025_model.star --output-dir families
  hpcsort cluster-averages --averages classes.mrcs --output-dir families --min-clusters 2 --max-clusters 20
  hpcsort cluster-averages --averages cl2d_out --output-dir families --similarity ncc -j 4
  hpcsort cluster-averages --averages classes.star --particles particles.star --output-dir families
"""


@click.command(
    "cluster-averages", cls=ScriptedCommand, short_help="Group class averages into families of like views.",
    epilog=_EXAMPLES,
)  # fmt: skip
@click.option(
    "--averages", type=click.Path(path_type=Path), required=True,
    help="Stack, RELION's classes or model STAR, folder of cl2d, or .xmd.",
)  # fmt: skip
@click.option("--output-dir", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--particles", type=click.Path(path_type=Path), help="STAR file with classes and alignments. [beside the averages]"
)
@click.option("--min-clusters", type=int, default=10, show_default=True, help="Least families; 1 allows a single one.")
@click.option(
    "--max-clusters", type=int, default=-1, show_default=True, help="Most families; -1: two less than averages."
)
@click.option(
    "--similarity", type=click.Choice(["ssim", "ncc"]), default="ssim", show_default=True,
    help="Structural similarity, or correlation.",
)  # fmt: skip
@click.option(
    "--extract", type=click.Choice(["classes", "averages", "both"]),
    help="Write particles with merged classes, merged averages, or both. [both; averages where no particles are known]",
)  # fmt: skip
@click.option("--angpix", type=float, help="Pixel size in A where files do not tell.")
@click.option("--datadir", type=click.Path(path_type=Path), help="Folder in which stacks are looked up as well.")
@click.option("-j", "--workers", type=int, default=1, show_default=True, help="Threads.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random numbers.")
@click.option("--overwrite", is_flag=True, help="Replace existing output.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def command(**values: Any) -> dict[str, Any] | None:
    """Group class averages into families of like views.

    Averages are compared at their best rotation, shift and mirror. k-means, Ward and average linkage are tried with all
    numbers of families within the bounds; the mean silhouette chooses. Bounds that so many averages do not allow are
    clamped. With --min-clusters 1 a test decides whether the averages are noisy copies of one view.

    Writes best_clusters_with_names.txt (ids of the averages), clusters.json, scores.csv, merged averages, particles
    with merged classes and alignments, pictures and report.html into the folder of --output-dir.
    """
    # imported late, so that the help answers at once
    from hpcsort.averages import AveragesOptions, cluster_averages
    from hpcsort.cli._figures import family_figures
    from hpcsort.parallel import get_comm, together

    comm = get_comm()
    with together(comm):
        options = AveragesOptions(**values)
    findings = cluster_averages(options, comm, lambda text: None if options.quiet else click.echo(text))
    return None if findings is None else family_figures(options, findings)
