"""Read a finished MERIDIEN refinement."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.io import ParticleTable, Smears
from hpcsort.refinement._halves import Halves, read_halves
from hpcsort.refinement._poses import read_smears
from hpcsort.refinement._spectra import read_fsc, read_noise_power
from hpcsort.refinement._stack import read_stack
from hpcsort.refinement._text import read_rows
from hpcsort.refinement._tracker import Tracker, choose_iteration, iteration_folder, read_tracker

Floats = npt.NDArray[np.float64]

_PIXEL_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Refinement:
    """What a refinement knows.

    Attributes
    ----------
    table : ParticleTable
        N particles in ascending order of their ids (places in the stack, from 0), with `smears` and their likeliest
        poses, `random_subset` 1 or 2 for the two chunks, `image_scale` (mean norm of the chunk / norm of the
        particle; None for a refinement without norms), and, where noise spectra are applied, `noise_power` with the
        refinement's particle groups as `optics_group`.
    fsc : float64 (box // 2 + 1,)
        FSC between the half-maps in each Fourier shell of the box, as MERIDIEN drives itself by: not 2 F / (1 + F).
    symmetry : str
        Point group, such as c1.
    radius_px : int
        Radius of the particle.
    mask : Path or None
        3D mask of the refinement, where it had one and the file is there.
    pixel_size_A, delta_deg : float
        Size of a pixel of the images, step of the in-plane angle.
    box_px, window_px : int
        Edge of the images, and of the window that the iteration used.
    iteration : int
        The one that was read.
    folder : Path
        The refinement.
    notes : tuple of str
        What was found and may surprise, in plain sentences; those of the table not repeated.
    """

    table: ParticleTable
    fsc: Floats
    symmetry: str
    radius_px: int
    mask: Path | None
    pixel_size_A: float
    delta_deg: float
    box_px: int
    window_px: int
    iteration: int
    folder: Path
    notes: tuple[str, ...]


def read_refinement(
    folder: str | os.PathLike[str],
    *,
    iteration: int | None = None,
    datadir: str | os.PathLike[str] | None = None,
    apply_noise: bool = True,
) -> Refinement:
    """Read an iteration of a MERIDIEN directory with its smears, norms, noise spectra, half-sets and FSC.

    The stack is the one named in the Tracker: as written, from the folder that holds the refinement, or by its name
    in ``datadir``. An HDF stack of EMAN2 has the CTF in its headers. An MRC stack (.mrcs, .mrc) has none: the CTF is
    then taken from the STAR file of the same stem beside it (or in ``datadir``), whose rows are matched to the
    particles by the image that they name; other rows are left out. Poses in either are not used. A stack in a BDB
    database is looked for under its name with .hdf or .star.

    Parameters
    ----------
    folder
        The refinement: holds main000, main001, ...
    iteration
        From 1 on; the best iteration, as the last complete one names it, if not given.
    datadir
        Folder in which the stack is looked for as well.
    apply_noise
        Whether the noise spectra are read. If not, optics groups are those of the stack.

    Raises
    ------
    InputError
        In one sentence with file, row and cure, if a file is missing, damaged or does not fit the others.
    OptionError
        If there is no such iteration.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{place} is not a folder; give the folder of a MERIDIEN refinement with --refinement_dir")
    halves = read_halves(place)
    chosen = choose_iteration(place, iteration, len(halves.ids))
    tracker = read_tracker(place, chosen, len(halves.ids))
    parameters = _read_parameters(place, chosen, len(halves.ids))
    fsc = read_fsc(place, chosen, tracker.box_px, tracker.window_px)
    smears, notes = read_smears(place, chosen, halves, tracker.delta_deg, parameters[:, 3:5])
    noise, noise_notes = _noise(place, chosen, tracker, halves) if apply_noise else ({}, ())
    scale = None if tracker.norms is None else np.array(tracker.norms)[halves.half] / parameters[:, 7]
    mask, mask_notes = _find_mask(tracker.mask, place)
    stack = read_stack(tracker.stack, place, None if datadir is None else Path(datadir), halves.ids)
    _check_stack(stack, tracker)
    far = smears.beyond(tracker.box_px / 2)
    if far.size:
        raise InputError(
            f"{place}: a pose shifts particle {halves.ids[far[0]]} (from 0) by more than half the box of"
            f" {tracker.box_px} px, out of its image; copy params_{chosen - 1:03d}.txt and rshifts.txt again from the"
            " refinement"
        )
    return Refinement(
        table=replace(
            _with_poses(stack, smears, halves),
            image_scale=scale,
            notes=(*stack.notes, *notes, *noise_notes),
            **noise,
        ),
        fsc=fsc,
        symmetry=tracker.symmetry,
        radius_px=tracker.radius_px,
        mask=mask,
        pixel_size_A=tracker.pixel_size_A,
        delta_deg=tracker.delta_deg,
        box_px=tracker.box_px,
        window_px=tracker.window_px,
        iteration=chosen,
        folder=place,
        notes=mask_notes,
    )


def _read_parameters(folder: Path, iteration: int, particles: int) -> Floats:
    path = iteration_folder(folder, iteration) / f"params_{iteration:03d}.txt"
    parameters = read_rows(path, "parameters of the particles", columns=8, rows=particles)
    wrong = np.flatnonzero(parameters[:, 7] <= 0)
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"{path} (parameters of the particles), row {row + 1}, column 8: the norm {parameters[row, 7]:g} is not"
            " positive; copy it again from the refinement"
        )
    return parameters


def _noise(folder: Path, iteration: int, tracker: Tracker, halves: Halves) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fields of the table that tell the noise."""
    group = halves.group
    power, notes = read_noise_power(folder, iteration, tracker.box_px, 1 if group is None else int(group.max()) + 1)
    if group is None:
        if len(power) > 1:
            raise InputError(
                f"{folder / 'main000'} has no particle_groups_0.txt and particle_groups_1.txt, which tell the noise"
                f" spectrum of each particle out of {len(power)}; copy them from the refinement, or do without with"
                " --notapplybckgnoise"
            )
        group = np.zeros(len(halves.ids), np.int64)
    names = tuple(f"particle group {number}" for number in range(len(power)))
    return {"optics_group": group, "optics_group_names": names, "noise_power": power}, notes


def _find_mask(stored: str, folder: Path) -> tuple[Path | None, tuple[str, ...]]:
    if not stored or stored == "None":
        return None, ()
    for path in (Path(stored), folder.resolve().parent / stored):
        if path.is_file():
            return path, ()
    return None, (f"The refinement's mask {stored} is not there; give it with --mask3D if it is to be used.",)


def _check_stack(stack: ParticleTable, tracker: Tracker) -> None:
    if stack.box_px != tracker.box_px:
        raise InputError(
            f"{stack.source} has images of {stack.box_px} px where {tracker.path} tells {tracker.box_px} (nnxo); give"
            " the stack that the refinement was made from"
        )
    size = stack.pixel_size_A
    if abs(size - tracker.pixel_size_A) > _PIXEL_TOLERANCE * tracker.pixel_size_A:
        raise InputError(
            f"{stack.source} has pixels of {size:g} A where {tracker.path} tells {tracker.pixel_size_A:g}; give the"
            " stack that the refinement was made from"
        )


def _with_poses(stack: ParticleTable, smears: Smears, halves: Halves) -> ParticleTable:
    """Put the likeliest poses and the half-sets into the fields and the columns that are written out."""
    angles_deg, shifts_px = smears.angles_deg[smears.first[:-1]], smears.shifts_px[smears.first[:-1]]
    subset = halves.half + 1
    frame = stack.frame.copy()
    for column, values in zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles_deg.T, strict=True):
        frame[column] = values
    in_A = stack.optics is not None
    for axis, values in zip("XY", shifts_px.T, strict=True):
        frame = frame.drop(columns=[f"rlnOrigin{axis}", f"rlnOrigin{axis}Angst"], errors="ignore")
        frame[f"rlnOrigin{axis}Angst" if in_A else f"rlnOrigin{axis}"] = values * (stack.pixel_sizes_A if in_A else 1)
    frame["rlnRandomSubset"] = subset
    return replace(stack, angles_deg=angles_deg, shifts_px=shifts_px, random_subset=subset, smears=smears, frame=frame)
