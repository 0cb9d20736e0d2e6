"""What was found, as one value that all outputs are made from, and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcsort.averages.cluster import Partition
from hpcsort.averages.evidence import FamilyTest
from hpcsort.averages.families import Family
from hpcsort.averages.read import Averages

__all__ = ["Findings", "clamped_bounds"]


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything found about a set of averages.

    Attributes
    ----------
    averages : the input.
    families : blank averages last, if there are any.
    best : the partition taken, of the averages that are not blank.
    tried : all partitions that were scored.
    test : of one family; None for fewer than three averages.
    rows : int64 (n,), the averages that are not blank, in the order of `distance`.
    distance : float64 (n, n).
    notes : what the user should know, in sentences.
    """

    averages: Averages
    families: list[Family]
    best: Partition
    tried: list[Partition]
    test: FamilyTest | None
    rows: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def real_families(self) -> list[Family]:
        """Families but for that of blank averages."""
        return [family for family in self.families if not family.blank]


def clamped_bounds(lowest: int, highest: int, count: int) -> tuple[int, int, list[str]]:
    """Bounds of the number of families that `count` averages allow, and what was changed in words.

    A silhouette needs 2 to n - 1 clusters; one or two averages are one family, and three may be two.
    """
    most = max(count - 1, 1)
    low = min(lowest, most)
    high = max(count - 2, low, min(2, most)) if highest == -1 else min(highest, most)
    notes = []
    if low < lowest:
        notes.append(f"--min-clusters {lowest} is more than {count} averages allow; {low} is taken.")
    if highest > high:
        notes.append(f"--max-clusters {highest} is more than {count} averages allow; {high} is taken.")
    return low, high, notes
