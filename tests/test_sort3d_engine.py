"""The default engine's layers: true states, known groups, start partitions, and probabilities that are honest."""

from __future__ import annotations

import numpy as np
import pytest
from sort3d_cases import SIZE, blobs, on_ranks, small_task, two_states

from hpcsort.parallel import Communicator
from hpcsort.sort3d.engine import finish_survey, learn_layer, rerun_layer, weigh_groups
from hpcsort.sort3d.records import BoxChains
from hpcsort.sort3d.statistics import JUNK_KINDS
from hpcsort.sort3d.survey import survey
from hpcsort.sort3d.task import Task
from hpcsort.sort3d.tree import plan_box

_CONSENSUS = blobs(SIZE, 9)
_COUNT = 500
_STRENGTH = 1.6


def _task(comm: Communicator | None = None, strength: float = _STRENGTH, **more: object) -> tuple[Task, np.ndarray]:
    data, state = two_states(_COUNT, strength)
    return small_task(data, _CONSENSUS, comm, **more), state  # type: ignore[arg-type]


def _right(labels: np.ndarray, state: np.ndarray) -> float:
    """Share of particles in the right class, whatever it is called."""
    share = float((labels == state).mean())
    return max(share, float((labels == 1 - state).mean()))


def _bits(boxes: list[BoxChains]) -> list[bytes]:
    return [part.tobytes() for box in boxes for part in (*box.labels, *box.joints)]


def test_finished_chains_find_the_states_and_judge_the_number() -> None:
    task, state = _task()
    found = survey(task, [1, 2])
    held = {}
    for number in (1, 2):
        chains, held[number] = finish_survey(task, found, number)
        assert held[number].shape == (_COUNT,)
        assert [joint.shape for joint in chains.joints] == [(_COUNT, number + JUNK_KINDS)] * 2
    for labels in chains.labels:
        assert _right(labels, state) > 0.9
    assert held[2].mean() > held[1].mean() + 0.1


def test_boxes_find_the_states_from_nothing_and_from_partitions() -> None:
    task, state = _task()
    found = survey(task, [1, 2])
    plans = [plan_box(task, 0, number, 2) for number in (1, 2)]
    boxes = learn_layer(task, plans, found)
    assert learn_layer(task, [], found) == []
    drop = np.random.default_rng(0).random(_COUNT) < 0.1
    starts = np.where(drop, -1, state), np.where(drop, -1, 1 - state)
    again = rerun_layer(task, [plan_box(task, 1, 0, 2, starts)], found)
    for box in boxes + again:
        for labels, joint in zip(box.labels, box.joints, strict=True):
            assert _right(labels, state) > 0.9
            assert joint.shape == (_COUNT, 2 + JUNK_KINDS)
            assert (joint.argmax(axis=1) == labels).mean() > 0.95
    # Classes of a start partition keep their names.
    assert [(labels == state).mean() > 0.9 for labels in again[0].labels] == [True, False]


def test_known_groups_stand_beside_the_new_class() -> None:
    # The first state is known but for some of its particles.
    _, state = _task()
    lost = np.random.default_rng(1).random(_COUNT) < 0.2
    task, _ = _task(known=np.where((state == 0) & ~lost, 0, -1), components=1)
    found = survey(task, [0, 1])
    active = np.flatnonzero(task.active)
    boxes = learn_layer(task, [plan_box(task, 0, 0, 1)], found)
    boxes += rerun_layer(task, [plan_box(task, 1, 0, 1, (np.zeros(len(active), int),) * 2)], found)
    for box in boxes:
        for labels, joint in zip(box.labels, box.joints, strict=True):
            assert joint.shape == (len(active), 1 + 1 + JUNK_KINDS)
            # Particles of the known state do not go into the new class.
            assert (labels == np.where(state[active] == 0, -1, 0)).mean() > 0.9


def test_the_minimum_group_size_holds() -> None:
    task, _ = _task(strength=0.0, floors=(0.25,))
    found = survey(task, [1, 3])
    (box,) = learn_layer(task, [plan_box(task, 0, 1, 3)], found)
    for labels in box.labels:
        assert np.bincount(labels[labels >= 0], minlength=3).min() >= 0.25 * _COUNT - 1


def test_settings_of_the_layer_have_the_same_bits_on_any_ranks() -> None:
    def work(comm: Communicator) -> list[bytes]:
        task, state = _task(comm)
        found = survey(task, [2])
        boxes = [finish_survey(task, found, 2)[0], *learn_layer(task, [plan_box(task, 0, 1, 2)], found)]
        boxes += rerun_layer(task, [plan_box(task, 1, 0, 2, (state, state))], found)
        return [*_bits(boxes), weigh_groups(task, state, found.spread).tobytes()]

    (alone,) = on_ranks(1, work)
    for told in on_ranks(3, work):
        assert told == alone


def test_boxes_of_a_layer_do_not_depend_on_each_other() -> None:
    task, state = _task()
    found = survey(task, [2])
    plans = [plan_box(task, 1, number, 2, (state, np.where(state == 0, -1, state))) for number in (0, 1)]
    together = rerun_layer(task, plans, found)
    for plan, box in zip(plans, together, strict=True):
        assert _bits(rerun_layer(task, [plan], found)) == _bits([box])
    assert _bits(together[:1]) != _bits(together[1:])


# Probabilities


@pytest.mark.parametrize("strength", [0.7, 1.6])
def test_probabilities_are_honest(strength: float) -> None:
    task, state = _task(strength=strength)
    labels = np.where(np.random.default_rng(2).random(_COUNT) < 0.15, -1, state)
    share = weigh_groups(task, labels, task.problem.narrow.start().spread)
    assert share.shape == (_COUNT, 2 + JUNK_KINDS)
    np.testing.assert_allclose(share.sum(axis=1), 1.0)
    right = share[:, :2].argmax(axis=1) == state
    sure = share[:, :2].max(axis=1)
    assert right.mean() == pytest.approx(sure.mean(), abs=0.07)
    # Those that were left out of the groups are weighed as well.
    left = labels < 0
    assert right[left].mean() == pytest.approx(sure[left].mean(), abs=0.15)
    assert share[:, 2:].max() < 0.2


def test_columns_are_named_as_the_groups() -> None:
    task, state = _task()
    spread = task.problem.narrow.start().spread
    first, other = (weigh_groups(task, labels, spread) for labels in (state, 1 - state))
    np.testing.assert_allclose(other[:, [1, 0, 2, 3]], first, atol=1e-3)
