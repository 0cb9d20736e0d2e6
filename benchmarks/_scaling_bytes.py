"""What a sort sends, from the program's text: collective x calls x bytes of an iteration, and what crosses a network.

The tables below follow hpcsort/sort3d (learning.py, finish.py, statistics.py); tests/test_scaling_bytes.py holds them
against counted calls. Where the communication of the program changes, its lines change here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcsort.images import half_plane
from hpcsort.kernels import moment_record_length
from hpcsort.sort3d.coarse import coarse_radius, sorting_grid
from hpcsort.sort3d.engine import _SPARE
from hpcsort.sort3d.learning import _COARSE_SHARE
from hpcsort.sort3d.statistics import JUNK_KINDS
from hpcsort.sort3d.subspace import NUISANCES
from hpcsort.sort3d.survey import COMPONENTS, PRIOR_SHARES
from hpcsort.volumes import BandGrid

__all__ = [
    "Course",
    "Line",
    "expected_bytes",
    "final_maps",
    "finishing",
    "learning",
    "network_bytes",
    "phase_lines",
    "read_course",
    "statistics",
]

_SCALAR = 24
"""About what a pickled number takes; it is small beside everything else."""
_LEARNED, _FINISHED = 2, 3
"""Arrays that a chain shares in an iteration: maps and local weight; maps, ridge and local weight."""


@dataclass(frozen=True)
class Line:
    """One line of the table: ``size`` bytes of payload a call (of all ranks for allgather_rows, else of one)."""

    what: str
    collective: str
    calls: int
    size: int


def learning(chains: int, components: int, grid: BandGrid, iterations: int) -> list[Line]:
    """EM iterations of some subspaces in lock step, the first of them in a narrower band."""
    coarse = iterations // _COARSE_SHARE
    inner = sorting_grid(coarse_radius(grid.radius))
    return [
        Line("largest pixel and CTF of the narrower band", "max", 2 * (coarse > 0), _SCALAR),
        *_learning_in_band(chains * coarse, components, inner),
        *_learning_in_band(chains * (iterations - coarse), components, grid),
    ]


def _learning_in_band(steps: int, components: int, grid: BandGrid) -> list[Line]:
    """Lines of so many iterations of a chain."""
    voxels, latents = _voxels(grid), NUISANCES + components
    pairs = components * (components + 1) // 2 + NUISANCES * components
    record = moment_record_length(components, pairs)
    return [
        Line("largest latent", "max", steps, _SCALAR),
        Line("quanta of the sums", "allgather", steps, _SCALAR),
        Line("sums of the M step", "sum_exact", steps, 8 * voxels * record),
        Line("learned maps", "share", steps, 8 * components * voxels),
        Line("their local weight", "share", steps, 4 * grid.size**3),
        *_totals("second moments of the latents", steps, latents**2),
    ]


def statistics(chains: int, components: int, particles: int) -> list[Line]:
    """Quadratic likelihoods of all particles in every subspace, on every rank."""
    return [
        Line("linear terms", "allgather_rows", chains, 8 * components * particles),
        Line("precisions", "allgather_rows", chains, 8 * components**2 * particles),
    ]


def finishing(
    chains: int,
    classes: int,
    grid: BandGrid,
    particles: int,
    iterations: int,
    *,
    started: bool = False,
) -> list[Line]:
    """Finishing iterations in map space, with the first shares and the scores of all particles.

    ``started`` chains make maps of a start partition first.
    """
    voxels = _voxels(grid)
    estimates = chains * (iterations + started)
    return [
        Line("largest nuisance", "max", estimates, _SCALAR),
        Line("quanta of the sums", "allgather", estimates, _SCALAR),
        Line("sums of the classes", "sum_exact", estimates, 8 * 4 * classes * voxels),
        Line("factors and leverage of the maps", "bcast", estimates, 8 * (classes + 1)),
        Line("class maps", "share", estimates, 8 * classes * voxels),
        Line("their ridge", "share", estimates, 4 * classes * voxels),
        Line("their local weight", "share", estimates, 4 * grid.size**3),
        *_totals("factors of the maps", estimates, 2 * classes),
        *_totals("shares of the classes", chains * (iterations + 1), classes),
        *_totals("particles that move", chains * iterations, 1),
        Line("scores of all particles", "allgather_rows", chains, 8 * (classes + JUNK_KINDS) * particles),
    ]


def final_maps(slots: int, box_px: int) -> list[Line]:
    """Sum numerator and weight of the voxels inside the band, for each of ``slots`` halves of groups."""
    grid = BandGrid(box_px, box_px // 2 - 1, 2)
    return [Line("sums of the final maps", "sum_exact", slots, 24 * int(grid.support.sum()))]


def _totals(what: str, calls: int, words: int) -> list[Line]:
    """Lines of `exact_total`."""
    return [
        Line(f"largest of the {what}", "max", calls, _SCALAR),
        Line(f"quanta of the {what}", "allgather", calls, _SCALAR),
        Line(what, "sum_exact", calls, 8 * words),
    ]


@dataclass(frozen=True)
class Course:
    """What a finished sort decided to do.

    Attributes
    ----------
    particles, box_px : of the set.
    narrow, wide : grids of learning and finishing.
    depth : layer 0 has 2^depth boxes.
    asked : number of components that the user asked for, or None.
    components : that predict unseen particles, one entry a generation.
    chosen : number of new classes, one entry a generation.
    found : number of groups of each generation.
    """

    particles: int
    box_px: int
    narrow: BandGrid
    wide: BandGrid
    depth: int
    asked: int | None
    components: list[int]
    chosen: list[int]
    found: list[int]

    @property
    def pixels(self) -> int:
        """Fourier pixels of a particle while it is finished."""
        return len(half_plane(self.wide.radius)[0])

    def known(self, generation: int) -> int:
        """Count the groups of earlier generations."""
        return sum(self.found[:generation])


def read_course(folder: Path) -> Course:
    """Read from the story of a finished sort what it did."""
    text = (folder / "log.txt").read_text(encoding="utf-8")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    told = re.search(r": (\d+) particles of (\d+) px at ([\d.e+-]+) A", text)
    reach = re.search(r"learned to ([\d.]+) A and finished to ([\d.]+) A", text)
    assert told
    assert reach
    box, pixel_A = int(told[2]), float(told[3])
    narrow, wide = (sorting_grid(round(box * pixel_A / float(edge))) for edge in reach.groups())
    chosen = [one["chosen"] for one in run["held_out"]]
    found = [sum(group["generation"] == number for group in run["groups"]) for number in range(len(chosen))]
    components = [int(number) for number in re.findall(r"Differences have (\d+) component", text)]
    depth, asked = (run["options"][name] for name in ("depth_order", "components"))
    return Course(int(told[1]), box, narrow, wide, depth, asked, components, chosen, found)


def phase_lines(phase: str, shared: int, course: Course) -> list[Line]:
    """Return what the model expects in a phase of a sort, by its name in the program; nothing where that is small.

    The statistics of subspaces follow in the phase that learns them, and finishing a layer in that of its mixtures.
    Layers are finished until nothing moves, so iterations follow from the number of arrays ``shared`` in the phase.
    """
    steps = phase.split(", ")
    numbered = re.fullmatch(r"generation (\d+)", steps[0])
    generation = int(numbered[1]) if numbered else 0
    inside, last = any(step.startswith("within") for step in steps), steps[-1]
    depth = 1 if inside else course.depth
    known = sum(course.found) - 1 if inside else course.known(generation)
    boxes = 2 * (2**depth - 1)  # box 0 of layer 0 is the survey's
    lines: list[Line] = []
    if match := re.fullmatch(r"subspaces of (\d+) components.*", last):
        size = int(match[1])
        # All priors are tried once, with the first number of components.
        is_first = generation == 0 and not inside and size == (course.asked or COMPONENTS[0])
        chains = 2 * len(PRIOR_SHARES) if is_first else 2
        lines = learning(chains, size, course.narrow, shared // (_LEARNED * chains))
        lines += statistics(chains, size, course.particles)
    elif match := re.fullmatch(r"finishing (\d+) classes.*", last):
        lines = finishing(2, known + int(match[1]), course.wide, course.particles, shared // (_FINISHED * 2))
    elif steps[-2:] == ["layer 0", "subspaces"]:
        used = course.components[generation]
        lines = learning(boxes, course.asked or used + _SPARE, course.narrow, shared // (_LEARNED * boxes))
        lines += statistics(boxes, course.asked or used, course.particles)
    elif steps[-2:] == ["layer 0", "mixtures"]:
        classes = known + course.chosen[generation]
        iterations = shared // (_FINISHED * boxes)
        lines = finishing(boxes, classes, course.wide, course.particles, iterations)
    elif match := re.fullmatch(r"layer ([1-9])", last):
        chains, classes = 2 * 2 ** (depth - int(match[1])), known + course.chosen[generation]
        iterations = shared // (_FINISHED * chains) - 1
        lines = finishing(chains, classes, course.wide, course.particles, iterations, started=True)
    elif last == "final maps":
        lines = final_maps(2 * sum(course.found), course.box_px)
    elif last == "probabilities":
        iterations = shared // (_FINISHED * 3) - 1
        lines = finishing(3, sum(course.found), course.wide, course.particles, iterations, started=True)
    return lines


def network_bytes(collective: str, size: float, ranks: int, nodes: int) -> tuple[float, float]:
    """Bytes over the network, of all nodes together and one after the other through the busiest link.

    Parameters
    ----------
    collective : its name in `Communicator`.
    size : payload in bytes: of one rank for sum_exact, of the root for bcast, share and publish, of all ranks else.
    ranks, nodes : all of them; ranks of a node follow each other.

    Notes
    -----
    Sums run as reduce-scatter and allgather between the nodes' first ranks, broadcasts as scatter and allgather
    between nodes, the others as a ring through all ranks (Thakur, Rabenseifner & Gropp, IJHPCA 19, 49 (2005)). Rows
    for everybody are broadcast node by node; the few below 1 MiB, which take the ring, are not told apart.
    """
    if nodes == 1:
        return 0.0, 0.0
    others = nodes - 1
    if collective == "sum_exact":
        return 2.0 * others * size, 2.0 * others / nodes * size
    if collective in ("bcast", "share", "publish") or (collective == "allgather_rows" and ranks > nodes):
        return 1.0 * others * size, 2.0 * others / nodes * size
    if collective in ("gather", "gather_rows", "scatter"):
        return others / nodes * size, others / nodes * size
    ring = (ranks - 1) / ranks * size
    return nodes * ring, ring


def _voxels(grid: BandGrid) -> int:
    return int(np.prod(grid.fourier_shape))


def expected_bytes(calls: Iterable[Sequence[Any]], course: Course) -> dict[str, float]:
    """Payload of a sort by collective; bytes as in `Line`.

    ``calls`` are counted ones, (phase, collective, number, ...): they tell the phases, and how many arrays each shares.
    """
    shared: dict[str, int] = {}
    for phase, name, number, *_ in calls:
        shared[phase] = shared.get(phase, 0) + (int(number) if name == "share" else 0)
    total: dict[str, float] = {}
    for phase, arrays in shared.items():
        for line in phase_lines(phase, arrays, course):
            total[line.collective] = total.get(line.collective, 0) + line.calls * line.size
    return total
