"""Write a simulated data set: stack, table, truth, maps and options."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpcsort.errors import OutputError
from hpcsort.geometry import relion_angles
from hpcsort.io.files import write_text_atomically
from hpcsort.io.mrc import write_map, write_stack
from hpcsort.io.star import write_tables
from hpcsort.simulation.images import Image, ParticleImages
from hpcsort.simulation.options import SimulationOptions
from hpcsort.simulation.particles import JUNK, SimulatedParticles, draw_particles
from hpcsort.simulation.states import make_states

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SimulationResult:
    """What `simulate` has written.

    Attributes
    ----------
    star, stack, truth : Path
        particles.star, particles.mrcs and truth.csv.
    maps : tuple of Path
        state_00.mrc and so on, in the grey scale of the images.
    sizes : tuple of int
        Number of images of each state.
    junk : int
        Number of images that belong to none.
    box_px : int
        Edge of images and maps.
    pixel_size_A : float
        Pixel size.
    """

    star: Path
    stack: Path
    truth: Path
    maps: tuple[Path, ...]
    sizes: tuple[int, ...]
    junk: int
    box_px: int
    pixel_size_A: float


def simulate(options: SimulationOptions, progress: Progress | None = None) -> SimulationResult:
    """Simulate a particle stack with known states.

    An image is ``shift(CTF * projection) + noise``; noise has variance 1 and the density is scaled to the ratio asked
    for, in the written maps too. The same options give the same bytes.

    Parameters
    ----------
    options : SimulationOptions
        What to simulate, and the folder ``out`` to write to.
    progress : callable, optional
        Called with the numbers of images done and to do.

    Returns
    -------
    SimulationResult
        Paths of particles.mrcs, particles.star (RELION 3.1; poses with errors if asked for), truth.csv (state, true
        rot, tilt, psi, ox_px, oy_px) and state_NN.mrc; simulate.json holds the options.

    Raises
    ------
    InputError
        If the map cannot be used.
    OptionError
        If the options do not go together.
    OutputError
        If the folder is not empty and ``overwrite`` is not set, or cannot be written.
    """
    _check_folder(options)
    particles = draw_particles(options)
    volumes, pixel = make_states(options)
    images = ParticleImages(options, particles, volumes, pixel)
    out, box = options.out, volumes[0].shape[0]
    _prepare_folder(options)
    maps = []
    for number, volume in enumerate(volumes):
        maps.append(out / f"state_{number:02d}.mrc")
        write_map(maps[-1], volume * np.float32(images.scale), pixel, overwrite=options.overwrite)
    stack, star, truth = out / "particles.mrcs", out / "particles.star", out / "truth.csv"
    shape = (options.particles, box, box)
    pixels = _reported(images.stream(), options, progress)
    write_stack(stack, pixels, shape, pixel, np.dtype(options.dtype), overwrite=options.overwrite)
    write_text_atomically(truth, _truth_text(particles), overwrite=options.overwrite)
    settings = _settings(options) | {"box_px": box, "pixel_size_A": pixel, "density_scale": images.scale}
    write_text_atomically(out / "simulate.json", json.dumps(settings, indent=2) + "\n", overwrite=options.overwrite)
    # the table comes last: where it exists, everything else is complete
    write_tables(star, _star_tables(options, particles, box, pixel), overwrite=options.overwrite)
    sizes = np.bincount(particles.state[particles.state != JUNK], minlength=len(volumes)).tolist()
    return SimulationResult(star, stack, truth, tuple(maps), tuple(sizes), options.particles - sum(sizes), box, pixel)


def _check_folder(options: SimulationOptions) -> None:
    out = options.out
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, but simulate writes a folder; give another name")
    if out.is_dir() and any(out.iterdir()) and not options.overwrite:
        raise OutputError(f"{out} is not empty; give another folder, or --overwrite to replace what is in it")


def _prepare_folder(options: SimulationOptions) -> None:
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        # what an earlier run with more states has left would look like part of this one
        for stale in [options.out / "particles.star", *options.out.glob("state_[0-9][0-9]*.mrc")]:
            stale.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{options.out} cannot be written ({error.strerror}); give a folder that can") from error


def _reported(images: Iterator[Image], options: SimulationOptions, progress: Progress | None) -> Iterator[Image]:
    total = options.particles
    for done, image in enumerate(images, start=1):
        yield image
        if progress is not None and (done % options.chunk == 0 or done == total):
            progress(done, total)


def _truth_text(particles: SimulatedParticles) -> str:
    angles = relion_angles(particles.matrices)
    frame = pd.DataFrame({"state": particles.state})
    for column, name in enumerate(("rot", "tilt", "psi")):
        frame[name] = angles[:, column]
    for column, name in enumerate(("ox_px", "oy_px")):
        frame[name] = particles.origins_px[:, column]
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _star_tables(
    options: SimulationOptions, particles: SimulatedParticles, box: int, pixel: float
) -> dict[str, pd.DataFrame]:
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            "rlnVoltage": [options.voltage_kV],
            "rlnSphericalAberration": [options.cs_mm],
            "rlnAmplitudeContrast": [options.amplitude_contrast],
            "rlnImagePixelSize": [pixel],
            "rlnImageSize": [box],
            "rlnImageDimensionality": [2],
        }
    )
    angles, origins = particles.written_angles_deg, particles.written_origins_px * pixel
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(options.particles)],
            "rlnMicrographName": [f"mic_{m + 1:05d}.mrc" for m in particles.micrograph.tolist()],
            "rlnAngleRot": angles[:, 0],
            "rlnAngleTilt": angles[:, 1],
            "rlnAnglePsi": angles[:, 2],
            "rlnOriginXAngst": origins[:, 0],
            "rlnOriginYAngst": origins[:, 1],
            "rlnDefocusU": particles.defocus_u_A,
            "rlnDefocusV": particles.defocus_v_A,
            "rlnDefocusAngle": particles.defocus_angle_deg,
            "rlnOpticsGroup": np.ones(options.particles, dtype=np.int64),
            "rlnRandomSubset": particles.subset,
        }
    )
    # six decimals are RELION's own precision and keep the table half as long
    return {"optics": optics, "particles": table.round(6)}


def _settings(options: SimulationOptions) -> dict[str, Any]:
    """Options as JSON can hold them; the folder and the chunk are left out because they do not shape the data."""
    settings = dataclasses.asdict(options)
    settings["map_path"] = None if options.map_path is None else str(options.map_path)
    settings["states"] = options.state_count
    settings["micrographs"] = options.micrograph_count
    return {name: value for name, value in settings.items() if name not in ("out", "chunk", "overwrite")}
