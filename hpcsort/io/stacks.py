"""Where the image stacks of a particle table are, and whether they hold what the table says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io._checks import shown
from hpcsort.io.h5 import SUFFIXES, starts_as_hdf5
from hpcsort.io.hdf_stack import HdfStack
from hpcsort.io.mrc import MrcStack

Stack = MrcStack | HdfStack

# RELION reads a file in the format that follows a colon, whatever its suffix: a stack named .mrc needs it.
_FORCED = ":mrcs"
_MOST_DIGITS = 18
_MRC_SUFFIXES = frozenset({".mrcs", ".mrc", ".st", ".ali", ".rec"})


@dataclass(frozen=True, eq=False)
class StackList:
    """The stacks of N particles.

    Attributes
    ----------
    stack_id : numpy.ndarray
        (N,) int64, which stack.
    stack_index : numpy.ndarray
        (N,) int64, which image of it, 0-based.
    names : list of str
        Stacks as written in the table.
    paths : list of Path
        Where they were found; as written, under the folder of the table, when they were not.
    box_px : int or None
        Size of the square images; None when no stack could be opened.
    pixel_size_A : float
        From the header of the first stack; 0 if unknown.
    """

    stack_id: npt.NDArray[np.int64]
    stack_index: npt.NDArray[np.int64]
    names: list[str]
    paths: list[Path]
    box_px: int | None
    pixel_size_A: float


def open_stack(path: Path) -> Stack:
    """Open a stack of images: EMAN2's HDF5 where suffix or content say so, else MRC; InputError as the two classes."""
    suffix = path.suffix.lower()
    hdf = suffix in SUFFIXES or (suffix not in _MRC_SUFFIXES and starts_as_hdf5(path))
    return HdfStack(path) if hdf else MrcStack(path)


def split_format(written: str) -> tuple[str, str]:
    """Split a stack as RELION names it in path and forced format, such as ("a.mrc", ":mrcs"), which may be empty."""
    for mark in (_FORCED, ":mrc"):
        if written.endswith(mark):
            return written.removesuffix(mark), mark
    return written, ""


def relion_name(index: int, path: str) -> str:
    """Name of the 0-based image ``index`` of a stack in a STAR file, in a form that RELION reads as a stack."""
    forced = _FORCED if Path(path).suffix.lower() == ".mrc" else ""
    return f"{index + 1:06d}@{path}{forced}"


def found_from(written: str, folder: Path) -> Path | None:
    """Find a stack written as a relative path in `folder` or in one of its parents (a RELION project folder)."""
    start, name = Path(os.path.abspath(folder)), split_format(written)[0]
    for base in (start, *start.parents):
        if _is_file(base / name):
            return base / name
    return None


def find_stacks(
    names: pd.Series, source: Path, datadir: Path | None, required: bool, column: str = "rlnImageName"
) -> StackList:
    """Find and check the stacks that a column of `index@stack` names; reads headers, no images.

    A path is looked up as it is when absolute, then relative to the folder of the STAR file (where that is a link, also
    to the folder of what it names), to the working folder, under `datadir` (whole, then its last part alone), and from
    the parents of the STAR file's folder.

    Parameters
    ----------
    names
        (N,) column rlnImageName; a name without @ is a file of one image.
    source
        The STAR file.
    datadir
        Folder given by the user, if any.
    required
        Whether a stack that is absent or broken is an error; if not, it stays unresolved.
    column
        Name of the column in the source, for messages.

    Raises
    ------
    InputError
        For an index that is no positive integer or beyond the end, a stack that is absent, not MRC, truncated or not
        square, or stacks of different box size; names the row (1-based).
    """
    index, written = _split(names, source)
    stack_id, texts = pd.factorize(np.array(written, dtype=object))
    stack_id = stack_id.astype(np.int64)
    listed = [str(text) for text in texts]
    first_rows = np.unique(stack_id, return_index=True)[1].tolist()
    paths: list[Path] = []
    counts = np.full(len(listed), np.iinfo(np.int64).max)
    box_px, pixel_size_A, box_from = None, 0.0, None
    for number, (text, row) in enumerate(zip(listed, first_rows, strict=True)):
        place = f"{source}, row {row + 1}, column {column}"
        name = split_format(text)[0]
        path, tried = _look_up(name, source, datadir)
        paths.append(path or source.parent / name)
        if path is None:
            if required:
                raise InputError(
                    f"{place}: stack {shown(name)} was not found in {', '.join(map(str, tried))};"
                    " name the folder that holds it with --datadir"
                )
            continue
        try:
            stack = open_stack(path)
            box = _box(stack, place)
        except InputError as error:
            if required:
                raise InputError(f"{place}: {error}" if str(source) not in str(error) else str(error)) from error
            continue
        if box_px is not None and box != box_px and required:
            raise InputError(
                f"{place}: {path} has images of {box} px but {box_from} of {box_px} px;"
                " bring all stacks to one box size"
            )
        if box_px is None:
            box_px, pixel_size_A, box_from = box, stack.voxel_A, path
        counts[number] = len(stack)
    beyond = np.flatnonzero(index > counts[stack_id])
    if beyond.size and required:
        row = int(beyond[0])
        raise InputError(
            f"{source}, row {row + 1}, column {column}: image {index[row]} is beyond the end of"
            f" {paths[stack_id[row]]}, which holds {counts[stack_id[row]]}; correct the index or restore the stack"
        )
    return StackList(stack_id, index - 1, listed, paths, box_px, pixel_size_A)


def _split(names: pd.Series, source: Path) -> tuple[npt.NDArray[np.int64], list[str]]:
    index = np.ones(len(names), dtype=np.int64)
    written = []
    for row, name in enumerate(names.tolist()):
        before, mark, after = str(name).partition("@")
        stack = after if mark else before
        if mark:
            index[row] = int(before) if before.isdecimal() and len(before) < _MOST_DIGITS else 0
        if index[row] < 1 or not stack or stack == "nan":
            raise InputError(
                f"{source}, row {row + 1}, column rlnImageName: {shown(name)!r} does not name an image; write it as"
                " index@stack with an index from 1, such as 000001@particles.mrcs"
            )
        written.append(stack)
    return index, written


def _look_up(written: str, source: Path, datadir: Path | None) -> tuple[Path | None, list[Path]]:
    """Return where the stack is, if anywhere, and the folders that were tried."""
    given = Path(written)
    folder = source.absolute().parent
    # A link to a STAR file is taken as in its own folder, else as where it leads.
    bases = [] if given.is_absolute() else list(dict.fromkeys([folder, source.resolve().parent, Path.cwd()]))
    places = [given] if given.is_absolute() else [base / written for base in bases]
    if datadir is not None:
        places += [datadir / written.lstrip("/"), datadir / given.name]
    if not given.is_absolute():
        places += [parent / written for parent in folder.parents]
    for place in places:
        if _is_file(place):
            return place, []
    tried = [given.parent, *bases] if given.is_absolute() else [*bases, *folder.parents]
    if datadir is not None:
        tried.insert(len(bases) or 1, datadir)
    return None, list(dict.fromkeys(tried))


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except OSError:
        # such as a name that is longer than any file system has
        return False


def _box(stack: Stack, place: str) -> int:
    _, ny, nx = stack.shape
    if ny != nx:
        raise InputError(f"{place}: {stack.path} has images of {nx} x {ny} px; cut or pad them to squares")
    return nx
