"""One entry for particles and for maps of any kind that can be read, chosen by suffix or content."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io._assemble import check_arguments
from hpcsort.io.cryosparc import read_cryosparc
from hpcsort.io.eman_hdf import read_hdf_map
from hpcsort.io.eman_stack import read_eman_stack
from hpcsort.io.frames import table_of_frame
from hpcsort.io.h5 import SUFFIXES, starts_as_hdf5
from hpcsort.io.mrc import read_map
from hpcsort.io.particles import ParticleTable, read_particles
from hpcsort.io.stacks import open_stack, relion_name
from hpcsort.io.xmipp import read_xmipp

__all__ = ["format_of", "read_any_map", "read_bare_stack", "read_input"]

_IMAGES = frozenset({".mrc", ".mrcs", ".map", ".ccp4", ".tif", ".tiff", ".spi", ".img", ".hed"})
_START = 65536


def read_input(
    path: str | os.PathLike[str],
    *,
    passthrough: str | os.PathLike[str] | None = None,
    datadir: str | os.PathLike[str] | None = None,
    angpix: float | None = None,
    need_images: bool = True,
    need_poses: bool = True,
    need_ctf: bool = True,
    smears: bool = True,
) -> ParticleTable:
    """Read particles from a RELION STAR file, a cryoSPARC .cs file, an HDF5 stack of EMAN2 or an .xmd file of Xmipp.

    See `format_of` for what decides.

    Parameters
    ----------
    path
        The file.
    passthrough
        Second .cs file that is joined by uid; only with a .cs file.
    datadir, angpix, need_images, need_poses, need_ctf, smears
        As `read_particles`; smears are known for STAR files only.

    Raises
    ------
    InputError
        If the file is of no such kind, and as `read_particles`, `read_cryosparc`, `read_eman_stack` and `read_xmipp`.
    """
    kind = format_of(path)
    if passthrough is not None and kind != "cs":
        raise InputError(f"the passthrough file {passthrough} belongs to a .cs file, but {path} is none; leave it out")
    if kind == "star":
        return read_particles(
            path,
            datadir=datadir,
            angpix=angpix,
            need_images=need_images,
            need_poses=need_poses,
            need_ctf=need_ctf,
            smears=smears,
        )
    if kind == "cs":
        return read_cryosparc(
            path,
            passthrough=passthrough,
            datadir=datadir,
            angpix=angpix,
            need_images=need_images,
            need_poses=need_poses,
            need_ctf=need_ctf,
        )
    read = read_xmipp if kind == "xmd" else read_eman_stack
    return read(path, datadir=datadir, angpix=angpix, need_images=need_images, need_poses=need_poses, need_ctf=need_ctf)


def read_bare_stack(path: Path, *, angpix: float | None = None) -> ParticleTable:
    """Make a particle table of all images of a stack, without poses and CTF.

    Raises
    ------
    InputError
        If the stack cannot be read, or neither it nor ``angpix`` tells the pixel size.
    """
    check_arguments(path, None, angpix)
    stack = open_stack(path)
    count, pixel_A = len(stack), angpix or stack.voxel_A
    stack.close()
    if not pixel_A > 0:
        raise InputError(f"the header of {path} tells no pixel size; give it with --angpix")
    frame = pd.DataFrame({"rlnImageName": [relion_name(index, path.name) for index in range(count)]})
    frame["rlnOpticsGroup"] = 1
    optics = {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["opticsGroup1"], "rlnImagePixelSize": [pixel_A]}
    optics |= {"rlnImageSize": [stack.shape[2]], "rlnImageDimensionality": [2]}
    return table_of_frame(path, frame, pd.DataFrame(optics), angpix=angpix)


def read_any_map(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.float32], float]:
    """Read a 3D map: HDF5 of EMAN2 where suffix (.hdf, .h5, .hdf5) or content say so, else MRC.

    Returns
    -------
    data : numpy.ndarray
        (nz, ny, nx) float32.
    voxel_A : float
        Voxel size in Angstrom; 0 if the header does not tell.

    Raises
    ------
    InputError
        As `read_map` and `read_hdf_map`.
    """
    place = Path(path)
    hdf = place.suffix.lower() in SUFFIXES or starts_as_hdf5(place)
    return read_hdf_map(place) if hdf else read_map(place)


def format_of(path: str | os.PathLike[str]) -> str:
    """Tell of what format a file of particles is: "star", "cs", "hdf" or "xmd".

    The suffix decides (.star; .cs; .hdf, .h5, .hdf5; .xmd), and the content of a file with another suffix.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if os.fspath(path).startswith("bdb:"):
        raise InputError(
            f"{path} is a BDB database of EMAN2, which is not read; copy it to HDF: e2proc2d.py {path} x.hdf"
        )
    place = Path(path)
    suffix = place.suffix.lower()
    if suffix == ".star":
        return "star"
    if suffix == ".cs":
        return "cs"
    if suffix == ".xmd":
        return "xmd"
    if suffix in SUFFIXES:
        return "hdf"
    start = _start(place)
    if start.startswith(np.lib.format.MAGIC_PREFIX):
        return "cs"
    if starts_as_hdf5(place):
        return "hdf"
    if start.startswith(b"# XMIPP_STAR"):
        return "xmd"
    if any(line.startswith(b"data_") for line in start.splitlines()):
        return "star"
    if not place.is_file():
        raise InputError(f"{place} is not a file that can be read; check path and permissions")
    if suffix in _IMAGES:
        raise InputError(f"{place} holds images without a table of poses and CTF; give the STAR, .cs or .hdf file")
    raise InputError(
        f"{place} is no table of particles; give a STAR file, a .cs file of cryoSPARC, a .hdf stack or an .xmd file"
    )


def _start(place: Path) -> bytes:
    try:
        with place.open("rb") as file:
            return file.read(_START)
    except OSError:
        return b""
