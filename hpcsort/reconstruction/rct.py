"""Random conical tilt: a map of each 2D class of untilted particles, from their tilted images.

Radermacher et al., J. Microsc. 146 (1987) 113. Particles that lie on the film in one way differ by a rotation in its
plane; tilted by one angle, they are seen from a cone of directions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from hpcsort.errors import InputError, OptionError, OutputError
from hpcsort.geometry import point_group, relion_matrices
from hpcsort.io import ParticleTable, write_particles
from hpcsort.parallel import Communicator, Progress, StoryLog, together
from hpcsort.reconstruction.centring import centre_images
from hpcsort.reconstruction.conical import unmeasured_share
from hpcsort.reconstruction.conical_input import ConicalSource, read_conical
from hpcsort.reconstruction.groups import GroupMaps, reconstruct_groups
from hpcsort.reconstruction.halves import half_sets
from hpcsort.reconstruction.outputs import write_group_maps
from hpcsort.reconstruction.program import ReconstructOptions

__all__ = ["ConicalClass", "ConicalOptions", "reconstruct_conical"]

_FEWEST = 10
"""Particles of which a map is made."""
_SIGNS = ("auto", "+", "-")


@dataclass(frozen=True)
class ConicalOptions:
    """What to reconstruct and how.

    Attributes
    ----------
    classes_star : 2D classes of the untilted particles.
    folder : written by extract-pairs.
    maps : where the maps go, which classes, radius, padding, format, halves' seed.
    tilt_sign : "+" if underfocus grows to the positive side of the tilt axis in the tilted micrographs, "-", or "auto".
    rounds : how often the tilted images are centred.
    max_shift_px : how far they may be shifted; None is a tenth of the box.
    datadir : folder in which stacks are looked up as well.
    angpix : pixel size in A where the tables lack it.

    Raises
    ------
    OptionError
        If a value is out of range.
    """

    classes_star: Path
    folder: Path
    maps: ReconstructOptions
    tilt_sign: str = "auto"
    rounds: int = 5
    max_shift_px: float | None = None
    datadir: Path | None = None
    angpix: float | None = None

    def __post_init__(self) -> None:
        if self.tilt_sign not in _SIGNS:
            raise OptionError(f"--tilt-sign {self.tilt_sign} is unknown; give auto, + or -")
        if not 0 <= self.rounds <= 100:
            raise OptionError(f"--centring-rounds {self.rounds} is out of range; give 0 to 100")
        if self.max_shift_px is not None and not 0 < self.max_shift_px < np.inf:
            raise OptionError(f"--max-shift {self.max_shift_px:g} is out of range; give a positive number of px")

    @property
    def log(self) -> Path:
        """Where the story goes."""
        return self.maps.output.parent / f"{self.maps.stem}.log"

    def stem(self, number: int) -> str:
        """Beginning of the names of a class's files."""
        return f"{self.maps.stem}_class{number:03d}"

    def limit_px(self, box_px: int) -> float:
        """How far images may be shifted."""
        return 0.1 * box_px if self.max_shift_px is None else self.max_shift_px


@dataclass(frozen=True, eq=False)
class ConicalClass:
    """One class, done; its maps are in files.

    Attributes
    ----------
    number : rlnClassNumber.
    resolution_A : where the FSC of the halves falls below 0.143; infinite where it never exceeds that.
    table : its tilted particles at their final poses.
    unmeasured : share of the directions of Fourier space that no image shows at the map's resolution.
    """

    number: int
    resolution_A: float
    table: ParticleTable
    unmeasured: float


def reconstruct_conical(options: ConicalOptions, comm: Communicator) -> list[ConicalClass]:
    """Reconstruct the chosen classes and write them. Collective.

    Returns
    -------
    The classes on rank 0; elsewhere an empty list.

    Raises
    ------
    HpcsortError
        With one sentence, on every rank alike, for input, options or output that cannot be used.
    """
    with threadpool_limits(1):
        prepared = None
        with together(comm):
            if comm.is_root:
                source = read_conical(
                    options.classes_star, options.folder, options.tilt_sign, options.datadir, options.angpix
                )
                chosen = _chosen(options, source)
                assert source.table.box_px is not None
                radius_px = options.maps.radius_px(source.table.box_px)
                _claim(options, source.table)
                prepared = source, chosen, radius_px
        source, chosen, radius_px = comm.bcast(prepared)
        with StoryLog(options.log, comm, options.maps.quiet) as tell:
            for line in _story(options, source, chosen):
                tell(line)
            done = []
            for number in chosen:
                table = source.table.subset(source.numbers == number)
                table, maps = _one_class(options, number, table, radius_px, comm)
                with together(comm):
                    if maps is not None:
                        found = ConicalClass(number, maps.resolution_A, table, _unmeasured(maps, table))
                        _write(options, found, maps)
                        tell(_told(options, found, source))
                        done.append(found)
            tell(f"Written to {options.maps.output.parent}.")
        return done


def _chosen(options: ConicalOptions, source: ConicalSource) -> list[int]:
    """Classes of which maps are made, rising."""
    present, sizes = np.unique(source.numbers, return_counts=True)
    for wanted in options.maps.classes:
        if wanted not in present:
            told = ", ".join(map(str, present[:12].tolist()))
            raise OptionError(f"--class {wanted} has no tilted particles; those of class {told} are known")
    asked = np.isin(present, options.maps.classes) if options.maps.classes else np.ones(len(present), bool)
    small = asked & (sizes < _FEWEST)
    if small.any():
        told = ", ".join(f"{number} ({size})" for number, size in zip(present[small], sizes[small], strict=True))
        source.notes.append(f"No map of classes with fewer than {_FEWEST} particles: {told}.")
    found: list[int] = present[asked & ~small].tolist()
    if not found:
        raise InputError(
            f"no class of {options.classes_star} has {_FEWEST} tilted particles, the largest {sizes[asked].max()}; make"
            " fewer classes"
        )
    return found


def _one_class(
    options: ConicalOptions, number: int, table: ParticleTable, radius_px: int, comm: Communicator
) -> tuple[ParticleTable, GroupMaps | None]:
    """Return the particles of a class as they are centred in the end, and on rank 0 its maps."""
    assert table.box_px is not None
    half = half_sets(table, np.arange(len(table)), options.maps.seed)
    start = table.shifts_px
    with Progress(f"class {number}, round", options.rounds + 1, comm, options.maps.quiet) as bar:
        for left in range(options.rounds, -1, -1):
            comm.enter_phase(f"class {number}, {left} rounds left")
            maps = reconstruct_groups(
                comm, table, [np.arange(len(table))], half=half, radius_px=radius_px, mask=None,
                symmetry=point_group("c1"), pad=options.maps.pad,
            )  # fmt: skip
            now = None if maps is None else maps[0]
            if left:
                shifts = centre_images(
                    comm, table, half, now, radius_px=radius_px, start_px=start,
                    limit_px=options.limit_px(table.box_px),
                )  # fmt: skip
                table = replace(table, shifts_px=shifts)
            bar.step()
    return replace(table, random_subset=half + 1), now


def _unmeasured(maps: GroupMaps, table: ParticleTable) -> float:
    """At the resolution of the map; at a quarter of its box where that is not known."""
    box = len(maps.map)
    radius = box * table.pixel_size_A / maps.resolution_A if np.isfinite(maps.resolution_A) else box / 4
    return unmeasured_share(relion_matrices(table.angles_deg), radius)


def _files_of(options: ConicalOptions) -> Iterator[Path]:
    """Files that an earlier run of this name has left."""
    stem = re.escape(options.maps.stem)
    mine = re.compile(rf"{stem}(_class\d{{3,}}((_half[12])?\.(mrc|hdf)|_fsc\.txt|\.star)|\.log)")
    return (path for path in sorted(options.maps.output.parent.iterdir()) if mine.fullmatch(path.name))


def _claim(options: ConicalOptions, table: ParticleTable) -> None:
    """Make the folder, and refuse before the work what would be refused after it."""
    folder = options.maps.output.parent
    given = (*table.stack_paths, table.source, options.classes_star)
    needed = {path.resolve() for path in given}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in _files_of(options):
            if not options.maps.overwrite:
                raise OutputError(
                    f"{path} exists already; choose another --output or allow replacing it with --overwrite"
                )
            if path.resolve() in needed:
                raise OutputError(f"{path} is an input and would be lost; choose another --output")
            path.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another --output") from error


def _write(options: ConicalOptions, found: ConicalClass, maps: GroupMaps) -> None:
    folder, stem, table = options.maps.output.parent, options.stem(found.number), found.table
    write_group_maps(folder, stem, maps, table.pixel_size_A, overwrite=True, map_format=options.maps.map_format)
    angles, shift_A = table.angles_deg.round(6), (table.shifts_px * table.pixel_sizes_A[:, None]).round(6)
    columns: dict[str, npt.NDArray] = {
        "rlnClassNumber": np.full(len(table), found.number),
        **{f"rlnAngle{name}": angles[:, place] for place, name in enumerate(("Rot", "Tilt", "Psi"))},
        **{f"rlnOrigin{name}Angst": shift_A[:, place] for place, name in enumerate("XY")},
        "rlnRandomSubset": table.random_subset,
    }
    write_particles(folder / f"{stem}.star", table, columns, overwrite=True)


def _story(options: ConicalOptions, source: ConicalSource, chosen: list[int]) -> list[str]:
    table = source.table
    assert table.box_px is not None
    low, middle, high = np.percentile(source.tilt_deg, [0, 50, 100])
    lines = [
        f"Random conical tilt of {options.classes_star}: {len(table)} tilted particles of {table.box_px} px at"
        f" {table.pixel_size_A:g} A, {len(chosen)} classes, tilts of {low:.1f} to {high:.1f} degrees (median"
        f" {middle:.1f}), shifts of at most {options.limit_px(table.box_px):g} px in {options.rounds} rounds."
    ]
    if source.hand_known:
        lines.append("Hand: as the sign of the tilt says, if the camera does not mirror the micrographs.")
    else:
        lines.append(
            "Hand: not known, the same for all maps; the tilt sign decides it, which extract-pairs finds with"
            " --tilted-defocus gradient, or give --tilt-sign."
        )
    return [*lines, *(f"Note: {note}" for note in source.notes)]


def _told(options: ConicalOptions, found: ConicalClass, source: ConicalSource) -> str:
    table = found.table
    moved = table.shifts_px - source.table.shifts_px[source.numbers == found.number]
    rms = float(np.sqrt(np.mean((moved**2).sum(axis=1))))
    at = f"{found.resolution_A:.1f} A at FSC 0.143" if np.isfinite(found.resolution_A) else "no FSC above 0.143"
    cone = 90.0 - float(np.max(source.tilt_deg[source.numbers == found.number]))
    return (
        f"Class {found.number}: {len(table)} particles, {at}, images shifted by {rms:.2f} px (root mean square)."
        f" Missing cone of {cone:.1f} degrees about z; {100 * found.unmeasured:.1f} % of the directions of Fourier"
        f" space are not measured at that resolution. Map {options.stem(found.number)}.{options.maps.map_format}."
    )
