"""Where the coordinates of each side come from: folders of files, or tables of all micrographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hpcsort.errors import InputError
from hpcsort.io.coordinates import SUFFIXES, Picks, read_coordinate_table, read_coordinates
from hpcsort.pairs.names import NamedPair
from hpcsort.pairs.options import PairOptions

__all__ = ["CoordinateSource", "find_sources"]

_ENDINGS = ("_autopick", "_manualpick", "_pick", "_picks", "_coords", "_coordinates")


@dataclass
class CoordinateSource:
    """Where the coordinates of one side come from: a folder, or a table of all micrographs.

    Attributes
    ----------
    source : folder or table.
    files, tables : key of a micrograph to its file, or to its particles; one of the two is empty.
    used : keys that were asked for.
    """

    source: Path
    files: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, Picks] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, source: Path, key: Callable[[str], str]) -> CoordinateSource:
        """List what a folder or a table holds; InputError if there is neither."""
        if source.is_file():
            tables = {key(name): picks for name, picks in read_coordinate_table(source).items()}
            return cls(source, tables=tables)
        if not source.is_dir():
            raise InputError(f"--coordinates {source} does not exist; give a folder of files or one table")
        files: dict[str, Path] = {}
        for suffix in reversed(SUFFIXES):
            for path in sorted(source.glob(f"*{suffix}")):
                files[_without_ending(key(path.name))] = path
        return cls(source, files=files)

    def get(self, key: str) -> Picks | None:
        """Read the particles of a micrograph; None if there is no file, or no row."""
        self.used.add(key)
        if key in self.tables:
            return self.tables[key]
        return read_coordinates(self.files[key]) if key in self.files else None

    def strays(self) -> list[str]:
        """Names of coordinates that belong to no micrograph, of the formats in use."""
        formats = {path.suffix for key, path in self.files.items() if key in self.used} or {".pos", ".box"}
        stray = [path.name for key, path in self.files.items() if key not in self.used and path.suffix in formats]
        return sorted(stray) + [key for key in self.tables if key not in self.used]


def find_sources(options: PairOptions, named: list[NamedPair], key: Callable[[str], str]) -> list[CoordinateSource]:
    """Return the sources of the untilted and of the tilted side, which may be the same one.

    Raises
    ------
    InputError
        If a source does not exist, or one source serves both sides although a name occurs on both.
    """
    given = list(options.coordinates)
    if not given:
        folders = [next((p.paths[side].parent for p in named if p.paths[side]), None) for side in (0, 1)]  # type: ignore[union-attr]
        given = [folder for folder in folders if folder is not None]
        if not given:
            names = ", ".join(named[0].names)
            raise InputError(f"no micrograph was found, the first being {names}; name their folder with --datadir")
    if len(given) == 1 or given[0].resolve() == given[-1].resolve():
        both = {pair.keys[0] for pair in named} & {pair.keys[1] for pair in named}
        if both:
            raise InputError(
                f"{sorted(both)[0]!r} is an untilted and a tilted micrograph, so that its coordinates in {given[0]}"
                " are not clear; give --coordinates once for each side"
            )
        return [CoordinateSource.of(given[0], key)] * 2
    return [CoordinateSource.of(source, key) for source in given]


def _without_ending(key: str) -> str:
    ending = next((ending for ending in _ENDINGS if key.endswith(ending) and key != ending), "")
    return key.removesuffix(ending)
