"""The command `hpcsort convert`."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import click

from hpcsort.cli._command import ScriptedCommand

__all__ = ["command"]

# the first line keeps click from joining the others
_EXAMPLES = """\b
Formats of OUT:
  .star   RELION 3.1, or 3.0 where IN comes from there
  .cs     cryoSPARC
  .hdf    EMAN2 and SPHIRE, with the images
  .xmd    Xmipp
  .txt    phi theta psi sx sy; beside it STEM.star, STEM_ctf.txt, STEM_chunk_0.txt, STEM_chunk_1.txt
  lists   folder with Cluster_000.txt ... and Core_set.txt (class 0); give --to lists

\b
Examples:
  hpcsort convert J42_particles.cs particles.star
  hpcsort convert sorted/particles.star group2.star --class 3
  hpcsort convert particles.star group0.cs --list sorted/Cluster_000.txt
  hpcsort convert particles.star classes.star --list "sorted/Cluster_*.txt"
  hpcsort convert group2.star lists --to lists --particles particles.star
  hpcsort convert stack.hdf particles.star --copy-images
  hpcsort convert meridien_refinement smeared.star
  hpcsort convert params_021.txt refined.star --particles particles.star
"""


def _numbers(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Read N,N,..."""
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise click.BadParameter(f"'{text}' is not of numbers separated by commas, such as 1,3.", ctx, param)
    return tuple(dict.fromkeys(int(word) for word in words))


def _range(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int | None, int | None]:
    """Read FIRST:STOP, either of which may be absent."""
    if text is None:
        return None, None
    first, mark, stop = text.partition(":")
    if not mark or not all(word.isascii() and (word.isdigit() or not word) for word in (first, stop)):
        raise click.BadParameter(f"'{text}' is not of the form FIRST:STOP, such as 0:1000.", ctx, param)
    return int(first) if first else None, int(stop) if stop else None


@click.command("convert", cls=ScriptedCommand, short_help="Convert particle tables between programs.", epilog=_EXAMPLES)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--to", type=click.Choice(["star", "cs", "hdf", "xmd", "meridien", "lists"]),
    help="Format of OUT. [from its suffix: .star .cs .hdf .xmd .txt]",
)  # fmt: skip
@click.option("--class", "classes", metavar="N[,N...]", callback=_numbers, help="Only these classes (rlnClassNumber).")
@click.option("--group", "groups", metavar="N[,N...]", callback=_numbers, help="The same by Cluster_NNN: class less 1.")
@click.option(
    "--list", "listed", multiple=True, metavar="FILE",
    help="Only rows on this list (Cluster_000.txt); several, or a pattern in quotes, become classes 1, 2 ...",
)  # fmt: skip
@click.option("--range", "rows", metavar="FIRST:STOP", callback=_range, help="Only rows from FIRST on, before STOP.")
@click.option(
    "--particles", type=click.Path(path_type=Path),
    help="Table to which poses in a .txt belong [STEM.star], or whose rows are meant by --to lists [IN].",
)  # fmt: skip
@click.option("--copy-images", is_flag=True, help="Write the images to OUT.mrcs; HDF holds them anyway.")
@click.option("--datadir", type=click.Path(path_type=Path), help="Folder in which image stacks are looked up as well.")
@click.option("--angpix", type=float, help="Pixel size in A where IN lacks it.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def command(
    classes: tuple[int, ...], groups: tuple[int, ...], listed: tuple[str, ...], quiet: bool, **values: Any
) -> dict[str, Any]:
    """Convert particles between RELION, cryoSPARC, EMAN2, MERIDIEN and Xmipp.

    IN is a STAR, .cs, .hdf or .xmd file, a text file of poses (.txt) or the folder of a refinement by MERIDIEN. OUT has
    everything that IN has: what its format has no name for is kept under the name that it has in IN, and the way back
    restores it. Images are named, not copied, but for .hdf. Rows count from 0, as in Cluster_000.txt.
    """
    # imported late, so that the help answers at once
    from hpcsort.converting import ConvertOptions, convert

    chosen = tuple(dict.fromkeys((*classes, *(group + 1 for group in groups))))
    found = (sorted(map(Path, glob.glob(text))) or [Path(text)] for text in listed)
    lists = tuple(path for paths in found for path in paths)
    options = ConvertOptions(classes=chosen, lists=lists, **values)
    return convert(options, (lambda text: None) if quiet else click.echo)
