"""Projection matching: poses of particles, with probabilities, by comparison with reference maps."""

from hpcsort.matching.options import MatchOptions
from hpcsort.matching.program import MatchResult, match

__all__ = ["MatchOptions", "MatchResult", "match"]
