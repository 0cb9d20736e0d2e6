"""The depth tree of one generation: layers of boxes, compared in pairs, the survivors sorted again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpcsort.parallel import stream
from hpcsort.sort3d.groups import compare
from hpcsort.sort3d.records import Box, BoxChains, BoxPlan, Comparison, Layer
from hpcsort.sort3d.survey import split_halves
from hpcsort.sort3d.task import Task

__all__ = ["RunLayer", "grow_tree", "plan_box", "result_of"]

RunLayer = Callable[[list[BoxPlan]], list[BoxChains]]
_SWAPPED = 0.05
"""Share of a group's members that a chain starts without (the swap ratio of SORT3D_DEPTH)."""


def plan_box(
    task: Task, layer: int, number: int, classes: int, start: tuple[np.ndarray, np.ndarray] | None = None
) -> BoxPlan:
    """Plan a box: its chains learn from disjoint halves, or both from all particles (`--independence starts`)."""
    key = f"layer {layer} box {number}"
    if task.problem.options.independence == "starts":
        everything = np.ones(task.problem.count, bool)
        return BoxPlan(layer, number, (everything, everything), classes, start)
    half = split_halves(task, key)
    return BoxPlan(layer, number, (half == 0, half == 1), classes, start)


def grow_tree(task: Task, classes: int, minimum: int, run: RunLayer, depth: int) -> list[Layer]:
    """Run layer after layer until one comparison is left, or a layer finds one group or none. Collective.

    Parameters
    ----------
    task : what is sorted.
    classes : number of new classes in the boxes of layer 0.
    minimum : smallest reproducible group.
    run : runs all boxes of a layer in lock step.
    depth : layer 0 has 2^depth boxes.
    """
    seed = task.problem.options.seed
    layers: list[Layer] = []
    plans = [plan_box(task, 0, number, classes) for number in range(2**depth)]
    while True:
        ran = [
            Box(plan, chains, compare(*chains.labels, minimum, seed + 2 * plan.number))
            for plan, chains in zip(plans, _run_layer(task, plans, run), strict=True)
        ]
        comparisons = [
            compare(first.comparison.labels, second.comparison.labels, minimum, seed + 2 * first.plan.number + 1)
            for first, second in zip(ran[0::2], ran[1::2], strict=True)
        ]
        layers.append(Layer(len(layers), ran, comparisons))
        if len(comparisons) == 1 or min(int(comparison.accepted.sum()) for comparison in comparisons) < 2:
            return layers
        plans = [
            plan_box(
                task,
                len(layers),
                number,
                int(comparison.accepted.sum()),
                _starts(task, len(layers), number, comparison),
            )
            for number, comparison in enumerate(comparisons)
        ]


def _run_layer(task: Task, plans: list[BoxPlan], run: RunLayer) -> list[BoxChains]:
    return task.journal.step(f"layer {plans[0].layer}", lambda: run(plans))


def result_of(layers: list[Layer]) -> np.ndarray:
    """Return the groups (n_active,) of the last layer's comparison that accounts for most particles."""
    best = max(layers[-1].comparisons, key=lambda comparison: int((comparison.labels >= 0).sum()))
    return best.labels


def _starts(task: Task, layer: int, number: int, comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Two start partitions: the accepted groups, each without some members drawn at random."""
    starts = []
    for chain in (0, 1):
        key = f"layer {layer} box {number} chain {chain}"
        drawn = stream(task.problem.options.seed, task.key, key, "start").random(task.problem.count)[task.active]
        starts.append(np.where(drawn < _SWAPPED, -1, comparison.labels))
    return starts[0], starts[1]
