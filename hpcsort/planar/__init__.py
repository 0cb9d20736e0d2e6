"""2D images and their in-plane alignment: polar spectra, exhaustive search, refinement, averages."""

from hpcsort.planar.polar import PolarGrid, soft_disc
from hpcsort.planar.poses import PlanarPoses
from hpcsort.planar.refine import align_spectra, refine_poses
from hpcsort.planar.search import GridMatches, Searcher, shift_grid
from hpcsort.planar.warp import apply_poses, average_images, mirrored

__all__ = [
    "GridMatches",
    "PlanarPoses",
    "PolarGrid",
    "Searcher",
    "align_spectra",
    "apply_poses",
    "average_images",
    "mirrored",
    "refine_poses",
    "shift_grid",
    "soft_disc",
]
