"""Particles in EMAN2's terms, and HDF5 stacks that hold images and headers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from hpcsort.geometry import relion_matrices, relion_to_sphire
from hpcsort.io.eman_hdf import IMAGES, add_image
from hpcsort.io.h5 import writing
from hpcsort.io.particles import ParticleTable

__all__ = ["ATTACHED", "eman_ctf_numbers", "eman_headers", "eman_phase_percent", "write_eman_stack"]

ATTACHED = "hpcsort/tables"
"""Dataset of an HDF5 stack with text that belongs to no image."""
_MATRIX = np.dtype([(f"{row}{column}", "<f4") for row in range(3) for column in range(4)])

Floats = npt.NDArray[np.float64]


def eman_headers(table: ParticleTable) -> dict[str, npt.NDArray]:
    """Headers that EMAN2 reads, N values each; `read_eman_stack` turns them back.

    The CTF is EMAN2's string, see `eman_ctf_numbers`. What the table does not know has no header.

    Parameters
    ----------
    table
        Read with `read_input`; NaN stands for unknown poses and CTF.
    """
    headers: dict[str, npt.NDArray] = {f"apix_{axis}": table.pixel_sizes_A for axis in "xyz"}
    if all(table.micrograph.tolist()):
        headers["ptcl_source_image"] = _bytes(table.micrograph.tolist())
    if np.isfinite(table.angles_deg).all():
        headers["xform.projection"] = _poses(table)
    numbers = eman_ctf_numbers(table)
    if numbers is not None:
        # Step, length and values of the background and of the signal-to-noise ratio follow: none are known.
        texts = (" ".join(f"{value:.10g}" for value in row) for row in numbers.tolist())
        headers["ctf"] = _bytes([f"E{text} 0 0 0" for text in texts])
        headers["ctf_applied"] = np.zeros(len(table), np.int32)
    return headers


def eman_ctf_numbers(table: ParticleTable) -> Floats | None:
    """First eight numbers of EMAN2's CTF, (N, 8), or None where a particle lacks one.

    Mean defocus and astigmatism in micrometres, its angle in degrees, B-factor, amplitude contrast in per cent,
    voltage in kV, spherical aberration in mm, pixel in Angstrom. Astigmatism is as SPHIRE means it: V - U, which may be
    negative, at 45 degrees minus RELION's angle.
    """
    columns = (
        (table.defocus_u_A + table.defocus_v_A) / 2e4,
        (table.defocus_v_A - table.defocus_u_A) / 1e4,
        np.mod(45.0 - table.defocus_angle_deg, 180.0),
        table.bfactor_A2,
        eman_phase_percent(table.amplitude_contrast, table.phase_shift_deg),
        table.voltage_kV,
        table.cs_mm,
        table.pixel_sizes_A,
    )
    numbers = np.stack(columns, axis=1)
    return numbers if np.isfinite(numbers).all() else None


def eman_phase_percent(amplitude_contrast: Floats, phase_shift_deg: Floats) -> Floats:
    """Amplitude contrast in per cent (n,) that stands for amplitude contrast and phase shift together.

    EMAN2 continues the scale beyond 100 % (``EMAN2Ctf::set_phase``): p = 100 sin(phase) up to 90 degrees, and
    100 (2 - sin(phase)) beyond; likewise below -90 degrees.
    """
    phase = np.arcsin(np.clip(amplitude_contrast, -1, 1)) + np.deg2rad(phase_shift_deg)
    phase = (phase + np.pi) % (2 * np.pi) - np.pi
    sine = np.sin(phase)
    return np.asarray(100 * np.where(phase > np.pi / 2, 2 - sine, np.where(phase < -np.pi / 2, -2 - sine, sine)))


def write_eman_stack(
    path: str | os.PathLike[str],
    images: Iterable[npt.NDArray],
    headers: Mapping[str, npt.NDArray],
    *,
    attached: str = "",
    overwrite: bool = False,
) -> None:
    """Write an HDF5 stack as EMAN2 does, one image at a time, atomically.

    Parameters
    ----------
    path
        The file to make; EMAN2 expects the suffix .hdf.
    images
        N images (ny, nx), written as float32.
    headers
        Header's name without EMAN. to N values: numbers, vectors or bytes. Twelve numbers named xform... are a matrix.
    attached
        Text that is kept in the dataset `ATTACHED`; none if empty.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists and `overwrite` is false, or cannot be written.
    """
    given = {name: _matrices(values) if name.startswith("xform.") else values for name, values in headers.items()}
    with writing(path, overwrite) as file:
        stack = file.create_group(IMAGES)
        count = 0
        for image in images:
            these = {name: values[count] for name, values in given.items()}
            add_image(stack, count, np.ascontiguousarray(image, np.float32), these)
            count += 1
        stack.attrs.create("imageid_max", np.array([count - 1], np.int32))
        if attached:
            file.create_dataset(ATTACHED, data=np.bytes_(attached.encode()))


def _poses(table: ParticleTable) -> npt.NDArray:
    poses = np.zeros((len(table), 3, 4), np.float32)
    poses[:, :, :3] = relion_matrices(table.angles_deg)
    poses[:, 0, 3], poses[:, 1, 3] = relion_to_sphire(*table.angles_deg.T, *table.shifts_px.T)[3:]
    return poses.reshape(len(table), 12)


def _matrices(values: npt.NDArray) -> npt.NDArray:
    """Rows of twelve numbers as EMAN2's records; other values as they are."""
    rows = values.shape[1:] == (12,)
    return np.ascontiguousarray(values, np.float32).view(_MATRIX)[:, 0] if rows else values


def _bytes(texts: list[str]) -> npt.NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts], np.bytes_)
