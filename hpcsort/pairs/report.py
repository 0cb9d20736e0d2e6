"""The page that shows what was cut: losses, geometry, coordinates over micrographs, residuals, pairs of windows."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcsort.pairs.extract import ExtractedPair
from hpcsort.pairs.options import PairOptions
from hpcsort.pairs.outputs import REPORT
from hpcsort.pairs.plan import SIDES, Loss, Plan
from hpcsort.report import Page

__all__ = ["write_report"]

_KEPT, _OUTLYING, _LOST = "#1a9850", "#d73027", "#4575b4"


def write_report(
    options: PairOptions, plan: Plan, pairs: list[ExtractedPair], losses: list[Loss], shown: list[ExtractedPair]
) -> None:
    """Write one HTML file with all pictures in it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    kept = sum(len(pair.kept) for pair in pairs)
    picked = sum(len(pair.plan.ids) for pair in pairs)
    page = Page(f"{kept} pairs of particles")
    page.text(
        f"Of {picked} picked in {len(pairs)} pairs of micrographs ({plan.listed} listed). Windows of"
        f" {options.box_px} px at {plan.pixel_A * options.downsample:g} A{_treatment(options)}."
    )
    for note in (note for pair in pairs for note in pair.notes):
        page.text(note, "note")
    page.heading("Lost")
    if losses:
        rows = ((loss.micrograph, loss.side, loss.reason, loss.particles) for loss in losses)
        page.table(("micrograph", "side", "reason", "pairs"), rows)
    else:
        page.text("Nothing.")
    page.heading("Micrographs")
    page.table(*_pair_table(pairs))
    page.text(
        "Tilt and axis from the affine relation of the coordinates; axis in degrees from x towards y; residual: root"
        " mean square of the pairs that fit, in pixels of the micrographs.",
        "small",
    )
    page.picture(_overview(pairs), "tilts and residuals of all micrograph pairs")
    page.heading("Pairs")
    marks = (("kept", _KEPT), ("kept but outlying", _OUTLYING), ("lost", _LOST))
    page.legend("Circles: ", marks, ". The line is the tilt axis.")
    for pair in shown:
        page.heading(pair.plan.key, 3)
        for figure, name in _figures(pair, options):
            page.picture(figure, name)
    if len(shown) < len(pairs):
        page.text(f"{len(pairs) - len(shown)} more pairs of micrographs are not shown.", "small")
    page.write(options.output / REPORT, overwrite=options.overwrite)


def _treatment(options: PairOptions) -> str:
    done = [f"downsampled by {options.downsample:g}"] if options.downsample > 1 else []
    done += [f"dust beyond {options.dust_sigma:g} sigma replaced"] if options.dust else []
    done += ["phases flipped"] if options.phase_flip else []
    done += ["contrast inverted"] if options.invert else []
    done += [] if options.normalize == "none" else [f"normalised ({options.normalize})"]
    return "; " + ", ".join(done) if done else ""


def _pair_table(pairs: list[ExtractedPair]) -> tuple[tuple[str, ...], list[list[object]]]:
    heads = ("pair", "picked", "kept", "tilt", "axis", "axis (tilted)", "residual px", "outlying", "dust px")
    rows: list[list[object]] = []
    for pair in pairs:
        fit = pair.fit
        geometry = ["-"] * 5
        if fit is not None:
            angles = [f"{angle:.2f}" for angle in (fit.tilt_deg, fit.axis_untilted_deg, fit.axis_tilted_deg)]
            geometry = [*angles, f"{fit.rms_px:.2f}", str(int(fit.outlier.sum()))]
        dust = " / ".join(str(side.dust) for side in pair.sides)
        rows.append([pair.plan.key, len(pair.plan.ids), len(pair.kept), *geometry, dust])
    return heads, rows


def _overview(pairs: list[ExtractedPair]) -> Figure:
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
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
        right.hist(np.minimum(joined, edge), bins=30, range=(0, edge), color=_LOST)
    right.set(xlabel="distance from the fit (px; last bar: all beyond)", ylabel="pairs")
    return figure


def _figures(pair: ExtractedPair, options: PairOptions) -> list[tuple[Figure, str]]:
    if pair.pictures is None:
        return []
    figures = [(_field(pair, options), f"coordinates and residuals of {pair.plan.key}")]
    if len(pair.pictures.windows[0]):
        figures.append((_windows(pair), f"windows of {pair.plan.key}"))
    return figures


def _field(pair: ExtractedPair, options: PairOptions) -> Figure:
    figure = Figure(figsize=(11, 4.3), layout="compressed")
    axes = figure.subplots(1, 3)
    assert pair.pictures is not None
    for which, side in enumerate(pair.plan.sides):
        shown, binning = pair.pictures.micrographs[which], pair.pictures.binning[which]
        ax: Axes = axes[which]
        ax.imshow(shown, cmap="gray", interpolation="nearest")
        scale = 1 / (binning * options.downsample)
        ax.scatter(
            side.xy_px[:, 0] * scale, side.xy_px[:, 1] * scale, s=30, facecolors="none", edgecolors=_colours(pair)
        )
        if pair.fit is not None:
            angle = (pair.fit.axis_untilted_deg, pair.fit.axis_tilted_deg)[which]
            _draw_axis(ax, angle, shown.shape)
        ax.set(title=SIDES[which], xticks=[], yticks=[])
    _draw_residuals(axes[2], pair)
    return figure


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
    ax.plot(*zip(middle - step, middle + step, strict=True), color="#fdae61", linewidth=1.2)


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
    figure = Figure(figsize=(1.25 * count + 0.6, 2.7), layout="constrained")
    grid = figure.subplots(2, count, squeeze=False)
    for which in (0, 1):
        for column in range(count):
            ax = grid[which, column]
            ax.imshow(rows[which][column], cmap="gray", interpolation="nearest", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            if not which:
                ax.set_title(f"pair {pair.plan.pair_ids[pair.kept[column]]}", fontsize=8)
        grid[which, 0].set_ylabel(SIDES[which])
    return figure
