"""CTF of micrographs from STAR tables and from Xmipp's metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io import Columns, read_tables
from hpcsort.io.xmd import as_frame

__all__ = ["MicrographCtf", "read_ctfs"]

_NAMES = ("rlnMicrographName", "micrograph", "micName", "image")
# field: names of the column in STAR and in .xmd, and whether it must be there
_FIELDS: dict[str, tuple[tuple[str, ...], float | None]] = {
    "defocus_u_A": (("rlnDefocusU", "ctfDefocusU"), None),
    "defocus_v_A": (("rlnDefocusV", "ctfDefocusV"), None),
    "defocus_angle_deg": (("rlnDefocusAngle", "ctfDefocusAngle"), 0.0),
    "voltage_kV": (("rlnVoltage", "ctfVoltage"), None),
    "cs_mm": (("rlnSphericalAberration", "ctfSphericalAberration"), None),
    "amplitude_contrast": (("rlnAmplitudeContrast", "ctfQ0"), None),
    "phase_shift_deg": (("rlnPhaseShift",), 0.0),
}
_OPTIONS = {"voltage_kV": "--voltage", "cs_mm": "--cs", "amplitude_contrast": "--amplitude-contrast"}


@dataclass(frozen=True)
class MicrographCtf:
    """CTF of a micrograph, or of one particle in it, in RELION's convention (see `hpcsort.optics.ctf`).

    Attributes
    ----------
    defocus_u_A, defocus_v_A, defocus_angle_deg : underfocus in A along and across the axis, from x towards y.
    voltage_kV, cs_mm, amplitude_contrast : microscope.
    phase_shift_deg : of a phase plate; applied at all frequencies.
    """

    defocus_u_A: float
    defocus_v_A: float
    defocus_angle_deg: float = 0.0
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift_deg: float = 0.0

    def moved(self, defocus_A: float) -> MicrographCtf:
        """CTF at another height: with so much more underfocus."""
        return replace(self, defocus_u_A=self.defocus_u_A + defocus_A, defocus_v_A=self.defocus_v_A + defocus_A)


def read_ctfs(path: Path, key: Callable[[str], str], given: dict[str, float | None]) -> dict[str, MicrographCtf]:
    """Read the CTF of each micrograph.

    Parameters
    ----------
    path : STAR table (rlnMicrographName, rlnDefocusU ..., with an optics table or without) or .xmd (micrograph,
        ctfDefocusU ...). Of several rows for one micrograph, such as particles, the mean defocus is taken.
    key : gives the name by which micrographs are compared.
    given : voltage_kV, cs_mm, amplitude_contrast where the table lacks them; None if not known.

    Returns
    -------
    Key of each micrograph to its CTF.

    Raises
    ------
    InputError
        If the table lacks a column or a value is not a finite number.
    """
    columns = _columns(path)
    name = next((name for name in _NAMES if columns.has(name)), None)
    if name is None:
        raise InputError(f"{path} has no column rlnMicrographName; give a table of CTFs by micrograph")
    values = {}
    for field, (names, default) in _FIELDS.items():
        found = next((column for column in names if columns.has(column)), None)
        default = given.get(field, default) if found is None else default
        if found is None and default is None:
            cure = f"add it or give {_OPTIONS[field]}" if field in _OPTIONS else "give the table of a CTF estimation"
            raise InputError(f"{path} has no column {names[0]} (or {names[-1]}); {cure}")
        values[field] = columns.numbers(found or names[0], default, "")
    frame = pd.DataFrame(values)
    frame.insert(0, "key", [key(text) for text in columns.text(name).tolist()])
    return {str(which): _one(rows) for which, rows in frame.groupby("key", sort=False)}


def _one(rows: pd.DataFrame) -> MicrographCtf:
    first = {field: float(rows[field].iloc[0]) for field in _FIELDS}
    if len(rows) > 1:
        first |= {field: float(rows[field].mean()) for field in ("defocus_u_A", "defocus_v_A")}
    return MicrographCtf(**first)


def _columns(path: Path) -> Columns:
    blocks = read_tables(path)
    named = {name: as_frame(block) for name, block in blocks.items() if len(block)}
    fitting = [name for name, frame in named.items() if any(column in frame for column in _NAMES)]
    if not fitting:
        raise InputError(f"{path} has no column rlnMicrographName; give a table of CTFs by micrograph")
    frame = named[fitting[-1]]
    optics = named.get("optics")
    if optics is None or "rlnOpticsGroup" not in optics or "rlnOpticsGroup" not in frame:
        return Columns(path, frame, None, np.zeros(len(frame), np.int64))
    places = {str(number): place for place, number in enumerate(optics["rlnOpticsGroup"].tolist())}
    lost = [str(number) for number in frame["rlnOpticsGroup"].tolist() if str(number) not in places]
    if lost:
        raise InputError(f"{path}, column rlnOpticsGroup: group {lost[0]} is not in data_optics; add it there")
    group = np.array([places[str(number)] for number in frame["rlnOpticsGroup"].tolist()], np.int64)
    return Columns(path, frame, optics, group)
