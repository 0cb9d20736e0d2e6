"""What a sort sends, from the program's text: collective x calls x bytes of an iteration, and what crosses a network.

The tables below follow hpcsort/sort3d (learning.py, finish.py, statistics.py); tests/test_scaling_model.py holds them
against counted calls. Where the communication of the program changes, its lines change here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcsort.images import half_plane
from hpcsort.kernels import moment_record_length
from hpcsort.sort3d.engine import _SPARE, _WEIGHING_ITERATIONS, FINISH_ITERATIONS
from hpcsort.sort3d.learning import SUBSPACE_ITERATIONS
from hpcsort.sort3d.problem import _grid
from hpcsort.sort3d.splitting import _ITERATIONS as _SPLIT_ITERATIONS
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


@dataclass(frozen=True)
class Line:
    """One line of the table: ``size`` bytes of payload a call (of one rank for max and allgather, else of all)."""

    what: str
    collective: str
    calls: int
    size: int


def learning(chains: int, components: int, grid: BandGrid, iterations: int = 1) -> list[Line]:
    """EM iterations of some subspaces in lock step."""
    voxels, latents = _voxels(grid), NUISANCES + components
    pairs = components * (components + 1) // 2 + NUISANCES * components
    record = moment_record_length(components, pairs)
    each = chains * iterations
    return [
        Line("largest pixel and CTF", "max", 2 * iterations, _SCALAR),
        Line("largest latent", "max", each, _SCALAR),
        Line("quanta of the sums", "allgather", each, _SCALAR),
        Line("sums of the M step", "sum_exact", each, 8 * voxels * record),
        Line("learned maps and their local weight", "bcast", each, 8 * components * voxels + 4 * grid.size**3),
        *_totals("second moments of the latents", each, latents**2),
    ]


def statistics(chains: int, components: int, particles: int) -> list[Line]:
    """Quadratic likelihoods of all particles in every subspace, on every rank."""
    return [
        Line("linear terms", "allgather_rows", chains, 8 * components * particles),
        Line("precisions", "allgather_rows", chains, 8 * components**2 * particles),
    ]


def finishing(
    chains: int, classes: int, grid: BandGrid, particles: int, iterations: int, started: bool = False
) -> list[Line]:
    """Finishing iterations in map space, with the first shares and the scores of all particles.

    ``started`` chains make maps of a start partition first.
    """
    voxels = _voxels(grid)
    record = moment_record_length(classes, classes)
    # A start partition is estimated chain by chain, so that each asks for the largest pixel.
    estimates, asked = chains * (iterations + started), iterations + started * chains
    maps = 8 * (classes + NUISANCES) * voxels + 4 * classes * voxels + 4 * 3 * grid.size**3
    return [
        Line("largest pixel and CTF", "max", 2 * asked, _SCALAR),
        Line("largest nuisance", "max", estimates, _SCALAR),
        Line("quanta of the sums", "allgather", estimates, _SCALAR),
        Line("sums of the classes", "sum_exact", estimates, 8 * voxels * record),
        Line("class maps", "bcast", estimates, maps),
        *_totals("factors of the maps", estimates, 2 * classes),
        *_totals("shares of the classes", chains * (iterations + 1), classes),
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
    narrow, wide = (_grid(round(box * pixel_A / float(edge))) for edge in reach.groups())
    chosen = [one["chosen"] for one in run["held_out"]]
    found = [sum(group["generation"] == number for group in run["groups"]) for number in range(len(chosen))]
    components = [int(number) for number in re.findall(r"Differences have (\d+) component", text)]
    depth, asked = (run["options"][name] for name in ("depth_order", "components"))
    return Course(int(told[1]), box, narrow, wide, depth, asked, components, chosen, found)


def phase_lines(phase: str, course: Course) -> list[Line]:
    """Return what the model expects in a phase of a sort, by its name in the program; nothing where that is small.

    The statistics of subspaces follow in the phase that learns them, and finishing a layer in that of its mixtures.
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
        iterations = _SPLIT_ITERATIONS if inside else SUBSPACE_ITERATIONS
        lines = learning(chains, size, course.narrow, iterations) + statistics(chains, size, course.particles)
    elif match := re.fullmatch(r"finishing (\d+) classes.*", last):
        lines = finishing(2, known + int(match[1]), course.wide, course.particles, FINISH_ITERATIONS)
    elif steps[-2:] == ["layer 0", "subspaces"]:
        used = course.components[generation]
        lines = learning(boxes, course.asked or used + _SPARE, course.narrow, SUBSPACE_ITERATIONS)
        lines += statistics(boxes, course.asked or used, course.particles)
    elif steps[-2:] == ["layer 0", "mixtures"]:
        classes = known + course.chosen[generation]
        lines = finishing(boxes, classes, course.wide, course.particles, FINISH_ITERATIONS)
    elif match := re.fullmatch(r"layer ([1-9])", last):
        chains, classes = 2 * 2 ** (depth - int(match[1])), known + course.chosen[generation]
        lines = finishing(chains, classes, course.wide, course.particles, FINISH_ITERATIONS - 1, started=True)
    elif last == "final maps":
        lines = final_maps(2 * sum(course.found), course.box_px)
    elif last == "probabilities":
        lines = finishing(3, sum(course.found), course.wide, course.particles, _WEIGHING_ITERATIONS, started=True)
    return lines


def network_bytes(collective: str, size: float, ranks: int, nodes: int) -> tuple[float, float]:
    """Bytes over the network, of all nodes together and one after the other through the busiest link.

    Parameters
    ----------
    collective : its name in `Communicator`.
    size : payload in bytes: of one rank for sum_exact, of the root for bcast and publish, of all ranks else.
    ranks, nodes : all of them; ranks of a node follow each other.

    Notes
    -----
    Sums run as reduce-scatter and allgather between the nodes' first ranks, broadcasts as scatter and allgather
    between nodes, the others as a ring through all ranks (Thakur, Rabenseifner & Gropp, IJHPCA 19, 49 (2005)).
    """
    if nodes == 1:
        return 0.0, 0.0
    others = nodes - 1
    if collective == "sum_exact":
        return 2.0 * others * size, 2.0 * others / nodes * size
    if collective in ("bcast", "publish"):
        return 1.0 * others * size, 2.0 * others / nodes * size
    if collective in ("gather", "gather_rows", "scatter"):
        return others / nodes * size, others / nodes * size
    ring = (ranks - 1) / ranks * size
    return nodes * ring, ring


def _voxels(grid: BandGrid) -> int:
    return int(np.prod(grid.fourier_shape))


def expected_bytes(phases: Iterable[str], course: Course) -> dict[str, float]:
    """Payload of a sort by collective, from its phases; bytes as in `Line`."""
    total: dict[str, float] = {}
    for phase in phases:
        for line in phase_lines(phase, course):
            total[line.collective] = total.get(line.collective, 0) + line.calls * line.size
    return total
