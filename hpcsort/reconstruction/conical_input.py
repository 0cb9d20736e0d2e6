"""2D classes of untilted particles and the pairs of extract-pairs, joined to tilted particles with their views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.geometry import relion_angles
from hpcsort.io import Columns, ParticleTable, read_particles, read_tables
from hpcsort.reconstruction.conical import class_views, tilt_rotations

__all__ = ["ConicalSource", "read_conical"]

Floats = npt.NDArray[np.float64]

_MIRROR = "hpcsortMirror"
_FILES = ("untilted.star", "tilted.star", "pairs.star")
_NAMES = ["hpcsortUntiltedMicrographName", "hpcsortTiltedMicrographName"]
_GEOMETRY = ("hpcsortTiltAngle", "hpcsortTiltAxisUntilted", "hpcsortTiltAxisTilted", "hpcsortTiltSign")
_FLAGS = ("hpcsortTiltSwapped", "hpcsortTiltMirrored")


@dataclass(frozen=True, eq=False)
class ConicalSource:
    """Tilted particles that belong to a 2D class and have a known tilt.

    Attributes
    ----------
    table : N tilted particles with poses in the frame of their classes, and shifts that undo the rounding of their
        coordinates.
    numbers : int64 (N,), rlnClassNumber of the untilted particle.
    tilt_deg : float64 (N,).
    hand_known : whether the sign of every tilt is known.
    notes : what was left out, in sentences.
    """

    table: ParticleTable
    numbers: npt.NDArray[np.int64]
    tilt_deg: Floats
    hand_known: bool
    notes: list[str]


def read_conical(
    classes: Path, folder: Path, tilt_sign: str = "auto", datadir: Path | None = None, angpix: float | None = None
) -> ConicalSource:
    """Read and join everything.

    Parameters
    ----------
    classes : STAR file with rlnClassNumber and rlnAnglePsi of untilted particles, and hpcsortMirror where images were
        mirrored; from cl2d, or from RELION's Class2D. Its particles are known by their images.
    folder : written by extract-pairs.
    tilt_sign : "+", "-", or "auto": as `extract-pairs` found it.
    datadir : folder in which stacks are looked up as well.
    angpix : pixel size in A where the tables lack it.

    Raises
    ------
    InputError
        If files lack what is needed, do not belong together, or no particle has a known tilt.
    """
    for name in _FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}; give --rct the folder that extract-pairs has written")
    untilted, tilted = (
        read_particles(
            folder / name, datadir=datadir, angpix=angpix, need_images=name == "tilted.star", need_poses=False,
            need_ctf=False,
        )
        for name in _FILES[:2]
    )  # fmt: skip
    pairs, micrographs = _pair_tables(folder / "pairs.star")
    _refuse_unpaired(folder, untilted, tilted, pairs)
    members = read_particles(
        classes, datadir=datadir, angpix=angpix, need_images=False, need_poses=False, need_ctf=False, smears=False
    )
    psi, mirror, numbers = _in_plane(members)
    rows = _rows_of(members, untilted)
    joined = pairs.iloc[rows].reset_index(drop=True).merge(micrographs, on=_NAMES, how="left", validate="many_to_one")
    usable, notes = _usable(folder / "pairs.star", joined)
    kept = joined[usable].reset_index(drop=True)
    tilt, axis_untilted, axis_tilted, found = kept[list(_GEOMETRY)].to_numpy(np.float64).T
    sign, hand_known = _signs(found, axis_untilted, tilt_sign)
    views = tilt_rotations(tilt, axis_untilted, axis_tilted, sign) @ class_views(psi[usable], mirror[usable])
    rest = [kept[f"hpcsortTiltedRest{axis}"].to_numpy(np.float64) for axis in "XY"]
    table = replace(
        _as_images_are(tilted.subset(rows[usable]), notes),
        angles_deg=relion_angles(views),
        # the particle lies this far from the pixel in the middle of its window
        shifts_px=-np.column_stack(rest),
    )
    return ConicalSource(table, numbers[usable], tilt, hand_known, notes)


def _pair_tables(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    blocks = read_tables(path)
    needed = {
        "pairs": ["hpcsortPairId", *_NAMES, "hpcsortTiltOutlier", "hpcsortTiltedRestX", "hpcsortTiltedRestY"],
        "micrographs": [*_NAMES, *_GEOMETRY, *_FLAGS],
    }
    found = []
    for name, columns in needed.items():
        block = blocks.get(name)
        frame = block if isinstance(block, pd.DataFrame) else pd.DataFrame()
        lacking = [column for column in columns if column not in frame]
        if lacking:
            raise InputError(f"{path} has no column {lacking[0]} in data_{name}; run extract-pairs again")
        found.append(frame[columns].astype(dict.fromkeys(_NAMES, str)))
    return found[0], found[1].drop_duplicates(_NAMES)


def _refuse_unpaired(folder: Path, untilted: ParticleTable, tilted: ParticleTable, pairs: pd.DataFrame) -> None:
    """Rows of all three tables must be the same pairs."""
    wanted = pairs["hpcsortPairId"].to_numpy(np.int64)
    for table in (untilted, tilted):
        column = table.frame.get("hpcsortPairId")
        ids = np.zeros(0, np.int64) if column is None else np.asarray(column, np.int64)
        if not np.array_equal(ids, wanted):
            raise InputError(
                f"{table.source} and {folder / 'pairs.star'} do not hold the same pairs in the same rows; give --rct a"
                " folder as extract-pairs has written it"
            )


def _in_plane(members: ParticleTable) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Angle, mirror and class of each particle."""
    columns = Columns(members.source, members.frame, None, np.zeros(len(members), np.int64))
    for name in ("rlnAngleRot", "rlnAngleTilt"):
        if np.any(columns.numbers(name, 0.0, "") != 0):
            raise InputError(
                f"{members.source}, column {name}, holds directions of a 3D refinement; give --rct the 2D classes of"
                " the untilted particles"
            )
    psi = columns.numbers("rlnAnglePsi", None, "the view of a tilted particle follows from it")
    numbers = columns.numbers("rlnClassNumber", None, "each class gets a map")
    mirror = columns.numbers(_MIRROR, 0.0, "")
    bad = np.flatnonzero(~np.isin(mirror, (0, 1)))
    if bad.size:
        raise InputError(f"{members.source}, row {bad[0] + 1}, column {_MIRROR}: {mirror[bad[0]]:g} is neither 0 nor 1")
    return psi, mirror == 1, numbers.astype(np.int64)


def _rows_of(members: ParticleTable, untilted: ParticleTable) -> npt.NDArray[np.int64]:
    """Row of each particle in the untilted table, by its image."""
    places = {image: row for row, image in enumerate(_images(untilted))}
    seen: dict[tuple[Path, int], int] = {}
    for row, image in enumerate(_images(members), start=1):
        if image not in places:
            raise InputError(
                f"{members.source}, row {row}: {members.frame['rlnImageName'].iloc[row - 1]} is not among the images of"
                f" {untilted.source}; give the 2D classes of these"
            )
        if image in seen:
            raise InputError(f"{members.source}, row {row}: the image is in row {seen[image]} already; remove one")
        seen[image] = row
    return np.array([places[image] for image in seen], np.int64)


def _images(table: ParticleTable) -> list[tuple[Path, int]]:
    paths = [path.resolve() for path in table.stack_paths]
    places = zip(table.stack_id.tolist(), table.stack_index.tolist(), strict=True)
    return [(paths[stack], index) for stack, index in places]


def _usable(path: Path, joined: pd.DataFrame) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Particles whose tilt is known, and sentences about the others."""
    strange = joined[list(_FLAGS)].fillna(0).to_numpy().astype(bool)
    reasons = {
        "lie in micrographs whose tilt could not be fitted": joined[list(_GEOMETRY)].isna().any(axis=1).to_numpy(),
        "lie in micrographs whose sides are exchanged": strange[:, 0],
        "lie in micrographs of which one is mirrored": strange[:, 1],
        "do not fit the tilt of their micrographs": joined["hpcsortTiltOutlier"].to_numpy() != 0,
    }
    usable = np.ones(len(joined), bool)
    notes = []
    for reason, lost in reasons.items():
        count = int((usable & lost).sum())
        usable &= ~lost
        if count:
            notes.append(f"{count} particles are left out: they {reason}.")
    if not usable.any():
        raise InputError(
            f"{path} tells the tilt of no particle in a class ({' '.join(notes)}); run extract-pairs again"
        )
    return usable, notes


def _signs(found: Floats, axis_deg: Floats, tilt_sign: str) -> tuple[Floats, bool]:
    """Sign of each tilt about its axis, and whether all are known.

    Where it is not, all tilts are taken to go one way: that of those that are known, else the positive one about the
    mean axis. An axis may be told by either of its directions, a sign goes with the direction.
    """
    angle = np.deg2rad(axis_deg)
    axis = np.column_stack([np.cos(angle), np.sin(angle)])
    if tilt_sign == "auto" and np.any(found != 0):
        towards = (found[:, None] * axis).sum(axis=0)
    else:
        mean = np.angle(np.exp(2j * angle).sum()) / 2 % np.pi
        towards = np.array([np.cos(mean), np.sin(mean)]) * (-1.0 if tilt_sign == "-" else 1.0)
        found = np.zeros(len(found))
    all_known = tilt_sign != "auto" or bool(np.all(found != 0))
    return np.where(found != 0, found, np.where(axis @ towards >= 0, 1.0, -1.0)), all_known


def _as_images_are(table: ParticleTable, notes: list[str]) -> ParticleTable:
    """Take the CTF as 1 where the table has none, or phases have been flipped."""
    flipped = table.optics is not None and bool(np.any(table.optics.get("hpcsortPhaseFlipped", 0) == 1))
    if not flipped and "rlnDefocusU" in table.frame:
        return table
    notes.append(
        "Phases of the tilted images are flipped; their amplitudes stay as they are."
        if flipped
        else "The tilted images have no CTF; none is corrected."
    )
    none, one = np.zeros(len(table)), np.ones(len(table))
    return replace(
        table, defocus_u_A=none, defocus_v_A=none, defocus_angle_deg=none, phase_shift_deg=none, cs_mm=none,
        voltage_kV=300.0 * one, amplitude_contrast=one,
    )  # fmt: skip
