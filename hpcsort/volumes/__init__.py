"""Volumes: the central-section grid, reconstruction, FSC, masks, resampling."""

from hpcsort.volumes.fsc import fsc_of_full, fsc_of_size, last_shell_above, map_fsc, shell_correlation
from hpcsort.volumes.grid import BandGrid, good_even_size
from hpcsort.volumes.masks import soft_sphere
from hpcsort.volumes.reconstruct import SectionSums, reconstruct_map, wiener_prior
from hpcsort.volumes.resample import read_mask, resample_map

__all__ = [
    "BandGrid",
    "SectionSums",
    "fsc_of_full",
    "fsc_of_size",
    "good_even_size",
    "last_shell_above",
    "map_fsc",
    "read_mask",
    "reconstruct_map",
    "resample_map",
    "shell_correlation",
    "soft_sphere",
    "wiener_prior",
]
