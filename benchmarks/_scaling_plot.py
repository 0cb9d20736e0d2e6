"""The plot of the scaling benchmark: measured times and efficiencies, and the model's, marked as such."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from _scaling_model import Model, Network, predict
from _scaling_runs import Run
from _scaling_tables import MARK

matplotlib.use("Agg")

__all__ = ["draw"]


def draw(
    path: Path,
    runs: list[Run],
    model: Model,
    reference: Run,
    networks: Sequence[Network],
    ranks: Sequence[int],
    per_node: int,
    particles: int,
) -> None:
    """Draw time and efficiency against the number of ranks.

    Parameters
    ----------
    path : PNG file.
    runs : measured ones; those of the reference's number of particles are shown.
    model, reference, networks, ranks, per_node, particles : as `predicted_rows` takes them.
    """
    from matplotlib import pyplot

    figure, (times, efficiencies) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for network in networks:
        seconds = np.array([sum(predict(model, reference, p, per_node, network, particles).values()) for p in ranks])
        alone = sum(predict(model, reference, 1, per_node, network, particles).values())
        label = f"{network.name} ({MARK})"
        times.loglog(ranks, seconds, "--", label=label)
        efficiencies.semilogx(ranks, alone / np.array(ranks) / seconds, "--", label=label)
    shown = [run for run in runs if run.particles == reference.particles]
    alone = float(np.mean([run.seconds for run in shown if run.ranks == reference.ranks])) * reference.ranks
    if particles == reference.particles:
        times.loglog([run.ranks for run in shown], [run.seconds for run in shown], "ko", label="measured")
        efficiencies.semilogx(
            [run.ranks for run in shown], [alone / run.ranks / run.seconds for run in shown], "ko", label="measured"
        )
    times.set(xlabel="ranks", ylabel="seconds", title=f"{particles} particles, {per_node} ranks a node")
    efficiencies.set(xlabel="ranks", ylabel="efficiency", ylim=(0, 1.1), title=f"dashed: {MARK}")
    times.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
