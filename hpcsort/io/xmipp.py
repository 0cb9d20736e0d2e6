"""Particles in Xmipp's terms: labels of a metadata file (.xmd) to and from RELION's columns."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.geometry import relion_to_xmipp, xmipp_to_relion
from hpcsort.io._assemble import check_arguments, joined_optics, pixel_sizes
from hpcsort.io.columns import Columns
from hpcsort.io.frames import table_of_frame
from hpcsort.io.particles import ParticleTable
from hpcsort.io.stacks import split_format
from hpcsort.io.star import image_names
from hpcsort.io.xmd import as_frame, read_xmd

__all__ = ["read_xmipp", "xmipp_columns"]

_SAME = {
    "image": "rlnImageName",
    "micrograph": "rlnMicrographName",
    "xcoor": "rlnCoordinateX",
    "ycoor": "rlnCoordinateY",
    "ctfDefocusU": "rlnDefocusU",
    "ctfDefocusV": "rlnDefocusV",
    "ctfDefocusAngle": "rlnDefocusAngle",
    "ctfVPPphaseshift": "rlnPhaseShift",
    "ref3d": "rlnClassNumber",
}
"""Labels whose values are those of a column."""
_OPTICS = {
    "ctfVoltage": "rlnVoltage",
    "ctfSphericalAberration": "rlnSphericalAberration",
    "ctfQ0": "rlnAmplitudeContrast",
}
_ALIASES = {
    **{column: label for label, column in (_SAME | _OPTICS).items()},
    "rlnImagePixelSize": "samplingRate",
}
_POSE = ("angleRot", "angleTilt", "anglePsi", "shiftX", "shiftY")


def read_xmipp(
    path: str | os.PathLike[str],
    *,
    datadir: str | os.PathLike[str] | None = None,
    angpix: float | None = None,
    need_images: bool = True,
    need_poses: bool = True,
    need_ctf: bool = True,
) -> ParticleTable:
    """Read the particles of a metadata file of Xmipp: its first block with a label image.

    Angles and shifts (px) are RELION's; a particle with flip 1 is taken as the view from the other side (see
    `xmipp_to_relion`). Particles switched off (enabled -1 or 0) are kept.

    Parameters
    ----------
    path, datadir, angpix, need_images, need_poses, need_ctf
        As `read_particles`.

    Raises
    ------
    InputError
        In one sentence with file, row (1-based), label and cure.
    """
    source = Path(path)
    check_arguments(source, datadir, angpix)
    blocks = (as_frame(block) for block in read_xmd(source).values())
    given = next((block for block in blocks if "image" in block and len(block)), None)
    if given is None:
        raise InputError(f"{source} has no block with a label image; give a metadata file of particles")
    labels = Columns(source, given, None, np.zeros(len(given), np.int64))
    frame = pd.DataFrame({column: given[label] for label, column in _SAME.items() if label in given})
    optics = pd.DataFrame({column: given[label] for label, column in _OPTICS.items() if label in given})
    notes: tuple[str, ...] = ()
    if "samplingRate" in given or angpix is not None:
        stated = labels.numbers("samplingRate", angpix, "")
        optics["rlnImagePixelSize"], notes = pixel_sizes(stated, angpix, source, "samplingRate")
    if all(label in given for label in _POSE):
        _add_poses(frame, labels, optics.get("rlnImagePixelSize"))
    optics["rlnImageDimensionality"] = np.full(len(given), 2)
    frame["rlnOpticsGroup"], optics = joined_optics(optics)
    table = table_of_frame(
        source,
        frame,
        optics,
        datadir=datadir,
        need_images=need_images,
        need_poses=need_poses,
        need_ctf=need_ctf,
        aliases=_ALIASES,
    )
    return replace(table, notes=(*notes, *table.notes))


def _add_poses(frame: pd.DataFrame, labels: Columns, pixel_A: pd.Series | None) -> None:
    rot, tilt, psi, shift_x, shift_y = (labels.numbers(name, None, "") for name in _POSE)
    pose = xmipp_to_relion(rot, tilt, psi, shift_x, shift_y, labels.numbers("flip", 0.0, "") > 0)
    frame["rlnAngleRot"], frame["rlnAngleTilt"], frame["rlnAnglePsi"] = pose[:3]
    for axis, shift in zip("XY", pose[3:], strict=True):
        if pixel_A is None:
            frame[f"rlnOrigin{axis}"] = shift
        else:
            frame[f"rlnOrigin{axis}Angst"] = shift * pixel_A.to_numpy()


def xmipp_columns(table: ParticleTable, folder: str | os.PathLike[str]) -> pd.DataFrame:
    """Labels that Xmipp reads, from N particles; `read_xmipp` turns them back.

    What the table does not know (poses, CTF, coordinates) has no label.

    Parameters
    ----------
    table
        Read with `read_input`; NaN stands for unknown poses and CTF.
    folder
        Where the file will be; paths of stacks are given as they are found from there.
    """
    count = len(table)
    made: dict[str, npt.ArrayLike] = {
        "itemId": np.arange(1, count + 1),
        "enabled": np.ones(count, np.int64),
    }
    made |= {label: table.frame[column] for label, column in _SAME.items() if column in table.frame}
    made["image"] = [split_format(name)[0] for name in image_names(table, folder)]
    made["samplingRate"] = table.pixel_sizes_A
    optics = {
        "ctfVoltage": table.voltage_kV,
        "ctfSphericalAberration": table.cs_mm,
        "ctfQ0": table.amplitude_contrast,
    }
    made |= {label: values for label, values in optics.items() if np.isfinite(values).all()}
    if np.isfinite(table.angles_deg).all():
        made |= dict(zip(_POSE, relion_to_xmipp(*table.angles_deg.T, *table.shifts_px.T), strict=True))
        made["flip"] = np.zeros(count, np.int64)
    return pd.DataFrame(made)
