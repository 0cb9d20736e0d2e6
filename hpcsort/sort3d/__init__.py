"""sort3d: reproducible 3D sorting at fixed orientations."""

from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.program import Group, SortResult, resume_sort, sort3d
from hpcsort.sort3d.resume import is_finished, options_of

__all__ = ["Group", "SortOptions", "SortResult", "is_finished", "options_of", "resume_sort", "sort3d"]
