"""Options of check, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcsort.errors import OptionError

__all__ = ["CheckOptions"]


@dataclass(frozen=True)
class CheckOptions:
    """What the user asks of check.

    Attributes
    ----------
    source : particles: STAR, .cs, EMAN2's HDF or .xmd. This or ``refinement_dir``.
    refinement_dir : folder of a MERIDIEN refinement.
    radius : particle radius in px of the full box; None is box // 2 - 2.
    sym : point group of the particle.
    datadir : folder in which image stacks are looked up as well.
    angpix : pixel size in A where the table lacks it.
    """

    source: Path | None = None
    refinement_dir: Path | None = None
    radius: int | None = None
    sym: str = "c1"
    datadir: Path | None = None
    angpix: float | None = None

    def __post_init__(self) -> None:
        if (self.source is None) == (self.refinement_dir is None):
            raise OptionError("particles come from one place: give a FILE or --refinement-dir.")

    @property
    def place(self) -> Path:
        """Where the particles come from."""
        place = self.refinement_dir if self.source is None else self.source
        assert place is not None
        return place
