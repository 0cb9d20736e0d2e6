"""The guard of a node: a small process that outlives the ranks it watches, and says why they ended.

Started by `hpcsort.parallel.watch` as a script, without the package. A launcher kills all ranks as soon as one dies,
so that none of them could tell what happened; and a rank that hangs cannot tell it either.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

SLOT_BYTES = 256
_HEAD = struct.Struct("<iiqqq")
RUNNING, LEFT, FAILED = 0, 1, 2
_POLL_S = 1.0
_GRACE_S = 5.0
_TOUCH_S = 30.0


def write_slot(slots: mmap.mmap, index: int, state: int, rank: int, beats: int, waits: bool, phase: bytes) -> None:
    """Write the slot of this process."""
    _HEAD.pack_into(slots, index * SLOT_BYTES, state, rank, os.getpid(), beats, waits)
    start, room = index * SLOT_BYTES + _HEAD.size, SLOT_BYTES - _HEAD.size
    slots[start : start + room] = phase[:room].ljust(room, b"\0")


class Slot(NamedTuple):
    """What a rank has noted: ``waits`` is 1 while it waits for others."""

    state: int
    rank: int
    pid: int
    beats: int
    waits: int
    phase: str


def read_slot(slots: mmap.mmap, index: int) -> Slot:
    """Read the slot of a rank."""
    start = index * SLOT_BYTES
    phase = bytes(slots[start + _HEAD.size : start + SLOT_BYTES]).rstrip(b"\0").decode("utf-8", "ignore")
    state, rank, pid, beats, waits = _HEAD.unpack_from(slots, start)
    return Slot(state, rank, pid, beats, waits, phase)


class _Guard:
    """Watches the ranks of one node.

    Parameters
    ----------
    slots : one a rank.
    told : "ranks" of the node, their "host", the "minutes" without a sign of life that are too many (0: any), a "log",
        the file "ended" by which guards tell each other that ranks have died, the "lock" to be touched, and the
        "next_step" of a user.
    """

    def __init__(self, slots: mmap.mmap, told: dict[str, Any]) -> None:
        self._slots = slots
        self._ranks = range(told["ranks"])
        self._host, self._next_step, self._patience_s = told["host"], told["next_step"], 60.0 * told["minutes"]
        self._log, self._ended, self._lock = (Path(told[name]) for name in ("log", "ended", "lock"))
        self._seen = {index: (-1, time.monotonic()) for index in self._ranks}
        self._touched = -_TOUCH_S

    def watch(self, leader: int) -> None:
        """Return when all ranks have left or have been ended; ``leader`` closes when its rank has left."""
        poll = select.poll()
        poll.register(leader, select.POLLIN)
        for index in self._ranks:
            # Old kernels and Pythons lack it; then a death is seen a moment later.
            with suppress(OSError, AttributeError):
                poll.register(os.pidfd_open(self._slot(index).pid), select.POLLIN)
        # From now on nothing escapes it.
        print("ready", flush=True)
        while True:
            # Wakes at once when a process ends.
            for ready, _ in poll.poll(1000 * _POLL_S):
                poll.unregister(ready)
            states = [self._slot(index).state for index in self._ranks]
            if all(state == LEFT for state in states):
                return
            reason = self._reason()
            if reason or FAILED in states:
                # A rank that failed has said why; but not every launcher ends the others then.
                self._end(reason)
                return
            if time.monotonic() - self._touched > _TOUCH_S:
                self._touched = time.monotonic()
                with suppress(OSError):
                    os.utime(self._lock)

    def _reason(self) -> str:
        dead = [index for index in self._ranks if self._slot(index).state == RUNNING and not self._lives(index)]
        if dead:
            # The launcher may have killed others since; most of those were waiting for the first.
            first = min(dead, key=lambda index: self._slot(index).waits)
            return f"{self._name(first)} has died"
        if self._ended.exists():
            return f"ranks of another node have died, and those on {self._host} end too"
        now = time.monotonic()
        for index in self._ranks:
            slot = self._slot(index)
            beats, since = self._seen[index]
            if slot.beats != beats or (slot.waits and _process_state(slot.pid) not in ("T", "t")):
                self._seen[index] = slot.beats, now
            elif slot.state == RUNNING and 0 < self._patience_s < now - since:
                return f"{self._name(index)} has not answered for {self._patience_s / 60:.3g} minutes"
        return ""

    def _end(self, reason: str) -> None:
        if reason:
            self._say(f"{reason}; {self._next_step}")
            with suppress(OSError):
                self._ended.touch()
        deadline = time.monotonic() + _GRACE_S
        while time.monotonic() < deadline and any(map(self._runs, self._ranks)):
            time.sleep(0.1)
        for index in filter(self._runs, self._ranks):
            with suppress(OSError):
                os.kill(self._slot(index).pid, signal.SIGKILL)

    def _say(self, text: str) -> None:
        with suppress(OSError), self._log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  Error: {text}\n")
        with suppress(OSError):
            os.write(2, f"hpcsort: error: {text}\n".encode())

    def _name(self, index: int) -> str:
        slot = self._slot(index)
        return f"rank {slot.rank} (process {slot.pid} on {self._host}, at: {slot.phase or 'start'})"

    def _slot(self, index: int) -> Slot:
        return read_slot(self._slots, index)

    def _lives(self, index: int) -> bool:
        return _process_state(self._slot(index).pid) not in ("", "Z", "X")

    def _runs(self, index: int) -> bool:
        return self._slot(index).state == RUNNING and self._lives(index)


def _process_state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        # Meant for the ranks.
        signal.signal(number, signal.SIG_IGN)
    _Guard(mmap.mmap(int(sys.argv[1]), 0), json.loads(sys.argv[2])).watch(leader=0)
