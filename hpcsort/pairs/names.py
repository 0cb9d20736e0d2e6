"""Which micrographs belong together, and where they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io.coordinates import SUFFIXES as COORDINATES
from hpcsort.io.stacks import found_from
from hpcsort.io.xmd import as_frame, read_xmd
from hpcsort.pairs.micrographs import SUFFIXES
from hpcsort.pairs.options import PairOptions

__all__ = ["NamedPair", "find_pairs", "name_key"]

_UNTILTED = ("hpcsortUntiltedMicrographName", "untilted", "micrograph", "micrographUntilted", "rlnMicrographName")
_TILTED = ("hpcsortTiltedMicrographName", "tilted", "micrographTilted", "tiltedMicrograph")


@dataclass(frozen=True)
class NamedPair:
    """Two micrographs of one field.

    Attributes
    ----------
    names : untilted and tilted micrograph as written by the user.
    paths : where they are; None for one that was not found.
    keys : names by which they are compared with coordinates and CTFs.
    """

    names: tuple[str, str]
    paths: tuple[Path | None, Path | None]
    keys: tuple[str, str]


def name_key(ignore: str | None) -> Callable[[str], str]:
    """Return what turns the name of a micrograph, its path or that of its coordinates into one to compare by.

    Folders and the suffixes of known formats are left off, then whatever matches the regular expression ``ignore``.
    """
    suffixes = {*SUFFIXES, *COORDINATES}

    def key(text: str) -> str:
        name = Path(text.partition(":mrc")[0]).name
        stem = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in suffixes else name
        return re.sub(ignore, "", stem) if ignore else stem

    return key


def find_pairs(options: PairOptions) -> tuple[list[NamedPair], list[str]]:
    """List the micrograph pairs of a table, or of two folders.

    Returns
    -------
    pairs : in the order of the table, or of the names.
    alone : micrographs of a folder without a partner in the other.

    Raises
    ------
    InputError
        If there is no pair, or two micrographs of a side have the same name.
    """
    key = name_key(options.ignore_in_names)
    alone: list[str] = []
    if options.pairs is not None:
        named = _from_table(options.pairs)
        places = [tuple(_look_up(name, options.pairs.parent, options.datadir) for name in names) for names in named]
    else:
        assert options.untilted is not None
        assert options.tilted is not None
        named, alone = _from_folders(options.untilted, options.tilted)
        places = [tuple(Path(name) for name in names) for names in named]
    pairs = [
        NamedPair(names, (paths[0], paths[1]), (key(names[0]), key(names[1])))
        for names, paths in zip(named, places, strict=True)
    ]
    for side in (0, 1):
        _refuse_repeats((pair.keys[side], pair.names[side]) for pair in pairs)
    return pairs, alone


def _from_table(source: Path) -> list[tuple[str, str]]:
    frames = [_csv(source)] if source.suffix.lower() == ".csv" else [as_frame(b) for b in read_xmd(source).values()]
    for frame in frames:
        first = next((name for name in _UNTILTED if name in frame), None)
        second = next((name for name in _TILTED if name in frame), None)
        if first is None or second is None:
            continue
        names = list(zip(frame[first].astype(str), frame[second].astype(str), strict=True))
        empty = [row for row, pair in enumerate(names, start=1) if not all(pair) or "nan" in pair]
        if empty:
            raise InputError(f"{source}, row {empty[0]}: a micrograph is not named; complete or remove the row")
        if names:
            return names
    raise InputError(
        f"{source} lists no pairs of micrographs; give a table with the columns untilted and tilted (CSV), micrograph"
        f" and micrographTilted (.xmd), or {_UNTILTED[0]} and {_TILTED[0]} (STAR)"
    )


def _csv(source: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(source, dtype=str, keep_default_na=False, skipinitialspace=True)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "not a table in UTF-8"
        raise InputError(f"{source} cannot be read ({reason}); give a CSV with untilted and tilted") from error
    return frame.rename(columns=lambda name: str(name).strip())


def _look_up(name: str, folder: Path, datadir: Path | None) -> Path | None:
    text = name.partition(":mrc")[0]
    given = Path(text)
    if given.is_absolute() and given.is_file():
        return given
    places = [] if given.is_absolute() else [folder / given, Path.cwd() / given]
    if datadir is not None:
        places += [datadir / text.lstrip("/"), datadir / given.name]
    place = next((place for place in places if place.is_file()), None)
    return place if place is not None or given.is_absolute() else found_from(text, folder)


def _from_folders(untilted: str, tilted: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs by the part of the names that * stands for, in the order of that part; and those without a partner."""
    sides = [_listed("--untilted", untilted), _listed("--tilted", tilted)]
    common = sorted(sides[0].keys() & sides[1].keys())
    alone = [str(side[name]) for side in sides for name in sorted(side.keys() - set(common))]
    if not common:
        examples = " and ".join(str(next(iter(side.values()))) for side in sides)
        raise InputError(
            f"no name occurs on both sides, for example {examples}; write * for the part that a pair has in common,"
            " such as --untilted 'mics/*_U.mrc' --tilted 'mics/*_T.mrc', or list the pairs in a table"
        )
    return [(str(sides[0][name]), str(sides[1][name])) for name in common], alone


def _listed(option: str, text: str) -> dict[str, Path]:
    pattern = Path(text)
    if pattern.is_dir():
        files = [path for path in sorted(pattern.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
        found = {path.stem: path for path in files}
    else:
        if pattern.name.count("*") != 1 or "*" in str(pattern.parent):
            raise InputError(f"{option} {text} is no folder, nor has its last part one *; give 'folder/*_U.mrc'")
        before, after = pattern.name.split("*")
        files = sorted(pattern.parent.glob(pattern.name)) if pattern.parent.is_dir() else []
        found = {path.name[len(before) : len(path.name) - len(after)]: path for path in files if path.is_file()}
    if not found:
        raise InputError(f"{option} {text} holds no micrographs ({', '.join(SUFFIXES)}); correct the folder or pattern")
    if len(found) < len(files):
        raise InputError(f"{option} {text} holds two files of one name and different formats; move one of them away")
    return found


def _refuse_repeats(keys: Iterable[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for key, name in keys:
        if key in seen:
            raise InputError(
                f"two micrographs of one side have the name {key!r} ({seen[key]} and {name}); rename one, as"
                " coordinates and CTFs are matched by name"
            )
        seen[key] = name
