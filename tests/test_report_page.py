"""Pages are whole, safe and alone: nothing from outside, nothing that a text could smuggle in."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from hpcsort.report import Page, grey_png, picture_of


class _Outline(HTMLParser):
    """Tags that are open, texts, and what is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.loaded: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _outline(path: Path) -> _Outline:
    outline = _Outline()
    outline.feed(path.read_text(encoding="utf-8"))
    assert outline.open == [], "every tag is closed"
    return outline


def test_a_page_is_whole_and_takes_texts_as_texts(tmp_path: Path) -> None:
    page = Page("<script>alert(1)</script>")
    page.heading("A & B")
    page.text("x < y", "note")
    page.legend("Circles: ", [("kept", "#0a0")], ".")
    page.table(["name", "<b>"], [["a'b", 1.5], ["-3", 2]])
    page.cards([(grey_png(np.arange(16.0).reshape(4, 4)), "class 1", ["12 particles", "<i>"])])
    figure = Figure(figsize=(1, 1))
    page.picture(figure, 'a "figure"')
    page.write(tmp_path / "page.html")
    outline = _outline(tmp_path / "page.html")
    assert "script" not in outline.seen
    assert {"i", "b"} & set(outline.seen) == {"b"}, "the name of the card alone"
    told = "".join(outline.texts)
    for text in ("<script>alert(1)</script>", "A & B", "x < y", "a'b", "<b>", "<i>", "kept"):
        assert text in told
    assert len(outline.loaded) == 2
    for source in outline.loaded:
        data = base64.b64decode(re.fullmatch(r"data:image/png;base64,(.*)", source)[1])  # type: ignore[index]
        Image.open(io.BytesIO(data)).verify()


def test_pictures_have_the_same_bytes_each_time() -> None:
    def draw() -> bytes:
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2, 3])
        return picture_of(figure)

    assert draw() == draw()


def test_grey_values_follow_the_image() -> None:
    image = np.arange(64.0).reshape(8, 8)
    drawn = np.asarray(Image.open(io.BytesIO(grey_png(image))))
    assert drawn.shape == (8, 8)
    assert (np.diff(drawn.ravel().astype(int)) >= 0).all()
    assert abs(int(drawn[3, 7]) - 127) <= 2
    flat = np.asarray(Image.open(io.BytesIO(grey_png(np.zeros((5, 7))))))
    assert flat.shape == (5, 7)
    assert (flat == 127).all()
