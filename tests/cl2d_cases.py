"""Small stacks of particles with known views, poses and noise for the tests of cl2d."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from planar_cases import Blobs, random_poses

from hpcsort.cl2d import Cl2dOptions
from hpcsort.io import write_stack, write_tables
from hpcsort.planar import PlanarPoses

BOX, PIXEL_A = 32, 4.0


@dataclass(frozen=True)
class Views:
    """N particles on disk, what they are, and without noise."""

    stack: Path
    kind: np.ndarray
    poses: PlanarPoses
    clean: np.ndarray


def make_views(
    folder: Path, count: int, kinds: int, *, snr: float = 1.0, box: int = BOX, mirror: bool = True, seed: int = 0
) -> Views:
    """Write particles.mrcs and particles.star (RELION 3.1, with a CTF that the images do not have)."""
    rng = np.random.default_rng(seed)
    kind = rng.permutation(np.arange(count) % kinds)
    poses = random_poses(count, 0.06 * box, seed + 1)
    if not mirror:
        poses = PlanarPoses(poses.psi_deg, poses.shift_px, np.zeros(count, bool))
    pictures = [Blobs.random(box, 100 * (seed + 1) + number) for number in range(kinds)]
    clean = np.concatenate([pictures[kind[row]].draw(box, poses.rows(slice(row, row + 1))) for row in range(count)])
    clean *= np.sqrt(snr / clean.var(axis=(1, 2)).mean())
    images = clean + rng.standard_normal(clean.shape, np.float32)
    stack = folder / "particles.mrcs"
    write_stack(stack, images, images.shape, PIXEL_A, overwrite=True)
    write_star(folder / "particles.star", count, box)
    return Views(stack, kind, poses, clean)


def write_star(path: Path, count: int, box: int = BOX) -> None:
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["all"],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
            "rlnImagePixelSize": [PIXEL_A],
            "rlnImageSize": [box],
            "rlnImageDimensionality": [2],
        }
    )
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{row + 1:06d}@particles.mrcs" for row in range(count)],
            "rlnMicrographName": "one.mrc",
            "rlnDefocusU": np.linspace(12000.0, 22000.0, count),
            "rlnDefocusV": np.linspace(11800.0, 21800.0, count),
            "rlnDefocusAngle": 30.0,
            "rlnOriginX": 0.5,
            "rlnOriginY": -0.5,
            "rlnOpticsGroup": 1,
        }
    )
    write_tables(path, {"optics": optics, "particles": particles}, overwrite=True)


def options(views: Views, output: Path, **changed: object) -> Cl2dOptions:
    given = {
        "instack": views.stack.with_suffix(".star"),
        "output_dir": output,
        "classes": 8,
        "initial_classes": 2,
        "iterations": 4,
        "quiet": True,
    }
    return Cl2dOptions(**(given | changed))  # type: ignore[arg-type]
