"""Tilted particles at exact poses in the files of extract-pairs and of a 2D classification."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from reconstruction_cases import PIXEL_A, density

from hpcsort.geometry import relion_matrices
from hpcsort.io import write_stack, write_tables
from hpcsort.optics import ctf
from hpcsort.pairs import fit_tilt
from hpcsort.simulation.sections import SectionMaker, half_plane, image_from_half_plane
from hpcsort.simulation.tilt_micrographs import tilt_matrix
from hpcsort.simulation.tilt_options import TiltPairOptions

BOX, RADIUS = 24, 9
_SIDES = ("Untilted", "Tilted")


@dataclass
class Case:
    """Files as extract-pairs and a 2D classification write them, and the truth."""

    folder: Path
    classes: Path
    volumes: list[np.ndarray]
    """In the frame of each class."""
    shifts: np.ndarray


def _tables(count: int, tilts: list[dict[str, float]], group: np.ndarray) -> dict[str, pd.DataFrame]:
    names = {side: np.array([f"mics/{number}{side[0]}.mrc" for number in range(len(tilts))]) for side in _SIDES}
    micrographs = pd.DataFrame({f"hpcsort{side}MicrographName": names[side] for side in _SIDES})
    pairs = pd.DataFrame({"hpcsortPairId": np.arange(1, count + 1) * 3})
    for side in _SIDES:
        pairs[f"hpcsort{side}MicrographName"] = names[side][group]
    for name in tilts[0]:
        micrographs[f"hpcsort{name}"] = [tilt[name] for tilt in tilts]
    micrographs[["hpcsortTiltSwapped", "hpcsortTiltMirrored"]] = 0
    pairs["hpcsortTiltOutlier"] = 0
    return {"micrographs": micrographs, "pairs": pairs}


def _fitted(true: np.ndarray, sign_known: bool) -> dict[str, float]:
    """What extract-pairs says of a tilt, from coordinates and the height of particles."""
    flat = np.column_stack([np.random.default_rng(5).uniform(-99, 99, (30, 2)), np.zeros(30)])
    tilted = flat @ true.T
    fit = fit_tilt(flat[:, :2], tilted[:, :2])
    assert fit is not None
    turn = np.deg2rad(fit.axis_tilted_deg)
    sign = np.sign(np.sum(tilted[:, :2] @ [-np.sin(turn), np.cos(turn)] * tilted[:, 2]))
    told = {"TiltAngle": fit.tilt_deg, "TiltAxisUntilted": fit.axis_untilted_deg, "TiltAxisTilted": fit.axis_tilted_deg}
    return told | {"TiltSign": sign if sign_known else 0}


def make_case(
    folder: Path, count: int = 120, noise: float = 0.5, shift_px: float = 1.5, sign_known: bool = True,
    flipped: bool = False,
) -> Case:  # fmt: skip
    """Two micrograph pairs tilted by 50 and -58 degrees about other axes, particles of two classes, some mirrored."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    options = TiltPairOptions(out=folder, axis_deg=85.0, turn_deg=3.0, tilt_deg=50.0)
    others = TiltPairOptions(out=folder, axis_deg=20.0, turn_deg=-160.0, tilt_deg=-58.0)
    tilts = [tilt_matrix(options), tilt_matrix(others)]
    volumes = [20.0 * density(BOX, RADIUS - 2, seed=number) for number in (1, 2)]
    state, group = np.arange(count) % 2, np.arange(count) // 2 % 2
    mirror, psi = draw.random(count) < 0.5, draw.uniform(-180, 180, count)
    untilted = relion_matrices(np.column_stack([np.zeros(count), np.zeros(count), psi]))
    # seen from behind: turned by 180 degrees about y, which is a mirror for the view
    untilted[mirror] = relion_matrices([[0.0, 180.0, 0.0]]) @ untilted[mirror]
    shifts = draw.uniform(-shift_px, shift_px, (count, 2))
    defocus = draw.uniform(8000, 14000, count)
    px, py = half_plane(BOX)
    transfer = ctf(px, py, BOX, PIXEL_A, defocus, defocus - 300.0, 20.0, 300.0, 2.7, 0.1)
    transfer = np.abs(transfer) if flipped else transfer
    makers = [SectionMaker(volume) for volume in volumes]
    images = np.empty((count, BOX, BOX), np.float32)
    for row in range(count):
        section = makers[state[row]].section(tilts[group[row]] @ untilted[row], px, py) * transfer[row]
        moved = section * np.exp(2j * np.pi / BOX * (px * shifts[row, 0] + py * shifts[row, 1]))
        images[row] = image_from_half_plane(moved, px, py, BOX) + noise * draw.normal(size=(BOX, BOX))
    tables = _tables(count, [_fitted(tilt, sign_known) for tilt in tilts], group)
    rest = draw.uniform(-0.5, 0.5, (count, 2))
    tables["pairs"][["hpcsortTiltedRestX", "hpcsortTiltedRestY"]] = rest
    write_tables(folder / "pairs.star", tables)
    for name in ("untilted", "tilted"):
        # nothing is read of the untilted images
        pixels = images if name == "tilted" else draw.normal(size=images.shape).astype(np.float32)
        write_stack(folder / f"{name}.mrcs", pixels, images.shape, PIXEL_A)
        frame = pd.DataFrame(
            {
                "rlnImageName": [f"{row + 1:06d}@{name}.mrcs" for row in range(count)],
                "rlnDefocusU": defocus, "rlnDefocusV": defocus - 300.0, "rlnDefocusAngle": 20.0, "rlnOpticsGroup": 1,
                "hpcsortPairId": tables["pairs"]["hpcsortPairId"],
            }
        )  # fmt: skip
        optics = pd.DataFrame(
            {
                "rlnOpticsGroup": [1], "rlnOpticsGroupName": [name], "rlnImagePixelSize": PIXEL_A, "rlnImageSize": BOX,
                "rlnImageDimensionality": 2, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
                "rlnAmplitudeContrast": 0.1, "hpcsortPhaseFlipped": int(flipped),
            }
        )  # fmt: skip
        write_tables(folder / f"{name}.star", {"optics": optics, "particles": frame})
    found = pd.DataFrame(
        {
            "rlnImageName": [f"{row + 1:06d}@{folder.name}/untilted.mrcs" for row in range(count)],
            "rlnDetectorPixelSize": PIXEL_A, "rlnClassNumber": state + 1, "rlnAnglePsi": psi,
            "rlnOriginX": 0.0, "rlnOriginY": 0.0, "hpcsortMirror": mirror.astype(int),
        }
    )  # fmt: skip
    classes = folder.parent / "classes.star"
    # in any order
    write_tables(classes, {"particles": found.sample(frac=1, random_state=3)})
    return Case(folder, classes, volumes, shifts)
