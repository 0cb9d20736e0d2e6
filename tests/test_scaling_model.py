"""The model of scaling: it finds known rates again, and its predictions hold what they must."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from _scaling_count import PARTICLES, SERIAL, TASKS
from _scaling_model import TERMS, Network, fit_model, predict, traffic
from _scaling_runs import Run, largest_share
from _scaling_tables import exponent, measured_rows

_NETWORK = Network("10 Gb/s", 1.25e9, 2e-5)

# The fit

_TRUE = {"particle": 2e-3, "fit": 3e-5, "master": 2.0, "master particle": 4e-4, "maps": 1.5, "node byte": 2e-9}
_LATENCY = 2e-5
_PAYLOAD = {"sum_exact": 1e9, "bcast": 2e8, "max": 1e4, "allgather": 1e4}


def _run(ranks: int, particles: int, noise: float = 0.0, seed: int = 0) -> Run:
    """What a sort would show whose rates are `_TRUE`, with relative errors."""
    tasks, triad = [24, 24], 1e10 * ranks
    blank = Run(
        ranks=ranks,
        nodes=1,
        particles=particles,
        pixels=500,
        depth=2,
        seconds=0.0,
        sorting=0.0,
        work={},
        blocks=800,
        tasks=tasks,
        calls=1000,
        expected=_PAYLOAD | {"allgather_rows": 8e3 * particles},
        counted={},
        triad=triad,
        exchange_s=_LATENCY * np.log2(ranks),
        sum_s=_TRUE["node byte"] * 8e6,
        sum_bytes=8e6,
    )
    share = largest_share(particles, ranks)
    work = {
        PARTICLES: _TRUE["particle"] * particles * share + blank.streamed * share / 1e10,
        TASKS: _TRUE["fit"] * particles * 2 * int(np.ceil(6 / ranks)),
        SERIAL: _TRUE["master"] + _TRUE["master particle"] * particles + _TRUE["maps"] / min(ranks, 8),
    }
    draw = np.random.default_rng([ranks, particles, seed])
    errors = 1.0 + noise * draw.standard_normal(5)
    return replace(
        blank,
        work={kind: seconds * error for (kind, seconds), error in zip(work.items(), errors, strict=False)},
        exchange_s=blank.exchange_s * errors[3],
        sum_s=blank.sum_s * errors[4],
    )


def test_exact_timings_give_their_rates_back() -> None:
    model = fit_model([_run(ranks, particles) for ranks in (1, 2, 4) for particles in (2000, 8000)])
    for name, value in _TRUE.items():
        assert model.rate(name) == pytest.approx(value, rel=1e-6), name
    assert model.rate("node exchange") == pytest.approx(_LATENCY)
    assert max(map(abs, model.residuals)) < 1e-6


def test_noisy_timings_give_their_rates_back_within_the_stated_errors() -> None:
    found = []
    for trial in range(20):
        runs = [_run(ranks, count, 0.03, trial) for ranks in (1, 2, 4) for count in (2000, 8000, 32000)]
        model = fit_model(runs)
        found.append(
            {name: (model.rates[name].value - value) / model.rates[name].error for name, value in _TRUE.items()}
        )
        assert model.rate("particle") == pytest.approx(_TRUE["particle"], rel=0.05)
    deviations = np.array([list(one.values()) for one in found])
    assert 0.6 < np.sqrt((deviations**2).mean()) < 1.5


def test_what_the_runs_do_not_tell_apart_is_left_out() -> None:
    model = fit_model([_run(1, 2000), _run(1, 2000)])
    assert set(model.rates) == {"particle", "fit", "master"}
    # all that is serial in these runs
    assert model.rate("master") == pytest.approx(_TRUE["master"] + 2000 * _TRUE["master particle"] + _TRUE["maps"])


# Predictions


def test_a_prediction_is_the_time_of_the_runs_and_efficiency_is_one_at_one_rank() -> None:
    runs = [_run(ranks, 8000) for ranks in (1, 2)]
    model = fit_model([*runs, _run(1, 2000)])
    for run in runs:
        terms = predict(model, run, run.ranks, 16, _NETWORK)
        assert set(terms) == set(TERMS)
        assert terms["compute"] + terms["memory"] + terms["master"] == pytest.approx(run.busy, rel=1e-6)
    alone = predict(model, runs[0], 1, 16, _NETWORK)
    assert alone["reduction"] == alone["latency"] == 0.0


def test_more_ranks_never_compute_longer_and_never_send_less() -> None:
    run = _run(1, 100_000)
    model = fit_model([run, _run(2, 100_000)])
    ranks = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    found = [predict(model, run, number, 16, _NETWORK) for number in ranks]
    for one, more in itertools.pairwise(found):
        assert more["compute"] <= one["compute"]
        assert more["reduction"] >= one["reduction"]
        assert more["latency"] >= one["latency"]
    times = [sum(terms.values()) for terms in found]
    assert all(times[0] / number / time <= 1 + 1e-9 for number, time in zip(ranks, times, strict=True))
    # A faster network can only help, and ranks of one node use none.
    fast = Network("100 Gb/s", 1.25e10, 2e-6)
    assert sum(predict(model, run, 64, 16, fast).values()) < times[ranks.index(64)]
    assert predict(model, run, 16, 16, fast) == found[ranks.index(16)]
    assert traffic(run.expected, 16, 1) == (0.0, 0.0)


def test_particles_come_in_chunks_so_that_shares_end_where_chunks_are_single() -> None:
    assert largest_share(50_000, 1) == 1.0
    assert largest_share(50_000, 2) == pytest.approx(0.5, abs=0.05)
    assert largest_share(50_000, 1000) == largest_share(50_000, 500) >= 1 / 50


def test_exponents_are_powers() -> None:
    sizes = [1000, 2000, 4000]
    assert exponent(sizes, [3.0 * size**0.7 for size in sizes]) == pytest.approx(0.7)


_TIMED = [(1, 2000, 8.0), (2, 2000, 5.0), (2, 4000, 16.0), (4, 2000 * 5, 20.0)]
"""Ranks, particles, seconds: alone, strong scaling, weak scaling, nothing to compare with."""


def test_efficiency_is_against_one_rank_with_as_many_particles_or_with_its_share() -> None:
    runs = [replace(_run(ranks, count), sorting=seconds) for ranks, count, seconds in _TIMED]
    assert [row["efficiency sorting"] for row in measured_rows(runs)] == [1.0, 0.8, 0.5, ""]
