"""Classes of Xmipp: the block of averages, and the blocks of the particles of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io import ParticleTable, table_of_frame
from hpcsort.io.xmd import as_frame, read_xmd
from hpcsort.planar import PlanarPoses

__all__ = ["read_xmipp_classes", "xmipp_particles"]

_COLUMNS = {
    "image": "rlnImageName",
    "micrograph": "rlnMicrographName",
    "xcoor": "rlnCoordinateX",
    "ycoor": "rlnCoordinateY",
    "ctfVoltage": "rlnVoltage",
    "ctfSphericalAberration": "rlnSphericalAberration",
    "ctfQ0": "rlnAmplitudeContrast",
    "ctfDefocusU": "rlnDefocusU",
    "ctfDefocusV": "rlnDefocusV",
    "ctfDefocusAngle": "rlnDefocusAngle",
}


def read_xmipp_classes(path: Path) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Read the averages and the particles of an .xmd file.

    Returns
    -------
    averages : columns image and, where they are known, id and size.
    particles : rows of all blocks class000001_images ..., with their class in the column ref; None for no such block.

    Raises
    ------
    InputError
        If no block has a column image.
    """
    tables = {name: as_frame(block) for name, block in read_xmd(path).items()}
    members = {name: frame for name, frame in tables.items() if name.startswith("class0") and "image" in frame}
    classes = tables.get("classes")
    if classes is None:
        classes = next((frame for name, frame in tables.items() if "image" in frame and name not in members), None)
    if classes is None or "image" not in classes:
        raise InputError(f"{path} has no block of classes with a column image; give the averages as .mrcs or .xmd")
    averages = _enabled(classes)
    averages = pd.DataFrame(
        {"image": averages["image"].astype(str)}
        | {new: averages[old] for new, old in (("id", "ref"), ("size", "classCount")) if old in averages}
    )
    if not members:
        return averages, None
    joined = []
    for name, frame in members.items():
        number = name.removeprefix("class").split("_")[0]
        if not number.isdecimal():
            raise InputError(
                f"{path}: the block {name} does not tell its class; name it class000001_images, for example"
            )
        joined.append(_enabled(frame).assign(ref=int(number)))
    return averages, pd.concat(joined, ignore_index=True)


def xmipp_particles(path: Path, members: pd.DataFrame, angpix: float | None) -> ParticleTable:
    """Turn particles of Xmipp into a table with RELION's columns and alignments.

    Xmipp's alignment takes the content at x to F R(psi) x + s, with R(psi) = [[cos, sin], [-sin, cos]] and F a mirror
    in x.

    Raises
    ------
    InputError
        As `read_particles`.
    """
    known = {new: members[old] for old, new in _COLUMNS.items() if old in members}
    frame = pd.DataFrame(known)
    psi, shift_x, shift_y, flip = (
        pd.to_numeric(members[name], errors="coerce").to_numpy(np.float64) if name in members else np.zeros(len(frame))
        for name in ("anglePsi", "shiftX", "shiftY", "flip")
    )
    cosine, sine, sign = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi)), np.where(flip > 0, -1.0, 1.0)
    matrices = np.stack([np.stack([sign * cosine, sign * sine], -1), np.stack([-sine, cosine], -1)], -2)
    poses = PlanarPoses.from_matrices(matrices, np.stack([shift_x, shift_y], axis=-1))
    frame["rlnAngleRot"], frame["rlnAngleTilt"], frame["rlnAnglePsi"] = 0.0, 0.0, poses.psi_deg
    frame["rlnOriginX"], frame["rlnOriginY"] = poses.shift_px.T
    frame["hpcsortMirror"] = poses.mirror.astype(np.int64)
    frame["rlnClassNumber"] = members["ref"].to_numpy(np.int64)
    return table_of_frame(path, frame, angpix=angpix, need_images=False)


def _enabled(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that are not switched off."""
    return (
        frame[pd.to_numeric(frame["enabled"], errors="coerce") > 0].reset_index(drop=True)
        if "enabled" in frame
        else frame
    )
