"""Poses as text, as MERIDIEN and sp_header.py exchange them, with the rest of the table beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcsort.converting.reading import read_whole
from hpcsort.errors import InputError
from hpcsort.geometry import relion_matrices, relion_to_sphire
from hpcsort.io import ParticleTable, eman_ctf_numbers, write_particles, write_text_atomically
from hpcsort.refinement import read_rows

__all__ = ["read_meridien_poses", "write_meridien"]

_TURN, _SHIFT_PX = 1e-5, 1e-4
"""Largest differences from poses that have not been changed: the text has six decimals."""


def write_meridien(path: Path, table: ParticleTable, *, overwrite: bool) -> list[Path]:
    """Write ``phi theta psi sx sy`` of each particle (degrees, px), and files of the same stem beside.

    The shifts are those of MERIDIEN's params_III.txt: what is added to the content to centre it, which is RELION's
    origin in pixels. STEM.star holds the whole table, for the way back; STEM_ctf.txt the CTF as sp_header.py imports it
    (defocus um, Cs mm, voltage kV, pixel A, B-factor, amplitude contrast %, astigmatism um and degrees), where it is
    known; STEM_chunk_0.txt and STEM_chunk_1.txt the rows of the half-sets, where all particles have one.

    Raises
    ------
    InputError
        If the particles have no poses.
    OutputError
        If a file exists and ``overwrite`` is false, or cannot be written.
    """
    if not np.isfinite(table.angles_deg).all():
        raise InputError(f"{table.source} has no poses, which are what {path} would hold; convert to another format")
    phi, theta, psi, tx, ty = relion_to_sphire(*table.angles_deg.T, *table.shifts_px.T)
    written = [path.with_suffix(".star"), path]
    write_particles(written[0], table, overwrite=overwrite)
    _write(path, np.stack([phi, theta, psi, -tx, -ty], axis=1), overwrite)
    numbers = eman_ctf_numbers(table)
    if numbers is not None:
        written.append(path.with_name(f"{path.stem}_ctf.txt"))
        _write(written[-1], numbers[:, [0, 6, 5, 7, 3, 4, 1, 2]], overwrite)
    if (table.random_subset > 0).all():
        for half in range(2):
            written.append(path.with_name(f"{path.stem}_chunk_{half}.txt"))
            rows = np.flatnonzero(table.random_subset == half + 1).tolist()
            write_text_atomically(written[-1], "".join(f"{row}\n" for row in rows), overwrite=overwrite)
    return written


def read_meridien_poses(
    path: Path, particles: Path | None, *, datadir: Path | None = None, angpix: float | None = None
) -> ParticleTable:
    """Read a table and give it the poses of a text file with one row for each of its particles.

    Columns of the text from the sixth on are not looked at. Poses that say the same as the table's stay as they are.

    Raises
    ------
    InputError
        If the text has not so many rows of numbers, or there is no table.
    """
    place = path.with_suffix(".star") if particles is None else particles
    if not place.is_file():
        raise InputError(f"{path} names no images, and {place} is not there; name the table with --particles")
    table = read_whole(place, datadir=datadir, angpix=angpix)
    poses = read_rows(path, "poses", columns=5)
    if len(poses) != len(table):
        raise InputError(f"{path} has {len(poses)} rows for the {len(table)} particles of {place}; give its own table")
    same = bool(
        np.isfinite(table.angles_deg).all()
        and np.abs(relion_matrices(poses[:, :3]) - relion_matrices(table.angles_deg)).max() < _TURN
        and np.abs(poses[:, 3:] - table.shifts_px).max() < _SHIFT_PX
    )
    return table if same else _with_poses(table, poses)


def _with_poses(table: ParticleTable, poses: npt.NDArray[np.float64]) -> ParticleTable:
    new = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), poses[:, :3].T, strict=True))
    in_A = table.optics is not None or "rlnOriginXAngst" in table.frame
    for axis, shift in zip("XY", poses[:, 3:].T, strict=True):
        new[f"rlnOrigin{axis}Angst" if in_A else f"rlnOrigin{axis}"] = shift * (table.pixel_sizes_A if in_A else 1.0)
    stale = [name for name in ("rlnOriginX", "rlnOriginY", "rlnOriginXAngst", "rlnOriginYAngst") if name not in new]
    frame = table.frame.drop(columns=stale, errors="ignore").assign(**new)
    return replace(table, frame=frame, angles_deg=poses[:, :3], shifts_px=poses[:, 3:])


def _write(path: Path, rows: npt.NDArray[np.float64], overwrite: bool) -> None:
    text = "".join(" ".join(f"{value:14.6f}" for value in row) + "\n" for row in rows.tolist())
    write_text_atomically(path, text, overwrite=overwrite)
