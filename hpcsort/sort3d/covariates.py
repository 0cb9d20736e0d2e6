"""What else the groups differ in: defocus, norm, smears, micrographs and views, and warnings where that is all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from hpcsort.geometry import relion_matrices, view_directions
from hpcsort.io import ParticleTable, write_text_atomically
from hpcsort.partitions import (
    Explanation,
    Unevenness,
    analyse_variance,
    analyse_variance_clustered,
    compare_views,
    explain_groups,
    measure_unevenness,
    quantile_features,
)
from hpcsort.sort3d.covariate_tables import GroupStatistics, Quantity, format_p, statistics_csv, statistics_text

__all__ = ["GroupStatistics", "Quantity", "describe_groups", "write_group_statistics"]

EXPLAINED_SHARE = 1 / 3
"""Share of a group's particles that would have to be exchanged for others, above which it is said to be explained.

A true state that is cut in two along a plane of views, or at its median defocus, has 0.5 or more against the rest (0.40
and more as harmonics of low degree resolve views). A state of which two fifths have a preferred view that no other
state has reaches 0.24, half a standard deviation of other defocus 0.2, and a random 3 % of 5,000 particles 0.1.
"""
EXPLAINED_P = 1e-3
"""Chance of any false warning in a run, over all groups and covariates, were size of the effect no condition."""
_COLUMNS = (
    ("norm", "", "rlnNormCorrection"),
    ("smears", "", "rlnNrOfSignificantSamples"),
)
_WORDS = {
    "views": "look from other directions",
    "micrographs": "come from other micrographs",
    "defocus": "have another defocus",
    "norm": "have another norm",
    "smears": "have another number of smears",
}


def describe_groups(
    table: ParticleTable, rows: np.ndarray, labels: np.ndarray, symmetry_operators: np.ndarray | None = None
) -> GroupStatistics:
    """Compare defocus, norm, smears, micrographs and view directions between groups. No random numbers are drawn.

    Parameters
    ----------
    table : all particles, with poses.
    rows : int (n,), rows of the table that were sorted.
    labels : int (n,), group of each of them, -1 unaccounted (left out).
    symmetry_operators : float (g, 3, 3), rotations of the point group in the frame of the volume; none for C1.
    """
    rows, labels = np.asarray(rows, np.int64), np.asarray(labels, np.int64)
    rows, labels = rows[labels >= 0], labels[labels >= 0]
    micrographs = _micrographs(table, rows)
    quantities, constant = [], []
    for name, unit, values in _values(table, rows):
        if _varies(values):
            quantities.append(_compare(name, unit, values, labels, micrographs))
        else:
            constant.append(name)
    unevenness = None if micrographs is None else measure_unevenness(labels, micrographs)
    directions = view_directions(relion_matrices(table.angles_deg[rows]))
    views = compare_views(directions, labels, symmetry_operators, clusters=micrographs)
    warnings = _warn(quantities, unevenness, views)
    return GroupStatistics(len(rows), quantities, constant, unevenness, views, warnings)


def write_group_statistics(
    folder: Path,
    table: ParticleTable,
    rows: np.ndarray,
    labels: np.ndarray,
    symmetry_operators: np.ndarray | None = None,
) -> list[str]:
    """Write anova.txt (for people) and anova.csv (for programs) and return the warnings; see `describe_groups`."""
    statistics = describe_groups(table, rows, labels, symmetry_operators)
    write_text_atomically(folder / "anova.txt", statistics_text(statistics))
    write_text_atomically(folder / "anova.csv", statistics_csv(statistics))
    return statistics.warnings


def _values(table: ParticleTable, rows: np.ndarray) -> Iterable[tuple[str, str, np.ndarray]]:
    yield "defocus", "A", (table.defocus_u_A[rows] + table.defocus_v_A[rows]) / 2
    known: dict[str, np.ndarray] = {}
    if table.image_scale is not None:
        known["norm"] = 1.0 / table.image_scale
    if table.smears is not None:
        known["smears"] = table.smears.counts.astype(np.float64)
    for name, unit, column in _COLUMNS:
        if name in known:
            yield name, unit, known[name][rows]
        elif column in table.frame.columns:
            numbers = pd.to_numeric(table.frame[column], errors="coerce").to_numpy(np.float64)
            yield name, unit, numbers[rows]


def _varies(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size and np.ptp(finite) > 1e-9 * np.abs(finite).max())


def _micrographs(table: ParticleTable, rows: np.ndarray) -> np.ndarray | None:
    """Return each particle's micrograph (one without a name is its own), None where fewer than two are named."""
    names, number = np.unique(table.micrograph[rows].astype(str), return_inverse=True)
    nameless = names[number] == "" if len(names) else np.zeros(0, bool)
    if len(names) - bool(nameless.any()) < 2:
        return None
    return np.asarray(np.where(nameless, len(names) + np.arange(len(rows)), number), np.int64)


def _compare(name: str, unit: str, values: np.ndarray, labels: np.ndarray, micrographs: np.ndarray | None) -> Quantity:
    known = np.isfinite(values)
    values, labels = values[known], labels[known]
    units = None if micrographs is None else micrographs[known]
    # Few micrographs cannot tell ten quantiles apart where the quantity hardly varies within them.
    bins = 10 if units is None else int(np.clip(len(np.unique(units)) // 5, 3, 10))
    return Quantity(
        name,
        unit,
        analyse_variance(values, labels),
        None if units is None else analyse_variance_clustered(values, labels, units),
        explain_groups(quantile_features(values, labels, bins), labels, units),
    )


def _warn(quantities: list[Quantity], micrographs: Unevenness | None, views: Explanation) -> list[str]:
    """Say which groups a covariate accounts for: significant over all covariates, and large; one sentence a group."""
    tested = [("views", views.groups, views.p_holm, views.moved)]
    tested += [(q.name, q.against_rest.groups, q.against_rest.p_holm, q.against_rest.moved) for q in quantities]
    if micrographs is not None:
        tested.append(("micrographs", micrographs.groups, micrographs.group_p_holm, micrographs.group_moved))
    causes: dict[int, list[str]] = {}
    for name, groups, p_values, shares in tested:
        for group, p, share in zip(groups.tolist(), p_values.tolist(), shares.tolist(), strict=True):
            if p * len(tested) < EXPLAINED_P and share > EXPLAINED_SHARE:
                needed = f"{100 * share:.0f} % of its particles would have to {_WORDS[name]} to match the other groups"
                causes.setdefault(group, []).append(f"by {name}: {needed} (p {format_p(p * len(tested))})")
    return [
        f"group {group} is explained {', and '.join(found)}; it need not be a structure of its own."
        for group, found in sorted(causes.items())
    ]
