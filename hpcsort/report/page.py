"""A self-contained HTML page: headings, tables, notes, pictures and cards; and the report of a run, made of one."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from hpcsort.errors import OutputError
from hpcsort.io import atomic_write, write_text_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "PAGE",
    "PANELS",
    "PANEL_FILES",
    "Page",
    "Report",
    "binned",
    "clear_panels",
    "end_with_report",
    "grey_png",
    "make_panels",
    "picture_of",
    "save_bytes",
]

DPI = 100

PAGE, PANELS = "report.html", "report"
"""Page of a run, and folder of its panels, in the folder of the run."""
PANEL_FILES = r"\w+\.(png|csv)"
"""Pattern of the names in the folder of the panels."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; } h3 { font-size: 1em; margin: 1.6em 0 0.3em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15em 0.8em 0.15em 0; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } td.text { text-align: left; }
.scroll { overflow: auto; max-height: 32em; } .note { background: #fff3d6; padding: 0.3em 0.7em; margin: 0.3em 0; }
.note, .small, .facts td { overflow-wrap: anywhere; } .facts td { text-align: left; vertical-align: top; }
.facts td:first-child { overflow-wrap: normal; white-space: nowrap; }
img { max-width: 100%; height: auto; } .small { color: #666; font-size: 0.9em; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9em, 1fr)); gap: 0.8em; }
.card { border: 1px solid #ddd; border-radius: 4px; padding: 0.4em; font-size: 0.85em; }
.card img { width: 100%; image-rendering: pixelated; } .card b { font-size: 1.1em; }
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(15em, 1fr)); } .cards.wide img { image-rendering: auto; }
"""


class Page:
    """A page that grows from top to bottom; all texts are plain and escaped here.

    Parameters
    ----------
    title : of the window and the first heading.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str, level: int = 2) -> None:
        """Begin a section."""
        self._parts.append(f"<h{level}>{escape(text)}</h{level}>")

    def text(self, text: str, kind: str = "") -> None:
        """Add a paragraph; its kind is "", "small" or "note" (a warning)."""
        self._parts.append(f"<p class='{kind}'>{escape(text)}</p>" if kind else f"<p>{escape(text)}</p>")

    def legend(self, before: str, marks: Iterable[tuple[str, str]], after: str = "") -> None:
        """Add a small paragraph with words in their colours: (text, CSS colour) each."""
        coloured = ", ".join(f"<span style='color:{escape(colour)}'>{escape(text)}</span>" for text, colour in marks)
        self._parts.append(f"<p class='small'>{escape(before)}{coloured}{escape(after)}</p>")

    def table(self, heads: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
        """Add a table; words stand left, numbers right."""
        head = "".join(f"<th>{escape(name)}</th>" for name in heads)
        body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
        self._parts.append(f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>")

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Add a table of names and texts, which may be long."""
        body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows)
        self._parts.append(f"<table class='facts'>{body}</table>")

    def picture(self, picture: Figure | Path | bytes, alt: str) -> None:
        """Add a picture: a figure, a PNG file, or PNG data."""
        self._parts.append(f"<p>{_image(picture, alt)}</p>")

    def cards(self, cards: Iterable[tuple[bytes | None, str, Iterable[str]]], *, wide: bool = False) -> None:
        """Add a grid of cards, narrow or wide: PNG data or None, a name, and lines of text each."""
        made = []
        for png, name, lines in cards:
            told = "".join(f"<br>{escape(line)}" for line in lines)
            picture = f"{_image(png, name)}<br>" if png is not None else ""
            made.append(f"<div class='card'>{picture}<b>{escape(name)}</b>{told}</div>")
        self._parts.append(f"<div class='cards{' wide' if wide else ''}'>" + "".join(made) + "</div>")

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the page.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        head = (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
            "<meta name='viewport' content='width=device-width'>"
            f"<title>{escape(self._title)}</title><style>{_STYLE}</style></head><body>"
        )
        write_text_atomically(path, "\n".join([head, *self._parts, "</body></html>"]) + "\n", overwrite=overwrite)


class Report(Page):
    """The page of a run in its folder; pictures and tables of its panels lie beside it as PNG and CSV.

    Parameters
    ----------
    folder : of the run. The page is report.html there, the panels are in report/.
    title : of the page.

    Attributes
    ----------
    folder, panels : of the run, and of the panels.

    Raises
    ------
    OutputError
        If the folder of the panels cannot be made.
    """

    def __init__(self, folder: Path, title: str) -> None:
        super().__init__(title)
        self.folder, self.panels = folder, make_panels(folder)

    def panel(
        self, name: str, alt: str, picture: Figure | bytes | None = None, table: pd.DataFrame | None = None
    ) -> None:
        """Add a picture, and write it and the numbers that it shows to report/NAME.png and report/NAME.csv.

        Parameters
        ----------
        name : of the files.
        alt : what the picture shows, in words.
        picture : None where the numbers alone are written.
        table : the numbers.
        """
        files = []
        if picture is not None:
            data = picture if isinstance(picture, bytes) else picture_of(picture)
            save_bytes(self.panels / f"{name}.png", data)
            self.picture(data, alt)
            files.append(f"{name}.png")
        if table is not None:
            text = str(table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
            write_text_atomically(self.panels / f"{name}.csv", text, overwrite=True)
            files.append(f"{name}.csv")
        self.text(f"In {PANELS}/: {', '.join(files)}.", "small")

    def save(self) -> Path:
        """Write the page and return its path."""
        path = self.folder / PAGE
        self.write(path, overwrite=True)
        return path


def end_with_report(folder: Path, write: Callable[[Path], Path]) -> str:
    """Write the report at the end of a run, and return a sentence; whatever goes wrong, the results are kept."""
    try:
        return f"The report is {write(folder)}."
    except Exception as error:
        return (
            f"Warning: the results are complete, but their report could not be drawn ({error}); try again with: hpcsort"
            f" report {folder}"
        )


def make_panels(folder: Path) -> Path:
    """Make the folder of the panels in a run's folder, and return it.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    panels = folder / PANELS
    try:
        panels.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {panels}: {error.strerror}; free that name.") from error
    return panels


def clear_panels(folder: Path) -> None:
    """Remove the panels of an earlier run, which would look like part of the next one."""
    for path in (folder / PANELS).glob("*"):
        if re.fullmatch(PANEL_FILES, path.name):
            path.unlink()


def save_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, in place of an older one."""
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_bytes(data)


def picture_of(figure: Figure, dpi: int = DPI) -> bytes:
    """Draw a figure as PNG; the same figure gives the same bytes."""
    # imported late: programs that write a report at their end need not wait for it when they begin
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # without the version of matplotlib the same run gives the same page
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def binned(image: npt.NDArray[np.floating], edge: int) -> npt.NDArray[np.float32]:
    """Shrink an image (ny, nx) by averaging, as little as makes it no larger than ``edge``."""
    by = -(-max(image.shape) // edge)
    ny, nx = image.shape[0] // by, image.shape[1] // by
    blocks = image[: ny * by, : nx * by].reshape(ny, by, nx, by)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def grey_png(image: npt.NDArray[np.floating]) -> bytes:
    """Draw an image (ny, nx) as PNG, black to white from three standard deviations below its mean to three above."""
    middle, spread = float(image.mean()), float(image.std())
    scaled = 127.5 + 42.5 * (image - middle) / (spread if spread > 0 else 1.0)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()


def _image(picture: Figure | Path | bytes, alt: str) -> str:
    if isinstance(picture, Path):
        picture = picture.read_bytes()
    data = picture if isinstance(picture, bytes) else picture_of(picture)
    return f"<img alt='{escape(alt)}' src='data:image/png;base64,{base64.b64encode(data).decode()}'>"


def _cell(value: object) -> str:
    is_word = isinstance(value, str) and value != "-" and not value.lstrip("-")[:1].isdigit()
    kind = " class='text'" if is_word else ""
    return f"<td{kind}>{escape(str(value))}</td>"
