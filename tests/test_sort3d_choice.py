"""The number of classes: proposed by the subspace, confirmed or refuted by maps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hpcsort.checkpoints import no_journal
from hpcsort.sort3d import choice
from hpcsort.sort3d.records import BoxChains

_COUNT = 2000


def _gains(means: dict[int, float], seed: int) -> dict[int, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {number: mean + 0.01 * draw.normal(size=_COUNT) for number, mean in means.items()}


def _chains(number: int) -> BoxChains:
    labels, joint = np.full(3, number), np.zeros((3, number + 2))
    return BoxChains((labels, labels), (joint, joint))


@pytest.mark.parametrize(
    ("before", "after", "number"),
    [
        # Both agree.
        ({1: 0.0, 2: 1.0, 3: 1.0}, {1: 0.0, 2: 1.2, 3: 1.2}, 2),
        # Maps refute one class after the other.
        ({1: 0.0, 2: 1.0, 3: 1.5, 4: 2.0}, {1: 0.0, 2: 1.2, 3: 1.2, 4: 1.2}, 2),
        ({1: 0.0, 2: 1.0}, {1: 0.0, 2: -0.1}, 1),
        # Maps see more than the subspace.
        ({1: 0.0, 2: 1.0, 3: 1.0, 4: 1.0}, {1: 0.0, 2: 1.2, 3: 1.5, 4: 1.8}, 4),
        # What was refuted is not tried again, and what was not surveyed not at all.
        ({1: 0.0, 2: 1.0, 3: 2.0}, {1: 0.0, 2: 1.2, 3: 1.0}, 2),
        # Known groups alone may be best.
        ({0: 0.5, 1: 0.5, 2: 0.5}, {0: 1.0, 1: 1.0}, 0),
    ],
)
def test_maps_confirm_or_refute_the_subspace(
    before: dict[int, float], after: dict[int, float], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, tried = _gains(after, 1), []

    def finish(task: object, found: object, classes: int) -> tuple[BoxChains, np.ndarray]:
        tried.append(classes)
        return _chains(classes), finished[classes]

    monkeypatch.setattr(choice, "finish_survey", finish)
    found = SimpleNamespace(held=_gains(before, 0), least=0.0)
    chosen = choice.choose_classes(SimpleNamespace(journal=no_journal()), found)  # type: ignore[arg-type]
    assert chosen.classes == number
    # The chains of that number are those of the tree's first box, and none is finished twice.
    np.testing.assert_array_equal(chosen.first.labels[0], number)
    assert sorted(set(tried)) == sorted(tried) == list(chosen.finished)
    assert chosen.held == pytest.approx(before, abs=0.01)
    assert chosen.finished == pytest.approx({classes: after[classes] for classes in tried}, abs=0.01)
