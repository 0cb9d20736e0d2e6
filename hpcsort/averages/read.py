"""Class averages and their particles from the files of RELION, of cl2d, of Xmipp, or from a bare stack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.averages.xmipp import read_xmipp_classes, xmipp_particles
from hpcsort.errors import InputError
from hpcsort.io import ParticleTable, find_stacks, open_stack, read_particles, read_tables
from hpcsort.io.xmd import as_frame
from hpcsort.planar import PlanarPoses

__all__ = ["Averages", "Particles", "read_averages"]

_IMAGE, _SHARE, _CLASS = "rlnReferenceImage", "rlnClassDistribution", "rlnClassNumber"
_MIRROR = ("hpcsortMirror", "rlnIsFlip")
"""Columns that tell whether a particle is mirrored; the first that is there counts."""
_LEAST_BOX = 16

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Particles:
    """Particles of the averages.

    Attributes
    ----------
    table : N particles.
    class_ids : int64 (N,), id of the average of each; 0 for none.
    poses : of the particles in the frames of their averages, shifts in pixels of the averages.
    """

    table: ParticleTable
    class_ids: Ints
    poses: PlanarPoses


@dataclass(frozen=True, eq=False)
class Averages:
    """Class averages.

    Attributes
    ----------
    images : float32 (n, box, box) [y, x], as in the file.
    ids : int64 (n,), object ids: RELION's and cl2d's class numbers, Xmipp's ref, or what a list of ids beside a bare
        stack says.
    names : of the images, as index@stack.
    sizes : float64 (n,), particles in each class, or its share of them; 1 where neither is known.
    pixel_A : pixel size; 0 if unknown.
    particles : None where they are not known.
    sources : files that were read.
    """

    images: npt.NDArray[np.float32]
    ids: Ints
    names: list[str]
    sizes: Floats
    pixel_A: float
    particles: Particles | None
    sources: tuple[Path, ...]


def read_averages(
    path: Path,
    particles: Path | None = None,
    *,
    angpix: float | None = None,
    datadir: Path | None = None,
    with_particles: bool = True,
) -> Averages:
    """Read averages and, where they are known, their particles.

    Parameters
    ----------
    path : a stack of MRC; RELION's NAME_classes.mrcs or NAME_model.star (NAME_data.star beside it are the particles);
        any STAR file with rlnReferenceImage; .xmd with a block of classes; the folder of a level of cl2d or its
        classes, or the folder of all levels, of which the last is taken.
    particles : STAR file with rlnClassNumber and alignments, instead of the one that belongs to the averages.
    angpix : pixel size, where files do not tell or are wrong.
    datadir : folder in which stacks are looked up as well.
    with_particles : whether particles that are not named are looked for.

    Raises
    ------
    InputError
        If a file cannot be read, images are too small, ids are doubled, or particles name classes that are not there.
    """
    if not path.exists():
        raise InputError(f"{path} is not there; give a stack, a STAR file, an .xmd file or the folder of cl2d")
    if path.is_dir():
        path, beside = _files_of_cl2d(path)
    elif path.stem == "classes" and path.with_name("classes.star").is_file():
        path, beside = _files_of_cl2d(path.parent)
    else:
        path, beside = _files_of_relion(path)
    if with_particles and particles is None:
        particles = beside
    found: ParticleTable | None = None
    if path.suffix == ".xmd":
        averages, members = read_xmipp_classes(path)
        if with_particles and particles is None and members is not None:
            found = xmipp_particles(path, members, angpix)
    elif path.suffix == ".star":
        averages = _star_classes(path)
    else:
        averages = _bare_stack(path)
    loaded = _loaded(path, averages, angpix, datadir)
    if particles is not None:
        found = read_particles(
            particles, datadir=datadir, angpix=angpix, need_images=False, need_poses=False, need_ctf=False, smears=False
        )
    return loaded if found is None else _with_particles(loaded, found)


def _files_of_relion(path: Path) -> tuple[Path, Path | None]:
    """Model and data file that belong to RELION's stack of classes or its model."""
    for ending in ("_classes.mrcs", "_model.star"):
        if path.name.endswith(ending):
            start = path.name.removesuffix(ending)
            model, data = path.with_name(f"{start}_model.star"), path.with_name(f"{start}_data.star")
            if model.is_file():
                return model, data if data.is_file() else None
    return path, None


def _files_of_cl2d(folder: Path) -> tuple[Path, Path | None]:
    """Classes and particles of a level of cl2d."""
    levels = [folder, *sorted(folder.glob("level_*"), reverse=True)]
    for level in levels:
        classes, members = level / "classes.star", level / "particles.star"
        if classes.is_file():
            return classes, members if members.is_file() else None
    raise InputError(
        f"{folder} holds no classes.star of cl2d, nor do its folders level_*; give the file of the averages"
    )


def _star_classes(path: Path) -> pd.DataFrame:
    """Columns image and, where they are known, id and size."""
    blocks = [as_frame(block) for block in read_tables(path).values() if _IMAGE in block]
    if not blocks:
        raise InputError(f"{path} has no column {_IMAGE}; give the model file of a 2D classification, or a stack")
    frame = blocks[0]
    out = pd.DataFrame({"image": frame[_IMAGE].astype(str)})
    for name, column in (("id", _CLASS), ("size", _SHARE)):
        if column in frame:
            out[name] = frame[column]
    return out


def _bare_stack(path: Path) -> pd.DataFrame:
    """Images of a stack; NAME.txt beside NAME.mrcs, if all its lines are whole numbers, lists their ids."""
    stack = open_stack(path)
    count = len(stack)
    stack.close()
    frame = pd.DataFrame({"image": [f"{place + 1}@{path.name}" for place in range(count)]})
    beside = path.with_suffix(".txt")
    words = beside.read_text(encoding="utf-8", errors="replace").split() if beside.is_file() else []
    if words and all(word.isdecimal() for word in words):
        if len(words) != count:
            raise InputError(f"{beside} lists {len(words)} ids for the {count} averages of {path}; correct or move it")
        frame["id"] = [int(word) for word in words]
    return frame


def _loaded(path: Path, frame: pd.DataFrame, angpix: float | None, datadir: Path | None) -> Averages:
    """Read the images that a table lists."""
    stacks = find_stacks(frame["image"], path, datadir, True, _IMAGE if path.suffix == ".star" else "image")
    box = stacks.box_px
    assert box is not None
    if box < _LEAST_BOX:
        raise InputError(f"{path}: averages of {box} px are too small to be compared; give at least {_LEAST_BOX} px")
    images = np.empty((len(frame), box, box), np.float32)
    for number, place in enumerate(stacks.paths):
        rows = np.flatnonzero(stacks.stack_id == number)
        stack = open_stack(place)
        images[rows] = stack.read(stacks.stack_index[rows])
        stack.close()
    names = [f"{stacks.stack_index[row] + 1:06d}@{stacks.names[stacks.stack_id[row]]}" for row in range(len(frame))]
    # RELION's class number is the place in its stack, in a selection of classes too
    several = len(stacks.paths) > 1
    ids = np.arange(1, len(frame) + 1) if several else stacks.stack_index + 1
    if "id" in frame:
        ids = _whole(frame["id"], f"{path}: the ids of the averages")
    doubled = np.flatnonzero(pd.Series(ids).duplicated())
    if doubled.size:
        raise InputError(f"{path}: two averages have the id {ids[doubled[0]]}; give each its own")
    pixel_A = stacks.pixel_size_A if angpix is None else angpix
    return Averages(images, ids.astype(np.int64), names, _sizes(path, frame), pixel_A, None, (path, *stacks.paths))


def _sizes(path: Path, frame: pd.DataFrame) -> Floats:
    """Sizes of the classes, float64 (n,); 1 where they are not known."""
    if "size" not in frame:
        return np.ones(len(frame))
    sizes = pd.to_numeric(frame["size"], errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~(sizes >= 0) | ~np.isfinite(sizes))
    if bad.size:
        raise InputError(f"{path}, row {bad[0] + 1}: the size of the class is {frame['size'].iloc[bad[0]]}; correct it")
    return sizes


def _with_particles(averages: Averages, table: ParticleTable) -> Averages:
    """Join particles: sizes of classes are counted, shifts come into pixels of the averages."""
    frame, source = table.frame, table.source
    if _CLASS not in frame:
        raise InputError(f"{source} has no column {_CLASS}; give the particles of the classification")
    class_ids = _whole(frame[_CLASS], f"{source}, column {_CLASS}: class numbers")
    unknown = np.flatnonzero(~np.isin(class_ids, averages.ids) & (class_ids > 0))
    if unknown.size:
        row = int(unknown[0])
        raise InputError(
            f"{source}, row {table.source_row[row] + 1}: no average has the class {class_ids[row]}; give averages and"
            " particles of one classification"
        )
    psi = table.angles_deg[:, 2]
    bad = np.flatnonzero(~np.isfinite(psi) | ~np.isfinite(table.shifts_px).all(axis=1))
    if bad.size:
        raise InputError(
            f"{source}, row {table.source_row[bad[0]] + 1}: no angle rlnAnglePsi or no origin; particles of merged"
            " classes need their alignments, or give --extract averages"
        )
    pixel_A = averages.pixel_A or float(table.pixel_sizes_A[0])
    shift = table.shifts_px * (table.pixel_sizes_A / pixel_A)[:, None]
    told = next((name for name in _MIRROR if name in frame), None)
    mirror = np.zeros(len(psi), bool) if told is None else _whole(frame[told], f"{source}, column {told}: entries") > 0
    counts = np.array([(class_ids == number).sum() for number in averages.ids], np.float64)
    members = Particles(
        table, np.where(class_ids > 0, class_ids, 0), PlanarPoses(psi.astype(np.float64), shift, mirror)
    )
    sources = (*averages.sources, source)
    return replace(averages, sizes=counts, pixel_A=pixel_A, particles=members, sources=sources)


def _whole(values: pd.Series, what: str) -> Ints:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    if not (np.isfinite(numbers) & (numbers == np.round(numbers)) & (numbers >= 0)).all():
        raise InputError(f"{what} are not all whole numbers from 0; correct the table")
    return numbers.astype(np.int64)
