"""Hierarchical 2D classification with cores (Sorzano et al., J. Struct. Biol. 171 (2010) 197)."""

from hpcsort.cl2d.options import Cl2dOptions
from hpcsort.cl2d.program import Cl2dResult, cl2d, resume_cl2d

__all__ = ["Cl2dOptions", "Cl2dResult", "cl2d", "resume_cl2d"]
