"""Lists of particles, partitions and JSON as text files, many at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hpcsort.io import write_text_atomically

__all__ = ["FileBatch", "Listing", "write_ids"]

_THREADS = 8


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Write a list of particles, one row of the table a line."""
    _write_rows(path, "{}", ids)


class FileBatch:
    """Writes files in the background; all are there, or the first error is raised, when its ``with`` block ends.

    Every file is flushed to disk, and a file system that flushes one after another takes twenty times as long.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS)
        self._jobs: list[Future[None]] = []

    def __enter__(self) -> FileBatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        for job in self._jobs if error is None else []:
            job.result()

    def text(self, path: Path, text: str) -> None:
        """Write text."""
        self._add(write_text_atomically, path, text)

    def ids(self, path: Path, ids: np.ndarray) -> None:
        """Write a list of particles, one row of the table a line."""
        self._add(write_ids, path, ids)

    def rows(self, path: Path, form: str, *columns: np.ndarray) -> None:
        """Write rows of numbers, each by the format ``form``."""
        self._add(_write_rows, path, form, *columns)

    def json(self, path: Path, record: dict[str, Any]) -> None:
        """Write JSON; numbers that it does not know (NaN, infinity) are null."""
        self.text(path, json.dumps(_plain(record), indent=2, allow_nan=False) + "\n")

    def _add(self, write: Callable[..., None], *arguments: Any) -> None:
        self._jobs.append(self._pool.submit(write, *arguments))


class Listing:
    """Writes lists of some particles in rising order of their table rows ``ids``."""

    def __init__(self, files: FileBatch, ids: np.ndarray) -> None:
        self._files = files
        self._order = np.argsort(ids)
        self._ids = ids[self._order]

    def where(self, path: Path, chosen: np.ndarray) -> None:
        """Write the particles where ``chosen`` (bool, in the order of ``ids``) holds."""
        self._files.ids(path, self._ids[chosen[self._order]])

    def classes(self, path: Path, labels: np.ndarray) -> None:
        """Write rows "class id"; particles of label -1 are left out."""
        ordered = labels[self._order]
        known = ordered >= 0
        self._files.rows(path, "{} {}", ordered[known], self._ids[known])


def _write_rows(path: Path, form: str, *columns: np.ndarray) -> None:
    # np.savetxt takes three times as long, which counts for a million particles.
    text = "\n".join(map(form.format, *(column.tolist() for column in columns)))
    write_text_atomically(path, text + "\n" if text else "")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
