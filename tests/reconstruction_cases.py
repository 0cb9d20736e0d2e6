"""Particles of known maps at known poses, for tests of reconstruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from hpcsort.geometry import relion_angles
from hpcsort.io import write_stack, write_tables
from hpcsort.optics import ctf
from hpcsort.simulation.sections import SectionMaker, half_plane, image_from_half_plane

PIXEL_A = 8.0
IDENTITY = np.eye(3)[None]


def density(box: int, radius: float, seed: int, operators: np.ndarray = IDENTITY) -> np.ndarray:
    """Blobs inside a sphere that fades out, in the symmetry of the operators."""
    draw = np.random.default_rng(seed)
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    centres = draw.normal(size=(60, 3))
    centres *= (radius - 2.0) * draw.random((60, 1)) ** (1 / 3) / np.linalg.norm(centres, axis=1, keepdims=True)
    volume = np.zeros((box,) * 3)
    for centre, height in zip(centres, draw.normal(1.0, 2.0, 60), strict=True):
        for operator in operators:
            cx, cy, cz = operator @ centre
            volume += height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * 0.7**2))
    return volume.astype(np.float32)


def write_particles_of(
    folder: Path, volumes: list[np.ndarray], state: np.ndarray, noise: float = 1.0, seed: int = 0
) -> Path:
    """Particles of the states at random views, with CTFs and shifts; returns the STAR file."""
    draw = np.random.default_rng(seed)
    box, count = len(volumes[0]), len(state)
    matrices = Rotation.random(count, random_state=draw).as_matrix()
    angles = relion_angles(matrices)
    origins = draw.uniform(-2, 2, (count, 2))
    defocus = draw.uniform(8000, 14000, count)
    px, py = half_plane(box)
    transfer = ctf(px, py, box, PIXEL_A, defocus, defocus - 300.0, 20.0, 300.0, 2.7, 0.1)
    makers = [SectionMaker(volume) for volume in volumes]
    images = np.empty((count, box, box), np.float32)
    for row in range(count):
        shift = np.exp(2j * np.pi / box * (px * origins[row, 0] + py * origins[row, 1]))
        section = makers[state[row]].section(matrices[row], px, py) * transfer[row] * shift
        images[row] = image_from_half_plane(section, px, py, box) + noise * draw.normal(size=(box, box))
    # Whatever grey scale a camera has, it is undone by the normalisation.
    write_stack(folder / "p.mrcs", 3.0 * images + 7.0, images.shape, PIXEL_A)
    columns = {
        "rlnImageName": [f"{row + 1}@p.mrcs" for row in range(count)],
        **{f"rlnAngle{name}": angles[:, place] for place, name in enumerate(("Rot", "Tilt", "Psi"))},
        **{f"rlnOrigin{name}": origins[:, place] for place, name in enumerate("XY")},
        "rlnDefocusU": defocus, "rlnDefocusV": defocus - 300.0, "rlnDefocusAngle": [20.0] * count,
        "rlnVoltage": [300.0] * count, "rlnSphericalAberration": [2.7] * count, "rlnAmplitudeContrast": [0.1] * count,
        "rlnDetectorPixelSize": [PIXEL_A] * count,
    }  # fmt: skip
    write_tables(folder / "p.star", {"particles": pd.DataFrame(columns)})
    return folder / "p.star"
