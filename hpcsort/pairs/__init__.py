"""Pairs of particles cut from untilted and tilted micrographs, with their pairing and tilt geometry kept."""

from hpcsort.pairs.ctfs import MicrographCtf, read_ctfs
from hpcsort.pairs.extract import ExtractedPair, SideRows, extract_pair
from hpcsort.pairs.options import PairOptions
from hpcsort.pairs.plan import Loss, Plan, PlannedPair, Side, make_plan
from hpcsort.pairs.program import PairsResult, extract_pairs, resume_pairs
from hpcsort.pairs.tilt import TiltFit, fit_tilt

__all__ = [
    "ExtractedPair",
    "Loss",
    "MicrographCtf",
    "PairOptions",
    "PairsResult",
    "Plan",
    "PlannedPair",
    "Side",
    "SideRows",
    "TiltFit",
    "extract_pair",
    "extract_pairs",
    "fit_tilt",
    "is_finished",
    "make_plan",
    "read_ctfs",
    "resume_pairs",
]
