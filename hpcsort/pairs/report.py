"""The page that shows what was cut, made from the files of the run, and the pictures it is made of."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from hpcsort.checkpoints import options_from_json
from hpcsort.errors import InputError
from hpcsort.io import write_text_atomically
from hpcsort.pairs.extract import ExtractedPair
from hpcsort.pairs.options import PairOptions
from hpcsort.pairs.plan import SIDES
from hpcsort.report import (
    PANELS,
    RECORD,
    Report,
    make_panels,
    picture_of,
    provenance_rows,
    read_json,
    save_bytes,
)
from hpcsort.report.style import colour, figure

__all__ = ["keep_panels", "write_report"]

_KEPT, _OUTLYING, _LOST, _AXIS = colour(4), colour(5), colour(3), colour(1)
_GREYS = 32
_TABLE, _OVERVIEW = "micrographs.csv", "overview.png"
_PICTURES = {"field": "coordinates and residuals", "windows": "windows"}


def keep_panels(options: PairOptions, pairs: list[ExtractedPair], shown: list[ExtractedPair]) -> None:
    """Write what the page is made of into report/, while pictures of micrographs are at hand.

    These are micrographs.csv, a row for each pair of micrographs; overview.png; and for those that are shown
    NNNNNN_field.png and NNNNNN_windows.png.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    panels = make_panels(options.output)
    write_text_atomically(panels / _TABLE, str(_pair_table(pairs).to_csv(index=False, lineterminator="\n")))
    save_bytes(panels / _OVERVIEW, picture_of(_overview(pairs)))
    for pair in shown:
        for drawn, name in _figures(pair, options):
            save_bytes(panels / f"{pair.plan.number:06d}_{name}.png", _in_few_colours(picture_of(drawn)))


def write_report(folder: Path) -> Path:
    """Make the page of an extraction from the files in its folder, and return it.

    Raises
    ------
    InputError
        If no panels are there, as the run has not come to its end or was told to make none, or a file is damaged.
    OutputError
        If the page cannot be written.
    """
    table, run = folder / PANELS / _TABLE, read_json(folder / RECORD)
    if not table.is_file() or not run:
        raise InputError(
            f"{folder} lacks {RECORD} or {PANELS}/{_TABLE}, from which the report is made: the run has not come to its"
            " end, or was one with --no-report."
        )
    pairs = pd.read_csv(table, keep_default_na=False, dtype=str)
    picked, kept = (pairs[name].astype(np.int64).sum() for name in ("picked", "kept"))
    options = options_from_json(PairOptions, run["options"])
    report = Report(folder, f"{kept} pairs of particles")
    for note in (note for notes in pairs["notes"] if notes for note in notes.split("\n")):
        report.text(note, "note")
    report.text(
        f"Of {picked} picked in {len(pairs)} pairs of micrographs ({run['listed']} listed). Windows of"
        f" {options.box_px} px at {run['pixel_size_A']:g} A{_treatment(options)}."
    )
    _show_losses(report, folder / "losses.csv")
    report.heading("Micrographs")
    shown = pairs.drop(columns=["number", "notes"])
    report.table(shown.columns, shown.astype(object).to_numpy().tolist())
    report.text(
        "Tilt and axis from the affine relation of the coordinates; axis in degrees from x towards y; residual: root"
        f" mean square of the pairs that fit, in pixels of the micrographs. In {PANELS}/: {_TABLE}, {_OVERVIEW}.",
        "small",
    )
    report.picture(report.panels / _OVERVIEW, "tilts and residuals of all micrograph pairs")
    _show_pictures(report, pairs)
    report.heading("Provenance")
    report.facts(provenance_rows(folder))
    return report.save()


def _show_losses(report: Report, path: Path) -> None:
    report.heading("Lost")
    losses = pd.read_csv(path, keep_default_na=False)
    if len(losses):
        report.table(("micrograph", "side", "reason", "pairs"), losses.astype(object).to_numpy().tolist())
        report.text(f"{path.name}.", "small")
    else:
        report.text("Nothing.")


def _show_pictures(report: Report, pairs: pd.DataFrame) -> None:
    report.heading("Pairs")
    marks = (("kept", _KEPT), ("kept but outlying", _OUTLYING), ("lost", _LOST))
    report.legend("Circles: ", marks, ". The line is the tilt axis.")
    hidden = 0
    for number, key in zip(pairs["number"], pairs["pair"], strict=True):
        drawn = {name: report.panels / f"{int(number):06d}_{name}.png" for name in _PICTURES}
        if not drawn["field"].is_file():
            hidden += 1
            continue
        report.heading(key, 3)
        for name, path in drawn.items():
            if path.is_file():
                report.picture(path, f"{_PICTURES[name]} of {key}")
    if hidden:
        report.text(f"{hidden} more pairs of micrographs are not shown.", "small")


def _treatment(options: PairOptions) -> str:
    done = [f"downsampled by {options.downsample:g}"] if options.downsample > 1 else []
    done += [f"dust beyond {options.dust_sigma:g} sigma replaced"] if options.dust else []
    done += ["phases flipped"] if options.phase_flip else []
    done += ["contrast inverted"] if options.invert else []
    done += [] if options.normalize == "none" else [f"normalised ({options.normalize})"]
    return "; " + ", ".join(done) if done else ""


def _pair_table(pairs: list[ExtractedPair]) -> pd.DataFrame:
    heads = ("number", "pair", "picked", "kept", "tilt", "axis", "axis (tilted)", "residual px", "outlying", "dust px",
             "notes")  # fmt: skip
    rows: list[list[object]] = []
    for pair in pairs:
        fit = pair.fit
        geometry = ["-"] * 5
        if fit is not None:
            angles = [f"{angle:.2f}" for angle in (fit.tilt_deg, fit.axis_untilted_deg, fit.axis_tilted_deg)]
            geometry = [*angles, f"{fit.rms_px:.2f}", str(int(fit.outlier.sum()))]
        dust = " / ".join(str(side.dust) for side in pair.sides)
        notes = "\n".join(pair.notes)
        rows.append([pair.plan.number, pair.plan.key, len(pair.plan.ids), len(pair.kept), *geometry, dust, notes])
    return pd.DataFrame(rows, columns=heads)


def _overview(pairs: list[ExtractedPair]) -> Figure:
    drawn, axes = figure(10.5, 2.6, 1, 2)
    left, right = axes[0]
    fitted = [pair for pair in pairs if pair.fit is not None]
    numbers = [pair.plan.number + 1 for pair in fitted]
    # a tenth of a degree is no structure: the scale does not follow it
    left.ticklabel_format(useOffset=False)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.plot(numbers, [pair.fit.tilt_deg for pair in fitted if pair.fit is not None], "o", color=_KEPT)
    left.set(xlabel="micrograph pair", ylabel="tilt (degrees)")
    low, high = left.get_ylim()
    left.set_ylim(min(low, (low + high) / 2 - 2), max(high, (low + high) / 2 + 2))
    distances = [np.linalg.norm(pair.fit.residuals_px, axis=1) for pair in fitted if pair.fit is not None]
    joined = np.concatenate(distances) if distances else np.zeros(0)
    if joined.size:
        # of the pairs that fit; however far the others are, they are one bar
        edge = 6 * max(pair.fit.sigma_px for pair in fitted if pair.fit is not None)
        right.hist(np.minimum(joined, edge), bins=30, range=(0, edge), color=_KEPT)
    right.set(xlabel="distance from the fit (px; last bar: all beyond)", ylabel="pairs")
    return drawn


def _in_few_colours(png: bytes) -> bytes:
    """Save a picture with greys and the colours of the marks alone: micrographs are noise, which makes large files."""
    colours = [grey * 255 // (_GREYS - 1) for grey in range(_GREYS) for _ in range(3)]
    for mark in (_KEPT, _OUTLYING, _LOST, _AXIS):
        colours += [round(255 * share) for share in to_rgb(mark)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _figures(pair: ExtractedPair, options: PairOptions) -> list[tuple[Figure, str]]:
    if pair.pictures is None:
        return []
    figures = [(_field(pair, options), "field")]
    if len(pair.pictures.windows[0]):
        figures.append((_windows(pair), "windows"))
    return figures


def _field(pair: ExtractedPair, options: PairOptions) -> Figure:
    drawn = Figure(figsize=(10.5, 4.1), layout="compressed")
    axes = drawn.subplots(1, 3)
    assert pair.pictures is not None
    for which, side in enumerate(pair.plan.sides):
        shown, binning = pair.pictures.micrographs[which], pair.pictures.binning[which]
        ax: Axes = axes[which]
        ax.imshow(shown, cmap="gray", interpolation="nearest")
        scale = 1 / (binning * options.downsample)
        ax.scatter(
            side.xy_px[:, 0] * scale,
            side.xy_px[:, 1] * scale,
            s=36,
            facecolors="none",
            edgecolors=_colours(pair),
            linewidths=1.5,
        )
        if pair.fit is not None:
            angle = (pair.fit.axis_untilted_deg, pair.fit.axis_tilted_deg)[which]
            _draw_axis(ax, angle, shown.shape)
        ax.set(title=SIDES[which], xticks=[], yticks=[])
    _draw_residuals(axes[2], pair)
    return drawn


def _colours(pair: ExtractedPair) -> list[str]:
    colours = np.full(len(pair.plan.ids), _LOST, dtype=object)
    colours[pair.kept] = _KEPT
    if pair.fit is not None:
        kept = np.zeros(len(colours), bool)
        kept[pair.kept] = True
        colours[pair.fit.outlier & kept] = _OUTLYING
    return [str(colour) for colour in colours]


def _draw_axis(ax: Axes, angle_deg: float, shape: tuple[int, ...]) -> None:
    middle, reach = np.array(shape[::-1]) / 2, 0.45 * min(shape)
    step = reach * np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))])
    ax.plot(*zip(middle - step, middle + step, strict=True), color=_AXIS, linewidth=1.2)


def _draw_residuals(ax: Axes, pair: ExtractedPair) -> None:
    ax.set(title="residuals (px)", aspect="equal", xlabel="x", ylabel="y")
    ax.invert_yaxis()
    if pair.fit is None:
        return
    residuals = pair.fit.residuals_px
    ax.scatter(residuals[:, 0], residuals[:, 1], s=12, c=_colours(pair))
    # outlying pairs may be far away: the plot shows those that fit, and some room
    reach = max(6 * pair.fit.sigma_px, 1.0)
    ax.set(xlim=(-reach, reach), ylim=(reach, -reach))
    outside = int(np.any(np.abs(residuals) > reach, axis=1).sum())
    if outside:
        ax.set_title(f"residuals (px), {outside} outside")


def _windows(pair: ExtractedPair) -> Figure:
    assert pair.pictures is not None
    rows = pair.pictures.windows
    count = len(rows[0])
    drawn = Figure(figsize=(1.25 * count + 0.6, 2.7), layout="constrained")
    grid = drawn.subplots(2, count, squeeze=False)
    for which in (0, 1):
        for column in range(count):
            ax = grid[which, column]
            ax.imshow(rows[which][column], cmap="gray", interpolation="nearest", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            if not which:
                ax.set_title(f"pair {pair.plan.pair_ids[pair.kept[column]]}", fontsize=8)
        grid[which, 0].set_ylabel(SIDES[which])
    return drawn
