"""Particle tables from columns that did not come from a STAR file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from hpcsort.io._assemble import table_fields
from hpcsort.io.particles import ParticleTable

__all__ = ["table_of_frame"]


def table_of_frame(
    source: Path,
    frame: pd.DataFrame,
    optics: pd.DataFrame | None = None,
    *,
    datadir: str | os.PathLike[str] | None = None,
    angpix: float | None = None,
    need_images: bool = True,
    need_poses: bool = False,
    need_ctf: bool = False,
    aliases: Mapping[str, str] | None = None,
) -> ParticleTable:
    """Make a particle table from columns named as RELION does.

    Parameters
    ----------
    source
        Where they come from, for messages and as the place from which stacks are looked for.
    frame, optics
        Particles and their optics groups.
    datadir, angpix, need_images, need_poses, need_ctf
        As `read_particles`.
    aliases
        RELION's name to the name of the column in `source`, where it differs.

    Raises
    ------
    InputError
        As `read_particles`.
    """
    fields = table_fields(
        source,
        frame,
        optics,
        datadir=datadir,
        angpix=angpix,
        need_images=need_images,
        need_poses=need_poses,
        need_ctf=need_ctf,
        aliases=aliases,
    )
    order = ("particles",) if optics is None else ("optics", "particles")
    return ParticleTable(**fields, block_name="particles", block_order=order, other_blocks={})
