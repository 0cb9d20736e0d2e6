"""The command `hpcsort simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpcsort.cli._command import ScriptedCommand
from hpcsort.errors import OptionError

__all__ = ["command"]

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort simulate sim
  hpcsort simulate sim --map ribosome.mrc --states 5 --particles 20000 --snr 0.05
  hpcsort simulate sim --sizes 60,20,10,7,3 --noise coloured --junk 0.2
  hpcsort simulate sim --nested --states 9 --particles 10000
  hpcsort simulate sim --map complex.mrc --rotate 15 --angle-error 2 --shift-error 0.5
  hpcsort simulate sim --tilt-pairs 4 --tilt 55 --micrograph-size 1024
"""

_OF_PAIRS = ("per_micrograph", "size_px", "tilt_deg", "axis_deg", "ice_A", "views", "dust", "carbon")
_OF_BOTH = (
    "map_path", "states", "box_px", "pixel_size_A", "snr", "voltage_kV", "cs_mm", "amplitude_contrast", "seed",
    "overwrite",
)  # fmt: skip


def _numbers(option: str, text: str, count: int | None = None) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    if not values or (count is not None and len(values) != count):
        wanted = f"{count} numbers" if count else "numbers"
        raise OptionError(f"{option} is {text!r}; give {wanted} separated by commas, without blanks")
    return values


@click.command(
    "simulate", cls=ScriptedCommand, short_help="Simulate particles of a molecule in several states.", epilog=_EXAMPLES
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--map", "map_path", type=click.Path(path_type=Path), help="Map to make the states of. [the phantom]")
@click.option("--states", type=int, default=0, help="Number of states. [as many as --sizes, or 3]")
@click.option("--particles", type=int, default=4000, show_default=True, help="Number of images, junk included.")
@click.option("--box", "box_px", type=int, default=0, help="Edge of the images in pixels. [the map's, or 64]")
@click.option("--angpix", "pixel_size_A", type=float, default=0.0, help="Pixel size in A. [the map's, or 5]")
@click.option("--snr", type=float, default=0.1, show_default=True, help="Signal variance by noise variance, whole box.")
@click.option(
    "--noise",
    type=click.Choice(["white", "coloured", "none"]),
    default="white",
    show_default=True,
    help="Its spectrum.",
)
@click.option(
    "--domain-radius",
    "domain_radius_px",
    type=float,
    default=12.0,
    show_default=True,
    help="Of the spheres, in pixels.",
)
@click.option(
    "--rotate", "rotate_deg", type=float, default=0.0, help="Turn the spheres by these degrees, do not remove them."
)
@click.option("--nested", is_flag=True, help="Each state lacks one sphere more than the one before it.")
@click.option(
    "--domain-share", type=float, default=0.03, show_default=True, help="Of the mass, in each sphere of --nested."
)
@click.option("--sizes", "sizes_text", default="", metavar="A,B,...", help="Relative sizes of the states. [even]")
@click.option("--junk", type=float, default=0.0, help="Fraction of images that are noise or another density.")
@click.option("--preferred", type=float, default=0.0, help="Fraction of particles that look along one cone.")
@click.option(
    "--angle-error", "angle_error_deg", type=float, default=0.0, help="Error of the written angles, degrees per axis."
)
@click.option(
    "--shift-error", "shift_error_px", type=float, default=0.0, help="Error of the written origins, pixels per axis."
)
@click.option(
    "--shift-sigma", "shift_sigma_px", type=float, default=2.0, show_default=True, help="Spread of the true origins."
)
@click.option("--micrographs", type=int, default=0, help="Number of micrographs. [one for 80 particles]")
@click.option(
    "--defocus-range", "defocus_text", default="0.8,2.5", show_default=True, metavar="LOW,HIGH", help="In micrometres."
)
@click.option("--voltage", "voltage_kV", type=float, default=300.0, show_default=True, help="In kV.")
@click.option("--cs", "cs_mm", type=float, default=2.7, show_default=True, help="Spherical aberration in mm.")
@click.option("--amplitude-contrast", type=float, default=0.1, show_default=True, help="Fraction from 0 to 1.")
@click.option("--tilt-pairs", type=int, default=0, help="Simulate so many pairs of untilted and tilted micrographs.")
@click.option("--per-micrograph", type=int, default=30, show_default=True, help="With --tilt-pairs: particles in each.")
@click.option(
    "--micrograph-size", "size_px", type=int, default=512, show_default=True, help="With --tilt-pairs: edge in pixels."
)
@click.option(
    "--tilt", "tilt_deg", type=float, default=50.0, show_default=True, help="With --tilt-pairs: angle in degrees."
)
@click.option(
    "--tilt-axis", "axis_deg", type=float, default=85.0, show_default=True, help="With --tilt-pairs: from x towards y."
)
@click.option("--ice", "ice_A", type=float, default=0.0, show_default=True, help="With --tilt-pairs: its thickness, A.")
@click.option("--views", type=int, default=0, help="With --tilt-pairs: orientations up to rotation in the plane. [any]")
@click.option("--dust", type=int, default=12, show_default=True, help="With --tilt-pairs: patches in each micrograph.")
@click.option("--carbon/--no-carbon", default=True, show_default=True, help="With --tilt-pairs: film in every third.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True, help="Of the stack."
)
@click.option("--overwrite", is_flag=True, help="Replace what OUT holds.")
def command(out: Path, sizes_text: str, defocus_text: str, tilt_pairs: int, **values: Any) -> dict[str, Any] | None:
    """Simulate particles of a molecule in several states.

    Writes particles.mrcs, particles.star (RELION 3.1), truth.csv (state and true pose of each image), state_NN.mrc and
    simulate.json into the folder OUT. Without --map the states are a built-in particle like a ribosome and the same
    without some of its domains; with --map they are the map and the same with one sphere of density missing or turned.
    --nested makes an assembly pathway of either: state 0 is all of it and every further state lacks one sphere more,
    each of the same mass. With --tilt-pairs OUT holds micrographs, coordinates, CTFs and their truth for extract-pairs
    instead, with noise of variance 1 and as many particles as find room.
    """
    # imported late, so that the help answers at once
    from hpcsort.parallel import Progress, get_comm
    from hpcsort.simulation import SimulationOptions, simulate

    low, high = _numbers("--defocus-range", defocus_text, 2)
    if tilt_pairs:
        chosen = {name: values[name] for name in (*_OF_PAIRS, *_OF_BOTH)}
        return _simulate_pairs(out, tilt_pairs, chosen | {"defocus_range_A": (1e4 * low, 1e4 * high)})
    for name in _OF_PAIRS:
        del values[name]
    sizes = _numbers("--sizes", sizes_text) if sizes_text else ()
    options = SimulationOptions(out=out, sizes=sizes, defocus_range_A=(1e4 * low, 1e4 * high), **values)
    comm = get_comm()
    # one process makes all: the others would write the same files
    if not comm.is_root:
        return None
    with Progress("image", options.particles) as bar:
        result = simulate(options, lambda done, _: bar.step(done - bar.done))
    sizes_told = ", ".join(f"{size} of state {number}" for number, size in enumerate(result.sizes))
    junk_told = f", {result.junk} of junk" if result.junk else ""
    click.echo(
        f"{options.particles} images of {result.box_px} pixels ({result.pixel_size_A:g} A): {sizes_told}{junk_told}.\n"
        f"Written to {out}; sort them with: hpcsort sort3d --instack {result.star}"
    )
    return vars(result)


def _simulate_pairs(out: Path, pairs: int, values: dict[str, Any]) -> dict[str, Any] | None:
    from hpcsort.parallel import Progress, get_comm
    from hpcsort.simulation.tilt_pairs import TiltPairOptions, simulate_tilt_pairs

    options = TiltPairOptions(out=out, pairs=pairs, **(values | {"states": values["states"] or 1}))
    if not get_comm().is_root:
        return None
    with Progress("micrograph", 2 * pairs) as bar:
        result = simulate_tilt_pairs(options, lambda done, _: bar.step(done - bar.done))
    click.echo(
        f"{result.particles} particles in {pairs} pairs of micrographs of {options.size_px} pixels.\n"
        f"Written to {out}; cut them out with: hpcsort extract-pairs --pairs {result.pairs} --coordinates"
        f" {result.coordinates} --ctf-untilted {result.ctfs[0]} --ctf-tilted {result.ctfs[1]} --box 96 --invert"
        " --output pairs"
    )
    return vars(result)
