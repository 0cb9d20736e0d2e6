"""One micrograph pair: fit, both micrographs in one pass each, windows of the pairs that are whole on both sides."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.pairs.ctfs import MicrographCtf
from hpcsort.pairs.gradient import estimate_sign
from hpcsort.pairs.micrographs import read_micrograph
from hpcsort.pairs.options import PairOptions
from hpcsort.pairs.pictures import Pictures, make_pictures
from hpcsort.pairs.plan import SIDES, Loss, PlannedPair, Side
from hpcsort.pairs.preprocess import downsampled_shape, mean_and_deviation, replace_dust, transform_micrograph
from hpcsort.pairs.tilt import TiltFit, fit_tilt, heights_px
from hpcsort.pairs.windows import cut_windows, cut_windows_in_transform, inside, nearest_pixels, normalize_windows

__all__ = ["ExtractedPair", "SideRows", "extract_pair"]

Floats = npt.NDArray[np.float64]

_SURE = 4.0
"""Standard deviations by which one sign of the tilt must be preferred to be believed."""


@dataclass(frozen=True, eq=False)
class SideRows:
    """What is known of the kept particles on one side.

    Attributes
    ----------
    xy_px : (k, 2), coordinates in pixels of the micrograph's file.
    scaled_px : (k, 2), the same after downsampling.
    rest_px : (k, 2), coordinate minus the pixel on index box // 2; 0 where windows were shifted by it.
    local_average : (k,), mean of the window before inversion and normalisation.
    defocus_A : (k,), added to the micrograph's defocus.
    dust : number of pixels replaced in the micrograph.
    """

    xy_px: Floats
    scaled_px: Floats
    rest_px: Floats
    local_average: Floats
    defocus_A: Floats
    dust: int


@dataclass(frozen=True, eq=False)
class ExtractedPair:
    """One micrograph pair, done.

    Attributes
    ----------
    plan : what was to be done.
    kept : int (k,), rows of the plan that are in the result.
    sides : untilted, tilted; empty tuple if a micrograph could not be read.
    fit : of all rows of the plan, in pixels of the files; None if there are too few.
    losses : of particles.
    notes : sentences.
    tilt_sign : +1 or -1 where the defocus follows the tilt, else 0.
    sign_sigmas : how sure the images are of the sign; 0 where they were not asked.
    pictures : for the report, or None.
    """

    plan: PlannedPair
    kept: npt.NDArray[np.int64]
    sides: tuple[SideRows, ...]
    fit: TiltFit | None
    losses: list[Loss]
    notes: list[str]
    tilt_sign: int = 0
    sign_sigmas: float = 0.0
    pictures: Pictures | None = None


@dataclass
class _Work:
    """Windows of one side while they are made; all rows whose window lies inside on both sides."""

    windows: npt.NDArray[np.float32]
    scaled: Floats
    rest: Floats
    average: Floats
    blank: npt.NDArray[np.bool_]
    dust: int
    image: npt.NDArray[np.float32]
    defocus: Floats = field(default_factory=lambda: np.zeros(0))
    sign: int = 0
    sigmas: float = 0.0


def extract_pair(
    plan: PlannedPair, options: PairOptions, pictures: bool = False
) -> tuple[ExtractedPair, list[npt.NDArray[np.float32]]]:
    """Cut the windows of one pair of micrographs.

    Parameters
    ----------
    plan : from `make_plan`.
    options : of the run.
    pictures : whether small pictures for a report are made.

    Returns
    -------
    pair : all but the pixels.
    windows : untilted and tilted, float32 (k, box, box); empty list if a micrograph could not be read.
    """
    fit = fit_tilt(plan.sides[0].xy_px, plan.sides[1].xy_px)
    notes = _judged(plan, fit)
    rows, losses = _whole(plan, options)
    works: list[_Work] = []
    for which, side in enumerate(plan.sides):
        try:
            works.append(_cut(side, rows, options, fit if which else None, notes))
        except InputError as error:
            losses = [Loss(side.name, SIDES[which], f"unreadable micrograph: {error}", len(plan.ids))]
            return ExtractedPair(plan, rows[:0], (), fit, losses, notes), []
    good = ~(works[0].blank | works[1].blank)
    losses += _blank(plan, works)
    shown = None
    if pictures:
        shown = make_pictures(works[0].image, works[1].image, works[0].windows[good], works[1].windows[good])
    sides = tuple(
        SideRows(
            side.xy_px[rows[good]],
            work.scaled[good],
            work.rest[good],
            work.average[good],
            work.defocus[good],
            work.dust,
        )
        for side, work in zip(plan.sides, works, strict=True)
    )
    pair = ExtractedPair(plan, rows[good], sides, fit, losses, notes, works[1].sign, works[1].sigmas, shown)
    # a copy only where something is left out
    return pair, [work.windows if good.all() else work.windows[good] for work in works]


def _judged(plan: PlannedPair, fit: TiltFit | None) -> list[str]:
    """Say what is suspicious about the relation of the coordinates."""
    if fit is None:
        return [f"{plan.key}: too few particles, or all on one line, to fit the tilt ({len(plan.ids)})."]
    notes = []
    if fit.outlier.mean() > 0.25:
        notes.append(
            f"{plan.key}: {int(fit.outlier.sum())} of {len(fit.outlier)} pairs do not fit the tilt; are ids mixed up?"
        )
    if fit.swapped:
        notes.append(f"{plan.key}: the untilted coordinates are the compressed ones; the sides seem to be swapped.")
    if fit.mirrored:
        notes.append(f"{plan.key}: one micrograph is mirrored relative to the other; flip one, or see --flip-y.")
    if abs(np.log(fit.scale)) > 0.05:
        notes.append(f"{plan.key}: magnifications differ by a factor of {fit.scale:.3f} along the tilt axis.")
    return notes


def _scaled(side: Side, options: PairOptions) -> tuple[tuple[int, int], Floats]:
    """Shape of the micrograph after downsampling, and the coordinates there."""
    shape = downsampled_shape(side.shape, options.downsample)
    return shape, side.xy_px * (np.array(shape[::-1]) / np.array(side.shape[::-1]))


def _whole(plan: PlannedPair, options: PairOptions) -> tuple[npt.NDArray[np.int64], list[Loss]]:
    """Rows whose windows lie inside on both sides, and how many were lost where."""
    if options.borders == "fill":
        return np.arange(len(plan.ids)), []
    within = []
    for side in plan.sides:
        shape, scaled = _scaled(side, options)
        within.append(inside(nearest_pixels(scaled), options.box_px, shape))
    names = (plan.sides[0].name, plan.sides[1].name, plan.sides[0].name)
    lost = (~within[0] & within[1], within[0] & ~within[1], ~within[0] & ~within[1])
    losses = [
        Loss(name, side, "border", int(which.sum()))
        for name, side, which in zip(names, (*SIDES, "both"), lost, strict=True)
        if which.any()
    ]
    return np.flatnonzero(within[0] & within[1]), losses


def _blank(plan: PlannedPair, works: list[_Work]) -> list[Loss]:
    first, second = works[0].blank, works[1].blank
    counts = ((first & ~second).sum(), (~first & second).sum(), (first & second).sum())
    names = (plan.sides[0].name, plan.sides[1].name, plan.sides[0].name)
    return [
        Loss(name, side, "blank", int(count))
        for name, side, count in zip(names, (*SIDES, "both"), counts, strict=True)
        if count
    ]


def _cut(side: Side, rows: npt.NDArray[np.int64], options: PairOptions, fit: TiltFit | None, notes: list[str]) -> _Work:
    """One micrograph, from the file to normalised windows; `fit` of the pair on the tilted side alone."""
    shape, scaled = _scaled(side, options)
    scaled = scaled[rows]
    pixels_A = (side.pixel_A * side.shape[0] / shape[0], side.pixel_A * side.shape[1] / shape[1])
    image = read_micrograph(side.path)
    follows = options.tilted_defocus == "gradient" and fit is not None and not fit.swapped and side.ctf is not None
    flip = side.ctf if options.phase_flip else None
    each = follows and flip is not None
    image, dust = _preprocessed(image, side, shape, options, None if each else flip)
    spread = mean_and_deviation(image)[1]
    if not np.isfinite(spread):
        raise InputError(f"{side.path} has pixels that are not finite numbers; mend it, or do not give --no-dust")
    sign, sigmas, defocus = 0, 0.0, np.zeros(len(rows))
    if follows and side.ctf is not None and fit is not None:
        sign, sigmas = _sign(image, side, side.ctf, pixels_A, options, fit, notes)
        defocus = sign * heights_px(side.xy_px[rows], fit, _centre(side)) * side.pixel_A
    flips = [flip.moved(value) for value in defocus.tolist()] if each and flip is not None else None
    if options.subpixel or flips is not None:
        windows = cut_windows_in_transform(
            image, scaled, options.box_px, subpixel=options.subpixel, flips=flips, pixels_A=pixels_A
        )
    else:
        windows = cut_windows(image, nearest_pixels(scaled), options.box_px)
    rest = np.zeros_like(scaled) if options.subpixel else scaled - nearest_pixels(scaled)
    average = np.array([window.mean(dtype=np.float64) for window in windows])
    if options.invert:
        spread /= _invert(windows, image, options.compat)
    blank = normalize_windows(windows, options.normalize, options.radius_px, spread)
    return _Work(windows, scaled, rest, average, blank, dust, image, defocus, sign, sigmas)


def _preprocessed(
    image: npt.NDArray[np.float32],
    side: Side,
    shape: tuple[int, int],
    options: PairOptions,
    flip: MicrographCtf | None,
) -> tuple[npt.NDArray[np.float32], int]:
    """Dust comes before any transform, which would spread it; the original downsamples first."""
    if options.compat:
        image = transform_micrograph(image, shape, side.pixel_A)
    dust = replace_dust(image, options.dust_sigma) if options.dust else 0
    pixel_A = side.pixel_A * side.shape[1] / image.shape[1]
    return transform_micrograph(image, shape, pixel_A, flip), dust


def _sign(
    image: npt.NDArray[np.float32],
    side: Side,
    values: MicrographCtf,
    pixels_A: tuple[float, float],
    options: PairOptions,
    fit: TiltFit,
    notes: list[str],
) -> tuple[int, float]:
    """To which side defocus grows; 0, with a note, where that is not known."""
    if options.tilt_sign != "auto":
        return (1 if options.tilt_sign == "+" else -1), 0.0
    sign, sigmas = estimate_sign(image, pixels_A, values, fit)
    if sigmas < _SURE:
        notes.append(
            f"{side.name}: to which side the defocus grows cannot be told ({sigmas:.1f} standard deviations), so that"
            " its mean is used; give --tilt-sign if it is known."
        )
        return 0, sigmas
    return sign, sigmas


def _centre(side: Side) -> Floats:
    return np.array([side.shape[1] // 2, side.shape[0] // 2], np.float64)


def _invert(windows: npt.NDArray[np.float32], image: npt.NDArray[np.float32], compat: bool) -> float:
    """Change the sign; the original also stretches the micrograph to 0 ... 1. Returns its range."""
    np.negative(windows, out=windows)
    if not compat:
        return 1.0
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return 1.0
    windows += np.float32(high)
    windows /= np.float32(high - low)
    return high - low
