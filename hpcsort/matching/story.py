"""What match tells of its work."""

from __future__ import annotations

import numpy as np

from hpcsort.io import ParticleTable, Smears
from hpcsort.matching.model import Model
from hpcsort.matching.options import MatchOptions
from hpcsort.matching.references import References
from hpcsort.matching.search import Plan
from hpcsort.parallel import Communicator, StoryLog

__all__ = ["tell_edge", "tell_end", "tell_model", "tell_plan"]


def tell_plan(
    tell: StoryLog,
    options: MatchOptions,
    table: ParticleTable,
    plan: Plan,
    references: References,
    comm: Communicator,
) -> None:
    """Tell what will be searched."""
    assert table.box_px is not None
    edge_A = table.box_px * table.pixel_size_A
    ranks, maps = (
        f"{count} {word}{'s' if count > 1 else ''}"
        for count, word in ((comm.size, "rank"), (len(references), "reference"))
    )
    tell(
        f"match of {options.instack}: {len(table)} particles of {table.box_px} px at {table.pixel_size_A:g} A, {maps}, "
        f"{ranks}."
    )
    for note in table.notes:
        tell(f"Note: {note}")
    start = plan.start
    poses = len(start.rotations) * len(start.shifts) * (1 if plan.local else 2)
    where = f"up to {options.angle_range_deg:g} degrees from the given poses" if plan.local else "of all orientations"
    tell(
        f"Search {where}: {poses} poses every {plan.step_deg:.2f} degrees and {plan.shift_step:.2f} px at "
        f"{edge_A / plan.bands[0]:.1f} A, the best of them followed to {edge_A / plan.bands[-1]:.1f} A; smears every "
        f"{np.rad2deg(plan.finest.turn):.2f} degrees and {plan.finest.shift:.2f} px."
    )


def tell_model(tell: StoryLog, model: Model, edge_A: float) -> None:
    """Tell what the images say of the references."""
    for number, curve in enumerate(model.amplitude):
        good = np.flatnonzero(curve[1:] > 0.05 * curve[1:].max()) + 1
        tell(
            f"Reference {number + 1}: amplitude {curve[1:].mean():.3g}, seen in the images to "
            f"{edge_A / good[-1]:.1f} A."
        )


def tell_edge(tell: StoryLog, moved_px: np.ndarray, plan: Plan) -> None:
    """Warn of particles that end at the edge of the shifts that were searched; others beyond it may be lost."""
    reach = float(np.hypot(*plan.start.shifts.T).max())
    count = int((moved_px >= reach).sum())
    if count:
        tell(
            f"Warning: {count} particles lie at or beyond the edge of the searched shifts of {reach:.1f} px; give a "
            "larger --shift-range if these are many."
        )


def tell_end(
    tell: StoryLog,
    options: MatchOptions,
    smears: Smears | None,
    probabilities: np.ndarray,
    reference: np.ndarray,
    memory_GB: float,
) -> None:
    """Tell what was found and where it is; only the master knows."""
    if smears is None:
        return
    counts = smears.counts
    tell(
        f"{len(counts)} particles matched: median {np.median(counts):g} smears (most {counts.max()}), which hold "
        f"{100 * (1 - smears.dropped.mean()):.2f} % of the probability; that of the best is "
        f"{np.median(smears.weight[smears.first[:-1]]):.3f} in the median."
    )
    if probabilities.shape[1] > 1:
        sizes = np.bincount(reference, minlength=probabilities.shape[1])
        tell(f"Particles of each reference: {', '.join(str(size) for size in sizes.tolist())}.")
    tell(f"Written to {options.output}. Largest memory of a rank: {memory_GB:.2f} GB.")
