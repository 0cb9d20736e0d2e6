"""A run's folder: which files in it are a run's own, so that no other is ever removed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from hpcsort.errors import OutputError

__all__ = ["CHECKPOINTS", "LOG", "RunFolder"]

CHECKPOINTS = "checkpoint"
"""Folder of the checkpoints inside a run's own one."""
LOG = "log.txt"
_OWN = {
    r"\.": r"log\.txt",
    # Not the lock, which is that of the run that asks.
    CHECKPOINTS: r"job\.json|steps\.checkpoint(\.previous)?",
}
_UNFINISHED = r"(\.[0-9a-f]{12}\.)?"
"""What stands before the name of a file that was being written when the machine stopped."""


@dataclass(frozen=True)
class RunFolder:
    """A folder and the files in it that a program writes; log and checkpoints are known anyway.

    Attributes
    ----------
    path : of the folder.
    names : patterns of folders inside it (a dot stands for itself) and of the files there.
    """

    path: Path
    names: Mapping[str, str]

    def claim(self, inputs: Iterable[Path], *, replace: bool) -> None:
        """Make the folder; refuse one that holds anything, unless an earlier run is to be replaced or to go on.

        Raises
        ------
        OutputError
            If the folder cannot be made, holds files and ``replace`` is false, or would lose one of ``inputs``.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                if not replace:
                    raise OutputError(
                        f"the output folder {self.path} is not empty; name another with --output-dir, or replace "
                        "earlier results with --overwrite."
                    )
                needed = {path.resolve() for path in inputs}
                for path in self._stale():
                    if path.resolve() in needed:
                        raise OutputError(
                            f"{path} is an input and --overwrite would remove it; name another folder with "
                            "--output-dir."
                        )
            with NamedTemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise OutputError(f"cannot use the output folder {self.path}: {error.strerror}; choose another.") from error

    def clear(self, *, going_on: bool) -> None:
        """Remove an earlier run's files, and nothing else, from a folder that `claim` has passed.

        Folders that a run makes go with them, unless something else lies in them. A run that goes on keeps its log and
        its checkpoints.

        Raises
        ------
        OutputError
            If a file cannot be removed.
        """
        try:
            for path in self._stale():
                if not (going_on and (path.parent.name == CHECKPOINTS or path == self.path / LOG)):
                    path.unlink()
            for place in reversed(self._places()):
                if place != self.path and not any(place.iterdir()):
                    place.rmdir()
        except OSError as error:
            raise OutputError(
                f"cannot remove old results in {self.path}: {error.strerror}; choose another folder."
            ) from error

    def _stale(self) -> list[Path]:
        found = []
        for place in self._places():
            names = re.compile(f"{_UNFINISHED}({self._names_in(place)})")
            # A folder of that name is not one of the run's files; a link to one is no folder of ours to look into.
            found += [path for path in sorted(place.iterdir()) if names.fullmatch(path.name) and not path.is_dir()]
        return found

    def _places(self) -> list[Path]:
        """Return the folder and those in it that a run makes, each before those inside it."""
        found = [self.path]
        for place in found:
            inner = (path for path in sorted(place.iterdir()) if path.is_dir() and not path.is_symlink())
            found += [path for path in inner if self._names_in(path)]
        return found

    def _names_in(self, place: Path) -> str:
        """Pattern of the files that a run writes in one of its folders; empty for others."""
        inside = place.relative_to(self.path).as_posix()
        tables = (self.names, _OWN)
        return "|".join(names for table in tables for known, names in table.items() if re.fullmatch(known, inside))
