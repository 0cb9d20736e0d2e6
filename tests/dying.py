"""Run `hpcsort` so that one rank ends at a chosen moment: `python dying.py JSON sort3d --instack ...`.

The JSON says which "rank", and "how" it ends: "kill" (SIGKILL), "stop" (SIGSTOP), "TERM" or "USR1" (these signals),
"fail" (an exception), or "count" (it does not; the number of moments goes to the file "to"). The moment is the "note"
of that number that the rank makes of what it does, or the first in the "phase" that begins so.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import small_chunks

from hpcsort.cli.main import main
from hpcsort.parallel.watch import WatchedComm
from hpcsort.sort3d import loading


def end_at(told: dict[str, Any]) -> None:
    note = WatchedComm._note
    count = 0

    def counting(self: WatchedComm, *args: Any, **more: Any) -> None:
        nonlocal count
        note(self, *args, **more)
        if self.rank != told["rank"]:
            return
        count += 1
        if count == told.get("note") or ("phase" in told and self._phase.decode().startswith(told["phase"])):
            told.pop("phase", None)
            _end(told["how"])

    WatchedComm._note = counting  # type: ignore[method-assign]
    if told["how"] == "count":
        atexit.register(lambda: Path(told["to"]).write_text(str(count)))


def _end(how: str) -> None:
    if how == "fail":
        raise ZeroDivisionError("made for the test")
    number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "TERM": signal.SIGTERM, "USR1": signal.SIGUSR1}[how]
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    loading.deal_particles = small_chunks.deal_small_chunks
    end_at(json.loads(sys.argv.pop(1)))
    main()
