"""The depth tree with chains that are made up: boxes, layers, starts, and when it stops."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hpcsort.checkpoints import no_journal
from hpcsort.sort3d import SortOptions
from hpcsort.sort3d.groups import compare
from hpcsort.sort3d.records import BoxChains, BoxPlan, Comparison, Layer
from hpcsort.sort3d.statistics import JUNK_KINDS
from hpcsort.sort3d.task import Task
from hpcsort.sort3d.tree import grow_tree, plan_box, result_of

_COUNT = 400
_TRUTH = np.random.default_rng(1).permutation(np.repeat([0, 1, 2, 3], [160, 120, 80, 40]))


def _task(known: np.ndarray | None = None, generation: int = 0, **options: object) -> Task:
    given = {"instack": Path("x.star"), "output_dir": Path("out"), "seed": 4} | options
    problem = SimpleNamespace(journal=no_journal(), options=SortOptions(**given), count=_COUNT, image=np.arange(_COUNT))  # type: ignore[arg-type]
    return Task(problem, generation, np.full(_COUNT, -1) if known is None else known, (0.1,), print)  # type: ignore[arg-type]


class _Chains:
    """Runs boxes whose chains see the truth with some errors of their own, under names of their own."""

    def __init__(
        self, wrong: float, truth: np.ndarray = _TRUTH, blind: Callable[[BoxPlan], bool] = lambda plan: False
    ) -> None:
        self.wrong, self.truth, self.blind = wrong, truth, blind
        self.asked: list[list[BoxPlan]] = []

    def __call__(self, plans: list[BoxPlan]) -> list[BoxChains]:
        self.asked.append(plans)
        return [self._box(plan) for plan in plans]

    def _box(self, plan: BoxPlan) -> BoxChains:
        draw = np.random.default_rng([plan.layer, plan.number])
        labels = []
        for _ in range(2):
            guess = draw.integers(0, plan.classes, len(self.truth))
            own = np.where(draw.random(len(self.truth)) < self.wrong, guess, self.truth)
            own = guess if self.blind(plan) else own
            labels.append(np.append(draw.permutation(plan.classes), -1)[np.where(own < plan.classes, own, -1)])
        joint = np.zeros((len(self.truth), plan.classes + JUNK_KINDS))
        return BoxChains((labels[0], labels[1]), (joint, joint))


def _grow(task: Task, classes: int, minimum: int, run: _Chains, depth: int = 2) -> list[Layer]:
    return grow_tree(task, classes, minimum, run, depth)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_layer_has_half_the_boxes(depth: int) -> None:
    run = _Chains(0.1)
    layers = _grow(_task(), 4, 10, run, depth)
    assert [len(layer.boxes) for layer in layers] == [2**level for level in range(depth, 0, -1)]
    assert [len(layer.comparisons) for layer in layers] == [2**level for level in range(depth - 1, -1, -1)]
    assert [layer.number for layer in layers] == list(range(depth))
    # All boxes of a layer run at once.
    assert [len(plans) for plans in run.asked] == [len(layer.boxes) for layer in layers]
    for layer, plans in zip(layers, run.asked, strict=True):
        assert [box.plan for box in layer.boxes] == plans
        assert [(plan.layer, plan.number) for plan in plans] == [(layer.number, i) for i in range(len(plans))]
        assert all((plan.start is None) == (layer.number == 0) for plan in plans)
    labels = result_of(layers)
    # What both boxes of the last comparison have stable: few of the members, nearly all right.
    found = labels >= 0
    assert labels.max() == 3
    assert (labels == _TRUTH)[found].mean() > 0.97


def test_boxes_compare_their_chains_and_layers_their_boxes() -> None:
    layers = _grow(_task(), 4, 10, _Chains(0.2))
    for layer in layers:
        for box in layer.boxes:
            again = compare(*box.chains.labels, 10, 0)
            np.testing.assert_array_equal(box.comparison.labels, again.labels)
            np.testing.assert_array_equal(box.comparison.overlap, again.overlap)
        for index, comparison in enumerate(layer.comparisons):
            stable = [layer.boxes[2 * index + which].comparison.labels for which in (0, 1)]
            np.testing.assert_array_equal(comparison.labels, compare(stable[0], stable[1], 10, 0).labels)
            # Only what both boxes call stable is left.
            kept = comparison.labels >= 0
            assert (stable[0][kept] >= 0).all()
            assert (stable[1][kept] >= 0).all()


def test_later_boxes_start_from_the_accepted_groups_without_some_members() -> None:
    layers = _grow(_task(), 4, 10, _Chains(0.05), 3)
    dropped = []
    for before, layer in pairwise(layers):
        for box, comparison in zip(layer.boxes, before.comparisons, strict=True):
            assert box.plan.classes == int(comparison.accepted.sum())
            assert box.plan.start is not None
            for start in box.plan.start:
                stays = start >= 0
                np.testing.assert_array_equal(start[stays], comparison.labels[stays])
                dropped.append((comparison.labels >= 0) & ~stays)
    shares = [gone.mean() for gone in dropped]
    assert min(shares) > 0
    assert max(shares) < 0.2
    # Every start drops members of its own.
    for index, gone in enumerate(dropped):
        assert not any((gone == other).all() for other in dropped[:index])


def test_boxes_learn_from_disjoint_halves_of_their_own() -> None:
    layers = _grow(_task(), 4, 10, _Chains(0.05), 2)
    plans = [box.plan for layer in layers for box in layer.boxes]
    for plan in plans:
        first, second = plan.learns
        np.testing.assert_array_equal(first, ~second)
        assert first.sum() == _COUNT / 2
    for index, plan in enumerate(plans):
        for other in plans[:index]:
            # Splits of different boxes are independent of each other.
            assert abs((plan.learns[0] == other.learns[0]).mean() - 0.5) < 0.13
    # The plan of a box does not depend on what was run before it.
    np.testing.assert_array_equal(plan_box(_task(), 1, 0, 9).learns[0], plans[4].learns[0])
    assert (plan_box(_task(generation=1), 1, 0, 9).learns[0] != plans[4].learns[0]).any()
    assert (plan_box(_task(seed=5), 1, 0, 9).learns[0] != plans[4].learns[0]).any()


def test_independence_by_starts_learns_from_everything() -> None:
    layers = _grow(_task(independence="starts"), 4, 10, _Chains(0.05))
    assert len(layers) == 2
    for layer in layers:
        for box in layer.boxes:
            assert all(learns.all() and len(learns) == _COUNT for learns in box.plan.learns)


def test_the_survivors_of_a_layer_are_the_classes_of_the_next() -> None:
    # The smallest group is below the minimum and is not asked for again.
    run = _Chains(0.05)
    layers = _grow(_task(), 4, 45, run)
    assert [plan.classes for plan in run.asked[0]] == [4] * 4
    assert [plan.classes for plan in run.asked[1]] == [3] * 2
    labels = result_of(layers)
    assert labels.max() == 2
    assert (labels[_TRUTH == 3] >= 0).mean() < 0.1


@pytest.mark.parametrize("groups", [0, 1])
def test_the_tree_stops_where_a_layer_finds_one_group_or_none(groups: int) -> None:
    truth = np.where(_TRUTH == 0, 0, -1) if groups else np.full(_COUNT, -1)
    run = _Chains(0.0, truth)
    layers = _grow(_task(), 2, 10, run, 3)
    assert len(run.asked) == len(layers) == 1
    np.testing.assert_array_equal(result_of(layers), truth)


def test_one_comparison_without_groups_is_enough_to_stop() -> None:
    run = _Chains(0.05, blind=lambda plan: plan.number == 3)
    layers = _grow(_task(), 4, 10, run, 2)
    assert len(run.asked) == 1
    # The other comparison accounts for most particles.
    np.testing.assert_array_equal(result_of(layers), layers[0].comparisons[0].labels)
    assert (result_of(layers) >= 0).mean() > 0.7


def test_the_result_is_the_comparison_that_accounts_for_most() -> None:
    def made(labels: np.ndarray) -> Comparison:
        return compare(labels, labels, 1, 0)

    few, many = np.where(np.arange(60) < 20, 0, -1), np.where(np.arange(60) < 50, np.arange(60) // 25, -1)
    layers = [Layer(0, [], [made(many)]), Layer(1, [], [made(few), made(many)])]
    np.testing.assert_array_equal(result_of(layers), many)
    np.testing.assert_array_equal(result_of([Layer(0, [], [made(few), made(-np.ones(60, int))])]), few)


def test_a_later_generation_sorts_what_is_left() -> None:
    known = np.where(_TRUTH == 0, 0, -1)
    left = _TRUTH[known < 0] - 1
    run = _Chains(0.05, left)
    layers = _grow(_task(known, generation=1), 3, 10, run)
    labels = result_of(layers)
    assert labels.shape == (240,)
    assert (labels == left)[labels >= 0].mean() > 0.97
    for plan in run.asked[1]:
        # Starts are of the particles that are sorted, halves of all.
        assert plan.start is not None
        assert [len(start) for start in plan.start] == [240, 240]
        assert [len(learns) for learns in plan.learns] == [_COUNT, _COUNT]
