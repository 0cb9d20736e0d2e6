"""Splitting classes in two, and dissolving classes that have become too small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hpcsort.cl2d.axes import principal_axes, projections
from hpcsort.cl2d.options import Cl2dOptions
from hpcsort.cl2d.state import State, aligned_features, class_sums, with_means
from hpcsort.cl2d.stock import Stock

__all__ = ["grow", "repair"]

_LEAST_SHARE = 0.1
"""A half smaller than this share of the class is not accepted; the class is then cut at the median."""
_ROUNDS = 5
_SMALL_BY_LARGEST = 0.25


def grow(stock: Stock, state: State, classes: int, seed: int) -> State:
    """Split the largest classes until there are `classes` classes, none of them empty. Collective.

    Halves stay in the frame of the class they come from. There must be as many particles as classes.
    """
    state = _without_empty(state)
    while state.classes < classes:
        sizes = state.sizes
        order = np.argsort(-sizes, kind="stable")[: classes - state.classes]
        # a class smaller than the halves of the largest has to wait until those exist
        chosen = np.sort(order[sizes[order] * 2 >= sizes.max()])
        state = _split(stock, state, chosen, seed)
    return with_means(stock, state, classes)


def repair(stock: Stock, state: State, options: Cl2dOptions) -> tuple[State, int]:
    """Dissolve classes that are too small and split the largest instead. Collective.

    A class is too small if it is empty, or below both the asked share of the mean size and a quarter of the largest
    class, as long as there remain particles for all classes. Its particles have no class until the next pass.

    Returns
    -------
    state : with as many classes as before, none of them empty.
    count : classes that were dissolved.
    """
    sizes = state.sizes
    least = options.min_size_percent / 100.0 * len(state.labels) / state.classes
    small = (sizes == 0) | ((sizes < least) & (sizes < _SMALL_BY_LARGEST * sizes.max()))
    if sizes[~small].sum() < state.classes:
        small = sizes == 0
    if not small.any():
        return state, 0
    labels = np.where(np.append(small, False)[state.labels], -1, state.labels)
    freed = with_means(stock, replace(state, labels=labels), state.classes)
    return grow(stock, freed, state.classes, options.seed), int(small.sum())


def _split(stock: Stock, state: State, chosen: npt.NDArray[np.int64], seed: int) -> State:
    """Split the chosen classes; the second halves become new classes at the end."""
    axes = principal_axes(stock, state, chosen, 1, seed)
    along = projections(stock, state, chosen, axes)[0][:, 0]
    place = np.full(state.classes + 1, -1)
    place[chosen] = np.arange(len(chosen))
    group = place[state.labels]
    side = _two_means(stock, state, group, along > 0, len(chosen))
    for number in range(len(chosen)):
        members = np.flatnonzero(group == number)
        upper = int(side[members].sum())
        if min(upper, len(members) - upper) < max(_LEAST_SHARE * len(members), 1):
            ranks = np.argsort(np.argsort(along[members], kind="stable"), kind="stable")
            side[members] = ranks >= len(members) // 2
    labels = np.where((group >= 0) & side, state.classes + group, state.labels)
    return with_means(stock, replace(state, labels=labels), state.classes + len(chosen))


def _two_means(
    stock: Stock, state: State, group: npt.NDArray[np.int64], side: npt.NDArray[np.bool_], count: int
) -> npt.NDArray[np.bool_]:
    """2-means in the frame of each class, started from `side`.

    A particle is left out of the mean it is compared with; otherwise it would prefer the half it is in.
    """
    for _ in range(_ROUNDS):
        halves = np.where(group >= 0, 2 * group + side, -1)
        sums = class_sums(stock, halves, 2 * count, state.poses)
        sizes = np.bincount(halves[halves >= 0], minlength=2 * count)
        means = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
        parts = []
        for rows, samples in zip(stock.rows(), stock.samples, strict=True):
            inside = np.flatnonzero(group[rows] >= 0)
            features = aligned_features(stock.grid, samples[inside], state.poses.rows(rows).rows(inside))
            distance = []
            for half in (0, 1):
                number = 2 * group[rows][inside] + half
                squared = np.square(features - means[number]).sum(axis=1)
                distance.append(squared * _left_out(sizes[number], side[rows][inside] == half))
            new = np.zeros(len(samples), bool)
            new[inside] = distance[1] < distance[0]
            parts.append(new)
        changed = stock.gather(parts, np.bool_)
        if (changed == side).all():
            break
        side = changed
    return side


def _left_out(sizes: npt.NDArray[np.int64], member: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Factor of a squared distance to a mean for which the particle itself is not counted."""
    factor = np.square(sizes / np.maximum(sizes - 1.0, 0.5))
    return np.where(member, factor, 1.0).astype(np.float32)


def _without_empty(state: State) -> State:
    """State whose empty classes are taken out of the list."""
    filled = state.sizes > 0
    number = np.append(np.cumsum(filled) - 1, -1)
    return replace(state, labels=number[state.labels], means=state.means[filled])
