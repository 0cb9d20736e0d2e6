"""What is to be cut: micrographs with their coordinates and CTFs joined, and what was lost before any pixel is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.io.coordinates import Picks
from hpcsort.pairs.ctfs import MicrographCtf, read_ctfs
from hpcsort.pairs.micrographs import MicrographHeader, read_header
from hpcsort.pairs.names import NamedPair, find_pairs, name_key
from hpcsort.pairs.options import PairOptions
from hpcsort.pairs.picks import CoordinateSource, find_sources
from hpcsort.pairs.preprocess import downsampled_shape

__all__ = ["SIDES", "Loss", "Plan", "PlannedPair", "Side", "make_plan"]

SIDES = ("untilted", "tilted")

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Loss:
    """Particles or micrographs that are not in the result.

    Attributes
    ----------
    micrograph : name, as the user wrote it.
    side : "untilted", "tilted" or "both".
    reason : what is wrong, in a few words.
    particles : how many pairs it cost; 0 where that is not known.
    """

    micrograph: str
    side: str
    reason: str
    particles: int


@dataclass(frozen=True, eq=False)
class Side:
    """One micrograph of a pair.

    Attributes
    ----------
    name, path : as written, and where it is.
    shape : rows and columns of the file.
    pixel_A : pixel size of the file.
    xy_px : (n, 2) coordinates (x, y) in pixels of the file.
    ctf : None where no CTF is given.
    """

    name: str
    path: Path
    shape: tuple[int, int]
    pixel_A: float
    xy_px: npt.NDArray[np.float64]
    ctf: MicrographCtf | None


@dataclass(frozen=True, eq=False)
class PlannedPair:
    """Two micrographs and the particles picked in both, row by row.

    Attributes
    ----------
    number : place in the list of pairs.
    key : name for people.
    sides : untilted, tilted.
    ids : (n,) int64 of the particles in the files of coordinates; the row from 1 where they have none.
    pair_ids : (n,) int64, unique over all pairs.
    """

    number: int
    key: str
    sides: tuple[Side, Side]
    ids: npt.NDArray[np.int64]
    pair_ids: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """All that ranks share.

    Attributes
    ----------
    pairs : with at least one particle on both sides.
    losses : so far.
    notes : what may surprise, in sentences.
    pixel_A : pixel size of the micrographs.
    listed : number of micrograph pairs that were listed.
    """

    pairs: list[PlannedPair]
    losses: list[Loss]
    notes: list[str]
    pixel_A: float
    listed: int


def make_plan(options: PairOptions) -> Plan:
    """Read all tables and the headers of all micrographs, and join them.

    Raises
    ------
    InputError
        If a table cannot be used, micrographs have different pixel sizes or are smaller than a window, or no pair of
        particles is left; the last names what was found on both sides.
    """
    key = name_key(options.ignore_in_names)
    named, alone = find_pairs(options)
    losses = [Loss(name, "both", "no partner among the micrographs of the other side", 0) for name in alone]
    sources = find_sources(options, named, key)
    microscope = {
        "voltage_kV": options.voltage_kV, "cs_mm": options.cs_mm, "amplitude_contrast": options.amplitude_contrast,
    }  # fmt: skip
    paths = (options.ctf_untilted, options.ctf_tilted)
    ctfs = [None if path is None else read_ctfs(path, key, microscope) for path in paths]
    pairs: list[PlannedPair] = []
    first_id = 1
    for number, pair in enumerate(named):
        picks = (sources[0].get(pair.keys[0]), sources[1].get(pair.keys[1]))
        ids, rows, lost = _joined(pair, picks)
        losses += lost
        headers, lost = _headers(pair, len(ids))
        losses += lost
        found, lost = _ctfs(pair, ctfs, 0 if lost else len(ids))
        losses += lost
        pair_ids = np.arange(first_id, first_id + len(ids))
        first_id += len(ids)
        if not len(ids) or None in headers or lost:
            continue
        sides = [_side(options, pair, which, headers[which], picks[which], rows[which], found) for which in (0, 1)]
        pairs.append(PlannedPair(number, pair.keys[0], (sides[0], sides[1]), ids, pair_ids))
    for source in {id(source): source for source in sources}.values():
        losses += [Loss(name, "both", "coordinates without micrograph", 0) for name in source.strays()]
    if not pairs:
        _refuse_nothing(named, sources, losses)
    pixel_A = _one_pixel_size(pairs)
    _refuse_small(options, pairs)
    return Plan(pairs, losses, [], pixel_A, len(named))


def _joined(
    pair: NamedPair, picks: tuple[Picks | None, Picks | None]
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.int64]], list[Loss]]:
    """Ids on both sides in rising order of the untilted side's rows, their rows on either side, and losses."""
    empty = np.zeros(0, np.int64)
    counts = [0 if one is None else len(one) for one in picks]
    losses = []
    for name, side, one, other in zip(pair.names, SIDES, picks, counts[::-1], strict=True):
        if one is None or not len(one):
            losses.append(Loss(name, side, "no file of coordinates" if one is None else "nothing picked", other))
    first, second = picks
    if first is None or second is None or losses:
        return empty, [empty, empty], losses
    numbers = [first.ids, second.ids]
    if numbers[0] is None or numbers[1] is None:
        numbers = [np.arange(1, count + 1) for count in counts]
    assert numbers[0] is not None
    assert numbers[1] is not None
    ids, rows_0, rows_1 = np.intersect1d(numbers[0], numbers[1], assume_unique=True, return_indices=True)
    for name, side, count in zip(pair.names, SIDES, counts, strict=True):
        if count > len(ids):
            losses.append(Loss(name, side, "not picked in the other micrograph", count - len(ids)))
    on = first.enabled[rows_0] & second.enabled[rows_1]
    if not on.all():
        losses.append(Loss(pair.names[0], "both", "switched off by the user", int((~on).sum())))
    order = np.argsort(rows_0[on], kind="stable")
    return ids[on][order], [rows_0[on][order], rows_1[on][order]], losses


def _headers(pair: NamedPair, particles: int) -> tuple[list[MicrographHeader | None], list[Loss]]:
    headers: list[MicrographHeader | None] = []
    losses: list[Loss] = []
    for name, side, path in zip(pair.names, SIDES, pair.paths, strict=True):
        header = None
        try:
            if path is None:
                losses.append(Loss(name, side, "missing micrograph", 0 if losses else particles))
            else:
                header = read_header(path)
        except InputError as error:
            losses.append(Loss(name, side, f"unreadable micrograph: {error}", 0 if losses else particles))
        headers.append(header)
    return headers, losses


def _ctfs(
    pair: NamedPair, ctfs: list[dict[str, MicrographCtf] | None], particles: int
) -> tuple[list[MicrographCtf | None], list[Loss]]:
    found = [None if table is None else table.get(key) for table, key in zip(ctfs, pair.keys, strict=True)]
    losses: list[Loss] = []
    for name, side, table, one in zip(pair.names, SIDES, ctfs, found, strict=True):
        if table is not None and one is None:
            # a pair is lost once, whatever else is wrong with it
            losses.append(Loss(name, side, "missing CTF", 0 if losses else particles))
    return found, losses


def _side(
    options: PairOptions,
    pair: NamedPair,
    which: int,
    header: MicrographHeader | None,
    picks: Picks | None,
    rows: npt.NDArray[np.int64],
    ctfs: list[MicrographCtf | None],
) -> Side:
    path = pair.paths[which]
    assert path is not None
    assert header is not None
    assert picks is not None
    pixel_A = options.angpix or header.pixel_A
    if not pixel_A:
        raise InputError(f"{path} does not tell its pixel size; give it with --angpix")
    scale = 1.0 if options.picked_angpix is None else options.picked_angpix / pixel_A
    xy = picks.xy_px[rows]
    if options.flip_y:
        xy = np.column_stack([xy[:, 0], header.ny / scale - 1 - xy[:, 1]])
    return Side(pair.names[which], path, (header.ny, header.nx), pixel_A, xy * scale, ctfs[which])


def _one_pixel_size(pairs: list[PlannedPair]) -> float:
    first = pairs[0].sides[0]
    for side in (side for pair in pairs for side in pair.sides):
        if abs(side.pixel_A - first.pixel_A) > _TOLERANCE * first.pixel_A:
            raise InputError(
                f"{first.path} has pixels of {first.pixel_A:.6g} A and {side.path} of {side.pixel_A:.6g} A; bring all"
                " to one size, or take all as of one size with --angpix"
            )
    return first.pixel_A


def _refuse_small(options: PairOptions, pairs: list[PlannedPair]) -> None:
    for side in (side for pair in pairs for side in pair.sides):
        rows, columns = downsampled_shape(side.shape, options.downsample)
        if min(rows, columns) < 2 or (options.borders == "skip" and min(rows, columns) < options.box_px):
            raise InputError(
                f"{side.path} has {columns} x {rows} px after downsampling, less than --box {options.box_px}; give a"
                " smaller box or less downsampling"
            )


def _refuse_nothing(named: list[NamedPair], sources: list[CoordinateSource], losses: list[Loss]) -> None:
    told = "; ".join(dict.fromkeys(f"{loss.micrograph}: {loss.reason}" for loss in losses[:4]))
    there = [next(iter(sorted({*source.files, *source.tables})), "none") for source in sources]
    raise InputError(
        f"no pair of particles is left of {len(named)} pairs of micrographs ({told}); micrographs are named like"
        f" {named[0].keys[0]} and {named[0].keys[1]}, coordinates like {there[0]} and {there[1]}: make them agree, for"
        " instance with --ignore-in-names"
    )
