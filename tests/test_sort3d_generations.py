"""Generations with engines that are made up: what is left is sorted again, until nothing or too little is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hpcsort.checkpoints import no_journal
from hpcsort.parallel import Progress, SerialComm, StoryLog
from hpcsort.sort3d import SortOptions, generations
from hpcsort.sort3d.generations import Sorting, sort_generations
from hpcsort.sort3d.records import BoxChains, BoxPlan
from hpcsort.sort3d.statistics import JUNK_KINDS

_SIZES = [300, 250, 200, 150]
_TRUTH = np.random.default_rng(1).permutation(np.repeat(np.arange(4), _SIZES))
_COUNT = len(_TRUTH)


class _Engine:
    """Sees as many of the true states in each generation as it is told, the others as nothing."""

    def __init__(self, seen: list[list[int]]) -> None:
        self.seen, self.tasks, self.weighed = seen, [], []  # type: ignore[var-annotated]

    def survey(self, task: Any, numbers: list[int], shares: tuple[float, ...], *more: object) -> Any:
        # The sort goes on writing into its labels.
        self.tasks.append(replace(task, known=task.known.copy()))
        held = {number: np.zeros(4) for number in numbers}
        return SimpleNamespace(held=held, share=shares[0], components=2, spread=np.full(7, 0.01), least=0.0)

    def choose(self, task: Any, surveyed: Any) -> Any:
        states = self.seen[task.generation]
        classes = min(surveyed.held) if not states else len(states)
        return SimpleNamespace(classes=classes, held={1: 0.0}, finished={1: 0.0}, first=self._box(task, classes, 0))

    def layer(self, task: Any, plans: list[BoxPlan], surveyed: Any) -> list[BoxChains]:
        return [self._box(task, plan.classes, 10 * plan.layer + plan.number) for plan in plans]

    def weigh(self, task: Any, labels: np.ndarray, spread: np.ndarray) -> np.ndarray:
        self.weighed.append(labels)
        columns = int(labels.max()) + 1 + JUNK_KINDS
        return np.full((_COUNT, columns), 1 / columns)

    def _box(self, task: Any, classes: int, seed: int) -> BoxChains:
        states = self.seen[task.generation]
        names = np.full(5, -1)
        names[states] = np.arange(len(states))
        own = names[_TRUTH[task.active]]
        joint = np.zeros((len(own), task.groups + max(classes, len(states)) + JUNK_KINDS))
        labels = []
        for chain in (0, 1):
            draw = np.random.default_rng([seed, chain])
            labels.append(np.where(draw.random(len(own)) < 0.002, -1, own))
        return BoxChains((labels[0], labels[1]), (joint, joint))


def _sort(
    engine: _Engine, monkeypatch: pytest.MonkeyPatch, *, empty: np.ndarray | None = None, **options: object
) -> tuple[Sorting, list[str]]:
    given = {"instack": Path("x.star"), "output_dir": Path("out"), "quiet": True} | options
    comm = SerialComm()
    problem = SimpleNamespace(
        journal=no_journal(),
        options=SortOptions(**given),  # type: ignore[arg-type]
        count=_COUNT,
        image=np.arange(_COUNT),
        comm=comm,
        empty=np.zeros(_COUNT) if empty is None else empty,
        consensus=SimpleNamespace(fsc=np.linspace(1, 0.1, 12), grid=SimpleNamespace(radius=10)),
    )
    for name, fake in (
        ("survey", engine.survey), ("choose_classes", engine.choose), ("learn_layer", engine.layer),
        ("rerun_layer", engine.layer), ("weigh_groups", engine.weigh),
        ("split_groups", lambda task, found, share, minimum, tell: found),
    ):  # fmt: skip
        monkeypatch.setattr(generations, name, fake)
    told: list[str] = []

    class Story(StoryLog):
        def __call__(self, text: str) -> None:
            told.append(text)

    with Progress("iteration", 10, comm, True) as progress:
        return sort_generations(problem, Story(None, comm, True), progress), told  # type: ignore[arg-type]


def test_what_is_left_is_sorted_again_beside_the_known_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine([[1, 0], [2, 3], []])
    state, told = _sort(engine, monkeypatch)
    assert state.origin == [0, 0, 1, 1]
    assert [generation.number for generation in state.generations] == [0, 1]
    # Groups by falling size within a generation, named on from those before.
    found = state.labels >= 0
    np.testing.assert_array_equal(state.labels[found], _TRUTH[found])
    assert found.mean() > 0.95
    first, second = engine.tasks
    assert first.groups == 0
    assert first.active.all()
    assert second.groups == 2
    np.testing.assert_array_equal(np.flatnonzero(second.active), state.generations[1].active)
    np.testing.assert_array_equal(second.known >= 0, (state.labels == 0) | (state.labels == 1))
    for figures in (state.reproducibility, state.chance_mean, state.chance_std, state.p):
        assert len(figures) == 4
    assert min(state.reproducibility) > 0.9
    assert max(state.p) < 0.01
    np.testing.assert_array_equal(engine.weighed[0], state.labels)
    assert state.probability.shape == (_COUNT, 4)
    np.testing.assert_allclose(state.junk, JUNK_KINDS / 6)
    assert state.agreeing[found].mean() > 0.9
    assert any("group 2" in text and "by chance" in text for text in told)


def test_nothing_more_ends_the_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine([[1, 0], []])
    state, told = _sort(engine, monkeypatch)
    assert state.origin == [0, 0]
    assert len(engine.tasks) == len(state.generations) == 2
    assert not state.generations[1].layers
    assert (state.labels[_TRUTH > 1] == -1).all()
    assert "Generation 1: nothing more is reproducible among" in told[-1]


def test_too_few_particles_end_the_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine([[0, 1, 2, 3]])
    # The tree keeps what all chains agree on; what one of them drops is left over, here little.
    state, told = _sort(engine, monkeypatch)
    left = int((state.labels < 0).sum())
    assert 0 < left < 0.05 * _COUNT
    assert told[-1] == f"{left} particles are unaccounted for, too few for another generation of groups."
    assert state.origin == [0] * 4


def test_images_without_a_particle_do_not_make_a_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine([[0, 1, 2]])
    state, told = _sort(engine, monkeypatch, empty=0.9 * (_TRUTH == 3))
    assert len(engine.tasks) == 1
    assert (state.labels[_TRUTH == 3] == -1).all()
    assert "too few for another generation" in told[-1]


def test_one_structure_is_one_group_on_which_all_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine([[]])
    empty = 0.9 * (np.arange(_COUNT) < 50)
    state, told = _sort(engine, monkeypatch, empty=empty)
    np.testing.assert_array_equal(state.labels, np.where(empty > 0.5, -1, 0))
    assert (state.origin, state.reproducibility, state.p) == ([0], [1.0], [1.0])
    np.testing.assert_array_equal(state.generations[0].labels, state.labels)
    np.testing.assert_allclose(state.probability[:, 0], 1 - empty)
    np.testing.assert_array_equal(state.junk, empty)
    assert "One group" in told[-1]
    assert engine.weighed == []


@pytest.mark.parametrize("options", [{"img_per_grp": 200}, {"img_per_grp": 200, "freeze_groups": False}, {}])
def test_the_most_classes_and_minimum_sizes_follow_the_options(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _Engine([[]])
    state, _ = _sort(engine, monkeypatch, max_groups=6, **options)
    (task,) = engine.tasks
    sizes = state.generations[0].minimum
    assert sizes == [round(floor * _COUNT) for floor in task.floors]
    assert sizes == sorted(sizes, reverse=True)
    assert (len(sizes) == 1) == (options == {"img_per_grp": 200})
    assert sizes[-1] >= 1
