"""RELION's own table, restored from what another format has kept of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hpcsort.converting.kept import Fields, Group, entries_of, merged
from hpcsort.geometry import relion_matrices
from hpcsort.io import ParticleTable, joined_optics
from hpcsort.io.stacks import split_format

__all__ = ["restored_frames"]

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_TURN = 2e-4
"""Largest difference of entries of two rotation matrices that are the same, in radians about."""
_MADE = frozenset(
    {"rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality", "ucsfUid"}
)
_ZERO = ("rlnPhaseShift", "rlnCtfBfactor")


def restored_frames(
    native: ParticleTable, particles: Fields, optics: Fields
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the tables of particles and optics as they were, with what has been changed since.

    Parameters
    ----------
    native
        N particles as translated from the other format.
    particles
        Columns of RELION's table of particles.
    optics
        Columns of its optics table for each particle; none for a table of RELION 3.0.
    """
    kept = {**particles, **{name: values for name, values in optics.items() if name != "rlnOpticsGroup"}}
    found = merged(_in_words_of(kept, native), kept, _GROUPS, _MADE)
    frame = pd.DataFrame({name: values for name, values in found.items() if name in particles or name not in optics})
    if not optics:
        return frame, None
    per_particle = pd.DataFrame({name: optics[name] if name == "rlnOpticsGroup" else found[name] for name in optics})
    distinct = per_particle.drop_duplicates()
    if distinct["rlnOpticsGroup"].is_unique:
        return frame, distinct.sort_values("rlnOpticsGroup").reset_index(drop=True)
    # Values of a group have been changed for some of its particles only.
    frame["rlnOpticsGroup"], table = joined_optics(per_particle.drop(columns="rlnOpticsGroup"))
    return frame, table


def _in_words_of(kept: Fields, native: ParticleTable) -> Fields:
    """Columns of the translation, for each particle, named as the kept table names what it tells in two ways."""
    columns: Fields = {name: entries_of(native.frame[name]) for name in native.frame.columns if ":" not in str(name)}
    if native.optics is not None:
        columns |= {
            name: entries_of(native.optics[name])[native.optics_group]
            for name in native.optics.columns
            if name not in columns
        }
    for axis, shift in zip("XY", native.shifts_px.T, strict=True):
        in_A, in_px = f"rlnOrigin{axis}Angst", f"rlnOrigin{axis}"
        if in_A in columns and in_px in kept and in_A not in kept:
            del columns[in_A]
            columns[in_px] = shift
    if "rlnDetectorPixelSize" in kept and "rlnImagePixelSize" not in kept:
        magnification = kept["rlnMagnification"].astype(float) / 1e4 if "rlnMagnification" in kept else 1.0
        columns["rlnDetectorPixelSize"] = native.pixel_sizes_A * magnification
    for name in _ZERO:
        if name in columns and name not in kept and not columns[name].any():
            del columns[name]
    return columns


def _same_angles(kept: Fields, native: Fields) -> bool:
    if not all(name in kept for name in _ANGLES):
        return False
    one, two = (np.stack([fields[name].astype(float) for name in _ANGLES], axis=1) for fields in (kept, native))
    return bool(np.abs(relion_matrices(one) - relion_matrices(two)).max(initial=0) < _TURN)


def _same_axis(kept: Fields, native: Fields) -> bool:
    angle = kept["rlnDefocusAngle"].astype(float) - native["rlnDefocusAngle"]
    return bool(np.abs(np.sin(np.deg2rad(angle))).max(initial=0) < _TURN)


def _same_phase(kept: Fields, native: Fields) -> bool:
    """EMAN2 has one number for amplitude contrast and phase shift."""
    zero = np.zeros(1)
    totals = [
        np.arcsin(np.clip(fields.get("rlnAmplitudeContrast", zero).astype(float), -1, 1))
        + np.deg2rad(fields.get("rlnPhaseShift", zero).astype(float))
        for fields in (kept, native)
    ]
    return bool(np.abs(np.exp(1j * (totals[0] - totals[1])) - 1).max(initial=0) < _TURN)


def _same_images(kept: Fields, native: Fields) -> bool:
    pairs = zip(kept["rlnImageName"].tolist(), native["rlnImageName"].tolist(), strict=True)
    return all(_image(one) == _image(two) for one, two in pairs)


def _image(name: object) -> tuple[str, str]:
    text = name.decode() if isinstance(name, bytes) else str(name)
    before, mark, after = text.partition("@")
    return (before.lstrip("0"), split_format(after)[0]) if mark else ("1", split_format(before)[0])


def _same_groups(kept: Fields, native: Fields) -> bool:
    return True


_GROUPS: tuple[Group, ...] = (
    (_ANGLES, _same_angles),
    (("rlnDefocusAngle",), _same_axis),
    (("rlnAmplitudeContrast", "rlnPhaseShift"), _same_phase),
    (("rlnImageName",), _same_images),
    # Other formats number groups anew.
    (("rlnOpticsGroup", "rlnOpticsGroupName"), _same_groups),
)
