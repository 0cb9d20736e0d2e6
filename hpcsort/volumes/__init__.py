"""Volumes: the central-section grid, reconstruction, FSC, masks, resampling, symmetry."""

from hpcsort.volumes.fsc import fsc_of_full, fsc_of_size, last_shell_above, map_fsc, shell_correlation
from hpcsort.volumes.grid import BandGrid, good_even_size
from hpcsort.volumes.masks import (
    check_mask,
    focus_from_variance,
    read_mask,
    soft_sphere,
    soften,
    sphere_mask,
)
from hpcsort.volumes.reconstruct import SectionSums, reconstruct_map, wiener_prior
from hpcsort.volumes.resample import resample_map
from hpcsort.volumes.symmetry import symmetrise_map

__all__ = [
    "BandGrid",
    "SectionSums",
    "check_mask",
    "focus_from_variance",
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
    "soften",
    "sphere_mask",
    "symmetrise_map",
    "wiener_prior",
]
