"""Columns of a particle table as arrays; a bad value is refused with file, row and column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.io._checks import shown

_LARGEST = 2.0**53
"""Integers beyond this have no float64 of their own."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Look-up by column name, first in the particles, then in the optics table through each particle's group.

    Attributes
    ----------
    source : Path
        STAR file, for messages.
    frame : pandas.DataFrame
        N particles.
    optics : pandas.DataFrame or None
        G optics groups.
    group : numpy.ndarray
        (N,) row of each particle's group in `optics`.
    aliases : mapping of str to str
        RELION's name of a column to the name in `source`, for messages.
    """

    source: Path
    frame: pd.DataFrame
    optics: pd.DataFrame | None
    group: npt.NDArray[np.int64]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def shown(self, name: str) -> str:
        """Return the name of a column as the source has it."""
        return self.aliases.get(name, name)

    def has(self, name: str) -> bool:
        """Tell whether the particles or the optics table have the column."""
        return name in self.frame or (self.optics is not None and name in self.optics)

    def values(self, name: str) -> npt.NDArray[np.object_] | None:
        """(N,) entries as read, or None where there is no such column."""
        if name in self.frame:
            return self.frame[name].to_numpy(dtype=object)
        if self.optics is not None and name in self.optics:
            return self.optics[name].to_numpy(dtype=object)[self.group]
        return None

    def numbers(self, name: str, default: float | None, why: str, needed: bool = True) -> npt.NDArray[np.float64]:
        """(N,) float64 column; `default` where it is absent, or NaN if there is no default and it is not needed.

        Raises
        ------
        InputError
            If it is needed and absent without default, or holds anything but finite numbers.
        """
        if not self.has(name):
            if default is None and needed:
                block = "optics or particle table" if self.optics is not None and not self.aliases else "table"
                raise InputError(
                    f"{self.source} has no column {self.shown(name)} in its {block}, but {why};"
                    " add the column or give the table of a job that has it"
                )
            return np.full(len(self.frame), np.nan if default is None else default)
        if name in self.frame:
            result = _as_numbers(self.frame[name])
        else:
            assert self.optics is not None
            result = _as_numbers(self.optics[name])[self.group]
        if needed:
            self.refuse(name, ~np.isfinite(result), "a finite number is needed")
        return result

    def integers(self, name: str, default: int) -> npt.NDArray[np.int64]:
        """(N,) int64 column; `default` where it is absent.

        Raises
        ------
        InputError
            If an entry is not an integer.
        """
        values = self.numbers(name, default, "")
        self.refuse(name, (values != np.round(values)) | (np.abs(values) > _LARGEST), "an integer is needed")
        return values.astype(np.int64)

    def text(self, name: str) -> npt.NDArray[np.object_]:
        """(N,) str column; empty where it is absent."""
        values = self.values(name)
        if values is None:
            values = np.full(len(self.frame), "", dtype=object)
        return np.array([str(value) for value in values.tolist()], dtype=object)

    def refuse(self, name: str, bad: npt.NDArray[np.bool_], rule: str) -> None:
        """Raise InputError for the first of the (N,) particles that is marked as bad."""
        if not bad.any():
            return
        row = int(np.flatnonzero(bad)[0])
        values = self.values(name)
        value = "" if values is None else shown(values[row])
        place = f"row {row + 1}" if name in self.frame or self.aliases else f"row {self.group[row] + 1} of data_optics"
        count = int(bad.sum())
        others = f" and {count - 1} more" if count > 1 and name in self.frame else ""
        raise InputError(
            f"{self.source}, {place}{others}, column {self.shown(name)}: {value!r} where {rule};"
            " correct the value or remove the row"
        )


def _as_numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
