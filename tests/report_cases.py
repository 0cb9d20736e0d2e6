"""What the tests of reports look at: the outline of a page, and the page in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

_VOID = {"meta", "img", "br"}
_MEASURE = """<script>document.body.dataset.measured = JSON.stringify({
  sticks_out: document.documentElement.scrollWidth - window.innerWidth,
  broken: [...document.images].filter(image => !image.naturalWidth).length,
  pictures: document.images.length})</script>"""


class Outline(HTMLParser):
    """Tags that are open, texts, and what is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.loaded: list[str] = []
        self.alts: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action"}]
        self.alts += [value or "" for name, value in attrs if name == "alt"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def outline(path: Path) -> Outline:
    """Parse a page that must be whole and alone, and small enough to send."""
    found = Outline()
    page = path.read_text(encoding="utf-8")
    found.feed(page)
    assert found.open == [], "every tag is closed"
    assert path.stat().st_size < 10e6
    assert "url(" not in page
    assert "@import" not in page
    for source in found.loaded:
        data = re.fullmatch(r"data:image/png;base64,(.*)", source)
        assert data is not None, "nothing comes from outside"
        Image.open(io.BytesIO(base64.b64decode(data[1]))).verify()
    assert len(found.alts) == found.seen.count("img")
    assert all(found.alts), "every picture has words in its place"
    return found


def measure_in_browser(page: Path, width: int, folder: Path) -> dict[str, int]:
    """Open a copy of a page in headless Chromium without network; what sticks out, and pictures that are broken."""
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
    )
    if not browser:
        pytest.skip("no Chromium is installed")
    copy = folder / f"copy{width}.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{_MEASURE}</body>"), encoding="utf-8")
    words = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    words += [f"--user-data-dir={folder / 'browser'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    words += [f"--window-size={width},1000", copy.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, "the console holds no message"
    found = re.search(r'data-measured="([^"]*)"', done.stdout)
    assert found is not None, done.stdout[-500:]
    measured: dict[str, int] = json.loads(found[1].replace("&quot;", '"'))
    return measured
