"""What each format says itself, and how to tell whether two tables of it say the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from hpcsort.converting.kept import Fields, Group, same_values
from hpcsort.geometry import relion_matrices, xmipp_to_relion

__all__ = ["CS", "EMAN", "OPTICS", "XMIPP", "Format"]

_TURN = 2e-4
"""Largest difference of entries of two rotation matrices that are the same, in radians about."""
OPTICS = frozenset(
    {"rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality",
     "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"}
)  # fmt: skip
_POSE = {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"}
_CTF = {"rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"}
_COMMON = {"rlnImageName", "rlnMicrographName", "rlnOpticsGroup"} | _POSE | _CTF


@dataclass(frozen=True)
class Format:
    """What is said natively.

    Attributes
    ----------
    source : its name before the mark.
    mark : between source and name of a kept column.
    key : field without which a table did not come from this format.
    groups : fields that are compared together.
    translated : RELION's columns that its reader makes.
    """

    source: str
    mark: str
    key: str
    groups: tuple[Group, ...]
    translated: frozenset[str]


def _same_poses(kept: Fields, native: Fields) -> bool:
    one, two = (
        Rotation.from_rotvec(fields["alignments3D/pose"].astype(float)).as_matrix() for fields in (kept, native)
    )
    return bool(np.abs(one - two).max(initial=0) < _TURN)


def _same_axis(kept: Fields, native: Fields) -> bool:
    angle = kept["ctf/df_angle_rad"].astype(float) - native["ctf/df_angle_rad"]
    return bool(np.abs(np.sin(angle)).max(initial=0) < _TURN)


def _same_shifts(kept: Fields, native: Fields) -> bool:
    """Shifts are in pixels of the alignment, which need not be those of the images."""
    sizes = [fields.get("alignments3D/psize_A", native["blob/psize_A"]).astype(float) for fields in (kept, native)]
    sizes = [np.where(size > 0, size, native["blob/psize_A"]) for size in sizes]
    one, two = (
        fields["alignments3D/shift"] * size[:, None] for fields, size in zip((kept, native), sizes, strict=True)
    )
    return bool(np.allclose(one, two, atol=1e-3, equal_nan=True))


def _same_paths(kept: Fields, native: Fields) -> bool:
    return same_values(np.char.lstrip(kept["blob/path"], b">"), native["blob/path"])


def _same_matrices(kept: Fields, native: Fields) -> bool:
    one, two = kept["xform.projection"], native["xform.projection"]
    return one.shape == two.shape and bool(np.abs(one - two).max(initial=0) < 1e-3)


def _same_ctf(kept: Fields, native: Fields) -> bool:
    """Compare the first eight numbers of CTF strings; the third is an axis in degrees."""
    numbers = []
    for fields in (kept, native):
        rows = [text.decode().removeprefix("E").split()[:8] for text in fields["ctf"].tolist()]
        numbers.append(np.array(rows, np.float64))
    numbers[0][:, 2] -= np.round((numbers[0][:, 2] - numbers[1][:, 2]) / 180) * 180
    return same_values(*numbers)


def _same_alignment(kept: Fields, native: Fields) -> bool:
    """Compare projection alignments of Xmipp, flipped or not."""
    names = ("angleRot", "angleTilt", "anglePsi", "shiftX", "shiftY", "flip")
    if not all(name in kept for name in names[:5]):
        return False
    poses = []
    for fields in (kept, native):
        flip = fields.get("flip", np.zeros(len(fields["image"])))
        rot, tilt, psi, shift_x, shift_y = (fields[name] for name in names[:5])
        poses.append(xmipp_to_relion(rot, tilt, psi, shift_x, shift_y, flip.astype(float) > 0))
    one, two = (relion_matrices(np.stack(pose[:3], axis=1)) for pose in poses)
    moved = [np.stack(pose[3:], axis=1) for pose in poses]
    return bool(np.abs(one - two).max(initial=0) < _TURN and np.allclose(moved[0], moved[1], atol=1e-3))


CS = Format(
    "cs", "/", "blob/path",
    (
        (("alignments3D/pose",), _same_poses), (("alignments3D/shift", "alignments3D/psize_A"), _same_shifts),
        (("ctf/df_angle_rad",), _same_axis), (("blob/path",), _same_paths),
        (("ctf/type",), lambda kept, native: True), (("blob/sign",), lambda kept, native: True),
    ),
    frozenset({*_COMMON, "rlnCtfBfactor", "rlnClassNumber", "rlnRandomSubset", "ucsfUid"}),
)  # fmt: skip
EMAN = Format(
    "eman", ":", "apix_x", ((("xform.projection",), _same_matrices), (("ctf",), _same_ctf)),
    frozenset({*_COMMON, "rlnCtfBfactor"}),
)  # fmt: skip
XMIPP = Format(
    "xmipp", ":", "image",
    (
        (("angleRot", "angleTilt", "anglePsi", "shiftX", "shiftY", "flip"), _same_alignment),
        (("itemId", "enabled"), lambda kept, native: True),
    ),
    frozenset({*_COMMON, "rlnCoordinateX", "rlnCoordinateY", "rlnClassNumber", "rlnOriginX", "rlnOriginY"}),
)  # fmt: skip
