"""Pages that show results: one self-contained HTML file with all pictures in it."""

from hpcsort.report.page import Page, grey_png, picture_of

__all__ = ["Page", "grey_png", "picture_of"]
