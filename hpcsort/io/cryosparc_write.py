"""Particles in cryoSPARC's terms, and .cs files of named fields."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from hpcsort.geometry import relion_matrices
from hpcsort.io.files import atomic_write
from hpcsort.io.particles import ParticleTable
from hpcsort.io.stacks import split_format
from hpcsort.io.star import image_names

__all__ = ["cryosparc_fields", "write_cryosparc"]

_EXPOSURE_GROUP = re.compile(r"exposureGroup(\d{1,9})(_\d+)?")

Fields = dict[str, npt.NDArray]


def cryosparc_fields(table: ParticleTable, folder: str | os.PathLike[str]) -> Fields:
    """Fields that cryoSPARC reads, from N particles; `read_cryosparc` turns them back.

    The field ``uid`` is the column ucsfUid, or made from the name of the image. What the table does not know (poses,
    CTF, box) has no field. Images are taken as light on dark (``blob/sign`` 1), as RELION's are.

    Parameters
    ----------
    table
        Read with `read_input`; NaN stands for unknown poses and CTF.
    folder
        Where the file will be; paths of stacks are given as they are found from there.
    """
    count = len(table)
    names = [name.partition("@")[2] or name for name in image_names(table, folder)]
    fields: Fields = {
        "uid": _uids(table, names),
        "blob/path": _bytes([split_format(name)[0] for name in names]),
        "blob/idx": table.stack_index.astype(np.uint32),
        "blob/psize_A": table.pixel_sizes_A.astype(np.float32),
        "blob/sign": np.ones(count, np.float32),
    }
    if table.box_px is not None:
        fields["blob/shape"] = np.full((count, 2), table.box_px, np.uint32)
    if all(table.micrograph.tolist()):
        fields["location/micrograph_path"] = _bytes(table.micrograph.tolist())
    if np.isfinite(table.defocus_u_A).all():
        fields |= _ctf(table)
    if np.isfinite(table.angles_deg).all():
        fields |= _alignments(table)
    return fields


def write_cryosparc(
    path: str | os.PathLike[str], fields: Mapping[str, npt.NDArray], *, overwrite: bool = False
) -> None:
    """Write fields of N rows each, in their order and with their types, as one NumPy array; atomically.

    Raises
    ------
    OutputError
        If the file exists and `overwrite` is false, or cannot be written.
    """
    kinds = [(name, values.dtype, values.shape[1:]) for name, values in fields.items()]
    rows = np.zeros(len(next(iter(fields.values()))), np.dtype(kinds))
    for name, values in fields.items():
        rows[name] = values
    with atomic_write(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        np.save(file, rows, allow_pickle=False)


def _ctf(table: ParticleTable) -> Fields:
    fields = {
        "ctf/type": np.full(len(table), b"imported"),
        "ctf/exp_group_id": _exposure_groups(table).astype(np.uint32),
        "ctf/accel_kv": table.voltage_kV,
        "ctf/cs_mm": table.cs_mm,
        "ctf/amp_contrast": table.amplitude_contrast,
        "ctf/df1_A": table.defocus_u_A,
        "ctf/df2_A": table.defocus_v_A,
        "ctf/df_angle_rad": np.deg2rad(table.defocus_angle_deg),
        "ctf/phase_shift_rad": np.deg2rad(table.phase_shift_deg),
        **({"ctf/bfactor": table.bfactor_A2} if table.bfactor_A2.any() else {}),
    }
    # A table may lack a part of the CTF.
    known = {name: values for name, values in fields.items() if values.dtype.kind != "f" or np.isfinite(values).all()}
    return {name: _single(values) for name, values in known.items()}


def _alignments(table: ParticleTable) -> Fields:
    vectors = -Rotation.from_matrix(relion_matrices(table.angles_deg)).as_rotvec()
    fields = {
        "alignments3D/pose": vectors.astype(np.float32),
        "alignments3D/shift": table.shifts_px.astype(np.float32),
        "alignments3D/psize_A": table.pixel_sizes_A.astype(np.float32),
    }
    if (table.random_subset > 0).all():
        fields["alignments3D/split"] = (table.random_subset - 1).astype(np.uint32)
    if "rlnClassNumber" in table.frame:
        classes = table.frame["rlnClassNumber"].to_numpy()
        if classes.dtype.kind in "iu" and (classes > 0).all():
            fields["alignments3D/class"] = (classes - 1).astype(np.uint32)
    return fields


def _exposure_groups(table: ParticleTable) -> npt.NDArray[np.int64]:
    """Numbers of `exposureGroupN`, the names that `read_cryosparc` gives; else the optics groups' places."""
    matches = [_EXPOSURE_GROUP.fullmatch(name) for name in table.optics_group_names]
    numbers = [int(match[1]) for match in matches if match]
    return (np.array(numbers) if len(numbers) == len(matches) else np.arange(len(matches)))[table.optics_group]


def _uids(table: ParticleTable, names: list[str]) -> npt.NDArray[np.uint64]:
    if "ucsfUid" in table.frame and table.frame["ucsfUid"].dtype.kind in "iu":
        return table.frame["ucsfUid"].to_numpy(np.uint64)
    keys = (f"{index}@{name}" for index, name in zip(table.stack_index.tolist(), names, strict=True))
    digests = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def _single(values: npt.NDArray) -> npt.NDArray:
    return values.astype(np.float32) if values.dtype == np.float64 else values


def _bytes(texts: list[str]) -> npt.NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts], np.bytes_)
