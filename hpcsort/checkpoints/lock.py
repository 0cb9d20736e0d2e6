"""One run at a time in a folder: a file that says who works there."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from hpcsort.errors import OutputError

__all__ = ["FolderLock"]

_STALE_S = 150.0
"""Age at which the lock of another host is one of a run that has died: it is touched every half minute, and network
file systems may show that a minute later."""
_LOOK_S = 1.0


class FolderLock:
    """A lock on a folder, held while a run works there.

    Parameters
    ----------
    path : of the lock's file; its folder exists. The lock of another host is waited for until it has been touched or is
        old, because a job that is queued again may come to another node at once.

    Raises
    ------
    OutputError
        Another run works in the folder; it is named with host, process and start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        mine = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        text = json.dumps(mine) + "\n"
        # The second attempt comes after a stale lock has been taken away.
        for last in (False, True):
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                self._judge(last)
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder.") from error
            else:
                return
        raise OutputError(f"{path.parent.parent} is wanted by two runs at once; start one of them again.")

    def _judge(self, last: bool) -> None:
        """Remove the lock of a run that has died, refuse that of a living one."""
        try:
            text, touched = self.path.read_text(encoding="utf-8"), self.path.stat().st_mtime
        except FileNotFoundError:
            return
        try:
            holder = json.loads(text)
        except ValueError:
            holder = None
        if not isinstance(holder, dict):
            holder = {}
        if last or self._is_alive(holder, touched):
            raise OutputError(
                f"{self.path.parent.parent} is in use by process {holder.get('pid')} on {holder.get('host')} since "
                f"{holder.get('since')}; wait for it, name another folder, or remove {self.path} if that run is gone."
            )
        # A third run may have done the same in between: what is taken away must be what was judged.
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            self.path.rename(aside)
            if aside.read_text(encoding="utf-8") == text:
                aside.unlink()
            else:
                aside.rename(self.path)

    def _is_alive(self, holder: dict[str, object], touched: float) -> bool:
        if holder.get("host") == socket.gethostname():
            pid = holder.get("pid")
            return isinstance(pid, int) and _process_start(pid) == holder.get("process_start") is not None
        while time.time() - touched < _STALE_S:
            time.sleep(_LOOK_S)
            try:
                if self.path.stat().st_mtime != touched:
                    return True
            except FileNotFoundError:
                return False
        return False

    def release(self) -> None:
        """Let others in."""
        with suppress(OSError):
            self.path.unlink()


def _process_start(pid: int) -> str | None:
    """Start of a process in ticks since boot, which tells it from a later one of the same number; None: no process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
