"""The command `hpcsort match`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpcsort.cli._command import ScriptedCommand

__all__ = ["command"]

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort match --instack particles.star --ref map.mrc --output matched.star
  mpiexec -n 8 hpcsort match --instack particles.star --ref map.mrc --output matched.star --resolution 12
  mpiexec -n 8 hpcsort match --instack refined.star --ref map.mrc --output smeared.star --local --angle-range 6
  mpiexec -n 8 hpcsort match --instack picked.star --ref a.mrc --ref b.mrc --output matched.star --sym c4
"""


@click.command(
    "match", cls=ScriptedCommand, short_help="Give particles poses with probabilities by projection matching.",
    epilog=_EXAMPLES,
)  # fmt: skip
@click.option("--instack", type=click.Path(path_type=Path), required=True, help="Particles, with or without poses.")
@click.option(
    "--ref", "references", type=click.Path(path_type=Path), required=True, multiple=True, help="Reference map; repeat."
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="STAR file to write.")
@click.option("--global/--local", "everywhere", default=True, help="All orientations, or around the given poses.")
@click.option("--healpix-order", type=int, help="First grid of directions: 2 is 14.7 degrees, 3 is 7.3. [3]")
@click.option(
    "--angular-step", "angular_step_deg", type=float, help="Its spacing in degrees instead. [--local: from the band]"
)
@click.option(
    "--angle-range", "angle_range_deg", type=float, default=10.0, show_default=True, help="With --local, in degrees."
)
@click.option(
    "--shift-range", "shift_range_px", type=float, help="Largest shift from the given origin. [box / 10; --local: 3]"
)
@click.option("--shift-step", "shift_step_px", type=float, help="Spacing of the first shifts. [from the band]")
@click.option(
    "--resolution", "resolution_A", type=float, help="Band limit in A. [0.7 Nyquist, at most 40 Fourier pixels]"
)
@click.option("--sym", default="c1", show_default=True, help="Point group of the maps: c1, c4, d2, t, o, i ...")
@click.option(
    "--cumulative", type=float, default=0.999, show_default=True, help="Smears are listed up to this probability."
)
@click.option("--max-smears", type=int, help="Smears of a particle, at most.")
@click.option("--mask", "mask_px", type=float, help="Radius of the particle in pixels. [box // 2 - 2]")
@click.option("--no-ctf", is_flag=True, help="Images without CTF, or corrected for it.")
@click.option("--angpix", type=float, help="Pixel size in A where the table lacks it.")
@click.option("--datadir", type=click.Path(path_type=Path), help="Folder in which image stacks are looked up as well.")
@click.option("--overwrite", is_flag=True, help="Replace existing output.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def command(everywhere: bool, no_ctf: bool, **values: Any) -> dict[str, Any] | None:
    """Give particles poses with probabilities by projection matching.

    Writes a STAR file with the likeliest pose of each particle, and beside it (NAME_smears.h5) all poses that are
    possible with their probabilities, which sort3d and reconstruct use. Every other column of the input is kept. With
    several references each particle gets the likeliest one as its class. Noise spectra (one for each optics group) and
    the grey scale of the references are learned from the images.
    """
    # imported late, so that the help answers at once
    from hpcsort.cli._figures import match_figures
    from hpcsort.matching import MatchOptions, match
    from hpcsort.parallel import get_comm, together

    comm = get_comm()
    with together(comm):
        options = MatchOptions(local=not everywhere, use_ctf=not no_ctf, **values)
    result = match(options, comm)
    return match_figures(options, result) if comm.is_root else None
