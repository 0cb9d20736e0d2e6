"""What the depth tree plans, runs and remembers: boxes, comparisons, layers, generations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Box", "BoxChains", "BoxPlan", "Comparison", "Generation", "Layer"]


@dataclass(frozen=True)
class BoxPlan:
    """A pair of independent chains that is to be run.

    Attributes
    ----------
    layer, number : place in the tree; layer 0 has 2^depth_order boxes.
    learns : two bool (n,) arrays, the particles (in sort order) from which either chain makes its maps: disjoint
        halves of the active ones, or all of them twice (`--independence`).
    classes : number of new classes.
    start : two int (n_active,) start partitions, -1 for a particle without a class; None in layer 0.
    """

    layer: int
    number: int
    learns: tuple[np.ndarray, np.ndarray]
    classes: int
    start: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def key(self) -> str:
        """Key of the box's random streams within its generation."""
        return f"layer {self.layer} box {self.number}"


@dataclass(frozen=True)
class BoxChains:
    """What the two chains of a box say about every active particle.

    Attributes
    ----------
    labels : two int64 (n_active,), new class from 0; -1 where a known group wins or the particle is junk.
    joints : two float64 (n_active, groups + classes + 2), log of share times likelihood ratio; known groups come
        first, the kinds of junk last.
    changes : share by which either chain's own particles have changed classes, one number an iteration.
    """

    labels: tuple[np.ndarray, np.ndarray]
    joints: tuple[np.ndarray, np.ndarray]
    changes: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())


@dataclass(frozen=True)
class Comparison:
    """Two-way comparison of two partitions of the active particles; one row a matched pair of groups.

    Attributes
    ----------
    sizes : int64 (M, 2), particles in either group.
    overlap : int64 (M,), in both.
    jaccard, chance_mean, chance_std, p : float64 (M,), overlap / union, and what random partitions of these sizes give.
    accepted : bool (M,).
    reasons : why a pair is rejected, "" where it is accepted.
    labels : int64 (n_active,), accepted pair by falling overlap, -1 for none.
    rand, ari : Rand index and adjusted Rand index of the two partitions.
    """

    sizes: np.ndarray
    overlap: np.ndarray
    jaccard: np.ndarray
    chance_mean: np.ndarray
    chance_std: np.ndarray
    p: np.ndarray
    accepted: np.ndarray
    reasons: list[str]
    labels: np.ndarray
    rand: float
    ari: float


@dataclass(frozen=True)
class Box:
    """A box that has been run.

    Attributes
    ----------
    plan, chains : what was asked and what came out.
    comparison : of its two chains; its labels are the stable sets.
    """

    plan: BoxPlan
    chains: BoxChains
    comparison: Comparison


@dataclass(frozen=True)
class Layer:
    """One layer of the tree: boxes, and the comparison of box 0 with 1, 2 with 3, ..."""

    number: int
    boxes: list[Box]
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Generation:
    """Result of one generation.

    Attributes
    ----------
    number : from 0.
    active : int64 (n_active,), positions (in sort order) of the particles that it sorts.
    minimum : minimum group size, from the highest to the lowest that held.
    classes : number of new classes that was chosen.
    held, finished : number of classes -> mean held-out log-likelihood ratio a particle, before and after the finishing
        in map space.
    layers : empty where one class won and there was nothing to compare.
    labels : int64 (n_active,), group from 0 by falling size, -1 unaccounted.
    """

    number: int
    active: np.ndarray
    minimum: list[int]
    classes: int
    held: dict[int, float]
    finished: dict[int, float]
    layers: list[Layer] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
