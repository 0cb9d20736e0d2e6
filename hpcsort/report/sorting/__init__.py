"""The report of sort3d, drawn from the files of its folder."""

from hpcsort.report.sorting.gather import Chain, FoundGroup, SortedRun, gather_sort
from hpcsort.report.sorting.page import write_sort_report

__all__ = ["Chain", "FoundGroup", "SortedRun", "gather_sort", "write_sort_report"]
