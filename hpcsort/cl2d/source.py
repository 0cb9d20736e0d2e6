"""Particles from a table or a bare stack, and stacks of initial references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcsort.cl2d.options import Cl2dOptions
from hpcsort.errors import InputError
from hpcsort.io import ParticleTable, open_stack, read_bare_stack, read_input

__all__ = ["read_references", "read_source"]

_STACKS = frozenset({".mrcs", ".mrc", ".st"})


def read_source(options: Cl2dOptions) -> ParticleTable:
    """Read the table of particles; a bare stack becomes a table that names its images.

    Raises
    ------
    InputError
        As `read_input`, and if the images are not all of one pixel size, or a CTF is asked of a bare stack.
    """
    if options.instack.suffix.lower() in _STACKS:
        if options.ctf != "none":
            raise InputError(
                f"{options.instack} tells no CTF, which --ctf {options.ctf} needs; give the STAR file of the particles"
            )
        table = read_bare_stack(options.instack, angpix=options.angpix)
    else:
        table = read_input(
            options.instack,
            datadir=options.datadir,
            angpix=options.angpix,
            need_poses=False,
            need_ctf=options.ctf != "none",
            smears=False,
        )
    assert table.box_px is not None
    options.check_particles(len(table), table.box_px)
    options.band_px(table.box_px, table.pixel_size_A)
    return table


def read_references(path: Path, box_px: int) -> npt.NDArray[np.float32]:
    """Read initial class averages, float32 (K, box, box).

    Raises
    ------
    InputError
        If they are not of the particles' box, or one is constant or not finite.
    """
    stack = open_stack(path)
    try:
        if stack.shape[1:] != (box_px, box_px):
            raise InputError(
                f"{path} has images of {stack.shape[2]} x {stack.shape[1]} px, but the particles have {box_px} px;"
                " bring the references to the box of the particles"
            )
        images = stack.read(np.arange(len(stack)))
    finally:
        stack.close()
    flat = images.reshape(len(images), -1)
    bad = np.flatnonzero(~np.isfinite(flat).all(axis=1) | (flat == flat[:, :1]).all(axis=1))
    if bad.size:
        raise InputError(f"image {bad[0] + 1} of {path} is constant or has NaN or infinite pixels; leave it out")
    return images
