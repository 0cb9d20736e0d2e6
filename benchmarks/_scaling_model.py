"""A model of a sort's time, fitted to measured ones: compute, memory, reduction, latency, the master's serial part.

The time of p ranks on n nodes, with m = p / n ranks a node and N particles, is the sum of

    compute     a N share(p) + b N rounds(p)
    memory      bytes of all passes share(p) / (bandwidth of a node / m), the bandwidth by a triad in the same run
    reduction   c (bytes inside a node) + (bytes through the busiest link) / (network bandwidth)
    latency     calls (d log2 m + network latency log2 n)
    master      e + f N + g / min(p, chains)

share(p) is the largest share of the particles that a rank is dealt: particles come in chunks, whatever p. rounds(p) are
the fits of mixtures that one rank makes after another: a fit is not divided. The maps of a chain are solved for by one
rank, which is g; e and f are what rank 0 does alone or all ranks repeat.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log2

import numpy as np
from _scaling_bytes import network_bytes
from _scaling_count import PARTICLES, SERIAL, TASKS
from _scaling_runs import Run, largest_share
from scipy.optimize import nnls

from hpcsort.sort3d.survey import STARTS

__all__ = ["TERMS", "Model", "Network", "Rate", "fit_model", "predict", "traffic"]

TERMS = ("compute", "memory", "reduction", "latency", "master")
_UNITS = {
    "particle": "s a particle, one rank",
    "fit": "s a particle and round of fits",
    "master": "s",
    "master particle": "s a particle",
    "maps": "s, dealt by chains",
    "node byte": "s a byte reduced inside a node",
    "node exchange": "s a step of an exchange inside a node",
    "network byte": "s a byte through the network",
    "network exchange": "s a step of an exchange between nodes",
}


@dataclass(frozen=True)
class Network:
    """A network between nodes; its latency is assumed, not measured."""

    name: str
    bytes_per_s: float
    latency_s: float


@dataclass(frozen=True)
class Rate:
    """One fitted parameter with its standard error (NaN where nothing is left to judge it by)."""

    value: float
    error: float
    unit: str


@dataclass(frozen=True)
class Model:
    """What was fitted.

    Attributes
    ----------
    rates : by name.
    bandwidth : ranks of a node -> bytes/s that they reach together.
    residuals : relative ones, of all equations.
    """

    rates: dict[str, Rate]
    bandwidth: dict[int, float]
    residuals: list[float] = field(default_factory=list)

    @property
    def unmeasured(self) -> list[str]:
        """Rates that the runs do not tell; predictions take them as 0."""
        return [name for name in _UNITS if name not in self.rates]

    def rate(self, name: str) -> float:
        """Value of a rate, 0 where it was not measured."""
        return self.rates[name].value if name in self.rates else 0.0

    def node_bandwidth(self, per_node: int) -> float:
        """Bytes/s of a node with so many ranks at work: in proportion, up to the largest that was measured."""
        fewest = min(self.bandwidth)
        return min(self.bandwidth[fewest] / fewest * per_node, max(self.bandwidth.values()))


def traffic(payload: dict[str, float], ranks: int, nodes: int) -> tuple[float, float]:
    """Bytes over the network for a payload by collective: of all nodes, and through the busiest link."""
    both = [network_bytes(name, size, ranks, nodes) for name, size in payload.items()]
    return sum(total for total, _ in both), sum(path for _, path in both)


def fit_model(runs: list[Run]) -> Model:
    """Fit the rates to all runs by least squares of relative errors, none of them negative (Lawson & Hanson).

    Every run gives five equations: CPU time of its particles less what the memory takes, of its fits, of its serial
    part, and its probes of a small exchange and of a sum. What no run tells apart is left out: rates of the network
    where all ran on one node, of exchanges where there was one rank, the master's rate for a particle where all
    runs had as many, and the solving for maps where all had as many ranks. Crowded runs take part only where all are.
    """
    runs = [run for run in runs if not run.crowded] or runs
    bandwidth = {run.per_node: max(one.triad for one in runs if one.per_node == run.per_node) for run in runs}
    several = len({run.particles for run in runs}) > 1
    scaled = len({run.ranks for run in runs}) > 1
    equations: list[tuple[dict[str, float], float]] = []
    for run in runs:
        share, inside, between = largest_share(run.particles, run.ranks), _steps(run.per_node), _steps(run.nodes)
        memory = run.streamed * share / (run.triad / run.per_node)
        path = network_bytes("sum_exact", run.sum_bytes, run.ranks, run.nodes)[1]
        equations += [
            ({"particle": run.particles * share}, max(run.work[PARTICLES] - memory, 0.0)),
            ({"fit": run.particles * _rounds(run.tasks, run.ranks)}, run.work[TASKS]),
            (
                {
                    "master": 1.0,
                    "master particle": run.particles * several,
                    "maps": scaled / min(run.ranks, run.chains),
                },
                run.work[SERIAL],
            ),
            ({"node exchange": inside, "network exchange": between}, run.exchange_s if run.ranks > 1 else 0.0),
            ({"node byte": run.sum_bytes * (inside > 0), "network byte": path}, run.sum_s if run.ranks > 1 else 0.0),
        ]
    equations = [(terms, seconds) for terms, seconds in equations if seconds > 0 and any(terms.values())]
    names = [name for name in _UNITS if any(terms.get(name) for terms, _ in equations)]
    rows = np.array([[terms.get(name, 0.0) / seconds for name in names] for terms, seconds in equations])
    # Columns of one size each: bytes and particles are many orders of magnitude apart.
    size = np.linalg.norm(rows, axis=0)
    found, _ = nnls(rows / size, np.ones(len(rows)))
    left = rows / size @ found - 1.0
    errors = _errors(rows / size, found > 0, left) / size
    rates = {
        name: Rate(float(value), float(error), _UNITS[name])
        for name, value, error in zip(names, found / size, errors, strict=True)
    }
    return Model(rates, bandwidth, left.tolist())


def predict(
    model: Model, run: Run, ranks: int, per_node: int, network: Network, particles: int | None = None
) -> dict[str, float]:
    """Seconds of each term for a sort like ``run`` on other ranks, or of another number of particles.

    Sums and maps are as many as in the run; what is sent of each particle grows with their number.
    """
    count = particles or run.particles
    nodes = ceil(ranks / per_node)
    inside, share = min(per_node, ranks), largest_share(count, ranks)
    payload = dict(run.expected)
    payload["allgather_rows"] *= count / run.particles
    for name in ("max", "allgather"):
        payload[name] *= ranks / run.ranks
    _, path = traffic(payload, ranks, nodes)
    moved = sum(payload.values()) if inside > 1 else 0.0
    return {
        "compute": model.rate("particle") * count * share + model.rate("fit") * count * _rounds(run.tasks, ranks),
        "memory": run.streamed * count / run.particles * share * inside / model.node_bandwidth(inside),
        "reduction": model.rate("node byte") * moved + path / network.bytes_per_s,
        "latency": run.calls * (model.rate("node exchange") * _steps(inside) + network.latency_s * _steps(nodes)),
        "master": model.rate("master")
        + model.rate("master particle") * count
        + model.rate("maps") / min(ranks, run.chains),
    }


def _errors(rows: np.ndarray, active: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the standard errors of the fitted values; of those at zero, and without spare equations, NaN."""
    errors = np.full(len(active), np.nan)
    spare = len(rows) - int(active.sum())
    if spare > 0:
        design = rows[:, active]
        errors[active] = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * float(left @ left) / spare)
    return errors


def _rounds(tasks: list[int], ranks: int) -> int:
    """Fits that one rank makes after another; the best start of each pair of chain and number is improved whole."""
    return sum(ceil(ceil(number / STARTS) / ranks) for number in tasks)


def _steps(count: int) -> float:
    """Count the steps of an exchange among so many."""
    return ceil(log2(count))
