"""A self-contained HTML page: headings, tables, notes, pictures and cards of pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from hpcsort.io import write_text_atomically

__all__ = ["Page", "grey_png", "picture_of"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; } h3 { font-size: 1em; margin: 1.6em 0 0.3em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15em 0.8em 0.15em 0; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } td.text { text-align: left; }
.scroll { overflow: auto; max-height: 32em; } .note { background: #fff3d6; padding: 0.3em 0.7em; margin: 0.3em 0; }
img { max-width: 100%; height: auto; } .small { color: #666; font-size: 0.9em; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9em, 1fr)); gap: 0.8em; }
.card { border: 1px solid #ddd; border-radius: 4px; padding: 0.4em; font-size: 0.85em; }
.card img { width: 100%; image-rendering: pixelated; } .card b { font-size: 1.1em; }
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

    def picture(self, picture: Figure | Path | bytes, alt: str) -> None:
        """Add a picture: a figure, a PNG file, or PNG data."""
        self._parts.append(f"<p>{_image(picture, alt)}</p>")

    def cards(self, cards: Iterable[tuple[bytes, str, Iterable[str]]]) -> None:
        """Add a grid of cards: PNG data, a name, and lines of text each."""
        made = []
        for png, name, lines in cards:
            told = "".join(f"<br>{escape(line)}" for line in lines)
            made.append(f"<div class='card'>{_image(png, name)}<br><b>{escape(name)}</b>{told}</div>")
        self._parts.append("<div class='cards'>" + "".join(made) + "</div>")

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


def picture_of(figure: Figure, dpi: int = 80) -> bytes:
    """Draw a figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # without the version of matplotlib the same run gives the same page
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def grey_png(image: npt.NDArray[np.floating]) -> bytes:
    """Draw an image (ny, nx) as PNG, black to white from three standard deviations below its mean to three above."""
    middle, spread = float(image.mean()), float(image.std())
    scaled = 127.5 + 42.5 * (image - middle) / (spread if spread > 0 else 1.0)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()


def _image(picture: Figure | Path | bytes, alt: str) -> str:
    if isinstance(picture, Figure):
        picture = picture_of(picture)
    data = picture.read_bytes() if isinstance(picture, Path) else picture
    return f"<img alt='{escape(alt)}' src='data:image/png;base64,{base64.b64encode(data).decode()}'>"


def _cell(value: object) -> str:
    kind = " class='text'" if isinstance(value, str) and not value.lstrip("-")[:1].isdigit() else ""
    return f"<td{kind}>{escape(str(value))}</td>"
