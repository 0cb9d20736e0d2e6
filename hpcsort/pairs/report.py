"""The page that shows what was cut: losses, geometry, coordinates over micrographs, residuals, pairs of windows."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hpcsort.io import write_text_atomically
from hpcsort.pairs.extract import ExtractedPair
from hpcsort.pairs.options import PairOptions
from hpcsort.pairs.outputs import REPORT
from hpcsort.pairs.plan import SIDES, Loss, Plan

__all__ = ["write_report"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; } h3 { font-size: 1em; margin: 1.6em 0 0.3em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15em 0.8em 0.15em 0; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } td.text { text-align: left; }
.scroll { overflow-x: auto; } .note { background: #fff3d6; padding: 0.3em 0.7em; margin: 0.3em 0; }
img { max-width: 100%; height: auto; } .small { color: #666; font-size: 0.9em; }
"""
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
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<meta name='viewport' content='width=device-width'><title>Pairs</title><style>{_STYLE}</style></head><body>",
        f"<h1>{kept} pairs of particles</h1>",
        f"<p>Of {picked} picked in {len(pairs)} pairs of micrographs ({plan.listed} listed). Windows of"
        f" {options.box_px} px at {plan.pixel_A * options.downsample:g} A{_treatment(options)}.</p>",
        *(f"<p class='note'>{escape(note)}</p>" for pair in pairs for note in pair.notes),
        "<h2>Lost</h2>",
        _loss_table(losses),
        "<h2>Micrographs</h2>",
        _pair_table(pairs),
        "<p class='small'>Tilt and axis from the affine relation of the coordinates; axis in degrees from x towards y;"
        " residual: root mean square of the pairs that fit, in pixels of the micrographs.</p>",
        _picture(_overview(pairs), "tilts and residuals of all micrograph pairs"),
        "<h2>Pairs</h2>",
        f"<p class='small'>Circles: <span style='color:{_KEPT}'>kept</span>,"
        f" <span style='color:{_OUTLYING}'>kept but outlying</span>, <span style='color:{_LOST}'>lost</span>."
        " The line is the tilt axis.</p>",
    ]
    for pair in shown:
        parts.append(f"<h3>{escape(pair.plan.key)}</h3>")
        parts += [_picture(figure, name) for figure, name in _figures(pair, options)]
    if len(shown) < len(pairs):
        parts.append(f"<p class='small'>{len(pairs) - len(shown)} more pairs of micrographs are not shown.</p>")
    text = "\n".join([*parts, "</body></html>"]) + "\n"
    write_text_atomically(options.output / REPORT, text, overwrite=options.overwrite)


def _treatment(options: PairOptions) -> str:
    done = [f"downsampled by {options.downsample:g}"] if options.downsample > 1 else []
    done += [f"dust beyond {options.dust_sigma:g} sigma replaced"] if options.dust else []
    done += ["phases flipped"] if options.phase_flip else []
    done += ["contrast inverted"] if options.invert else []
    done += [] if options.normalize == "none" else [f"normalised ({options.normalize})"]
    return "; " + ", ".join(done) if done else ""


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    def cell(value: object) -> str:
        kind = " class='text'" if isinstance(value, str) and not value.lstrip("-")[:1].isdigit() else ""
        return f"<td{kind}>{escape(str(value))}</td>"

    body = "".join("<tr>" + "".join(cell(value) for value in row) + "</tr>" for row in rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>"


def _loss_table(losses: list[Loss]) -> str:
    if not losses:
        return "<p>Nothing.</p>"
    rows = ((loss.micrograph, loss.side, loss.reason, loss.particles) for loss in losses)
    return _table(("micrograph", "side", "reason", "pairs"), rows)


def _pair_table(pairs: list[ExtractedPair]) -> str:
    heads = ("pair", "picked", "kept", "tilt", "axis", "axis (tilted)", "residual px", "outlying", "dust px")
    rows = []
    for pair in pairs:
        fit = pair.fit
        geometry = ["-"] * 5
        if fit is not None:
            angles = [f"{angle:.2f}" for angle in (fit.tilt_deg, fit.axis_untilted_deg, fit.axis_tilted_deg)]
            geometry = [*angles, f"{fit.rms_px:.2f}", str(int(fit.outlier.sum()))]
        dust = " / ".join(str(side.dust) for side in pair.sides)
        rows.append([pair.plan.key, len(pair.plan.ids), len(pair.kept), *geometry, dust])
    return _table(heads, rows)


def _picture(figure: Figure, name: str) -> str:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # without the version of matplotlib the same run gives the same page
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<p><img alt='{escape(name)}' src='data:image/png;base64,{data}'></p>"


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
