"""What a generation sorts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpcsort.checkpoints import Journal
from hpcsort.sort3d.problem import Problem

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """What a generation sorts.

    Attributes
    ----------
    problem : the sort.
    generation : its number, from 0.
    known : int (n,), group of particles that earlier generations accounted for, -1 for those that are sorted now.
    floors : smallest share of a class among the particles that are sorted, step by step.
    step : called with a short note after each iteration.
    part : what part of the generation's particles it is, for the key of the random streams.
    """

    problem: Problem
    generation: int
    known: np.ndarray
    floors: tuple[float, ...]
    step: Callable[[str], None]
    part: str = ""

    @property
    def journal(self) -> Journal:
        """Journal of the sort's steps."""
        return self.problem.journal

    @property
    def active(self) -> np.ndarray:
        """Particles that are sorted now, bool (n,)."""
        return self.known < 0

    @property
    def groups(self) -> int:
        """Number of groups that are known already; they are the first classes of every chain."""
        return int(self.known.max(initial=-1)) + 1

    @property
    def usable(self) -> np.ndarray:
        """Particles from which something can be learned, known groups included, bool (n,): images with a particle."""
        return self.problem.empty <= 0.5

    @property
    def key(self) -> str:
        """Key of the generation's random streams."""
        return f"generation {self.generation}{self.part}"
