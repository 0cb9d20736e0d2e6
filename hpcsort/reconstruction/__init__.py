"""Reconstruction: maps of groups of particles, half-sets, symmetry expansion, random conical tilt."""

from hpcsort.reconstruction.expand import EXPANDED_FROM, expand_symmetry
from hpcsort.reconstruction.groups import GroupMaps, reconstruct_groups, resolution_A
from hpcsort.reconstruction.halves import half_sets
from hpcsort.reconstruction.outputs import write_group_maps
from hpcsort.reconstruction.program import Reconstruction, ReconstructOptions, Source, reconstruct
from hpcsort.reconstruction.rct import ConicalClass, ConicalOptions, reconstruct_conical
from hpcsort.reconstruction.selection import read_rows, select_rows

__all__ = [
    "EXPANDED_FROM",
    "ConicalClass",
    "ConicalOptions",
    "GroupMaps",
    "ReconstructOptions",
    "Reconstruction",
    "Source",
    "expand_symmetry",
    "half_sets",
    "read_rows",
    "reconstruct",
    "reconstruct_conical",
    "reconstruct_groups",
    "resolution_A",
    "select_rows",
    "write_group_maps",
]
