"""What extract-pairs writes: two stacks, two STAR files of equal rows, the table of pairs, .xmd, losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.checkpoints import read_record
from hpcsort.errors import OutputError
from hpcsort.io import write_stack, write_tables, write_text_atomically
from hpcsort.io.xmd import write_xmd
from hpcsort.pairs.ctfs import MicrographCtf
from hpcsort.pairs.extract import ExtractedPair
from hpcsort.pairs.options import PairOptions
from hpcsort.pairs.parts import Parts
from hpcsort.pairs.plan import SIDES, Loss, Plan
from hpcsort.report import PAGE, RECORD, clear_panels

__all__ = ["claim_output", "losses_frame", "write_outputs"]

_FILES = (
    "untilted.mrcs", "tilted.mrcs", "untilted.star", "tilted.star", "pairs.star", "images_untilted.xmd",
    "images_tilted.xmd", "losses.csv", PAGE, RECORD,
)  # fmt: skip


def claim_output(options: PairOptions, inputs: Sequence[Path]) -> None:
    """Make the folder, and refuse before the work what would be refused after it.

    Raises
    ------
    OutputError
        If a file exists and is not to be replaced, is an input, the folder holds a run that was stopped, or it cannot
        be made.
    """
    out = options.output
    needed = {path.resolve() for path in inputs}
    record = read_record(out)
    if record is not None and not record.finished and not (options.overwrite or options.resume):
        raise OutputError(
            f"{out} holds a run that was stopped; go on with --resume, choose another --output, or replace it with"
            " --overwrite"
        )
    for name in _FILES:
        path = out / name
        if path.resolve() in needed:
            raise OutputError(f"{path} is an input and would be lost; choose another --output")
        # files of a run that was stopped while it wrote them are its own
        if path.exists() and not options.overwrite and not (options.resume and record is not None):
            raise OutputError(f"{path} exists already; choose another --output or allow replacing it with --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write in {out}: {error.strerror}; choose another --output") from error


def write_outputs(
    options: PairOptions, plan: Plan, pairs: list[ExtractedPair], losses: list[Loss], parts: Parts
) -> None:
    """Join the parts and write all tables; the STAR files come last, so that where they are, all else is complete.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    out, over = options.output, options.overwrite or options.resume
    for name in _FILES:
        # what an earlier run left would look like part of this one
        (out / name).unlink(missing_ok=True) if over else None
    clear_panels(out)
    with_rows = [pair for pair in pairs if len(pair.kept)]
    count, box = sum(len(pair.kept) for pair in with_rows), options.box_px
    pixel_A = plan.pixel_A * options.downsample
    for side in SIDES:
        windows = (window for pair in with_rows for window in parts.windows(pair, side))
        write_stack(out / f"{side}.mrcs", windows, (count, box, box), pixel_A, overwrite=over)
    write_text_atomically(out / "losses.csv", _csv(losses_frame(losses)), overwrite=over)
    frames = [_particles(with_rows, which) for which in (0, 1)]
    for side, frame in zip(SIDES, frames, strict=True):
        _write_xmd(out / f"images_{side}.xmd", frame, over)
    write_tables(out / "pairs.star", {"micrographs": _micrographs(pairs), "pairs": _pairs(frames)}, overwrite=over)
    for which, (side, frame) in enumerate(zip(SIDES, frames, strict=True)):
        tables = {"optics": _optics(options, plan, with_rows, which, pixel_A), "particles": _relion(frame, which)}
        write_tables(out / f"{side}.star", tables, overwrite=over)


def losses_frame(losses: list[Loss]) -> pd.DataFrame:
    """Losses as a table."""
    names = ("micrograph", "side", "reason", "particles")
    return pd.DataFrame({name: [getattr(loss, name) for loss in losses] for name in names})


def _csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _particles(pairs: list[ExtractedPair], which: int) -> pd.DataFrame:
    """All that is known of the kept particles on one side, a row each."""
    tables = []
    for pair in pairs:
        side, rows, known = pair.plan.sides[which], pair.kept, pair.sides[which]
        frame = pd.DataFrame(
            {
                "pair_id": pair.plan.pair_ids[rows],
                "item_id": pair.plan.ids[rows],
                "micrograph": side.name,
                "micrograph_id": pair.plan.number + 1,
                "x": known.xy_px[:, 0],
                "y": known.xy_px[:, 1],
                "scaled_x": known.scaled_px[:, 0],
                "scaled_y": known.scaled_px[:, 1],
                "rest_x": known.rest_px[:, 0],
                "rest_y": known.rest_px[:, 1],
                "average": known.local_average,
                "residual": _residuals(pair),
                "outlier": np.zeros(len(rows), np.int64) if pair.fit is None else pair.fit.outlier[rows].astype(int),
            }
        )
        if side.ctf is not None:
            frame["defocus_u"] = side.ctf.defocus_u_A + known.defocus_A
            frame["defocus_v"] = side.ctf.defocus_v_A + known.defocus_A
            for name in ("defocus_angle_deg", "phase_shift_deg", "voltage_kV", "cs_mm", "amplitude_contrast"):
                frame[name] = getattr(side.ctf, name)
        tables.append(frame)
    joined = pd.concat(tables, ignore_index=True)
    side_name = SIDES[which]
    joined.insert(0, "image", [f"{row + 1:06d}@{side_name}.mrcs" for row in range(len(joined))])
    return joined


def _residuals(pair: ExtractedPair) -> npt.NDArray[np.float64]:
    if pair.fit is None:
        return np.full(len(pair.kept), np.nan)
    return np.asarray(np.linalg.norm(pair.fit.residuals_px[pair.kept], axis=1))


def _microscopes(pairs: list[ExtractedPair], which: int) -> list[tuple[float, float, float]]:
    """Distinct (voltage, Cs, amplitude contrast) of one side, in rising order."""
    ctfs: list[MicrographCtf] = [ctf for pair in pairs if (ctf := pair.plan.sides[which].ctf) is not None]
    return sorted({(ctf.voltage_kV, ctf.cs_mm, ctf.amplitude_contrast) for ctf in ctfs})


def _optics(options: PairOptions, plan: Plan, pairs: list[ExtractedPair], which: int, pixel_A: float) -> pd.DataFrame:
    """One optics group for the side; more only where its micrographs come from different microscopes."""
    scopes = _microscopes(pairs, which)
    if not scopes:
        given = (options.voltage_kV, options.cs_mm, options.amplitude_contrast)
        scopes = [given] if None not in given else []  # type: ignore[list-item]
    count = max(len(scopes), 1)
    names = [SIDES[which] + (f"_{number + 1}" if number else "") for number in range(count)]
    frame = pd.DataFrame({"rlnOpticsGroup": np.arange(1, count + 1), "rlnOpticsGroupName": names})
    frame["rlnMicrographOriginalPixelSize"] = plan.pixel_A
    if scopes:
        frame[["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"]] = np.array(scopes, np.float64)
    frame["rlnImagePixelSize"] = pixel_A
    frame["rlnImageSize"] = options.box_px
    frame["rlnImageDimensionality"] = 2
    frame["rlnCtfDataAreCtfPremultiplied"] = 0
    flipped = options.phase_flip and bool(_microscopes(pairs, which))
    frame["hpcsortPhaseFlipped"] = int(flipped)
    return frame


def _relion(frame: pd.DataFrame, which: int) -> pd.DataFrame:
    """Particles as RELION names their columns; coordinates are of the micrograph's file."""
    table = pd.DataFrame(
        {
            "rlnImageName": frame["image"],
            "rlnMicrographName": frame["micrograph"],
            "rlnCoordinateX": frame["x"].round(6),
            "rlnCoordinateY": frame["y"].round(6),
        }
    )
    group: npt.NDArray[np.int64] | int = 1
    if "defocus_u" in frame:
        table["rlnDefocusU"] = frame["defocus_u"].round(6)
        table["rlnDefocusV"] = frame["defocus_v"].round(6)
        table["rlnDefocusAngle"] = frame["defocus_angle_deg"]
        table["rlnPhaseShift"] = frame["phase_shift_deg"]
        scopes = list(zip(frame["voltage_kV"], frame["cs_mm"], frame["amplitude_contrast"], strict=True))
        places = {scope: place for place, scope in enumerate(sorted(set(scopes)), start=1)}
        group = np.array([places[scope] for scope in scopes], np.int64)
    table["rlnOpticsGroup"] = group
    table["hpcsortPairId"] = frame["pair_id"]
    return table


def _pairs(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One row for each pair of particles, in the order of the stacks."""
    columns: dict[str, object] = {"hpcsortPairId": frames[0]["pair_id"], "hpcsortItemId": frames[0]["item_id"]}
    for word, frame in zip(("Untilted", "Tilted"), frames, strict=True):
        columns[f"hpcsort{word}ImageName"] = frame["image"]
        columns[f"hpcsort{word}MicrographName"] = frame["micrograph"]
        for axis in "XY":
            low = axis.lower()
            columns[f"hpcsort{word}Coordinate{axis}"] = frame[low].round(6)
            columns[f"hpcsort{word}Scaled{axis}"] = frame[f"scaled_{low}"].round(6)
            columns[f"hpcsort{word}Rest{axis}"] = frame[f"rest_{low}"].round(6)
        columns[f"hpcsort{word}LocalAverage"] = frame["average"].round(6)
    columns["hpcsortTiltResidual"] = frames[0]["residual"].round(6)
    columns["hpcsortTiltOutlier"] = frames[0]["outlier"]
    return pd.DataFrame(columns)


def _micrographs(pairs: list[ExtractedPair]) -> pd.DataFrame:
    """One row for each pair of micrographs: geometry, residuals, numbers."""
    rows = []
    for pair in pairs:
        fit, plan = pair.fit, pair.plan
        nan = float("nan")
        matrix = np.full((2, 2), nan) if fit is None else fit.matrix
        shift = np.full(2, nan) if fit is None else fit.shift
        rows.append(
            {
                "hpcsortUntiltedMicrographName": plan.sides[0].name,
                "hpcsortTiltedMicrographName": plan.sides[1].name,
                "hpcsortTiltAngle": nan if fit is None else fit.tilt_deg,
                "hpcsortTiltAxisUntilted": nan if fit is None else fit.axis_untilted_deg,
                "hpcsortTiltAxisTilted": nan if fit is None else fit.axis_tilted_deg,
                "hpcsortTiltSign": pair.tilt_sign,
                "hpcsortTiltScale": nan if fit is None else fit.scale,
                "hpcsortTiltResidual": nan if fit is None else fit.rms_px,
                **{f"hpcsortAffine{r + 1}{c + 1}": float(matrix[r, c]) for r in (0, 1) for c in (0, 1)},
                "hpcsortAffineShiftX": float(shift[0]),
                "hpcsortAffineShiftY": float(shift[1]),
                "hpcsortTiltSwapped": int(fit is not None and fit.swapped),
                "hpcsortTiltMirrored": int(fit is not None and fit.mirrored),
                "hpcsortTiltOutliers": 0 if fit is None else int(fit.outlier.sum()),
                "hpcsortPairsPicked": len(plan.ids),
                "hpcsortPairsKept": len(pair.kept),
            }
        )
    return pd.DataFrame(rows).round(6)


def _write_xmd(path: Path, frame: pd.DataFrame, overwrite: bool) -> None:
    columns: dict[str, object] = {
        "itemId": [f"{value:06d}" for value in frame["pair_id"].tolist()],
        "enabled": 1,
        "image": frame["image"],
        # Xmipp separates entries by blanks and cannot quote them
        "micrograph": ["_".join(name.split()) for name in frame["micrograph"].tolist()],
        "micrographId": frame["micrograph_id"],
        "xcoor": np.floor(frame["scaled_x"].to_numpy() + 0.5).astype(np.int64),
        "ycoor": np.floor(frame["scaled_y"].to_numpy() + 0.5).astype(np.int64),
        "localAverage": frame["average"],
    }
    if "defocus_u" in frame:
        columns |= {
            "ctfVoltage": frame["voltage_kV"],
            "ctfSphericalAberration": frame["cs_mm"],
            "ctfQ0": frame["amplitude_contrast"],
            "ctfDefocusU": frame["defocus_u"],
            "ctfDefocusV": frame["defocus_v"],
            "ctfDefocusAngle": frame["defocus_angle_deg"],
            "ctfK": 1.0,
        }
    write_xmd(path, {"particles": pd.DataFrame(columns)}, overwrite=overwrite)
