"""Statistics of groups as a text for people and a table for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO

import numpy as np
import pandas as pd

from hpcsort.partitions import Anova, ClusteredAnova, Explanation, Unevenness

__all__ = ["GroupStatistics", "Quantity", "format_p", "statistics_csv", "statistics_text"]


@dataclass(frozen=True)
class Quantity:
    """Comparison of one number per particle between groups.

    Attributes
    ----------
    name, unit : what it is; unit "" for a pure number.
    anova : particles as the unit.
    clustered : micrographs as the unit; None where the table names none.
    against_rest : each group against all others, any difference of the distribution in its quantiles.
    """

    name: str
    unit: str
    anova: Anova
    clustered: ClusteredAnova | None
    against_rest: Explanation


@dataclass(frozen=True)
class GroupStatistics:
    """What the groups differ in besides structure.

    Attributes
    ----------
    particles : accounted particles.
    quantities : those that are not the same for all particles.
    constant : names of those that are.
    micrographs : spread of micrographs over groups; None where fewer than two are named.
    views : view directions of each group against the rest.
    warnings : plain sentences.
    """

    particles: int
    quantities: list[Quantity]
    constant: list[str]
    micrographs: Unevenness | None
    views: Explanation
    warnings: list[str] = field(default_factory=list)


def statistics_text(statistics: GroupStatistics) -> str:
    """Return anova.txt."""
    views, micrographs = statistics.views, statistics.micrographs
    lines = [
        f"What the groups differ in besides structure: {statistics.particles} accounted particles, "
        f"{len(views.groups)} groups, {micrographs.clusters if micrographs else 'no'} micrographs.",
        "p is the chance of at least such a difference between groups that differ in nothing; (Holm) corrected for the "
        "number of groups or pairs.",
        "eta^2 is the share of the variance that lies between groups; 'moved' is the share of a group's particles that "
        "would have to be",
        "exchanged for others to make it as the rest (0 the same, 1 nothing in common). With many particles p is tiny "
        "for differences of no importance.",
        "'by micrographs': particles of one micrograph are not taken as independent.",
    ]
    if len(views.groups) < 2:
        return "\n".join([*lines, "", "Fewer than two groups: there is nothing to compare.", ""])
    for name in statistics.constant:
        lines += ["", f"{name}: the same for all particles."]
    for quantity in statistics.quantities:
        lines += ["", *_quantity_lines(quantity)]
    if micrographs is not None:
        lines += ["", *_micrograph_lines(micrographs)]
    lines += ["", f"views: {views.free} spherical harmonics, a direction and its opposite and all mates count as one"]
    lines += [f"  {'group':>5} {'N':>9} {'explained':>9} {'moved':>7} {'F':>10} {'p (Holm)':>9}"]
    lines += [
        f"  {group:5d} {count:9d} {explained:9.4f} {moved:7.4f} {F:10.4g} {format_p(p):>9}"
        for group, count, explained, moved, F, p in zip(
            views.groups.tolist(),
            views.counts.tolist(),
            views.explained,
            views.moved,
            views.F,
            views.p_holm,
            strict=True,
        )
    ]
    lines += ["", *(statistics.warnings or ["No group is explained by any of these."]), ""]
    return "\n".join(lines)


def _quantity_lines(quantity: Quantity) -> list[str]:
    anova, clustered, rest = quantity.anova, quantity.clustered, quantity.against_rest
    unit = f" ({quantity.unit})" if quantity.unit else ""
    lines = [
        f"{quantity.name}{unit}: F = {anova.F:.4g}, p = {format_p(anova.p)}, eta^2 = {anova.eta_squared:.4f}, "
        f"grand mean {anova.grand_mean:.6g}"
    ]
    if clustered is not None:
        lines += [
            f"  by micrographs: F = {clustered.F:.4g}, p = {format_p(clustered.p)}, "
            f"design effect {clustered.design_effect:.3g}"
        ]
    lines += [f"  {'group':>5} {'N':>9} {'mean':>12} {'std':>12} {'moved':>7} {'p (Holm)':>9}"]
    lines += [
        f"  {group:5d} {count:9d} {mean:12.6g} {std:12.6g} {moved:7.4f} {format_p(p):>9}"
        for group, count, mean, std, moved, p in zip(
            anova.groups.tolist(), anova.counts.tolist(), anova.means, anova.stds, rest.moved, rest.p_holm, strict=True
        )
    ]
    lines += [f"  {'A':>5} {'B':>5} {'mean A':>12} {'mean B':>12} {'F':>10} {'p (Holm)':>9}"]
    if clustered is not None:
        lines[-1] += f" {'F by micr.':>10} {'p (Holm)':>9}"
    means = dict(zip(anova.groups.tolist(), anova.means.tolist(), strict=True))
    for index, (a, b) in enumerate(anova.pairs.tolist()):
        line = f"  {a:5d} {b:5d} {means[a]:12.6g} {means[b]:12.6g} {anova.pair_F[index]:10.4g}"
        line += f" {format_p(anova.pair_p_holm[index]):>9}"
        if clustered is not None:
            line += f" {clustered.pair_F[index]:10.4g} {format_p(clustered.pair_p_holm[index]):>9}"
        lines.append(line)
    return lines


def _micrograph_lines(micrographs: Unevenness) -> list[str]:
    lines = [
        f"micrographs: chi^2 = {micrographs.chi2:.6g} ({micrographs.expected:.6g} by chance), "
        f"p = {format_p(micrographs.p)}, Cramer's V = {micrographs.cramers_v:.4f}",
        f"  {'group':>5} {'chi^2 ratio':>11} {'moved':>7} {'p (Holm)':>9}",
    ]
    return lines + [
        f"  {group:5d} {ratio:11.4f} {moved:7.4f} {format_p(p):>9}"
        for group, ratio, moved, p in zip(
            micrographs.groups.tolist(), micrographs.group_ratio, micrographs.group_moved, micrographs.group_p_holm,
            strict=True,
        )
    ]  # fmt: skip


def statistics_csv(statistics: GroupStatistics) -> str:
    """Return anova.csv, one line a test: of all groups (no group), of a group against the rest, of a pair."""
    rows: list[dict[str, object]] = []
    for quantity in statistics.quantities:
        rows += _quantity_rows(quantity)
    if (spread := statistics.micrographs) is not None:
        whole = {"quantity": "micrographs", "test": "all", "p": spread.p, "effect": spread.cramers_v}
        rows.append(whole | {"F": spread.chi2 / spread.expected if spread.expected else np.nan})
        rows += [
            {"quantity": "micrographs", "test": "rest", "group": group, "F": spread.group_ratio[i],
             "p": spread.group_p[i], "p_holm": spread.group_p_holm[i], "effect": spread.group_moved[i]}
            for i, group in enumerate(spread.groups.tolist())
        ]  # fmt: skip
    rows += _rest_rows("views", statistics.views)
    columns = [
        "quantity", "test", "group", "other", "N", "mean", "std", "F", "p", "p_holm",
        "F_micrographs", "p_micrographs", "p_holm_micrographs", "effect",
    ]  # fmt: skip
    out = StringIO()
    frame = pd.DataFrame(rows, columns=columns)
    frame[["group", "other", "N"]] = frame[["group", "other", "N"]].astype("Int64")
    frame.to_csv(out, index=False, lineterminator="\n", float_format="%.6g")
    return out.getvalue()


def _quantity_rows(quantity: Quantity) -> list[dict[str, object]]:
    anova, clustered = quantity.anova, quantity.clustered
    whole: dict[str, object] = {
        "quantity": quantity.name, "test": "all", "N": int(anova.counts.sum()), "mean": anova.grand_mean, "F": anova.F,
        "p": anova.p, "effect": anova.eta_squared,
    }  # fmt: skip
    if clustered is not None:
        whole |= {"F_micrographs": clustered.F, "p_micrographs": clustered.p}
    rest = _rest_rows(quantity.name, quantity.against_rest)
    for index, row in enumerate(rest):
        row |= {"mean": anova.means[index], "std": anova.stds[index]}
    pairs = []
    for index, (a, b) in enumerate(anova.pairs.tolist()):
        row = {"quantity": quantity.name, "test": "pair", "group": a, "other": b, "F": anova.pair_F[index],
               "p": anova.pair_p[index], "p_holm": anova.pair_p_holm[index]}  # fmt: skip
        if clustered is not None:
            row |= {"F_micrographs": clustered.pair_F[index], "p_micrographs": clustered.pair_p[index],
                    "p_holm_micrographs": clustered.pair_p_holm[index]}  # fmt: skip
        pairs.append(row)
    return [whole, *rest, *pairs]


def _rest_rows(name: str, rest: Explanation) -> list[dict[str, object]]:
    return [
        {"quantity": name, "test": "rest", "group": group, "N": int(rest.counts[i]), "F": rest.F[i], "p": rest.p[i],
         "p_holm": rest.p_holm[i], "effect": rest.moved[i]}
        for i, group in enumerate(rest.groups.tolist())
    ]  # fmt: skip


def format_p(value: float) -> str:
    """Write a p-value with two digits; "-" for NaN."""
    if np.isnan(value):
        return "-"
    return f"{min(value, 1.0):.2g}" if value > 0 else "< 1e-300"
