"""The levels of a classification: iterations in a level, and from one level to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcsort.checkpoints import Journal
from hpcsort.cl2d.assign import Assigner
from hpcsort.cl2d.criterion import Criterion
from hpcsort.cl2d.options import Cl2dOptions
from hpcsort.cl2d.splitting import grow, repair
from hpcsort.cl2d.state import State, centred, with_means
from hpcsort.cl2d.stock import Stock, normalised
from hpcsort.parallel import stream
from hpcsort.planar import PlanarPoses

__all__ = ["Level", "class_counts", "first_state", "run_level"]

_FEW_CHANGES = 0.005


@dataclass(frozen=True, eq=False)
class Level:
    """A finished level.

    Attributes
    ----------
    number : from 0.
    state : labels, poses and means that belong together.
    history : for each iteration the mean score, the share of particles that changed, and the classes dissolved.
    """

    number: int
    state: State
    history: list[dict[str, float]]


def class_counts(first: int, last: int) -> list[int]:
    """Classes of each level: doubling from `first` to `last`."""
    counts = [first]
    while counts[-1] < last:
        counts.append(min(2 * counts[-1], last))
    return counts


def first_state(stock: Stock, options: Cl2dOptions, references: npt.NDArray[np.float32] | None) -> State:
    """Classes to start from: the references given, or the unaligned means of random parts. Collective."""
    count = stock.count
    empty = np.zeros((0, *stock.grid.shape), np.complex64)
    start = State(np.full(count, -1), PlanarPoses.identity(count), np.zeros(count, np.float32), empty)
    if references is not None:
        images = normalised(references, options.mask_radius(stock.grid.box_px))
        return replace(start, means=stock.grid.spectra(stock.grid.samples(images)))
    order = stream(options.seed, "first classes").permutation(count)
    labels = np.empty(count, np.int64)
    labels[order] = np.arange(count) % options.initial_classes
    return with_means(stock, replace(start, labels=labels), options.initial_classes)


def run_level(
    stock: Stock, options: Cl2dOptions, number: int, state: State, tell: Callable[[str], None], journal: Journal
) -> Level:
    """Iterate until fewer than 0.5 % of the particles change, or as often as asked. Collective.

    Parameters
    ----------
    stock, options : particles and what the user asks.
    number : of the level.
    state : classes to start from.
    tell : gets a sentence after each iteration.
    journal : keeps the state after each iteration.
    """
    assigner, criterion = Assigner(stock, options), Criterion()
    classes = state.classes
    history: list[dict[str, float]] = []
    kept = journal.saved("iterations")
    if kept is not None:
        state, criterion.learned, history = kept
    for iteration in range(len(history) + 1, options.iterations + 1):
        last = iteration == options.iterations
        before, state = state, assigner.assign(state, criterion)
        changed = float(np.mean(state.labels != before.labels))
        if options.align:
            state = centred(state)
        state = with_means(stock, state, classes)
        settled = iteration > 1 and changed < _FEW_CHANGES
        dissolved = 0
        if not (last or settled):
            state, dissolved = repair(stock, state, options)
        history.append({"score": float(state.scores.mean()), "changed": changed, "dissolved": dissolved})
        tell(
            f"Level {number}, {classes} class{'' if classes == 1 else 'es'}, iteration {iteration}: mean score"
            f" {history[-1]['score']:.4f}, {100 * changed:.1f} % changed"
            + (f", {dissolved} too small and replaced." if dissolved else ".")
        )
        if settled:
            break
        journal.keep("iterations", partial(_to_keep, state, criterion, history))
    return Level(number, _by_size(grow(stock, state, classes, options.seed)), history)


def _to_keep(state: State, criterion: Criterion, history: list[dict[str, float]]) -> tuple[Any, ...]:
    return state, criterion.learned, history


def _by_size(state: State) -> State:
    """Return the same classes, the largest first."""
    order = np.argsort(-state.sizes, kind="stable")
    return replace(state, labels=np.argsort(order)[state.labels], means=state.means[order])
