"""Finished refinements read as particle tables: MERIDIEN directories with their smeared orientations."""

from hpcsort.refinement._text import read_rows
from hpcsort.refinement.read import Refinement, read_refinement
from hpcsort.refinement.report import SmearingRow, smear_note, smearing_lines, smearing_report

__all__ = [
    "Refinement",
    "SmearingRow",
    "read_refinement",
    "read_rows",
    "smear_note",
    "smearing_lines",
    "smearing_report",
]
