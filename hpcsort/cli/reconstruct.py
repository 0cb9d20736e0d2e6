"""The command `hpcsort reconstruct`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcsort.cli._command import ScriptedCommand
from hpcsort.errors import OptionError

if TYPE_CHECKING:
    from hpcsort.reconstruction import Source

__all__ = ["command"]

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort reconstruct particles.star --output maps/all
  hpcsort reconstruct sorted/particles.star --output maps/g2 --class 2 --sym c4
  hpcsort reconstruct particles.star --output maps/core --list sorted/Core_set.txt
  mpiexec -n 8 hpcsort reconstruct --refinement-dir refinement --output maps/smeared --mask mask.mrc
  hpcsort reconstruct 2d/level_02/particles.star --rct pairs --output rct/map
"""


def _classes(text: str | None) -> tuple[int, ...]:
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise OptionError(f"--class is {text!r}; give numbers separated by commas, without blanks")
    return tuple(dict.fromkeys(int(word) for word in words))


def _reader(
    particles: Path | None,
    refinement_dir: Path | None,
    iteration: int | None,
    apply_noise: bool,
    passthrough: Path | None,
    datadir: Path | None,
    angpix: float | None,
) -> Callable[[], Source]:
    """Choose the reader by what was given; a folder is a refinement."""
    if (particles is None) == (refinement_dir is None):
        raise OptionError("give either the particles or --refinement-dir, not both and not neither")
    folder = refinement_dir if particles is None else particles if particles.is_dir() else None
    if folder is None and iteration is not None:
        raise OptionError(f"--niter-for-sorting {iteration} belongs to a refinement; leave it out")
    if folder is not None and passthrough is not None:
        raise OptionError(f"--passthrough {passthrough} belongs to a .cs file; leave it out")
    if folder is not None and angpix is not None:
        raise OptionError(f"--angpix {angpix:g} is known of a refinement; leave it out")

    def read() -> Source:
        from hpcsort.reconstruction import Source

        if folder is not None:
            from hpcsort.refinement import read_refinement

            found = read_refinement(folder, iteration=iteration, datadir=datadir, apply_noise=apply_noise)
            return Source(found.table, found.symmetry, found.radius_px, found.notes)
        from hpcsort.io import read_input

        assert particles is not None
        return Source(read_input(particles, passthrough=passthrough, datadir=datadir, angpix=angpix))

    return read


def _refuse_with_rct(particles: Path | None, given: list[str]) -> None:
    """Refuse what does not belong to a random conical tilt."""
    if particles is None:
        raise OptionError("--rct needs the 2D classes of the untilted particles; give their STAR file as INPUT")
    if given:
        raise OptionError(f"{given[0]} does not go with --rct; leave it out")


@click.command(
    "reconstruct", cls=ScriptedCommand, short_help="Make map, half-maps and FSC of particles.", epilog=_EXAMPLES
)
@click.argument("particles", required=False, metavar="[INPUT]", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, metavar="FOLDER/STEM", help="Where the maps go."
)
@click.option("--refinement-dir", type=click.Path(path_type=Path), help="MERIDIEN directory, instead of INPUT.")
@click.option("--niter-for-sorting", "iteration", type=int, help="Iteration of the refinement. [its best]")
@click.option("--class", "class_text", metavar="N[,N...]", help="Only particles of these classes (rlnClassNumber).")
@click.option(
    "--list", "listing", type=click.Path(path_type=Path), help="Only these rows, from 0, as in Cluster_000.txt."
)
@click.option("--sym", help="Point group of the map: c1, c4, d2, t, o, i ... [the refinement's, or c1]")
@click.option("--radius", type=int, help="Particle radius in pixels. [the refinement's, or box // 2 - 2]")
@click.option("--mask", type=click.Path(path_type=Path), help="3D mask in which the FSC is measured. [a soft sphere]")
@click.option("--rct", type=click.Path(path_type=Path), help="Random conical tilt with the pairs in this folder.")
@click.option(
    "--tilt-sign", type=click.Choice(["auto", "+", "-"]), default="auto", show_default=True,
    help="Of --rct, it decides the hand. [as extract-pairs found it]",
)  # fmt: skip
@click.option(
    "--centring-rounds", "rounds", type=int, default=5, show_default=True, help="How often --rct centres tilted images."
)
@click.option("--max-shift", "max_shift_px", type=float, help="How far it may shift them, px. [a tenth of the box]")
@click.option("--halves/--no-halves", default=True, show_default=True, help="Half-maps, and a filter by their FSC.")
@click.option("--pad", type=int, default=2, show_default=True, help="Padding of the Fourier volumes.")
@click.option("--best-pose", is_flag=True, help="Leave smears aside and use the likeliest pose of each particle.")
@click.option("--notapplybckgnoise", is_flag=True, help="Leave the noise spectra of a refinement aside.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random halves, where the table has none.")
@click.option(
    "--map-format",
    type=click.Choice(["mrc", "hdf"]),
    default="mrc",
    show_default=True,
    help="Format of the maps: MRC, or EMAN2's HDF5.",
)
@click.option("--passthrough", type=click.Path(path_type=Path), help="Second .cs file, joined to INPUT by uid.")
@click.option("--angpix", type=float, help="Pixel size in A where the input lacks it.")
@click.option("--datadir", type=click.Path(path_type=Path), help="Folder in which image stacks are looked up as well.")
@click.option("--overwrite", is_flag=True, help="Replace earlier maps of this name.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def command(
    particles: Path | None,
    refinement_dir: Path | None,
    iteration: int | None,
    class_text: str | None,
    notapplybckgnoise: bool,
    passthrough: Path | None,
    datadir: Path | None,
    angpix: float | None,
    rct: Path | None,
    tilt_sign: str,
    rounds: int,
    max_shift_px: float | None,
    **values: Any,
) -> dict[str, Any] | None:
    """Make map, half-maps and their FSC from exactly the chosen particles.

    INPUT is a STAR file (RELION 3.0, 3.1 or 5), with a smear table beside it or not, a .cs file of cryoSPARC, an HDF
    stack of EMAN2, or a MERIDIEN directory. Smeared particles are inserted with all poses and their probabilities.
    Halves are those of the input, else random. Writes STEM.mrc, STEM_half1.mrc, STEM_half2.mrc and STEM_fsc.txt; the
    map is filtered by the FSC, the half-maps are not.

    With --rct INPUT holds 2D classes of the untilted particles of extract-pairs (from cl2d or RELION). Each class, or
    each of --class, gets a map from its tilted images, and STEM_class001.star with their poses.
    """
    # imported late, so that the help answers at once
    from hpcsort.cli._figures import conical_figures, reconstruct_figures
    from hpcsort.parallel import get_comm, together
    from hpcsort.reconstruction import ConicalOptions, ReconstructOptions, reconstruct, reconstruct_conical

    comm = get_comm()
    with together(comm):
        apply_noise = not notapplybckgnoise
        options = ReconstructOptions(classes=_classes(class_text), apply_noise=apply_noise, **values)
        if rct is None:
            read = _reader(particles, refinement_dir, iteration, apply_noise, passthrough, datadir, angpix)
        else:
            given: dict[str, object] = {"--refinement-dir": refinement_dir, "--niter-for-sorting": iteration}
            given |= {"--list": options.listing, "--sym": options.sym, "--mask": options.mask}
            given |= {"--passthrough": passthrough, "--no-halves": None if options.halves else True}
            given |= {"--best-pose": options.best_pose or None}
            _refuse_with_rct(particles, [name for name, value in given.items() if value is not None])
            assert particles is not None
            conical = ConicalOptions(particles, rct, options, tilt_sign, rounds, max_shift_px, datadir, angpix)
    if rct is not None:
        classes = reconstruct_conical(conical, comm)
        return conical_figures(conical, classes) if comm.is_root else None
    result = reconstruct(options, read, comm, lambda text: None if options.quiet else click.echo(text))
    return None if result is None else reconstruct_figures(options, result)
