"""Euler conventions, point groups, view directions and orientation groups."""

from hpcsort.geometry.directions import direction_order, orientation_groups, spiral_directions, view_directions
from hpcsort.geometry.euler import (
    relion_angles,
    relion_matrices,
    relion_to_sphire,
    relion_to_xmipp,
    relion_to_xmipp_2d,
    sphire_to_relion,
    xmipp_2d_to_relion,
    xmipp_to_relion,
)
from hpcsort.geometry.symmetry import point_group

__all__ = [
    "direction_order",
    "orientation_groups",
    "point_group",
    "relion_angles",
    "relion_matrices",
    "relion_to_sphire",
    "relion_to_xmipp",
    "relion_to_xmipp_2d",
    "sphire_to_relion",
    "spiral_directions",
    "view_directions",
    "xmipp_2d_to_relion",
    "xmipp_to_relion",
]
