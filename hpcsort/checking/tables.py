"""What a particle table says, and what in it cannot be right; no image is looked at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from hpcsort.checking.findings import FAULT, FINE, NOTE, WARNING, Finding
from hpcsort.geometry import relion_matrices, spiral_directions, view_directions
from hpcsort.io import ParticleTable

__all__ = ["look_at_ctf", "look_at_duplicates", "look_at_optics", "look_at_poses", "look_at_shifts", "look_at_stacks"]

_MOST_TOLD = 5
_PIXEL_TOLERANCE = 1e-4
_VIEWS = 50_000
"""Views that are looked at, mates included."""
_DIRECTIONS, _PER_DIRECTION = 200, 20
_BAND_DEG = 5.0
_EVEN, _UNEVEN = 0.3, 0.15
"""Shares of all directions along which half of the particles look; 0.45 to 0.5 if they are spread evenly."""
_GAP = 0.1
_FEW = 250
"""Particles below which the spread of views is chance."""
_NEAR = 0.1
"""Share of the box within which two particles of a micrograph are taken for one."""
_USUAL_kV = (80.0, 100.0, 120.0, 200.0, 300.0)
_THIN_UM, _DEEP_UM, _ASTIGMATIC_UM = 0.1, 6.0, 0.5


def look_at_stacks(table: ParticleTable) -> Finding:
    """Whether the stacks that the table names are there."""
    lost = [name for name, path in zip(table.stack_names, table.stack_paths, strict=True) if not path.exists()]
    count = len(table.stack_names)
    figures = {"stacks": count, "missing": len(lost)}
    if not lost:
        box = "images of a size that is not known" if table.box_px is None else f"images of {table.box_px} px"
        return Finding("stacks", FINE, f"{count} found, with {box}.", figures)
    listed = ", ".join(lost[:_MOST_TOLD]) + (" ..." if len(lost) > _MOST_TOLD else "")
    text = f"{len(lost)} of {count} were not found: {listed}. Name the folder that holds them with --datadir."
    return Finding("stacks", FAULT, text, figures)


def look_at_optics(table: ParticleTable) -> list[Finding]:
    """Optics groups, and the pixel size."""
    sizes = np.unique(table.pixel_sizes_A)
    counts = np.bincount(table.optics_group, minlength=len(table.optics_group_names)).tolist()
    pairs = [f"{name} ({count:,})" for name, count in zip(table.optics_group_names, counts, strict=True)]
    more = " ..." if len(pairs) > _MOST_TOLD else ""
    found = [
        Finding("optics", FINE, f"{len(pairs)} optics group{'s' * (len(pairs) > 1)}: {', '.join(pairs[:5])}{more}.")
    ]
    if np.ptp(sizes) > _PIXEL_TOLERANCE * sizes[0]:
        listed = ", ".join(f"{size:.6g}" for size in sizes[:_MOST_TOLD])
        text = f"The images have different pixel sizes: {listed} A. Rescale them to one, or sort the groups apart."
        found.append(Finding("pixel size", FAULT, text, {"pixel_sizes_A": sizes.tolist()}))
        return found
    box = "" if table.box_px is None else f"; the box of {table.box_px} px is {table.box_px * sizes[0]:.0f} A wide"
    level = FINE if 0.3 < sizes[0] < 15 else WARNING
    odd = "" if level == FINE else " That is unusual for particles; give the right one with --angpix."
    text = f"{sizes[0]:.4g} A{box}.{odd}"
    found.append(Finding("pixel size", level, text, {"pixel_size_A": float(sizes[0]), "box_px": table.box_px}))
    return found


def look_at_poses(table: ParticleTable, operators: npt.NDArray[np.float64]) -> Finding:
    """How many particles have a pose, and how evenly the views are spread."""
    posed = np.isfinite(table.angles_deg).all(axis=1)
    if not posed.all():
        text = (
            f"{int(posed.sum()):,} of {len(table):,} particles have angles. Sorting needs the poses of a refinement;"
            " `hpcsort match` finds them from a map."
        )
        return Finding("poses", FAULT, text, {"posed": int(posed.sum())})
    if len(table) < _FEW:
        return Finding("poses", FINE, "All have angles; the views of so few are not judged.", {"posed": len(table)})
    half, gap = _spread(table.angles_deg, operators)
    figures = {"posed": len(table), "half_look_along": half, "least_sampled": gap}
    told = f"half of the particles look along {100 * half:.0f} % of all directions"
    if half < _UNEVEN:
        level, text = WARNING, f"All have angles, with strongly preferred views: {told} (45 to 50 % if spread evenly)."
    elif half < _EVEN:
        level, text = NOTE, f"All have angles, with some preferred views: {told} (45 to 50 % if spread evenly)."
    else:
        level, text = FINE, f"All have angles, and views are spread well: {told}."
    if gap < _GAP:
        level = WARNING
        text += (
            f" Fourier space has a gap: its least sampled axis has {100 * gap:.0f} % of the sections of an even spread."
        )
    return Finding("poses", level, text, figures)


def look_at_shifts(table: ParticleTable) -> Finding:
    """Range of the shifts."""
    shifts = table.shifts_px
    if not np.isfinite(shifts).all():
        return Finding("shifts", WARNING, "Some are not numbers; give the table of a refinement.")
    length = np.hypot(*shifts.T)
    usual, most = float(np.sqrt(np.mean(length**2))), float(length.max(initial=0.0))
    pixel = float(table.pixel_sizes_A[0])
    figures = {"rms_px": usual, "largest_px": most}
    if most == 0:
        return Finding("shifts", NOTE, "All are 0: either the images were centred, or shifts were lost.", figures)
    unit = "A" if "rlnOriginXAngst" in table.frame else "pixels"
    text = f"{usual:.2f} px ({usual * pixel:.1f} A) on average, up to {most:.1f} px; given in {unit}."
    if table.box_px is not None and most > table.box_px / 4:
        text += " The largest are beyond a quarter of the box: are they in the right unit?"
        return Finding("shifts", WARNING, text, figures)
    return Finding("shifts", FINE, text, figures)


def look_at_ctf(table: ParticleTable) -> list[Finding]:
    """Whether the CTF has values that a microscope could have."""
    parts = (table.defocus_u_A, table.defocus_v_A, table.defocus_angle_deg, table.voltage_kV, table.cs_mm)
    known = np.isfinite([*parts, table.amplitude_contrast]).all(axis=0)
    if not known.all():
        text = f"{int(known.sum()):,} of {len(table):,} particles have defocus, voltage, Cs and amplitude contrast."
        return [Finding("CTF", FAULT, text, {"known": int(known.sum())})]
    mean_um = (table.defocus_u_A + table.defocus_v_A) / 2e4
    apart_um = np.abs(table.defocus_u_A - table.defocus_v_A) / 1e4
    volts = ", ".join(f"{value:g}" for value in np.unique(table.voltage_kV)[:_MOST_TOLD])
    text = (
        f"Defocus {mean_um.min():.2f} to {mean_um.max():.2f} um, astigmatism up to {apart_um.max():.2f} um, {volts} kV,"
        f" Cs {table.cs_mm.min():g} mm, amplitude contrast {table.amplitude_contrast.min():g}"
    )
    if table.phase_shift_deg.any():
        text += f", phase shift {table.phase_shift_deg.min():.0f} to {table.phase_shift_deg.max():.0f} degrees"
    figures = {"defocus_um": [float(mean_um.min()), float(mean_um.max())], "astigmatism_um": float(apart_um.max())}
    found = [Finding("CTF", FINE, f"{text}.", figures)]
    odd = (
        (np.abs(mean_um) < 1e-2, "have a defocus of less than 0.01 um: RELION's unit is Angstrom"),
        ((mean_um < -1e-2), "are overfocused (negative defocus); RELION counts underfocus as positive"),
        ((mean_um >= 1e-2) & (mean_um < _THIN_UM), f"have less than {_THIN_UM} um of defocus"),
        (mean_um > _DEEP_UM, f"have more than {_DEEP_UM:g} um of defocus"),
        (apart_um > _ASTIGMATIC_UM, f"have more than {_ASTIGMATIC_UM} um of astigmatism"),
        (~np.isin(table.voltage_kV, _USUAL_kV), "have a voltage that no usual microscope has"),
        (table.amplitude_contrast > 0.3, "have an amplitude contrast of more than 0.3"),
    )
    found += [
        Finding("CTF", WARNING, f"Of the particles, {int(bad.sum()):,} {what}.") for bad, what in odd if bad.any()
    ]
    return found


def look_at_duplicates(table: ParticleTable) -> list[Finding]:
    """Images that are named twice, and particles that lie on each other in a micrograph."""
    named = pd.DataFrame({"stack": table.stack_id, "image": table.stack_index})
    repeats = int(named.duplicated().sum())
    found = []
    if repeats:
        text = f"{repeats:,} rows name the image of an earlier row; a particle that counts twice agrees with itself."
        found.append(Finding("duplicates", WARNING, text, {"images": repeats}))
    near = _neighbours(table)
    if near:
        text = (
            f"{near:,} particles have another within {100 * _NEAR:.0f} % of the box in their micrograph: picked twice?"
            " Such pairs share noise and so pass for reproducible."
        )
        found.append(Finding("duplicates", WARNING, text, {"neighbours": near}))
    if not found:
        looked = "and no two particles of a micrograph lie on each other" if near is not None else ""
        text = f"No image is named twice{' ' * bool(looked)}{looked}."
        found.append(Finding("duplicates", FINE, text, {"images": 0, "neighbours": near}))
    return found


def _spread(angles_deg: npt.NDArray[np.float64], operators: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Share of directions along which half of the particles look; sections along the least sampled axis, 1 if even.

    A direction and its opposite count as one. A section contains an axis if the view is perpendicular to it.
    """
    most = max(_VIEWS // len(operators), 1)
    rows = np.unique(np.linspace(0, len(angles_deg) - 1, min(len(angles_deg), most)).astype(np.int64))
    views = view_directions(relion_matrices(angles_deg[rows]))
    views = np.concatenate([views @ operator for operator in operators])
    count = int(np.clip(len(views) // _PER_DIRECTION, 10, _DIRECTIONS))
    directions = spiral_directions(2 * count)
    directions = directions[directions[:, 2] > 0]
    along = np.abs(views @ directions.T)
    sizes = np.sort(np.bincount(along.argmax(axis=1), minlength=len(directions)))[::-1]
    half = float((np.searchsorted(np.cumsum(sizes), len(views) / 2) + 1) / len(directions))
    width = np.sin(np.deg2rad(_BAND_DEG))
    return half, float((along < width).mean(axis=0).min() / width)


def _neighbours(table: ParticleTable) -> int | None:
    """Count the particles that have another near them; None where coordinates or micrographs are not known."""
    known = {"rlnCoordinateX", "rlnCoordinateY"} <= set(table.frame.columns) and all(table.micrograph.tolist())
    if not known or table.box_px is None:
        return None
    scale = _micrograph_pixel_A(table)
    coordinates = table.frame[["rlnCoordinateX", "rlnCoordinateY"]].apply(pd.to_numeric, errors="coerce")
    centres = coordinates.to_numpy(np.float64) * scale[:, None]
    shifts = np.nan_to_num(table.shifts_px) * table.pixel_sizes_A[:, None]
    # The image lies around its coordinates, and the particle at minus the origin in it.
    centres = centres - shifts
    if not np.isfinite(centres).all():
        return None
    reach = _NEAR * table.box_px * float(table.pixel_sizes_A[0])
    near: set[int] = set()
    named = pd.DataFrame({"stack": table.stack_id, "image": table.stack_index})
    first = (~named.duplicated()).to_numpy()
    for rows in pd.Series(np.flatnonzero(first)).groupby(table.micrograph[first]).indices.values():
        chosen = np.flatnonzero(first)[rows]
        pairs = cKDTree(centres[chosen]).query_pairs(reach, output_type="ndarray")
        near.update(chosen[pairs.reshape(-1)].tolist())
    return len(near)


def _micrograph_pixel_A(table: ParticleTable) -> npt.NDArray[np.float64]:
    """Pixel of the micrographs, in which coordinates are given; that of the images where the table does not tell."""
    for name in ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"):
        if name in table.frame:
            return table.frame[name].to_numpy(np.float64)
        if table.optics is not None and name in table.optics:
            return table.optics[name].to_numpy(np.float64)[table.optics_group]
    return table.pixel_sizes_A
