"""Groups of a generation, with what chains say of them; each is looked into once more, and split where it is mixed.

The subspace of a whole stack may miss what distinguishes the halves of one group. So a subspace is learned from every
group and what is left over; in map space all other groups take part, and begin where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from hpcsort.sort3d.choice import choose_classes
from hpcsort.sort3d.engine import learn_layer, rerun_layer
from hpcsort.sort3d.groups import ensemble, measure_groups
from hpcsort.sort3d.records import BoxChains, BoxPlan
from hpcsort.sort3d.survey import LIBERAL, choose_number, survey
from hpcsort.sort3d.task import Task
from hpcsort.sort3d.tree import grow_tree, result_of

__all__ = ["Found", "found_groups", "split_groups"]

_COMPONENTS = 4
_MOST = 4
_ITERATIONS = 9
"""Components and classes that are looked for within a group, and iterations of its subspace."""
_DEVIATIONS, _SIGNIFICANCE = 2.0, 0.05


@dataclass(frozen=True)
class Found:
    """Groups of some particles.

    Attributes
    ----------
    labels : int64 (n,), group from 0 by falling size, -1 unaccounted.
    agreeing : float64 (n,), share of the chains that agree on the particle.
    score, chance_mean, chance_std, p : float64 (groups,), see `Reproducibility`.
    """

    labels: np.ndarray
    agreeing: np.ndarray
    score: np.ndarray
    chance_mean: np.ndarray
    chance_std: np.ndarray
    p: np.ndarray

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.score)

    def chosen(self, kept: np.ndarray) -> Found:
        """Only the groups ``kept`` (int, in rising order), by falling size."""
        sizes = np.bincount(self.labels[self.labels >= 0], minlength=self.groups)
        kept = kept[np.argsort(-sizes[kept], kind="stable")]
        names = np.full(self.groups + 1, -1)
        names[kept] = np.arange(len(kept))
        return Found(
            names[self.labels], self.agreeing, self.score[kept], self.chance_mean[kept], self.chance_std[kept],
            self.p[kept],
        )  # fmt: skip


def found_groups(labels: np.ndarray, boxes: list[BoxChains], known: int, seed: int) -> Found:
    """Keep the groups of ``labels`` that the independent chains of ``boxes`` reproduce better than chance."""
    measured = measure_groups(labels, boxes, seed)
    _, _, agreeing = ensemble(labels, boxes, known)
    found = Found(labels, agreeing, measured.score, measured.chance_mean, measured.chance_std, measured.p)
    beyond = measured.score > measured.chance_mean + _DEVIATIONS * measured.chance_std
    return found.chosen(np.flatnonzero(beyond & (measured.p <= _SIGNIFICANCE)))


def split_groups(task: Task, found: Found, share: float, minimum: int, tell: Callable[[str], None]) -> Found:
    """Look for groups within the groups of a generation. Collective.

    Parameters
    ----------
    task : the generation's; ``found`` belongs to its active particles.
    found : its groups.
    share : prior of the subspace (`Survey.share`).
    minimum : smallest reproducible group.
    tell : writes a sentence to the log.
    """
    active = np.flatnonzero(task.active)
    for group in range(found.groups):
        members = active[found.labels == group]
        if int(task.usable[members].sum()) < 2 * minimum:
            continue
        known = task.known.copy()
        others = (found.labels >= 0) & (found.labels != group)
        known[active[others]] = task.groups + found.labels[others] - (found.labels[others] > group)
        inner = Task(task.problem, task.generation, known, (minimum / (known < 0).sum(),), task.step, f" group {group}")
        parts = task.journal.step(f"within group {group}", partial(_split, inner, share, minimum))
        if parts is None:
            continue
        tell(f"Generation {task.generation}: group {group} is mixed; it splits into {parts.groups}.")
        found = _with_parts(found, group, np.flatnonzero(known[active] < 0), parts)
    return found.chosen(np.arange(found.groups))


def _split(task: Task, share: float, minimum: int) -> Found | None:
    """Return groups of the active particles, two or more, or None."""
    surveyed = survey(task, list(range(1, _MOST + 1)), (share,), (_COMPONENTS,), _ITERATIONS)
    # Finishing is dear, so the subspace has to see something first.
    if choose_number(surveyed.held, LIBERAL, surveyed.least) < 2:
        return None
    choice = choose_classes(task, surveyed)
    if choice.classes < 2:
        return None

    def run(plans: list[BoxPlan]) -> list[BoxChains]:
        if plans[0].layer:
            return rerun_layer(task, plans, surveyed)
        if task.problem.options.independence == "starts":
            return learn_layer(task, plans, surveyed)
        return [choice.first, *learn_layer(task, plans[1:], surveyed)]

    layers = grow_tree(task, choice.classes, minimum, run, depth=1)
    boxes = [box.chains for box in layers[0].boxes]
    parts = found_groups(result_of(layers), boxes, task.groups, task.problem.options.seed)
    return parts if parts.groups > 1 else None


def _with_parts(found: Found, group: int, rows: np.ndarray, parts: Found) -> Found:
    """Replace a group by its parts: the first takes its name, the others come last.

    ``rows`` are the particles that ``parts`` speaks of: the group's members and the unaccounted.
    """
    names = np.concatenate([[group], found.groups + np.arange(parts.groups - 1), [-1]])
    labels, agreeing = found.labels.copy(), found.agreeing.copy()
    labels[rows], agreeing[rows] = names[parts.labels], parts.agreeing

    def joined(name: str) -> np.ndarray:
        whole, part = getattr(found, name).copy(), getattr(parts, name)
        whole[group] = part[0]
        return np.concatenate([whole, part[1:]])

    return Found(labels, agreeing, *(joined(name) for name in ("score", "chance_mean", "chance_std", "p")))
