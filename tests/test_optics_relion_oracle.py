"""Angles, shifts and CTF against images that RELION 5 projected from the same map."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile

from hpcsort.geometry import relion_matrices
from hpcsort.optics import ctf
from hpcsort.simulation.sections import SectionMaker, half_plane, image_from_half_plane


def _load(folder: Path, name: str) -> tuple[np.ndarray, pd.Series, pd.DataFrame]:
    tables = starfile.read(folder / f"{name}.star")
    with mrcfile.open(folder / f"{name}.mrcs", permissive=True) as file:
        images = np.array(file.data, dtype=np.float64)
    return images, tables["optics"].iloc[0], tables["particles"]


@pytest.mark.parametrize(("name", "with_ctf"), [("ora_noctf", False), ("ora_ctf", True)])
def test_projections_agree_with_relion(shared_data: Path, name: str, with_ctf: bool) -> None:
    folder = shared_data / "relion_oracle"
    images, optics, particles = _load(folder, name)
    with mrcfile.open(folder / "map.mrc", permissive=True) as file:
        maker = SectionMaker(file.data)
    box = maker.box_px
    px, py = half_plane(box)
    matrices = relion_matrices(particles[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy())
    pixel = float(optics["rlnImagePixelSize"])
    columns = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    transfer = ctf(
        px,
        py,
        box,
        pixel,
        *(particles[c].to_numpy() for c in columns),
        optics["rlnVoltage"],
        optics["rlnSphericalAberration"],
        optics["rlnAmplitudeContrast"],
    )
    assert len(images) == 24
    correlations = []
    for i, image in enumerate(images):
        ox, oy = particles.loc[i, ["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=float) / pixel
        values = maker.section(matrices[i], px, py) * np.exp(2j * np.pi * (px * ox + py * oy) / box)
        made = image_from_half_plane(values * transfer[i] if with_ctf else values, px, py, box).astype(np.float64)
        correlations.append(np.corrcoef(made.ravel(), image.ravel())[0, 1])
        # same grey scale and sign, not only the same pattern
        assert np.vdot(made, image) / np.vdot(made, made) == pytest.approx(1.0, abs=0.01)
    # what is missing to 1 is RELION's trilinear interpolation, not ours
    assert min(correlations) >= 0.999
    assert np.mean(correlations) >= 0.9995
