"""Checks of an input before it is sorted.

This floor lies above sort3d, whose reading of the input and estimate of memory it calls, so that check and sort agree.
"""

from hpcsort.checking.costs import Cost
from hpcsort.checking.findings import FAULT, FINE, NOTE, WARNING, Finding
from hpcsort.checking.options import CheckOptions
from hpcsort.checking.program import CheckResult, check

__all__ = ["FAULT", "FINE", "NOTE", "WARNING", "CheckOptions", "CheckResult", "Cost", "Finding", "check"]
