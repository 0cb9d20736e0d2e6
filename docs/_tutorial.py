"""The commands of the tutorial: fenced blocks below a line `<!-- run -->`."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"<!-- run -->\n```(bash|python)\n(.*?)```", re.DOTALL)


def tutorial_blocks() -> list[tuple[str, str]]:
    """Language and text of each block, in order."""
    return _BLOCK.findall(Path(__file__).with_name("tutorial.md").read_text())
