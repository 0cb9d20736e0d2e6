"""Pairs of untilted and tilted micrographs with known geometry, and all that real ones have: dust, carbon, edges."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import OptionError, OutputError
from hpcsort.geometry import relion_angles
from hpcsort.io import write_map, write_stack, write_tables, write_text_atomically
from hpcsort.io.xmd import write_xmd
from hpcsort.simulation.sections import SectionMaker
from hpcsort.simulation.states import make_states
from hpcsort.simulation.tilt_micrographs import TiltField, density_scale, draw_field, make_micrograph
from hpcsort.simulation.tilt_options import TiltPairOptions

__all__ = ["TiltPairOptions", "TiltPairResult", "simulate_tilt_pairs"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TiltPairResult:
    """What `simulate_tilt_pairs` has written.

    Attributes
    ----------
    pairs : pairs.star, table of micrographs.
    coordinates : folder of .pos files.
    ctfs : ctf_untilted.star, ctf_tilted.star.
    truth : truth.csv, one row for each particle.
    particles : how many there are.
    """

    pairs: Path
    coordinates: Path
    ctfs: tuple[Path, Path]
    truth: Path
    particles: int


def simulate_tilt_pairs(options: TiltPairOptions, progress: Callable[[int, int], None] | None = None) -> TiltPairResult:
    """Simulate micrographs of the same field, untilted and tilted.

    A point (x, y, z) of the specimen, in A from the middle and in RELION's view frame, is seen in the tilted view at
    Rz(-turn) R(axis, tilt) (x, y, z), shifted; underfocus is that of the micrograph plus the height z there. Particles
    are dark, as in ice; noise has variance 1. The same options give the same bytes.

    Parameters
    ----------
    options : what to simulate, and the folder ``out`` to write to.
    progress : called with the numbers of micrographs done and to do.

    Returns
    -------
    Paths: micrographs/pair_001_U.mrc and _T.mrc, coordinates/*.pos (whole pixels, as Xmipp writes them), pairs.star,
    ctf_untilted.star, ctf_tilted.star, truth.csv (exact places, poses and defocus), and state_NN.mrc, the densities.

    Raises
    ------
    InputError, OptionError, OutputError
        As `simulate`.
    """
    _claim(options)
    volumes, pixel_A = make_states(options.particle)
    box = volumes[0].shape[0]
    if options.size_px < box:
        raise OptionError(f"--micrograph-size {options.size_px} is less than the particle's box of {box}; give more")
    makers = [SectionMaker(volume) for volume in volumes]
    scale = density_scale(options, makers[0], box, pixel_A)
    for state, volume in enumerate(volumes):
        path = options.out / f"state_{state:02d}.mrc"
        write_map(path, volume * np.float32(scale), pixel_A, overwrite=options.overwrite)
    truth, first = [], 1
    for number in range(options.pairs):
        field = draw_field(options, number, box, pixel_A)
        for side, letter in enumerate("UT"):
            image = make_micrograph(options, number, side, field, makers, pixel_A, scale)
            name = f"pair_{number + 1:03d}_{letter}"
            place = options.out / "micrographs" / f"{name}.mrc"
            write_stack(place, image[None], (1, *image.shape), pixel_A, overwrite=options.overwrite)
            _write_pos(options, name, field.places[side])
            if progress is not None:
                progress(2 * number + side + 1, 2 * options.pairs)
        truth.append(_truth(options, number, field, first))
        first += len(field.state)
    frame = pd.concat(truth, ignore_index=True)
    return _write_tables(options, frame, pixel_A, scale)


def _claim(options: TiltPairOptions) -> None:
    out = options.out
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, but simulate writes a folder; give another name")
    if out.is_dir() and any(out.iterdir()) and not options.overwrite:
        raise OutputError(f"{out} is not empty; give another folder, or --overwrite to replace what is in it")
    try:
        for folder in ("micrographs", "coordinates"):
            (out / folder).mkdir(parents=True, exist_ok=True)
            for stale in (out / folder).glob("pair_*_[UT].*"):
                stale.unlink()
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}); give a folder that can") from error


def _write_pos(options: TiltPairOptions, name: str, places: Floats) -> None:
    whole = np.floor(places + options.size_px // 2 + 0.5).astype(np.int64)
    count = len(whole)
    table = pd.DataFrame(
        {
            "itemId": [f"{row + 1:06d}" for row in range(count)],
            "enabled": np.ones(count, np.int64),
            "xcoor": whole[:, 0],
            "ycoor": whole[:, 1],
        }
    )
    header = pd.DataFrame({"pickingMicrographState": ["Manual"]})
    path = options.out / "coordinates" / f"{name}.pos"
    write_xmd(path, {"header": header, "particles": table}, overwrite=options.overwrite)


def _truth(options: TiltPairOptions, number: int, field: TiltField, first: int) -> pd.DataFrame:
    count = len(field.state)
    columns: dict[str, object] = {
        "pair_id": np.arange(first, first + count),
        "item_id": np.arange(1, count + 1),
        "pair": np.full(count, number + 1),
        "state": field.state,
    }
    for side, letter in enumerate("ut"):
        angles = relion_angles(field.rotations[side])
        columns |= {
            f"{axis}_{letter}_px": field.places[side][:, i] + options.size_px // 2 for i, axis in enumerate("xy")
        }
        columns |= {f"{name}_{letter}": angles[:, i] for i, name in enumerate(("rot", "tilt", "psi"))}
        columns[f"defocus_{letter}_A"] = field.defocus_A[side] + field.heights_A[side]
        columns[f"micrograph_defocus_{letter}_A"] = np.full(count, field.defocus_A[side])
    columns["astigmatism_deg"] = np.full(count, field.angle_deg)
    return pd.DataFrame(columns)


def _write_tables(options: TiltPairOptions, truth: pd.DataFrame, pixel_A: float, scale: float) -> TiltPairResult:
    out, over = options.out, options.overwrite
    write_text_atomically(out / "truth.csv", str(truth.to_csv(index=False, lineterminator="\n")), overwrite=over)
    numbers = range(1, options.pairs + 1)
    named = [[f"micrographs/pair_{number:03d}_{letter}.mrc" for number in numbers] for letter in "UT"]
    ctfs = []
    for side, word in enumerate(("untilted", "tilted")):
        ctfs.append(out / f"ctf_{word}.star")
        first = truth.drop_duplicates("pair").set_index("pair").reindex(list(numbers))
        mean = first[f"micrograph_defocus_{'ut'[side]}_A"].to_numpy()
        table = pd.DataFrame(
            {
                "rlnMicrographName": named[side],
                "rlnDefocusU": mean + 200.0,
                "rlnDefocusV": mean - 200.0,
                "rlnDefocusAngle": first["astigmatism_deg"].to_numpy(),
                "rlnPhaseShift": options.phase_shift_deg,
                "rlnVoltage": options.voltage_kV,
                "rlnSphericalAberration": options.cs_mm,
                "rlnAmplitudeContrast": options.amplitude_contrast,
            }
        )
        write_tables(ctfs[-1], {"micrographs": table.dropna()}, overwrite=over)
    settings = {k: v for k, v in dataclasses.asdict(options).items() if k not in ("out", "overwrite", "map_path")}
    settings |= {"map_path": None if options.map_path is None else str(options.map_path), "density_scale": scale}
    settings["pixel_size_A"] = pixel_A
    write_text_atomically(out / "simulate.json", json.dumps(settings, indent=2) + "\n", overwrite=over)
    pairs = {"hpcsortUntiltedMicrographName": named[0], "hpcsortTiltedMicrographName": named[1]}
    write_tables(out / "pairs.star", {"pairs": pd.DataFrame(pairs)}, overwrite=over)
    return TiltPairResult(out / "pairs.star", out / "coordinates", (ctfs[0], ctfs[1]), out / "truth.csv", len(truth))
