"""Particles of an EMAN2 or SPHIRE stack in HDF5: poses and CTF from the headers of the images."""

from __future__ import annotations

import math
import os
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.geometry import relion_angles
from hpcsort.io._assemble import check_arguments, joined_optics, pixel_sizes, table_fields
from hpcsort.io.h5 import number, opened, reading, text
from hpcsort.io.hdf_stack import open_images
from hpcsort.io.particles import ParticleTable
from hpcsort.io.stacks import relion_name

__all__ = ["read_eman_stack"]

_KIND = "an HDF5 stack of EMAN2"
_POSE, _CTF = "EMAN.xform.projection", "EMAN.ctf"
_ENTRIES = [f"{row}{column}" for row in range(3) for column in range(4)]
_ALIASES = {
    **dict.fromkeys(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), "xform.projection"),
    **dict.fromkeys(("rlnOriginXAngst", "rlnOriginYAngst"), "xform.projection"),
    **{f"rln{name}": "ctf" for name in ("DefocusU", "DefocusV", "DefocusAngle", "CtfBfactor", "PhaseShift")},
    **{f"rln{name}": "ctf" for name in ("Voltage", "SphericalAberration", "AmplitudeContrast")},
    "rlnImagePixelSize": "apix",
    "rlnImageName": "image",
}

Floats = npt.NDArray[np.float64]


def read_eman_stack(
    path: str | os.PathLike[str],
    *,
    datadir: str | os.PathLike[str] | None = None,
    angpix: float | None = None,
    need_images: bool = True,
    need_poses: bool = True,
    need_ctf: bool = True,
) -> ParticleTable:
    """Read an HDF5 stack whose images carry `xform.projection` and `ctf`; the result is as of a RELION table.

    The 3 x 3 part of `xform.projection` is the rotation A (volume to view), its translation the negative origin.
    The CTF is EMAN2's string ``E defocus dfdiff dfang bfactor ampcont voltage cs apix ...``. Astigmatism is taken as
    SPHIRE means it, ``defocus - dfdiff / 2 sin 2(theta + dfang)``: ``dfdiff`` is V - U in micrometres and ``dfang``
    45 degrees minus RELION's angle. An amplitude contrast outside 0 to 100 % is a phase shift
    (``EMAN2Ctf::get_phase``).

    Parameters
    ----------
    path
        The stack.
    datadir
        Taken for the sake of one interface: the images are in the stack itself.
    angpix
        Pixel size in Angstrom that replaces the one of the headers.
    need_images, need_poses, need_ctf
        As `read_particles`; what is absent from any image is NaN for all.

    Raises
    ------
    InputError
        In one sentence with file, image (1-based), header and cure.
    """
    source = Path(path)
    check_arguments(source, datadir, angpix)
    with reading(source, _KIND), opened(source) as file:
        images, count = open_images(source, file)
        groups = [_group(source, images, index) for index in range(count)]
        poses = _poses(source, groups, need_poses)
        ctf = _ctfs(source, groups, need_ctf)
        stated = np.array([number(group, "EMAN.apix_x", 0.0) for group in groups]) if ctf is None else ctf[:, 7]
        micrographs = [text(group, "EMAN.ptcl_source_image") for group in groups]
    sizes, notes = pixel_sizes(stated, angpix, source, "apix")
    frame = pd.DataFrame({"rlnImageName": [relion_name(index, source.name) for index in range(count)]})
    if all(micrographs):
        frame["rlnMicrographName"] = micrographs
    if poses is not None:
        frame["rlnAngleRot"], frame["rlnAngleTilt"], frame["rlnAnglePsi"] = relion_angles(poses[:, :, :3]).T
        frame["rlnOriginXAngst"], frame["rlnOriginYAngst"] = -poses[:, 0, 3] * sizes, -poses[:, 1, 3] * sizes
    optics = pd.DataFrame({"rlnImagePixelSize": sizes})
    if ctf is not None:
        notes += _add_ctf(frame, optics, ctf)
    optics["rlnImageDimensionality"] = 2
    frame["rlnOpticsGroup"], optics = joined_optics(optics)
    fields = table_fields(
        source,
        frame,
        optics,
        datadir=None,
        angpix=None,
        need_images=need_images,
        need_poses=need_poses,
        need_ctf=need_ctf,
        aliases=_ALIASES,
    )
    fields["notes"] = (*notes, *fields["notes"])
    return ParticleTable(**fields, block_name="particles", block_order=("optics", "particles"), other_blocks={})


def _group(path: Path, images: h5py.Group, index: int) -> h5py.Group:
    group = images.get(str(index))
    if not isinstance(group, h5py.Group):
        raise InputError(f"{path} lacks image {index + 1} (numbered {index} by EMAN2); make or copy the file again")
    if number(group, "EMAN.ctf_applied", 0):
        raise InputError(
            f"{path}, image {index + 1}: its CTF is applied already (header ctf_applied); give the images as extracted"
        )
    return group


def _poses(path: Path, groups: list[h5py.Group], needed: bool) -> Floats | None:
    """Matrices (N, 3, 4) of the headers, or None if one is absent and none is needed."""
    if not _present(path, groups, _POSE, needed, "an orientation"):
        return None
    poses = np.empty((len(groups), 3, 4))
    for row, group in enumerate(groups):
        value = np.asarray(group.attrs[_POSE]).reshape(-1)[:1]
        if value.dtype.names is None or set(value.dtype.names) != set(_ENTRIES):
            raise InputError(f"{path}, image {row + 1}: its header xform.projection is no matrix; set it with EMAN2")
        poses[row] = np.reshape([float(value[name][0]) for name in _ENTRIES], (3, 4))
    rotations = poses[:, :, :3]
    square = np.einsum("nij,nkj->nik", rotations, rotations)
    wrong = ~(np.isfinite(poses).all(axis=(1, 2)) & (np.abs(square - np.eye(3)).max(axis=(1, 2)) < 1e-3))
    wrong |= ~(np.linalg.det(np.where(wrong[:, None, None], 0, rotations)) > 0)
    if wrong.any():
        raise InputError(
            f"{path}, image {int(np.argmax(wrong)) + 1}: its header xform.projection is no rotation with a shift"
            " (scaled, mirrored or not finite); apply scale and mirror to the image first"
        )
    return poses


def _ctfs(path: Path, groups: list[h5py.Group], needed: bool) -> Floats | None:
    """First eight numbers (N, 8) of the CTF strings, or None if one is absent and none is needed."""
    if not _present(path, groups, _CTF, needed, "a CTF"):
        return None
    values = np.empty((len(groups), 8))
    for row, group in enumerate(groups):
        string = text(group, _CTF)
        try:
            numbers = [float(entry) for entry in string.removeprefix("E").split()[:8]]
        except ValueError:
            numbers = []
        if not string.startswith("E") or len(numbers) < 8 or not all(map(math.isfinite, numbers)):
            raise InputError(
                f"{path}, image {row + 1}: its header ctf is {string[:40]!r}, not a letter E with the eight numbers of"
                " EMAN2; set the CTF again"
            )
        values[row] = numbers
    return values


def _present(path: Path, groups: list[h5py.Group], header: str, needed: bool, what: str) -> bool:
    lacking = next((row for row, group in enumerate(groups) if header not in group.attrs), None)
    if lacking is not None and needed:
        short = header.removeprefix("EMAN.")
        raise InputError(
            f"{path}, image {lacking + 1}: it has no header {short}, but {what} is needed; give a stack after"
            " refinement, or set the header with EMAN2"
        )
    return lacking is None


def _add_ctf(frame: pd.DataFrame, optics: pd.DataFrame, ctf: Floats) -> tuple[str, ...]:
    mean_um, difference_um, angle, bfactor, percent, voltage, cs, _ = ctf.T
    frame["rlnDefocusU"] = 1e4 * (mean_um - difference_um / 2)
    frame["rlnDefocusV"] = 1e4 * (mean_um + difference_um / 2)
    frame["rlnDefocusAngle"] = np.mod(45.0 - angle, 180.0)
    plain = (percent >= 0) & (percent <= 100)
    if not plain.all():
        frame["rlnPhaseShift"] = np.where(plain, 0.0, _phase_deg(percent))
    if bfactor.any():
        frame["rlnCtfBfactor"] = bfactor
    optics["rlnVoltage"], optics["rlnSphericalAberration"] = voltage, cs
    optics["rlnAmplitudeContrast"] = np.where(plain, percent / 100, 0.0)
    if (difference_um > 0).any():
        return (
            "Astigmatism in the headers ctf is positive and taken as SPHIRE means it (CTER); values of e2ctf mean"
            " another axis, so convert such a stack with its own program.",
        )
    return ()


def _phase_deg(percent: Floats) -> Floats:
    """Phase of an amplitude contrast that EMAN2 continues beyond 100 % (``EMAN2Ctf::get_phase``)."""
    part = percent / 100
    sine = np.clip(np.where(part > 1, 2 - part, np.where(part < -1, -2 - part, part)), -1, 1)
    phase = np.where(part > 1, np.pi - np.arcsin(sine), np.where(part < -1, -np.pi - np.arcsin(sine), np.arcsin(sine)))
    return np.asarray(np.rad2deg(phase))
