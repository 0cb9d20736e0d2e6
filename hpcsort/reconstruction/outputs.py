"""Writing the maps of a group."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from hpcsort.io import write_hdf_map, write_map, write_text_atomically
from hpcsort.reconstruction.groups import GroupMaps

__all__ = ["write_group_maps"]


def write_group_maps(
    folder: str | os.PathLike[str],
    stem: str,
    maps: GroupMaps,
    voxel_A: float,
    overwrite: bool = False,
    map_format: str = "mrc",
) -> None:
    """Write stem.mrc, and where there are halves stem_half1.mrc, stem_half2.mrc (or .hdf) and stem_fsc.txt.

    The table of the FSC has the columns shell, resolution in A and FSC.

    Parameters
    ----------
    folder : existing folder.
    stem : beginning of the files' names.
    maps : of one group.
    voxel_A : voxel size.
    overwrite : whether existing files may be replaced.
    map_format : "mrc", or "hdf" for maps as EMAN2 keeps them.

    Raises
    ------
    OutputError
        If a file exists and ``overwrite`` is false, or cannot be written.
    """
    place = Path(folder)
    write = {"mrc": write_map, "hdf": write_hdf_map}[map_format]
    for name, volume in ((stem, maps.map), (f"{stem}_half1", maps.half1), (f"{stem}_half2", maps.half2)):
        if volume is not None:
            write(place / f"{name}.{map_format}", volume, voxel_A, overwrite=overwrite)
    if maps.fsc is None:
        return
    box = len(maps.map)
    lines = ["# shell resolution_A fsc"]
    for shell, value in enumerate(maps.fsc.tolist()):
        lines.append(f"{shell:5d} {box * voxel_A / shell if shell else np.inf:12.4f} {value:9.6f}")
    write_text_atomically(place / f"{stem}_fsc.txt", "\n".join(lines) + "\n", overwrite=overwrite)
