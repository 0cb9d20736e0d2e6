"""Tables of the scaling benchmark: what was measured, the fit, and what the model says of other machines."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from _scaling_count import PARTICLES, SERIAL, TASKS
from _scaling_model import TERMS, Model, Network, predict, traffic
from _scaling_runs import Run

__all__ = ["MARK", "bytes_rows", "exponent", "fit_rows", "markdown", "measured_rows", "predicted_rows", "write_csv"]

MARK = "model, not a measurement"
Row = dict[str, object]
_COSTS: tuple[Callable[[Run], float], ...] = (
    lambda run: run.sorting,
    lambda run: run.busy,
    lambda run: run.work[PARTICLES],
)


def measured_rows(runs: list[Run]) -> list[Row]:
    """One row a run; efficiencies are time of one rank a particle over that of all ranks, of runs with as many chains.

    One rank has sorted as many particles (strong scaling), or else one rank's share of them (weak scaling).
    """
    rows: list[Row] = []
    for run in runs:
        sorting, busy, particles = (_efficiency(run, runs, of) for of in _COSTS)
        rows.append(
            {
                "nodes": run.nodes,
                "ranks": run.ranks,
                "particles": run.particles,
                "depth order": run.depth,
                "wall s": round(run.seconds, 2),
                "sorting s": round(run.sorting, 2),
                "particles CPU s": round(run.work[PARTICLES], 2),
                "fits CPU s": round(run.work[TASKS], 2),
                "serial CPU s": round(run.work[SERIAL], 2),
                "efficiency sorting": sorting,
                "efficiency CPU": busy,
                "efficiency particles": particles,
                "triad GB/s a node": round(run.triad / 1e9, 1),
                "crowded": "more ranks than cores" if run.crowded else "",
            }
        )
    return rows


def _efficiency(run: Run, runs: list[Run], cost: Callable[[Run], float]) -> object:
    """Efficiency by one kind of time, "" where one rank has done nothing comparable."""
    for particles in (run.particles, run.particles // run.ranks):
        alone = [one for one in runs if (one.ranks, one.particles, one.depth) == (1, particles, run.depth)]
        if alone:
            expected = float(np.mean([cost(one) for one in alone])) * run.particles / particles / run.ranks
            return round(expected / cost(run), 2)
    return ""


def bytes_rows(runs: list[Run]) -> list[Row]:
    """Payload and bytes over the network of each run, by the model and as counted."""
    rows: list[Row] = []
    for run in runs:
        for name in sorted(run.counted):
            told, seen = run.expected.get(name, 0.0), run.counted[name]
            if seen > 1e5:
                rows.append(_bytes_row(run, f"payload of {name}", told, seen))
        if run.sent is not None:
            rows.append(_bytes_row(run, "over the network", traffic(run.expected, run.ranks, run.nodes)[0], run.sent))
    return rows


def _bytes_row(run: Run, what: str, told: float, seen: float) -> Row:
    return {
        "nodes": run.nodes,
        "ranks": run.ranks,
        "particles": run.particles,
        "bytes": what,
        "model MB": round(told / 1e6, 2),
        "measured MB": round(seen / 1e6, 2),
        "model / measured": round(told / seen, 3) if seen else "",
    }


def fit_rows(model: Model) -> list[Row]:
    """One row a rate."""
    return [
        {"rate": name, "value": f"{rate.value:.3g}", "standard error": f"{rate.error:.1g}", "unit": rate.unit}
        for name, rate in model.rates.items()
    ]


def predicted_rows(
    model: Model, run: Run, networks: Sequence[Network], ranks: Iterable[int], per_node: int, particles: int
) -> list[Row]:
    """One row a network and number of ranks."""
    rows: list[Row] = []
    for network in networks:
        alone = sum(predict(model, run, 1, per_node, network, particles).values())
        for number in ranks:
            terms = predict(model, run, number, per_node, network, particles)
            total = sum(terms.values())
            rows.append(
                {
                    "network": network.name,
                    "ranks": number,
                    "particles": particles,
                    **{f"{term} s": round(terms[term], 2) for term in TERMS},
                    "time s": round(total, 2),
                    "efficiency": round(alone / number / total, 3),
                    "kind": MARK,
                }
            )
    return rows


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Power with which seconds grow with sizes, by a straight line through their logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def markdown(rows: list[Row]) -> str:
    """Format rows as a Markdown table."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(row[head]) for head in heads) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write rows with a line of names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
