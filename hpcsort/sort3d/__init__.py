"""sort3d: reproducible 3D sorting at fixed orientations."""

from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.program import Group, SortResult, resume_sort, sort3d

__all__ = ["Group", "SortOptions", "SortResult", "resume_sort", "sort3d"]
