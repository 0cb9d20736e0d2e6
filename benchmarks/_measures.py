"""What a sort is worth where the truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile

from hpcsort.partitions import (
    adjusted_rand_index,
    match_groups,
    matched_accuracy,
    purities,
)
from hpcsort.partitions.calibration import Reliability, reliability_diagram

_BINS = 10
_PROBABILITY = "hpcsortProbability"
_LIKELIEST = "hpcsortLikeliestGroup"


def read_truth(folder: Path) -> np.ndarray:
    """Read the true states of a set, int64 (N,); -1 for junk."""
    return pd.read_csv(folder / "truth.csv")["state"].to_numpy(np.int64)


def measure(truth: np.ndarray, out: Path) -> dict[str, Any]:
    """Compare the results in a folder with the true states; what a sort has not written is NaN or None.

    A state is found where it and its group have more than half of their union in common.
    """
    run = json.loads((out / "run.json").read_text())
    labels = np.full(len(truth), -1)
    for path in sorted(out.glob("Cluster_*.txt")):
        labels[np.loadtxt(path, dtype=int, ndmin=1)] = int(path.stem.split("_")[1])
    kept = labels >= 0
    table = starfile.read(out / "particles.star", always_dict=True)["particles"]
    likeliest = table[_LIKELIEST].to_numpy(np.int64) - 1 if _LIKELIEST in table else None
    reliability = _reliability(truth, labels, table)
    return {
        "groups": len(run["groups"]),
        "found": int((match_groups(truth, labels).jaccard > 0.5).sum()),
        "states": len(np.unique(truth[truth >= 0])),
        "accounted": float(kept.mean()),
        "purity": purities(truth, labels).tolist(),
        "right of accounted": matched_accuracy(truth[kept], labels[kept]),
        "right of all": matched_accuracy(truth, labels),
        "right of likeliest": np.nan if likeliest is None else matched_accuracy(truth, likeliest),
        "ARI": adjusted_rand_index(truth[kept], labels[kept]),
        "ARI of likeliest": np.nan if likeliest is None else adjusted_rand_index(truth, likeliest),
        "reliability": reliability,
        "calibration": np.nan if reliability is None else reliability.error,
        "seconds": sum(run["seconds"].values()),
    }


def _reliability(truth: np.ndarray, labels: np.ndarray, table: pd.DataFrame) -> Reliability | None:
    """Reliability of the likeliest group's probability: it is right where that group is matched to the true state.

    Unaccounted particles take part, junk does not: it has no right group.
    """
    columns = sorted(column for column in table if column[: len(_PROBABILITY)] == _PROBABILITY)
    columns = [column for column in columns if column[len(_PROBABILITY) :].isdigit()]
    if not columns:
        return None
    probability = table[columns].to_numpy(np.float64)
    state_of = np.full(len(columns), -1)
    for state, group in match_groups(truth, labels).pairs:
        state_of[group] = state
    real = truth >= 0
    correct = state_of[probability.argmax(axis=1)] == truth
    return reliability_diagram(probability.max(axis=1)[real].clip(0, 1), correct[real], _BINS)


def reliability_rows(name: str, reliability: Reliability) -> list[str]:
    """Rows of a Markdown table, one for every bin that is not empty."""
    rows = []
    for i in np.flatnonzero(reliability.counts):
        limits = f"{reliability.edges[i]:.1f} to {reliability.edges[i + 1]:.1f} | {reliability.counts[i]}"
        rows.append(f"| {name} | {limits} | {reliability.confidence[i]:.3f} | {reliability.accuracy[i]:.3f} |")
    return rows
