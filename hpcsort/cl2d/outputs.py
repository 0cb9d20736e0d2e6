"""What cl2d writes: averages, tables of particles and classes for each level, hierarchy, rejected particles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.checkpoints import RunFolder
from hpcsort.cl2d.averages import Averages
from hpcsort.cl2d.cores import Cores
from hpcsort.cl2d.hierarchy import draw_hierarchy, hierarchy_rows, hierarchy_text
from hpcsort.cl2d.levels import Level
from hpcsort.errors import OutputError
from hpcsort.io import (
    ImageReader,
    ParticleTable,
    atomic_write,
    write_particles,
    write_stack,
    write_tables,
    write_text_atomically,
)
from hpcsort.io.xmd import write_xmd
from hpcsort.planar import mirrored
from hpcsort.report import PANEL_FILES, PANELS

__all__ = [
    "FinishedLevel",
    "level_folder",
    "run_folder",
    "write_hierarchy",
    "write_level",
    "write_mirrored",
]

_ROOT = r"hierarchy\.(txt|csv|png)|rejected\.star|mirrored\.(mrcs|star)|report\.html|run\.json"
_LEVEL = r"((core|stable_core)_)?classes\.(mrcs|xmd|csv|star)|(particles|core|stable_core)\.star|level\.json"
_MINE = {r"\.|rejected": _ROOT, r"(rejected/)?level_\d\d": _LEVEL, f"(rejected/)?{PANELS}": PANEL_FILES}
"""Folders and the files in them that a run writes."""
_READ_TOGETHER = 256


@dataclass(frozen=True, eq=False)
class FinishedLevel:
    """A level with its cores and averages.

    Attributes
    ----------
    level : labels, poses and history.
    cores : None where cores were not asked for.
    choices : name ("classes", "core", "stable_core") to bool (N,), which particles belong.
    averages : name to the averages of these particles.
    """

    level: Level
    cores: Cores | None
    choices: dict[str, npt.NDArray[np.bool_]]
    averages: dict[str, Averages]


def level_folder(output_dir: Path, number: int) -> Path:
    """Folder of a level."""
    return output_dir / f"level_{number:02d}"


def run_folder(path: Path) -> RunFolder:
    """Return the folder of a run; --overwrite removes a run's files in it and nothing else."""
    return RunFolder(path, _MINE)


def write_level(folder: Path, table: ParticleTable, done: FinishedLevel) -> None:
    """Write a level; the table of particles comes last, so that where it is, all else is complete.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; choose another --output-dir") from error
    pixel_A = table.pixel_size_A
    classes = class_table(table, done)
    for name, averages in done.averages.items():
        stack = "classes.mrcs" if name == "classes" else f"{name}_classes.mrcs"
        write_stack(folder / stack, averages.images, averages.images.shape, pixel_A, overwrite=True)
        _write_xmd(folder, table, done, name, stack)
    write_text_atomically(folder / "classes.csv", str(classes.to_csv(index=False, lineterminator="\n")), overwrite=True)
    write_text_atomically(folder / "level.json", _json(table, done, classes), overwrite=True)
    write_tables(folder / "classes.star", {"model_classes": _model(classes)}, overwrite=True)
    columns, plain = particle_columns(table, done)
    for name, choice in reversed(done.choices.items()):
        if choice.any():
            star = "particles.star" if name == "classes" else f"{name}.star"
            write_particles(folder / star, plain, columns, rows=np.flatnonzero(choice), overwrite=True)


def class_table(table: ParticleTable, done: FinishedLevel) -> pd.DataFrame:
    """Size, resolution and core of every class, a row each."""
    box_A = table.pixel_size_A * (table.box_px or 0)
    sizes = done.averages["classes"].sizes
    columns: dict[str, object] = {"class": np.arange(1, len(sizes) + 1), "size": sizes}
    for name, averages in done.averages.items():
        prefix = "" if name == "classes" else f"{name}_"
        if prefix:
            columns[f"{prefix}size"] = averages.sizes
            columns[f"{prefix}share"] = np.round(averages.sizes / np.maximum(sizes, 1), 4)
        with np.errstate(divide="ignore"):
            resolution = np.where(averages.resolution_px > 0, box_A / averages.resolution_px, np.nan)
        columns[f"{prefix}resolution_A"] = np.round(resolution, 3)
    state = done.level.state
    total = np.bincount(state.labels, state.scores.astype(np.float64), len(sizes))
    columns["mean_score"] = np.round(total / np.maximum(sizes, 1), 6)
    return pd.DataFrame(columns)


def particle_columns(table: ParticleTable, done: FinishedLevel) -> tuple[dict[str, npt.NDArray], ParticleTable]:
    """Columns that the level adds to the particles, and the table without the ones they replace."""
    state = done.level.state
    shift_A = state.poses.shift_px * table.pixel_sizes_A[:, None]
    columns: dict[str, npt.NDArray] = {
        "rlnClassNumber": state.labels + 1,
        # an in-plane angle means nothing beside the direction of another refinement
        "rlnAngleRot": np.zeros(len(table)),
        "rlnAngleTilt": np.zeros(len(table)),
        "rlnAnglePsi": np.round(_folded(state.poses.psi_deg), 6),
        "rlnOriginXAngst": np.round(shift_A[:, 0], 6),
        "rlnOriginYAngst": np.round(shift_A[:, 1], 6),
        "hpcsortMirror": state.poses.mirror.astype(np.int64),
        "hpcsortScore": np.round(state.scores.astype(np.float64), 6),
    }
    if done.cores is not None:
        columns["hpcsortJunkZ"] = np.round(done.cores.junk_z, 4)
        columns["hpcsortPcaZ"] = np.round(done.cores.pca_z, 4)
    for name, title in (("core", "hpcsortCore"), ("stable_core", "hpcsortStableCore")):
        if name in done.choices:
            columns[title] = done.choices[name].astype(np.int64)
    return columns, replace(table, frame=table.frame.drop(columns=["rlnOriginX", "rlnOriginY"], errors="ignore"))


def write_hierarchy(output_dir: Path, done: Sequence[FinishedLevel]) -> None:
    """Write how classes follow from each other, of all particles and of the cores."""
    paths = [level.level.state.labels for level in done]
    frame = pd.DataFrame(hierarchy_rows(paths))
    write_text_atomically(
        output_dir / "hierarchy.csv", str(frame.to_csv(index=False, lineterminator="\n")), overwrite=True
    )
    write_text_atomically(output_dir / "hierarchy.txt", hierarchy_text(paths), overwrite=True)
    drawing = draw_hierarchy(paths, [level.averages["classes"].images for level in done])
    with atomic_write(output_dir / "hierarchy.png", overwrite=True) as temporary:
        temporary.write_bytes(drawing)


def write_mirrored(output_dir: Path, table: ParticleTable, done: FinishedLevel) -> None:
    """Write a stack in which mirrored particles are mirrored back, and its STAR file, which needs no mirror column."""
    assert table.box_px is not None
    flip = done.level.state.poses.mirror
    shape = (len(table), table.box_px, table.box_px)
    write_stack(output_dir / "mirrored.mrcs", _unmirrored(table, flip), shape, table.pixel_size_A, overwrite=True)
    columns, plain = particle_columns(table, done)
    columns["rlnOriginXAngst"] = np.where(flip, -columns["rlnOriginXAngst"], columns["rlnOriginXAngst"]) + 0.0
    columns["hpcsortMirror"] = np.zeros(len(table), np.int64)
    if "rlnDefocusAngle" in table.frame:
        columns["rlnDefocusAngle"] = np.where(flip, 180.0 - table.defocus_angle_deg, table.defocus_angle_deg)
    columns["rlnImageName"] = np.array([f"{row + 1:06d}@mirrored.mrcs" for row in range(len(table))], object)
    write_particles(output_dir / "mirrored.star", plain, columns, overwrite=True)


def _unmirrored(table: ParticleTable, flip: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[np.float32]]:
    with ImageReader(table) as reader:
        for start in range(0, len(table), _READ_TOGETHER):
            rows = np.arange(start, min(start + _READ_TOGETHER, len(table)))
            for image, flipped in zip(reader.read(rows), flip[rows], strict=True):
                yield mirrored(image) if flipped else image


def _json(table: ParticleTable, done: FinishedLevel, classes: pd.DataFrame) -> str:
    level = done.level
    told = {
        "level": level.number,
        "particles": len(table),
        "pixel_size_A": table.pixel_size_A,
        "box_px": table.box_px,
        "iterations": level.history,
        # NaN is no JSON
        "classes": classes.astype(object).where(classes.notna(), None).to_dict("records"),
    }
    return json.dumps(told, indent=1) + "\n"


def _model(classes: pd.DataFrame) -> pd.DataFrame:
    """Averages as RELION's table of classes names them."""
    return pd.DataFrame(
        {
            "rlnReferenceImage": [f"{number:06d}@classes.mrcs" for number in classes["class"].tolist()],
            "rlnClassDistribution": (classes["size"] / classes["size"].sum()).round(6),
            "rlnEstimatedResolution": classes["resolution_A"].fillna(999.0),
        }
    )


def _write_xmd(folder: Path, table: ParticleTable, done: FinishedLevel, name: str, stack: str) -> None:
    """Write averages and members of each class as Xmipp does; empty classes have no block of members."""
    state, choice = done.level.state, done.choices[name]
    averages = done.averages[name]
    numbers = range(1, len(averages.sizes) + 1)
    box_A = table.pixel_size_A * (table.box_px or 0)
    blocks = {
        "classes": pd.DataFrame(
            {
                "ref": list(numbers),
                "image": [f"{number:06d}@{stack}" for number in numbers],
                "classCount": averages.sizes,
                # digital frequency, as in Xmipp's evaluation of classes
                "classificationFRC05": averages.resolution_px / max(table.box_px or 0, 1) if box_A else 0.0,
            }
        )
    }
    if name != "classes":
        blocks["classes"]["modelFraction"] = averages.sizes / np.maximum(done.averages["classes"].sizes, 1)
    images = _xmipp_names(table)
    offsets, flip = state.poses.offsets_px, state.poses.mirror
    psi = _folded(np.where(flip, state.poses.psi_deg, -state.poses.psi_deg))
    for number in numbers:
        rows = np.flatnonzero(choice & (state.labels == number - 1))
        if not rows.size:
            continue
        block = pd.DataFrame(
            {
                "image": images[rows],
                "enabled": 1,
                "ref": number,
                "flip": flip[rows].astype(np.int64),
                "shiftX": offsets[rows, 0],
                "shiftY": offsets[rows, 1],
                "anglePsi": psi[rows],
            }
        )
        if done.cores is not None:
            block["zScore"] = np.maximum(done.cores.junk_z, done.cores.pca_z)[rows]
        blocks[f"class{number:06d}_images"] = block
    write_xmd(folder / f"{Path(stack).stem}.xmd", blocks, overwrite=True)


def _xmipp_names(table: ParticleTable) -> npt.NDArray[np.object_]:
    """Images as Xmipp names them; it cannot read blanks in names."""
    paths = ["_".join(str(path.absolute()).split()) for path in table.stack_paths]
    pairs = zip(table.stack_index.tolist(), table.stack_id.tolist(), strict=True)
    return np.array([f"{index + 1:06d}@{paths[stack]}" for index, stack in pairs], object)


def _folded(angle_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Angles in [-180, 180)."""
    return np.asarray((angle_deg + 180.0) % 360.0 - 180.0)
