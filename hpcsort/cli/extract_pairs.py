"""The command `hpcsort extract-pairs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpcsort.cli._command import ScriptedCommand

__all__ = ["command"]

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort extract-pairs --pairs pairs.star --coordinates picks --box 128 --invert --output pairs
  hpcsort extract-pairs --untilted 'mics/*_U.mrc' --tilted 'mics/*_T.mrc' --coordinates picks --box 96 \\
      --downsample 2 --invert --output pairs
  mpiexec -n 8 hpcsort extract-pairs --pairs pairs.star --coordinates picks --box 128 --invert --phase-flip \\
      --ctf-untilted ctf_u.star --ctf-tilted ctf_t.star --tilted-defocus gradient --output pairs
"""


@click.command(
    "extract-pairs", cls=ScriptedCommand, short_help="Cut particle pairs from untilted and tilted micrographs.",
    epilog=_EXAMPLES,
)  # fmt: skip
@click.option("--pairs", type=click.Path(path_type=Path), help="Table of micrograph pairs: STAR, .xmd or CSV.")
@click.option("--untilted", metavar="FOLDER", help="Untilted micrographs; or 'mics/*_U.mrc', * naming the pair.")
@click.option("--tilted", metavar="FOLDER", help="Tilted micrographs, likewise.")
@click.option(
    "--coordinates", type=click.Path(path_type=Path), multiple=True,
    help="Folder of .pos, .star, .box or .csv files, or one table; give it twice if sides differ. [beside]",
)  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--box", "box_px", type=int, required=True, help="Edge of the windows in pixels after downsampling.")
@click.option("--downsample", type=float, default=1.0, show_default=True, help="Factor, 1 or more; 2.5 is fine.")
@click.option(
    "--borders", type=click.Choice(["skip", "fill"]), default="skip", show_default=True,
    help="Leave out windows partly outside, or repeat the nearest pixel.",
)  # fmt: skip
@click.option("--dust/--no-dust", default=True, show_default=True, help="Replace pixels far from the mean.")
@click.option("--dust-sigma", type=float, default=3.5, show_default=True, help="How far, in standard deviations.")
@click.option("--invert/--no-invert", default=None, help="Change the sign, to particles that are white. [to be chosen]")
@click.option("--phase-flip", is_flag=True, help="Flip phases on the sides that have a CTF.")
@click.option(
    "--normalize", type=click.Choice(["none", "old", "new", "ramp"]), default="ramp", show_default=True,
    help="By the window, by its background, or by the plane through its background.",
)  # fmt: skip
@click.option(
    "--background-radius", "background_radius_px", type=int, default=-1, help="Where it begins, px. [box // 2]"
)
@click.option("--ctf-untilted", type=click.Path(path_type=Path), help="CTF by micrograph: STAR or .xmd.")
@click.option("--ctf-tilted", type=click.Path(path_type=Path), help="The same of the tilted side.")
@click.option(
    "--tilted-defocus", type=click.Choice(["mean", "gradient"]), default="mean", show_default=True,
    help="Of particles: the micrograph's, or along the tilt.",
)  # fmt: skip
@click.option(
    "--tilt-sign", type=click.Choice(["auto", "+", "-"]), default="auto", show_default=True,
    help="Where underfocus grows: towards (-sin a, cos a) of the axis at a, or away; auto: from the images.",
)  # fmt: skip
@click.option("--subpixel", is_flag=True, help="Shift windows by what rounding left of the coordinates.")
@click.option("--compat", is_flag=True, help="Order of steps and inversion as in the original program.")
@click.option("--angpix", type=float, help="Pixel size of the micrographs in A. [from their headers]")
@click.option("--picked-angpix", type=float, help="That of the micrographs on which was picked. [the same]")
@click.option("--flip-y", is_flag=True, help="Coordinates count rows from the last.")
@click.option(
    "--ignore-in-names", metavar="REGEX", help="Left out when names of micrographs, picks and CTFs are compared."
)
@click.option("--voltage", "voltage_kV", type=float, help="In kV, where the CTF tables lack it.")
@click.option("--cs", "cs_mm", type=float, help="Spherical aberration in mm, likewise.")
@click.option("--amplitude-contrast", type=float, help="Fraction from 0 to 1, likewise.")
@click.option("--datadir", type=click.Path(path_type=Path), help="Folder in which micrographs are looked up as well.")
@click.option("--report/--no-report", default=True, show_default=True, help="Write the page with pictures.")
@click.option(
    "--workers", type=int, default=1, show_default=True, help="Micrograph pairs that each rank works on at a time."
)
@click.option(
    "--watchdog-minutes", type=float, default=60.0, show_default=True,
    help="Report a rank that does not answer for so long, and end the run; 0 waits for ever.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with this very run where its folder holds one: for job scripts.")
@click.option("--overwrite", is_flag=True, help="Replace existing output.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def command(coordinates: tuple[Path, ...], **values: Any) -> dict[str, Any] | None:
    """Cut particle pairs from untilted and tilted micrographs, pairing kept.

    Coordinates of one number in both micrographs of a pair are one particle; without numbers, the row counts. A pair is
    kept only if both windows are whole. Tilt and axis are fitted to the coordinates of each pair of micrographs.

    Writes untilted.mrcs and tilted.mrcs with STAR files of equal rows, pairs.star, .xmd files for Xmipp, losses.csv and
    report.html into the folder of --output. Micrographs or coordinates that are missing end in the report. Micrograph
    pairs that are done are kept: a run that was stopped goes on with `hpcsort resume`, or with --resume.
    """
    # imported late, so that the help answers at once
    from hpcsort.checkpoints import is_finished
    from hpcsort.cli._figures import pairs_figures
    from hpcsort.pairs import PairOptions, extract_pairs
    from hpcsort.parallel import get_comm, together

    comm = get_comm()
    with together(comm):
        options = PairOptions(coordinates=coordinates, **values)
        finished = options.resume and is_finished(options.output)
    result = None
    if not finished:
        result = extract_pairs(options, comm, lambda text: None if options.quiet else click.echo(text))
    elif comm.is_root and not options.quiet:
        click.echo(f"The run in {options.output} has come to its end; there is nothing to do.")
    return pairs_figures(options.output, result) if comm.is_root else None
