"""Pages that show results: one self-contained HTML file with all pictures in it, and the panels beside it."""

from hpcsort.report.page import (
    PAGE,
    PANEL_FILES,
    PANELS,
    Page,
    Report,
    binned,
    clear_panels,
    end_with_report,
    grey_png,
    make_panels,
    picture_of,
    save_bytes,
)
from hpcsort.report.provenance import RECORD, machine, program_of, provenance_rows, read_json, write_run_record

__all__ = [
    "PAGE",
    "PANELS",
    "PANEL_FILES",
    "RECORD",
    "Page",
    "Report",
    "binned",
    "clear_panels",
    "end_with_report",
    "grey_png",
    "machine",
    "make_panels",
    "picture_of",
    "program_of",
    "provenance_rows",
    "read_json",
    "save_bytes",
    "write_run_record",
]
