"""Small files of other programs, written on the spot: cryoSPARC tables and EMAN2 stacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

CTF_TEXT = "E1.5 -0.2 30 0 7 300 2.7 2 0 0 0"


def cs_fields(count: int = 3, box: int = 7, seed: int = 0) -> dict[str, np.ndarray]:
    """Fields of a cryoSPARC table as a refinement writes them."""
    rng = np.random.default_rng(seed)
    single = np.float32
    return {
        "uid": np.arange(count, dtype=np.uint64) + np.uint64(2**63 + 5),
        "blob/path": np.full(count, b">J1/p.mrc"),
        "blob/idx": np.arange(count, dtype=np.uint32)[::-1],
        "blob/shape": np.full((count, 2), box, np.uint32),
        "blob/psize_A": np.full(count, 1.31, single),
        "ctf/exp_group_id": np.full(count, 4, np.uint32),
        "ctf/accel_kv": np.full(count, 300, single),
        "ctf/cs_mm": np.full(count, 2.7, single),
        "ctf/amp_contrast": np.full(count, 0.1, single),
        "ctf/df1_A": rng.uniform(1e4, 2e4, count).astype(single),
        "ctf/df2_A": rng.uniform(1e4, 2e4, count).astype(single),
        "ctf/df_angle_rad": rng.uniform(-1, 1, count).astype(single),
        "ctf/phase_shift_rad": np.full(count, 0.25, single),
        "ctf/bfactor": np.zeros(count, single),
        "ctf/tilt_A": np.zeros((count, 2), single),
        "alignments3D/split": (np.arange(count) % 2).astype(np.uint32),
        "alignments3D/shift": rng.normal(0, 0.5, (count, 2)).astype(single),
        "alignments3D/pose": rng.normal(0, 1, (count, 3)).astype(single),
        "alignments3D/psize_A": np.full(count, 1.31, single),
        "alignments3D/class": np.zeros(count, np.uint32),
    }


def write_cs(path: Path, fields: dict[str, np.ndarray]) -> Path:
    """Write fields as one structured array."""
    count = len(next(iter(fields.values())))
    kinds = [(name, values.dtype, values.shape[1:]) for name, values in fields.items()]
    table = np.zeros(count, np.dtype(kinds))
    for name, values in fields.items():
        table[name] = values
    with path.open("wb") as file:
        np.save(file, table)
    return path


def write_eman_stack(
    path: Path,
    images: np.ndarray,
    poses: np.ndarray | None = None,
    ctf: list[str] | None = None,
    bits: int = 0,
    **headers: Any,
) -> Path:
    """Write images (n, ny, nx) with matrices (n, 3, 4) and CTF strings in their headers, as EMAN2 does.

    With ``bits`` the values are kept as unsigned integers of that many bits, compressed.
    """
    kind = np.dtype([(f"{row}{column}", "<f4") for row in range(3) for column in range(4)])
    with h5py.File(path, "w") as file:
        stack = file.create_group("MDF/images")
        stack.attrs["imageid_max"] = np.array([len(images) - 1], np.int32)
        for index, image in enumerate(images):
            group = stack.create_group(str(index))
            group.attrs["EMAN.apix_x"] = np.array([2.0])
            group.attrs["EMAN.nx"], group.attrs["EMAN.ny"] = (np.array([n], np.int32) for n in image.shape[::-1])
            group.attrs["EMAN.ptcl_source_image"] = np.bytes_(f"mic_{index}.mrc")
            if bits:
                low, high = float(image.min()), float(image.max())
                whole = np.rint((image - low) / (high - low) * (2**bits - 1)).astype(np.uint16)
                group.create_dataset("image", data=whole, chunks=image.shape, compression="gzip")
                group.attrs["EMAN.stored_renderbits"] = np.array([bits], np.int32)
                group.attrs["EMAN.stored_rendermin"] = np.array([low], np.float32)
                group.attrs["EMAN.stored_rendermax"] = np.array([high], np.float32)
            else:
                group.create_dataset("image", data=image.astype(np.float32))
            if poses is not None:
                group.attrs["EMAN.xform.projection"] = np.array([tuple(poses[index].ravel())], kind)
            if ctf is not None:
                group.attrs["EMAN.ctf"] = np.bytes_(ctf[index])
            for name, value in headers.items():
                group.attrs[f"EMAN.{name}"] = value
    return path
