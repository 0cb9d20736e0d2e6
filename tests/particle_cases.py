"""Small particle tables of the RELION dialects, and stacks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcsort.io import ParticleTable, read_particles, write_stack

Columns = dict[str, list[Any]]

BASE: Columns = {
    "rlnImageName": ["3@p.mrcs", "1@p.mrcs", "2@p.mrcs"],
    "rlnAngleRot": [10.5, 20, 30],
    "rlnAngleTilt": [40, 50, 60],
    "rlnAnglePsi": [70, 80, 90],
    "rlnDefocusU": [15000, 16000, 17000],
    "rlnDefocusV": [14000, 15000, 16000],
    "rlnDefocusAngle": [1, 2, 3],
}
RELION_30: Columns = {
    **BASE,
    "rlnVoltage": [300] * 3,
    "rlnSphericalAberration": [2.7] * 3,
    "rlnAmplitudeContrast": [0.1] * 3,
    "rlnOriginX": [1.5, 0, -1],
    "rlnOriginY": [-2, 0, 3],
    "rlnMagnification": [25000] * 3,
    "rlnDetectorPixelSize": [5] * 3,
}
RELION_31: Columns = {
    **BASE,
    "rlnOpticsGroup": [7, 2, 7],
    "rlnOriginXAngst": [3, 0, -2],
    "rlnOriginYAngst": [-4, 0, 6],
}
OPTICS: Columns = {
    "rlnOpticsGroup": [2, 7],
    "rlnOpticsGroupName": ["early", "late"],
    "rlnVoltage": [200, 300],
    "rlnSphericalAberration": [2.7, 2.6],
    "rlnAmplitudeContrast": [0.1, 0.07],
    "rlnImagePixelSize": [2.0, 2.0],
}


def loop_text(block: str, columns: Columns) -> str:
    names = "\n".join(f"_{name} #{place}" for place, name in enumerate(columns, start=1))
    rows = "\n".join(" ".join(str(value) for value in row) for row in zip(*columns.values(), strict=True))
    return f"\ndata_{block}\n\nloop_\n{names}\n{rows}\n\n"


def without(columns: Columns, *names: str) -> Columns:
    return {name: values for name, values in columns.items() if name not in names}


def make_stack(path: Path, n: int = 3, box: tuple[int, int] = (7, 7), voxel_A: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).normal(size=(n, *box))
    write_stack(path, images, (n, *box), voxel_A, overwrite=True)


def read_30(folder: Path, columns: Columns, block: str = "images", **options: object) -> ParticleTable:
    (folder / "t.star").write_text(loop_text(block, columns))
    return read_particles(folder / "t.star", **options)  # type: ignore[arg-type]


def read_31(folder: Path, columns: Columns, optics: Columns, **options: object) -> ParticleTable:
    (folder / "t.star").write_text(loop_text("optics", optics) + loop_text("particles", columns))
    return read_particles(folder / "t.star", **options)  # type: ignore[arg-type]
