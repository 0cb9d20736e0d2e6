"""Pages are whole, safe and alone: nothing from outside, nothing that a text could smuggle in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from report_cases import outline

from hpcsort.report import Page, grey_png, picture_of


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
    found = outline(tmp_path / "page.html")
    assert "script" not in found.seen
    assert {"i", "b"} & set(found.seen) == {"b"}, "the name of the card alone"
    told = found.text
    for text in ("<script>alert(1)</script>", "A & B", "x < y", "a'b", "<b>", "<i>", "kept"):
        assert text in told
    assert len(found.loaded) == 2


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
