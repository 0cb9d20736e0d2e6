"""A small good set to be broken."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from hpcsort.simulation import SimulationResult

COUNT = 60
Made = SimulationResult


def copied(good: Made, folder: Path) -> Made:
    """Copy a set into a folder that does not exist yet."""
    shutil.copytree(good.star.parent, folder)
    return replace(good, star=folder / good.star.name, stack=folder / good.stack.name)
