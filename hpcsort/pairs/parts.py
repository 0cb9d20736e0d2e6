"""Micrograph pairs that are done, on disk until all are: their windows, and what else is known of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcsort.checkpoints import read_checkpoint, write_checkpoint
from hpcsort.errors import InputError, OutputError
from hpcsort.io import atomic_write
from hpcsort.pairs.extract import ExtractedPair
from hpcsort.pairs.plan import SIDES, PlannedPair

__all__ = ["Parts"]

_FOLDER = ".hpcsort_parts"
_TOGETHER = 32
"""Windows read at a time."""


class Parts:
    """Finished micrograph pairs of a run.

    Parameters
    ----------
    output : folder of the run.
    box_px : edge of the windows.
    """

    def __init__(self, output: Path, box_px: int) -> None:
        self._folder, self._box = output / _FOLDER, box_px

    def begin(self, going_on: bool) -> None:
        """Make the folder, empty unless an earlier run goes on."""
        try:
            if not going_on:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot write in {self._folder.parent}: {error.strerror}; choose another --output"
            ) from error

    def remove(self) -> None:
        """Remove all parts."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def keep(self, pair: ExtractedPair, windows: list[npt.NDArray[np.float32]]) -> None:
        """Put a pair on disk. What is known of it comes last, so that where it is, the windows are whole.

        Raises
        ------
        OutputError
            If the disk is full or cannot be written.
        """
        for side, pixels in zip(SIDES, windows, strict=False):
            with atomic_write(self._windows(pair.plan, side), overwrite=True) as temporary:
                pixels.tofile(temporary)
        # all but the plan, which a run that goes on makes again
        known = {field.name: getattr(pair, field.name) for field in fields(pair) if field.name != "plan"}
        write_checkpoint(self._state(pair.plan), known)

    def find(self, plan: PlannedPair) -> ExtractedPair | None:
        """Return a pair that is on disk, or None."""
        try:
            found = read_checkpoint(self._state(plan))
        except InputError:
            # damaged: it is done again
            return None
        if found is None:
            return None
        pair = ExtractedPair(plan, **found[0])
        size = len(pair.kept) * self._box**2 * np.dtype(np.float32).itemsize
        paths = [self._windows(plan, side) for side in SIDES[: len(pair.sides)]]
        return pair if all(path.is_file() and path.stat().st_size == size for path in paths) else None

    def windows(self, pair: ExtractedPair, side: str) -> Iterator[npt.NDArray[np.float32]]:
        """Give the windows of one side one by one, float32 (box, box)."""
        with self._windows(pair.plan, side).open("rb") as file:
            for _ in range(0, len(pair.kept), _TOGETHER):
                yield from np.fromfile(file, np.float32, _TOGETHER * self._box**2).reshape(-1, self._box, self._box)

    def _windows(self, plan: PlannedPair, side: str) -> Path:
        """Float32 numbers without header."""
        return self._folder / f"{plan.number:06d}_{side}.raw"

    def _state(self, plan: PlannedPair) -> Path:
        return self._folder / f"{plan.number:06d}.pair"
