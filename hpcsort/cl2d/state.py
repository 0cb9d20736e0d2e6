"""What is known of all particles between two iterations; every rank holds all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hpcsort.cl2d.stock import Stock
from hpcsort.parallel import ExactSum
from hpcsort.planar import PlanarPoses, PolarGrid, align_spectra

__all__ = ["State", "aligned_features", "centred", "class_sums", "ring_weights", "with_means"]

Floats = npt.NDArray[np.float32]

_LEAST_WEIGHT = 0.01
"""Of a ring without signal; were all rings 0, a class could never win a particle again."""


@dataclass(frozen=True, eq=False)
class State:
    """N particles in Q classes.

    Attributes
    ----------
    labels : int64 (N,), class from 0; -1 where none is known yet.
    poses : of the N particles in the frame of their class.
    scores : float32 (N,), similarity to the class; 0 before the first comparison.
    means : complex64 (Q, R, M + 1), mean spectrum of each class; zeros for an empty class.
    """

    labels: npt.NDArray[np.int64]
    poses: PlanarPoses
    scores: Floats
    means: npt.NDArray[np.complex64]

    @property
    def classes(self) -> int:
        """Q."""
        return len(self.means)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Particles of each class, int64 (Q,)."""
        return np.bincount(self.labels + 1, minlength=self.classes + 1)[1:]


def aligned_features(grid: PolarGrid, samples: npt.NDArray[np.complex64], poses: PlanarPoses) -> Floats:
    """Spectra of images in the frame of their class as real vectors, float32 (n, F)."""
    spectra = align_spectra(grid, samples, poses)
    return spectra.reshape(len(spectra), -1).view(np.float32)


def class_sums(stock: Stock, groups: npt.NDArray[np.int64], count: int, poses: PlanarPoses) -> npt.NDArray[np.float64]:
    """Sum of the aligned features of each group, float64 (count, F); particles of group -1 are left out. Collective."""
    size = 2 * int(np.prod(stock.grid.shape))
    total = ExactSum((count, size), float(np.sum(stock.norms, dtype=np.float64)) * 1.01 + 1e-30)
    for rows, samples in zip(stock.rows(), stock.samples, strict=True):
        features = aligned_features(stock.grid, samples, poses.rows(rows))
        total.add(_one_hot(groups[rows], count) @ features)
    return total.join(stock.comm)


def with_means(stock: Stock, state: State, classes: int) -> State:
    """State with the means that follow from its labels and poses. Collective."""
    sums = class_sums(stock, state.labels, classes, state.poses)
    sizes = np.bincount(state.labels + 1, minlength=classes + 1)[1:]
    means = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    return replace(state, means=means.view(np.complex64).reshape(classes, *stock.grid.shape))


def centred(state: State) -> State:
    """State in which the centres of the particles of each class have the centre of the class as their mean.

    Without this, classes would drift: the frame of a class is free.
    """
    offsets = state.poses.offsets_px
    sizes = np.maximum(state.sizes, 1)
    mean = np.stack([np.bincount(state.labels, offsets[:, axis], state.classes) / sizes for axis in (0, 1)], axis=1)
    count = len(state.labels)
    back = PlanarPoses(np.zeros(count), -mean[state.labels], np.zeros(count, bool))
    return replace(state, poses=state.poses.then(back))


def ring_weights(stock: Stock, state: State) -> Floats:
    """How far each ring of each mean is signal, float32 (Q, R), 0 to 1, by which references are multiplied.

    The noise of a particle on a ring is what its class mean leaves; that of the mean is smaller by the size of the
    class. A mean of few particles is so compared by its low frequencies only, and with the right weights.
    """
    sizes = state.sizes
    power = np.square(np.linalg.norm(state.means, axis=2)).astype(np.float64)
    left = stock.ring_power - sizes @ power
    noise = np.maximum(left, 0.0) / max(stock.count - np.count_nonzero(sizes), 1)
    signal = power - noise / np.maximum(sizes, 1)[:, None]
    weights = np.clip(signal / np.maximum(power, 1e-30), _LEAST_WEIGHT, 1.0)
    # references that were given are all signal
    weights[sizes == 0] = 1.0
    return weights.astype(np.float32)


def _one_hot(groups: npt.NDArray[np.int64], count: int) -> Floats:
    """Matrix (count, n) with a one where a particle belongs to a group."""
    hot = np.zeros((count, len(groups)), np.float32)
    inside = np.flatnonzero(groups >= 0)
    hot[groups[inside], inside] = 1.0
    return hot
