"""Particles of a cryoSPARC .cs file: a NumPy array of named fields, one row a particle."""

from __future__ import annotations

import os
import tokenize
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.transform import Rotation

from hpcsort.errors import InputError
from hpcsort.geometry import relion_angles
from hpcsort.io._assemble import check_arguments, joined_optics, pixel_sizes, table_fields
from hpcsort.io.particles import ParticleTable
from hpcsort.io.stacks import relion_name

__all__ = ["load_cryosparc", "read_cryosparc"]

_COMPRESSED = b"\x94CSDAT"
_MOST_HEADER = 1_000_000
_LONGEST_TURN = 1e6
_BAD_FILE = (
    OSError, ValueError, EOFError, TypeError, KeyError, SyntaxError, OverflowError, RecursionError, MemoryError,
    tokenize.TokenError,
)  # fmt: skip
_NUMBERS = {
    "rlnDefocusU": "ctf/df1_A",
    "rlnDefocusV": "ctf/df2_A",
    "rlnDefocusAngle": "ctf/df_angle_rad",
    "rlnPhaseShift": "ctf/phase_shift_rad",
    "rlnCtfBfactor": "ctf/bfactor",
}
_OPTICS = {
    "rlnVoltage": "ctf/accel_kv",
    "rlnSphericalAberration": "ctf/cs_mm",
    "rlnAmplitudeContrast": "ctf/amp_contrast",
}
_DEFOCI = ["ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad"]
_POSES = ["alignments3D/pose", "alignments3D/shift"]
_ALIASES = {
    **_NUMBERS,
    **_OPTICS,
    **dict.fromkeys(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), "alignments3D/pose"),
    **dict.fromkeys(("rlnOriginXAngst", "rlnOriginYAngst"), "alignments3D/shift"),
    "rlnImageName": "blob/path",
    "rlnImagePixelSize": "blob/psize_A",
    "rlnImageSize": "blob/shape",
    "rlnRandomSubset": "alignments3D/split",
    "rlnMicrographName": "location/micrograph_path",
}
_LEFT_OUT = (
    ("beam tilt", "ctf/tilt_A"),
    ("trefoil", "ctf/trefoil_A"),
    ("tetrafoil", "ctf/tetra_A"),
    ("anisotropic magnification", "ctf/anisomag"),
)

_WHOLE = frozenset({"blob/idx", "blob/shape", "uid", "alignments3D/split", "alignments3D/class", "ctf/exp_group_id"})

Floats = npt.NDArray[np.float64]


def read_cryosparc(
    path: str | os.PathLike[str],
    *,
    passthrough: str | os.PathLike[str] | None = None,
    datadir: str | os.PathLike[str] | None = None,
    angpix: float | None = None,
    need_images: bool = True,
    need_poses: bool = True,
    need_ctf: bool = True,
) -> ParticleTable:
    """Read a .cs file of particles; the result is as of a RELION table, and `write_particles` writes one.

    The rotation vector ``alignments3D/pose`` turns the view into the volume, so A is the transpose of its matrix;
    ``alignments3D/shift``, in pixels of ``alignments3D/psize_A``, is RELION's origin (as in pyem's csparc2star and
    cryoDRGN). Half-sets come from ``alignments3D/split`` where it has both values. Beam tilt and higher aberrations
    are left out with a note; 2D alignments and particle coordinates are left out. The column ucsfUid (the name that
    pyem gives it) keeps ``uid``.

    Parameters
    ----------
    path
        The .cs file.
    passthrough
        A second .cs file whose further fields are joined by uid (cryoSPARC writes fields that a job did not change
        into such a file).
    datadir, angpix, need_images, need_poses, need_ctf
        As `read_particles`; paths of stacks are relative to the folder of the cryoSPARC project.

    Raises
    ------
    InputError
        In one sentence with file, row (1-based), field and cure.
    """
    source = Path(path)
    check_arguments(source, datadir, angpix)
    data = load_cryosparc(source)
    if passthrough is not None:
        data = _joined(source, data, Path(passthrough))
    _check(source, data, need_poses, need_ctf)
    with np.errstate(all="ignore"):
        stated = _real(data, "blob/psize_A") if "blob/psize_A" in data else np.zeros(len(data["blob/idx"]))
    sizes, notes = pixel_sizes(stated, angpix, source, "blob/psize_A")
    # Values that are not finite are refused by name and row below, where they matter.
    with np.errstate(all="ignore"):
        frame = _frame(source, data, sizes, stated, need_poses)
        frame["rlnOpticsGroup"], optics = joined_optics(_optics(data, sizes))
    fields = table_fields(
        source,
        frame,
        optics,
        datadir=datadir,
        angpix=None,
        need_images=need_images,
        need_poses=need_poses,
        need_ctf=need_ctf,
        aliases=_ALIASES,
    )
    fields["notes"] = (*notes, *_notes(data), *fields["notes"])
    return ParticleTable(**fields, block_name="particles", block_order=("optics", "particles"), other_blocks={})


def load_cryosparc(path: Path) -> dict[str, npt.NDArray]:
    """Read the fields of a file as they are; its length is compared with its header before memory is spent.

    Raises
    ------
    InputError
        If the file is missing, damaged, compressed, empty or no NumPy array of named fields.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_COMPRESSED))
        if start == _COMPRESSED:
            raise InputError(
                f"{path} is in cryoSPARC's compressed form; load it with cryosparc-tools and save it as NumPy"
            )
        if not start.startswith(np.lib.format.MAGIC_PREFIX):
            raise InputError(f"{path} is not a .cs file of cryoSPARC (a NumPy array); give the particles of a job")
        # A memory map is refused where the file is shorter than its header says.
        with warnings.catch_warnings():
            # NumPy warns of headers written by Python 2.
            warnings.simplefilter("ignore")
            mapped = np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=_MOST_HEADER)
        if mapped.size > path.stat().st_size:
            raise ValueError("rows of no bytes: a small file can promise any number of them")
        data = {name: np.array(mapped[name]) for name in mapped.dtype.names or ()} if mapped.ndim == 1 else {}
    except _BAD_FILE as error:
        if not path.is_file() or not os.access(path, os.R_OK):
            raise InputError(f"{path} is not a file that can be read; check path and permissions") from error
        raise InputError(f"{path} is damaged or not a .cs file of cryoSPARC; make or copy the file again") from error
    if not data or not len(mapped):
        raise InputError(f"{path} holds no table of particles; give the particles of a cryoSPARC job")
    return data


def _joined(source: Path, data: dict[str, npt.NDArray], path: Path) -> dict[str, npt.NDArray]:
    more = load_cryosparc(path)
    for place, fields in ((source, data), (path, more)):
        if "uid" not in fields or fields["uid"].dtype.kind not in "iu" or fields["uid"].ndim != 1:
            raise InputError(f"{place} has no column uid of integers, by which two .cs files are joined")
    index = pd.Index(more["uid"].astype(np.uint64))
    if not index.is_unique:
        row = int(np.argmax(index.duplicated()))
        raise InputError(f"{path}, row {row + 1}, column uid: {index[row]} occurs twice; give one row a particle")
    rows = index.get_indexer(pd.Index(data["uid"].astype(np.uint64)))
    if (rows < 0).any():
        row = int(np.argmax(rows < 0))
        raise InputError(
            f"{source}, row {row + 1}, column uid: {data['uid'][row]} is not in {path}; give the passthrough file of"
            " the same job"
        )
    return {**{name: values[rows] for name, values in more.items()}, **data}


def _check(source: Path, data: dict[str, npt.NDArray], need_poses: bool, need_ctf: bool) -> None:
    """Refuse missing fields and fields of the wrong type or shape, so that what follows cannot fail on them."""
    needed = ["blob/path", "blob/idx"]
    needed += _POSES * need_poses
    needed += [*_DEFOCI, *_OPTICS.values()] * need_ctf
    for name in needed:
        if name not in data:
            raise InputError(
                f"{source} has no column {name}; add the passthrough file of the same job, or give the particles of a"
                " job that has it"
            )
    widths = {"alignments3D/pose": 3, "alignments3D/shift": 2, "blob/shape": 2}
    for name in (*_ALIASES.values(), "blob/idx", "alignments3D/psize_A", "alignments3D/class", "ctf/exp_group_id",
                 "blob/sign", "uid"):  # fmt: skip
        if name not in data:
            continue
        array = data[name]
        kinds = "SU" if name.endswith("path") else "iu" if name in _WHOLE else "fiu"
        shape = (len(array), widths[name]) if name in widths else (len(array),)
        if array.dtype.kind not in kinds or array.shape != shape:
            raise InputError(
                f"{source}, column {name}: type {array.dtype} with {array.shape[1:]} numbers a row is not what"
                " cryoSPARC writes; export the particles again"
            )


def _real(data: dict[str, npt.NDArray], name: str) -> Floats:
    """Field as float64, each float32 as the decimal number that it is the nearest to."""
    array = data[name]
    if array.dtype == np.float32:
        return np.asarray(array.astype(str).astype(np.float64))
    return np.asarray(array.astype(np.float64))


def _frame(source: Path, data: dict[str, npt.NDArray], sizes: Floats, stated: Floats, need_poses: bool) -> pd.DataFrame:
    paths = _texts(source, data, "blob/path")
    indices = data["blob/idx"].tolist()
    frame = pd.DataFrame(
        {"rlnImageName": [relion_name(index, path) for index, path in zip(indices, paths, strict=True)]}
    )
    if "location/micrograph_path" in data:
        frame["rlnMicrographName"] = _texts(source, data, "location/micrograph_path")
    for column, name in _NUMBERS.items():
        if name in data:
            frame[column] = np.rad2deg(_real(data, name)) if name.endswith("_rad") else _real(data, name)
    if "alignments3D/pose" in data and "alignments3D/shift" in data:
        _add_poses(source, frame, data, sizes, stated, need_poses)
    if "alignments3D/class" in data:
        frame["rlnClassNumber"] = data["alignments3D/class"].astype(np.int64) + 1
    if "uid" in data:
        frame["ucsfUid"] = data["uid"]
    return frame


def _add_poses(
    source: Path, frame: pd.DataFrame, data: dict[str, npt.NDArray], sizes: Floats, stated: Floats, needed: bool
) -> None:
    vectors = data["alignments3D/pose"].astype(np.float64)
    finite: npt.NDArray[np.bool_] = np.all(np.abs(vectors) < _LONGEST_TURN, axis=1)
    if needed and not finite.all():
        raise InputError(
            f"{source}, row {int(np.argmin(finite)) + 1}, column alignments3D/pose: a finite rotation is needed;"
            " remove the row"
        )
    matrices = Rotation.from_rotvec(-np.where(finite[:, None], vectors, 0)).as_matrix()
    angles = relion_angles(matrices)
    angles[~finite] = np.nan
    frame["rlnAngleRot"], frame["rlnAngleTilt"], frame["rlnAnglePsi"] = angles.T
    scale = np.ones(len(frame))
    if "alignments3D/psize_A" in data and "blob/psize_A" in data:
        aligned = _real(data, "alignments3D/psize_A")
        # Jobs that leave the field out write 0: the shift is then in pixels of the images.
        known = np.isfinite(aligned) & (aligned > 0) & (stated > 0)
        scale[known] = aligned[known] / stated[known]
    shifts = data["alignments3D/shift"].astype(np.float64) * (scale * sizes)[:, None]
    frame["rlnOriginXAngst"], frame["rlnOriginYAngst"] = shifts.T
    split = data.get("alignments3D/split")
    if split is not None and set(np.unique(split).tolist()) == {0, 1}:
        frame["rlnRandomSubset"] = split.astype(np.int64) + 1


def _optics(data: dict[str, npt.NDArray], sizes: Floats) -> pd.DataFrame:
    """Optics of each particle; rows that agree are one optics group."""
    optics = pd.DataFrame({"rlnImagePixelSize": sizes})
    if "ctf/exp_group_id" in data:
        optics.insert(0, "rlnOpticsGroupName", [f"exposureGroup{int(x)}" for x in data["ctf/exp_group_id"].tolist()])
    for column, name in _OPTICS.items():
        if name in data:
            optics[column] = _real(data, name)
    if "blob/shape" in data:
        optics["rlnImageSize"] = data["blob/shape"][:, 0].astype(np.int64)
    optics["rlnImageDimensionality"] = 2
    return optics


def _texts(source: Path, data: dict[str, npt.NDArray], name: str) -> list[str]:
    """Paths; a leading > stands for the folder of the project."""
    values = data[name].tolist()
    try:
        texts = [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]
    except UnicodeDecodeError as error:
        raise InputError(f"{source}, column {name}: a path is not in UTF-8; rename the file or folder") from error
    return [entry.removeprefix(">") for entry in texts]


def _notes(data: dict[str, npt.NDArray]) -> tuple[str, ...]:
    stated = [
        kind
        for kind, name in _LEFT_OUT
        if name in data and data[name].dtype.kind == "f" and (np.abs(data[name]) > 1e-9).any()
    ]
    notes = [f"The table states {kind}; it is left out of account in sorting." for kind in stated]
    if "blob/sign" in data and (data["blob/sign"] < 0).any():
        notes.append("cryoSPARC takes the images as dark on light (blob/sign -1): maps may come out negative.")
    return tuple(notes)
