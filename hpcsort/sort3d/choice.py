"""The number of classes: the subspace proposes, its neighbours finished in map space confirm or refute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcsort.sort3d.engine import finish_survey
from hpcsort.sort3d.records import BoxChains
from hpcsort.sort3d.survey import LIBERAL, STRICT, Survey, choose_number
from hpcsort.sort3d.task import Task

__all__ = ["Choice", "choose_classes"]


@dataclass(frozen=True)
class Choice:
    """How many new classes a generation makes.

    Attributes
    ----------
    classes : the number.
    held, finished : number of classes -> mean held-out log-likelihood ratio a particle, before and after finishing.
    first : the finished chains of the survey with that number.
    """

    classes: int
    held: dict[int, float]
    finished: dict[int, float]
    first: BoxChains


def choose_classes(task: Task, found: Survey) -> Choice:
    """Choose the number of new classes. Collective."""
    lowest = min(found.held)
    base = np.full_like(found.held[lowest], found.held[lowest].mean())
    finished: dict[int, tuple[BoxChains, np.ndarray]] = {}

    def held(number: int) -> np.ndarray:
        if number not in finished:
            finished[number] = task.journal.step(
                f"finishing {number} classes", lambda: finish_survey(task, found, number)
            )
        return finished[number][1]

    def is_better(number: int) -> bool:
        return choose_number({-1: base, 0: held(number - 1), 1: held(number)}, STRICT, found.least) == 1

    number = proposed = choose_number(found.held, LIBERAL, found.least)
    while number > lowest and not is_better(number):
        number -= 1
    if number == proposed:
        while number + 1 in found.held and is_better(number + 1):
            number += 1
    held(number)
    return Choice(
        number,
        {classes: float(gain.mean()) for classes, gain in found.held.items()},
        {classes: float(gain.mean()) for classes, (_, gain) in sorted(finished.items())},
        finished[number][0],
    )
