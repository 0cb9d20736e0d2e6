"""Volumes: the central-section grid, FSC, masks."""

from hpcsort.volumes.fsc import fsc_of_full, fsc_of_size, last_shell_above, map_fsc, shell_correlation
from hpcsort.volumes.grid import BandGrid, good_even_size
from hpcsort.volumes.masks import soft_sphere

__all__ = [
    "BandGrid",
    "fsc_of_full",
    "fsc_of_size",
    "good_even_size",
    "last_shell_above",
    "map_fsc",
    "shell_correlation",
    "soft_sphere",
]
