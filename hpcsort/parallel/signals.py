"""Signals by which a run is asked to end: SIGTERM, and SIGUSR1 as SLURM sends it before the time limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_signals"]

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def stop_signals() -> Iterator[Callable[[], str]]:
    """Catch the signals while a block runs; gives a function that names the one that has come, or "".

    Python runs its handlers between two calls of compiled code, so that a signal waits for the kernel or the exchange
    that runs. In a thread other than the main one nothing is caught.
    """
    names: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        names.append(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield str
        return
    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield lambda: names[0] if names else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
