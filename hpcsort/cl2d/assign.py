"""One pass over the particles: every particle compared with every class, and given the best class and pose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hpcsort.cl2d.criterion import Criterion, Pictures
from hpcsort.cl2d.options import Cl2dOptions
from hpcsort.cl2d.state import State, ring_weights
from hpcsort.cl2d.stock import Stock
from hpcsort.planar import PlanarPoses, Searcher, align_spectra, refine_poses

__all__ = ["Assigner"]

_CANDIDATES = {"correlation": 2, "correntropy": 3}
"""Classes that the correlation on the search grid proposes for each particle, and whose poses are refined."""
_STEPS = 2
"""Newton steps in the refinement of a pose."""

Samples = npt.NDArray[np.complex64]


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Best class of the particles of a chunk, and their scores with all classes (NaN where not known)."""

    labels: npt.NDArray[np.int64]
    poses: PlanarPoses
    scores: npt.NDArray[np.float32]
    table: npt.NDArray[np.float32]


class Assigner:
    """Compares all particles with the classes of a state.

    Parameters
    ----------
    stock : particles.
    options : what the user asks.
    """

    def __init__(self, stock: Stock, options: Cl2dOptions) -> None:
        self._stock, self._options = stock, options
        self._pictures = Pictures(stock.grid) if options.comparison == "correntropy" else None
        self._sigma = _kernel_width(stock, self._pictures) if self._pictures is not None else 1.0

    def assign(self, state: State, criterion: Criterion) -> State:
        """Return new labels, poses and scores with the old means. Collective.

        A particle is compared with its own class as it would be without it; otherwise every particle would prefer the
        class, and the pose, that it is in already.

        Parameters
        ----------
        state : labels, poses and means of the pass before.
        criterion : weighs scores; with robust clustering it learns from this pass for the next.
        """
        stock, options = self._stock, self._options
        one = _Pass(stock, options, state)
        chosen = [
            self._chosen(one, rows, samples, criterion)
            for rows, samples in zip(stock.rows(), stock.samples, strict=True)
        ]
        if options.clustering == "robust":
            tables, labels = [part.table for part in chosen], [part.labels for part in chosen]
            criterion.learn(stock.comm, tables, labels, state.classes)
        return replace(
            state,
            labels=stock.gather([part.labels for part in chosen], np.int64),
            poses=PlanarPoses(
                stock.gather([part.poses.psi_deg for part in chosen], np.float64),
                stock.gather([part.poses.shift_px for part in chosen], np.float64, (2,)),
                stock.gather([part.poses.mirror for part in chosen], np.bool_),
            ),
            scores=stock.gather([part.scores for part in chosen], np.float32),
        )

    def _chosen(self, one: _Pass, rows: slice, samples: Samples, criterion: Criterion) -> _Chosen:
        grid, aligns = self._stock.grid, self._options.align
        found = one.searcher.compare(grid.spectra(samples))
        count = min(_CANDIDATES[self._options.comparison], one.state.classes)
        top = np.argsort(-found.score, axis=1, kind="stable")[:, :count]
        image, target = np.repeat(np.arange(len(samples)), count), top.ravel()
        given, compared = samples[image], one.references(rows, samples, image, target)
        poses, score = refine_poses(
            grid,
            given,
            compared * one.weights[target],
            one.searcher.poses(found, image, target),
            self._stock.max_shift_px,
            steps=_STEPS if aligns else 0,
        )
        table = found.score
        if self._pictures is not None:
            aligned = grid.from_spectra(align_spectra(grid, given, poses))
            drawn, reference = self._pictures.draw(aligned), self._pictures.draw(compared)
            score = self._pictures.correntropy(drawn, reference, self._sigma)
            table = np.full_like(table, np.nan)
        np.put_along_axis(table, top, score.reshape(top.shape), axis=1)
        best = criterion.values(score.reshape(top.shape), top).argmax(axis=1)
        pair = np.arange(len(samples)) * count + best
        return _Chosen(target[pair], poses.rows(pair), score[pair], table)


class _Pass:
    """What one pass compares the particles with."""

    def __init__(self, stock: Stock, options: Cl2dOptions, state: State) -> None:
        self.state, self._grid = state, stock.grid
        self._means = stock.grid.from_spectra(state.means)
        self._sizes = state.sizes
        self.weights = ring_weights(stock, state)[:, :, None]
        self.searcher = Searcher(
            stock.grid, self._means * self.weights, stock.max_shift_px, mirror=options.mirror, rotate=options.align
        )

    def references(
        self, rows: slice, samples: Samples, image: npt.NDArray[np.integer], target: npt.NDArray[np.integer]
    ) -> Samples:
        """Means of the classes `target`, each without the particle `image` of the chunk if it is a member.

        The mean of a class without its only particle is zero.
        """
        means = self._means[target]
        labels, poses = self.state.labels[rows], self.state.poses.rows(rows)
        own = np.flatnonzero(target == labels[image])
        itself = align_spectra(self._grid, samples[image[own]], poses.rows(image[own]))
        size = self._sizes[target[own]].astype(np.float32)[:, None, None]
        without = (means[own] * size - self._grid.from_spectra(itself)) / np.maximum(size - 1, 1)
        means[own] = np.where(size > 1, without, 0)
        return np.asarray(means)


def _kernel_width(stock: Stock, pictures: Pictures) -> float:
    """Square root of 2 times the mean standard deviation of the particles' pictures. Collective."""
    spread = stock.gather([pictures.draw(samples).std(axis=1) for samples in stock.samples], np.float32)
    return float(np.sqrt(2.0) * max(spread.mean(dtype=np.float64), 1e-12))
