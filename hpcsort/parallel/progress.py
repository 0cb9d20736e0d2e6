"""Telling people how far a run is, and what it cost in time."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as _RichProgress

from hpcsort.errors import OutputError
from hpcsort.parallel.comm import Communicator


class StoryLog:
    """The story of a run: time-stamped plain sentences in a file and on standard output.

    Only rank 0 writes; elsewhere every call does nothing.

    Parameters
    ----------
    path : Path, optional
        The log file, appended to so that a resumed run continues its story. None: no file.
    comm : Communicator, optional
        Of the run; None is a run of one process.
    quiet : bool
        Write to the file only.

    Raises
    ------
    OutputError
        The file cannot be opened or written.
    """

    def __init__(self, path: Path | str | None, comm: Communicator | None = None, quiet: bool = False) -> None:
        self.path = None if path is None else Path(path)
        self._speaks = comm is None or comm.is_root
        self._quiet = quiet
        self._file: IO[str] | None = None
        if self._speaks and self.path is not None:
            try:
                self._file = self.path.open("a", encoding="utf-8")
            except OSError as error:
                raise OutputError(
                    f"cannot open the log file {self.path}: {error.strerror}; choose another folder."
                ) from error

    def tell(self, text: str) -> None:
        """Write one sentence; each line of a longer text gets the time of its first."""
        if not self._speaks:
            return
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        lines = "".join(f"{now}  {line}\n" for line in text.splitlines() or [""])
        if not self._quiet:
            sys.stdout.write(lines)
            sys.stdout.flush()
        if self._file is not None:
            try:
                self._file.write(lines)
                self._file.flush()
            except OSError as error:
                raise OutputError(f"cannot write the log file {self.path}: {error.strerror}; make room.") from error

    __call__ = tell

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Progress:
    """Progress of a loop: a moving line on a terminal, now and then a plain line elsewhere.

    Only rank 0 prints.

    Parameters
    ----------
    label : str
        What is counted, for example "iteration".
    total : int
        Number of steps.
    comm : Communicator, optional
        Of the run; None is a run of one process.
    quiet : bool
        Print nothing.
    interval_s : float
        Smallest time between two plain lines; the last step always prints.
    """

    def __init__(
        self, label: str, total: int, comm: Communicator | None = None, quiet: bool = False, interval_s: float = 10.0
    ) -> None:
        self.label, self.total, self.done = label, total, 0
        self._speaks = (comm is None or comm.is_root) and not quiet
        self._interval_s = interval_s
        self._start = self._last = time.monotonic()
        self._bar: _RichProgress | None = None
        self._task = TaskID(0)
        console = Console(file=sys.stdout)
        if self._speaks and console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            note = TextColumn("{task.fields[note]}")
            self._bar = _RichProgress(*columns, TimeRemainingColumn(), note, console=console)
            self._task = self._bar.add_task(label, total=total, note="")

    def step(self, steps: int = 1, note: str = "") -> None:
        """Count finished steps and show a short note, for example the share of changed labels."""
        self.done += steps
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, note=note)
        elif self._speaks and (self.done >= self.total or now - self._last >= self._interval_s):
            self._last = now
            tail = f": {note}" if note else ""
            of = f" of {self.total}" if self.done <= self.total else ""
            print(f"{self.label} {self.done}{of}, {now - self._start:.0f} s{tail}", flush=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()


class Stage:
    """Wall time of a named stage, added to a table: `with Stage("reading", times): ...`.

    Parameters
    ----------
    name : str
        Name of the stage; repeated stages add up.
    times : dict
        Seconds by name, in the order of first use.
    """

    def __init__(self, name: str, times: dict[str, float]) -> None:
        self.name, self._times, self._start = name, times, 0.0

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._times[self.name] = self._times.get(self.name, 0.0) + time.perf_counter() - self._start
