"""The program reconstruct: a map, half-maps and their FSC from a table of particles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from hpcsort.errors import InputError, OptionError, OutputError
from hpcsort.geometry import point_group
from hpcsort.io import ParticleTable
from hpcsort.parallel import Communicator, Progress, together
from hpcsort.reconstruction.groups import GroupMaps, reconstruct_groups, resolution_A
from hpcsort.reconstruction.halves import half_sets
from hpcsort.reconstruction.outputs import write_group_maps
from hpcsort.reconstruction.selection import select_rows
from hpcsort.volumes import read_mask

__all__ = ["ReconstructOptions", "Reconstruction", "Source", "reconstruct"]

_FORMATS = ("mrc", "hdf")
_FEWEST = 2


@dataclass(frozen=True)
class ReconstructOptions:
    """What to reconstruct and how.

    Attributes
    ----------
    output : folder/stem of the files.
    classes : numbers in rlnClassNumber; all particles if empty.
    listing : file of row numbers.
    sym : point group; None is that of the source, or c1.
    radius : particle radius in px; None is that of the source, or box // 2 - 2.
    mask : 3D mask inside which the FSC is measured; None is a soft sphere of the radius.
    halves : whether half-maps are made.
    pad : padding of the Fourier volumes.
    best_pose : whether only the likeliest pose of each particle is used.
    apply_noise : whether a refinement's noise spectra weight the particles.
    map_format : "mrc" or "hdf".
    seed : of random halves.
    overwrite : whether earlier maps of this name may be replaced.
    quiet : print nothing.

    Raises
    ------
    OptionError
        If a value is out of range.
    """

    output: Path
    classes: tuple[int, ...] = ()
    listing: Path | None = None
    sym: str | None = None
    radius: int | None = None
    mask: Path | None = None
    halves: bool = True
    pad: int = 2
    best_pose: bool = False
    apply_noise: bool = True
    map_format: str = "mrc"
    seed: int = 0
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.output.name in ("", "..") or self.output.is_dir():
            raise OptionError(f"--output {self.output} is a folder; add the beginning of the maps' names to it")
        if self.radius is not None and self.radius < 2:
            raise OptionError(f"--radius {self.radius} is too small; give at least 2")
        if not 1 <= self.pad <= 4:
            raise OptionError(f"--pad {self.pad} is out of range; give 1 to 4")
        if self.map_format not in _FORMATS:
            raise OptionError(f"--map-format {self.map_format} is unknown; give {' or '.join(_FORMATS)}")
        if self.seed < 0:
            raise OptionError(f"--seed {self.seed} is negative; give 0 or more")
        if self.sym is not None:
            point_group(self.sym)

    @property
    def stem(self) -> str:
        """Beginning of the files' names; a suffix of a map is taken off."""
        return self.output.stem if self.output.suffix in {".mrc", ".hdf"} else self.output.name

    def radius_px(self, box_px: int, known_px: int | None = None) -> int:
        """Particle radius in px: as asked, else as known of the source, else what the box holds."""
        if self.radius is not None and 2 * self.radius + 2 > box_px:
            raise OptionError(
                f"--radius {self.radius} does not fit the box of {box_px} px (2 * radius + 2 <= box);"
                f" give at most {(box_px - 2) // 2}"
            )
        largest = max(box_px // 2 - 2, 1)
        return self.radius if self.radius is not None else largest if known_px is None else min(known_px, largest)


@dataclass(frozen=True)
class Source:
    """Particles, and what a refinement knows of them.

    Attributes
    ----------
    table : the particles.
    sym : point group.
    radius_px : radius of the particle; None if it is not known.
    notes : what may surprise, in plain sentences.
    """

    table: ParticleTable
    sym: str = "c1"
    radius_px: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reconstruction:
    """What came out; known on rank 0.

    Attributes
    ----------
    maps : the maps.
    rows : int64 (n,), rows of the particles that they are made of.
    resolution_half_A, resolution_A : where the FSC falls below 0.5 and 0.143; NaN without halves.
    """

    maps: GroupMaps
    rows: np.ndarray
    resolution_half_A: float
    resolution_A: float


def reconstruct(
    options: ReconstructOptions,
    read: Callable[[], Source],
    comm: Communicator,
    tell: Callable[[str], None] = lambda text: None,
) -> Reconstruction | None:
    """Reconstruct the chosen particles of a table and write the maps. Collective.

    Parameters
    ----------
    options : what and how.
    read : gives the particles; called on rank 0.
    comm : all ranks of the run.
    tell : gets one sentence after the other on rank 0.

    Returns
    -------
    The result on rank 0, None elsewhere.

    Raises
    ------
    HpcsortError
        With one sentence, on every rank alike, for input, options or output that cannot be used.
    """
    with threadpool_limits(1):
        prepared: _Task | None = None
        mask = None
        with together(comm):
            if comm.is_root:
                source = read()
                _claim(options, source.table)
                prepared, mask = _prepare(options, source)
        task: _Task = comm.bcast(prepared)
        table, rows = task.table, task.rows
        half = half_sets(table, rows, options.seed) if options.halves else None
        if comm.is_root:
            tell(_story(options, task, half))
        with Progress("particle", len(rows), comm, options.quiet) as bar:
            maps = reconstruct_groups(
                comm, table, [rows], half=half, radius_px=task.radius_px, mask=mask, symmetry=point_group(task.sym),
                pad=options.pad, progress=lambda done, total: bar.step(done - bar.done),
            )  # fmt: skip
        result = None
        with together(comm):
            if maps is not None:
                _write(options, maps[0], table.pixel_size_A)
                result = _result(maps[0], rows, table.pixel_size_A)
                tell(_ending(options, result))
        return result


@dataclass(frozen=True)
class _Task:
    """What all ranks need."""

    table: ParticleTable
    rows: np.ndarray
    sym: str
    radius_px: int
    notes: tuple[str, ...]


def _prepare(options: ReconstructOptions, source: Source) -> tuple[_Task, np.ndarray | None]:
    table = source.table
    if table.box_px is None:
        raise InputError(f"no image stack of {table.source} was found; name its folder with --datadir")
    rows = select_rows(table, options.classes, options.listing)
    if options.halves and len(rows) < _FEWEST:
        raise InputError(
            f"one particle of {table.source} is chosen, which makes no two halves; give more, or --no-halves"
        )
    radius = options.radius_px(table.box_px, source.radius_px)
    # Pixel sizes that differ are told before anything heavy.
    voxel_A = table.pixel_size_A
    mask = None if options.mask is None else read_mask(options.mask, table.box_px, voxel_A)
    if options.best_pose:
        table = replace(table, smears=None)
    if not options.apply_noise:
        table = replace(table, noise_power=None)
    notes = (*source.notes, *table.notes)
    return _Task(table, rows, source.sym if options.sym is None else options.sym, radius, notes), mask


def _outputs(options: ReconstructOptions) -> list[Path]:
    """All files that a reconstruction of this name can have made."""
    place, stem = options.output.parent, options.stem
    maps = [f"{stem}{part}.{ending}" for part in ("", "_half1", "_half2") for ending in _FORMATS]
    return [place / name for name in (*maps, f"{stem}_fsc.txt")]


def _claim(options: ReconstructOptions, table: ParticleTable) -> None:
    """Refuse before the work what would be refused after it."""
    folder = options.output.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}; choose another --output") from error
    inputs = [table.source, *table.stack_paths, *(path for path in (options.mask, options.listing) if path)]
    needed = {path.resolve() for path in inputs}
    for path in _outputs(options):
        if path.resolve() in needed:
            raise OutputError(f"{path} is an input of this reconstruction and would be lost; choose another --output")
        if path.exists() and not options.overwrite:
            raise OutputError(f"{path} exists already; choose another --output or allow replacing it with --overwrite")


def _write(options: ReconstructOptions, maps: GroupMaps, voxel_A: float) -> None:
    folder, stem = options.output.parent, options.stem
    write_group_maps(folder, stem, maps, voxel_A, overwrite=options.overwrite, map_format=options.map_format)
    made = {folder / f"{stem}.{options.map_format}"}
    if maps.fsc is not None:
        made |= {folder / f"{stem}_half{number}.{options.map_format}" for number in (1, 2)}
        made.add(folder / f"{stem}_fsc.txt")
    for stale in set(_outputs(options)) - made:
        # Half-maps of an earlier run would pass for this one's.
        stale.unlink(missing_ok=True)


def _result(maps: GroupMaps, rows: np.ndarray, voxel_A: float) -> Reconstruction:
    if maps.fsc is None:
        return Reconstruction(maps, rows, np.nan, np.nan)
    return Reconstruction(maps, rows, resolution_A(maps.fsc, len(maps.map), voxel_A, 0.5), maps.resolution_A)


def _story(options: ReconstructOptions, task: _Task, half: np.ndarray | None) -> str:
    table, rows, smears = task.table, task.rows, task.table.smears
    poses = "" if smears is None else f", {smears.counts[rows].mean():.1f} poses each on average"
    text = (
        f"{len(rows)} of {len(table)} particles of {table.box_px} px at {table.pixel_size_A:g} A from {table.source}"
        f"{poses}; symmetry {task.sym}, radius {task.radius_px} px."
    )
    if half is not None:
        given = "of the table" if {1, 2} <= set(table.random_subset[rows].tolist()) else f"random, seed {options.seed}"
        sizes = [int((half == which).sum()) for which in (0, 1)]
        text += f" Halves ({given}): {sizes[0]} and {sizes[1]} particles."
    return "\n".join([text, *(f"Note: {note}" for note in task.notes)])


def _ending(options: ReconstructOptions, result: Reconstruction) -> str:
    where = options.output.parent / f"{options.stem}.{options.map_format}"
    if result.maps.fsc is None:
        return f"Written to {where}."
    told = [
        f"{value:.2f} A at FSC {level:g}" if np.isfinite(value) else f"none at FSC {level:g}"
        for value, level in ((result.resolution_half_A, 0.5), (result.resolution_A, 0.143))
    ]
    return f"Resolution: {told[0]}, {told[1]}.\nWritten to {where}, with half-maps and FSC beside it."
