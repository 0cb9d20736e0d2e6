"""Noise spectra and FSC of a MERIDIEN iteration."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.io.h5 import check_stored, opened, reading
from hpcsort.refinement._text import read_rows
from hpcsort.refinement._tracker import iteration_folder

Floats = npt.NDArray[np.float64]

_COPY = "copy it again from the refinement"
_MOST_VALUES = 1 << 26


def read_noise_power(folder: Path, iteration: int, box_px: int, groups: int) -> tuple[Floats, tuple[str, ...]]:
    """Read 1 / bckgnoise.hdf of the iteration, or of the last one before it that has the file.

    Returns
    -------
    power : float64 (rows of the file, box_px // 2 + 1), noise power of each particle group in each Fourier shell of
        the box, in MERIDIEN's unit: half the mean |F|^2 of the plain transform of images whose background has unit
        variance; 0 where the file has no positive value.
    notes : a sentence if the file is of an earlier iteration.

    Raises
    ------
    InputError
        If no iteration has the file, or it is damaged, or has too few groups or shells.
    """
    notes: tuple[str, ...] = ()
    for earlier in range(iteration, -1, -1):
        path = iteration_folder(folder, earlier) / "bckgnoise.hdf"
        if path.exists():
            break
    else:
        raise InputError(
            f"{iteration_folder(folder, iteration) / 'bckgnoise.hdf'} (noise spectra) is missing there and in all"
            " earlier iterations; copy it from the refinement, or do without with --notapplybckgnoise"
        )
    if earlier != iteration:
        notes = (f"Noise spectra are those of iteration {earlier}: iteration {iteration} has no bckgnoise.hdf.",)
    inverse = _read_image(path)
    shells = box_px // 2 + 1
    if len(inverse) < groups or inverse.shape[1] < shells:
        raise InputError(
            f"{path} (noise spectra) has {inverse.shape[0]} groups of {inverse.shape[1]} shells where main000 names"
            f" {groups} groups and the box of {box_px} px has {shells} shells; {_COPY}"
        )
    if not np.isfinite(inverse).all():
        group, shell = (int(place) for place in np.argwhere(~np.isfinite(inverse))[0])
        raise InputError(f"{path} (noise spectra), group {group}, shell {shell}, is not a finite number; {_COPY}")
    inverse = inverse[:, :shells]
    power = np.zeros(inverse.shape)
    np.divide(1.0, inverse, out=power, where=inverse > 0)
    return power, notes


def read_fsc(folder: Path, iteration: int, box_px: int, window_px: int) -> Floats:
    """Read driver_III.txt: FSC between the half-maps, float64 (box_px // 2 + 1,), 0 beyond the end of the file.

    Raises
    ------
    InputError
        If it is missing, damaged, longer than the box has shells, or shorter than the iteration's window has.
    """
    path = iteration_folder(folder, iteration) / f"driver_{iteration:03d}.txt"
    values = read_rows(path, "FSC of the half-maps", columns=1)[:, 0]
    shells = box_px // 2 + 1
    if not window_px // 2 <= len(values) <= shells:
        raise InputError(
            f"{path} (FSC of the half-maps) has {len(values)} rows where a window of {window_px} px in a box of"
            f" {box_px} px has {window_px // 2} to {shells}; {_COPY}"
        )
    wrong = np.flatnonzero(np.abs(values) > 1 + 1e-3)
    if wrong.size:
        raise InputError(
            f"{path} (FSC of the half-maps), row {wrong[0] + 1}: {values[wrong[0]]:g} is no correlation from -1 to 1;"
            f" {_COPY}"
        )
    fsc = np.zeros(shells)
    fsc[: len(values)] = np.clip(values, -1.0, 1.0)
    return fsc


def _read_image(path: Path) -> Floats:
    """Read image 0 of an EMAN2 HDF file as float64 (ny, nx)."""
    with reading(path, "an HDF5 file of EMAN2 with noise spectra"), opened(path) as file:
        dataset = file.get("MDF/images/0/image")
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{path} (noise spectra) holds no image 0 in EMAN2's layout; {_COPY}")
        shape = dataset.shape[1:] if dataset.ndim == 3 and dataset.shape[0] == 1 else dataset.shape
        if len(shape) != 2 or dataset.dtype.kind not in "fiu" or not 0 < dataset.size <= _MOST_VALUES:
            raise InputError(
                f"{path} (noise spectra) holds values of shape {dataset.shape} and type {dataset.dtype}, not one 2D"
                f" image; {_COPY}"
            )
        check_stored(path, dataset, path.stat().st_size, "noise spectra")
        return np.asarray(dataset[...], np.float64).reshape(shape)
