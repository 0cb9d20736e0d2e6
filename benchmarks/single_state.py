"""One state: how often sort3d reports exactly one group, and whether p-values of the null are uniform.

    python benchmarks/single_state.py [--work DIR] [--first 0] [--seeds 40] [--nulls 1] [--workers 2]
                                      [--skip-sort | --skip-null]

Three geometries: even views, 60 % of the views in one cone, and a box that the particle fills 30 % less (with the same
noise in every pixel). Every set is the built-in phantom in one state, another seed each. A set is sorted with default
options, and its gain by more than one class is compared with that of its own null sets (hpcsort.sort3d.null).

A set and its null sets are exchangeable if the null is right, so that the data's rank among them is uniform; that test
pools nothing. Two more pool the null sets of all seeds of a geometry, which are draws of one design: p-values against
the pool (they share it, and are a little dependent for it), tested for uniformity, and the two-sample
Kolmogorov-Smirnov test of all data against all null sets, which needs no such excuse. Ties are broken by chance in
ranks and in the test for uniformity; "p <= 0.05" counts p-values as users see them, where ties count against the data.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.stats import chisquare, ks_2samp, kstest
from threadpoolctl import threadpool_limits

from hpcsort.parallel import SerialComm
from hpcsort.simulation import SimulationOptions, simulate
from hpcsort.sort3d import SortOptions, sort3d
from hpcsort.sort3d.null import null_survey, simulate_null, solve_by_survey, weigh_survey
from hpcsort.sort3d.problem import pose_problem
from hpcsort.sort3d.source import read_source

PARTICLES, BOX_PX, PIXEL_A, SNR = 1500, 32, 8.0, 0.2
SMALL_BOX_PX = 46
"""Edge in which the same particle fills 30 % less."""
CLASSES = 3
"""Number of classes that the survey goes up to; the gain of a set of one state does not grow beyond."""
GEOMETRIES: dict[str, dict[str, Any]] = {
    "even views": {"box_px": BOX_PX, "snr": SNR},
    "60 % in a cone": {"box_px": BOX_PX, "snr": SNR, "preferred": 0.6},
    "30 % less of the box": {"box_px": SMALL_BOX_PX, "snr": SNR * (BOX_PX / SMALL_BOX_PX) ** 2},
}
_HEADS = (
    "geometry", "sets", "exactly one group", "gain of the data", "gain of null sets", "KS data / null, p",
    "p uniform (KS), p", "p <= 0.05", "rank among own null sets", "rank uniform, p", "s a sort", "s a null set",
)  # fmt: skip


def run_one(work: Path, geometry: str, seed: int, nulls: int, sorts: bool) -> dict[str, Any]:
    """Make, sort and test one set."""
    threadpool_limits(1)
    folder = work / f"{geometry.split()[-1]}-{seed:02d}"
    options = SimulationOptions(
        out=folder,
        states=1,
        particles=PARTICLES,
        pixel_size_A=PIXEL_A,
        seed=seed,
        overwrite=True,
        **GEOMETRIES[geometry],
    )
    star = simulate(options).star
    asked = SortOptions(instack=star, output_dir=folder / "sort", overwrite=True, quiet=True)
    result: dict[str, Any] = {"geometry": geometry, "seed": seed}
    if sorts:
        start = perf_counter()
        result["groups"] = len(sort3d(asked, SerialComm()).groups)
        result["sort_s"] = perf_counter() - start
    if nulls:
        result |= _gains(asked, nulls)
    for path in (star, star.with_suffix(".mrcs")):
        path.unlink()
    return result


def _gains(asked: SortOptions, nulls: int) -> dict[str, Any]:
    comm = SerialComm()
    start = perf_counter()
    problem = pose_problem(read_source(asked, comm), comm, lambda text: None)
    found = null_survey(problem, CLASSES)
    gain, _, scores = weigh_survey(problem, found, CLASSES)
    drawn = [solve_by_survey(simulate_null(problem, number, found.spread), CLASSES) for number in range(nulls)]
    return {
        "gain": gain,
        "score": float(scores.max(initial=0.0)),
        "null_gains": [one for one, _ in drawn],
        "null_scores": [float(largest.max(initial=0.0)) for _, largest in drawn],
        "null_s": (perf_counter() - start) / (nulls + 1),
    }


def summarise(geometry: str, runs: list[dict[str, Any]]) -> list[str]:
    """Row of the table."""
    row = [geometry, str(len(runs))]
    counted = [run["groups"] for run in runs if "groups" in run]
    row.append(f"{sum(groups == 1 for groups in counted)} of {len(counted)}" if counted else "")
    if "gain" in runs[0]:
        data = np.array([run["gain"] for run in runs])
        null = np.array([run["null_gains"] for run in runs])
        pool = null.ravel()
        draw = np.random.default_rng(0)
        p = (1.0 + (pool >= data[:, None]).sum(axis=1)) / (pool.size + 1)
        fair = (_above(pool, data) + draw.random(data.size) * (_tied(pool, data) + 1)) / (pool.size + 1)
        own = _above(null, data) + draw.integers(0, _tied(null, data) + 1)
        ranks = np.bincount(own, minlength=null.shape[1] + 1)
        row += [
            f"{data.mean():.4f} +- {data.std():.4f}",
            f"{pool.mean():.4f} +- {pool.std():.4f}",
            f"{ks_2samp(data, pool).pvalue:.2f}",
            f"{kstest(fair, 'uniform').pvalue:.2f}",
            f"{int((p <= 0.05).sum())} of {p.size}",
            "/".join(map(str, ranks)),
            f"{chisquare(ranks).pvalue:.2f}",
        ]
    else:
        row += [""] * 7
    for key in ("sort_s", "null_s"):
        spent = [run[key] for run in runs if key in run]
        row.append(f"{np.mean(spent):.1f}" if spent else "")
    return row


def _above(null: np.ndarray, data: np.ndarray) -> np.ndarray:
    return np.asarray((null > data.reshape(-1, 1)).sum(axis=1))


def _tied(null: np.ndarray, data: np.ndarray) -> np.ndarray:
    return np.asarray((null == data.reshape(-1, 1)).sum(axis=1))


def _table(rows: Iterable[list[str]]) -> str:
    lines = [list(_HEADS), ["---"] + ["---:"] * (len(_HEADS) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Run all sets and print the table."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--work", type=Path, help="folder for sets and runs.jsonl; a temporary one if not given")
    given.add_argument("--seeds", type=int, default=40)
    given.add_argument("--first", type=int, default=0, help="first seed, to go on where a run has ended")
    given.add_argument("--nulls", type=int, default=1)
    given.add_argument("--workers", type=int, default=2)
    given.add_argument("--skip-sort", action="store_true")
    given.add_argument("--skip-null", action="store_true")
    asked = given.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        work = asked.work or Path(spare)
        work.mkdir(parents=True, exist_ok=True)
        nulls = 0 if asked.skip_null else asked.nulls
        runs: list[dict[str, Any]] = []
        with ProcessPoolExecutor(asked.workers) as pool, (work / "runs.jsonl").open("w", encoding="utf-8") as log:
            waiting = [
                pool.submit(run_one, work, geometry, seed, nulls, not asked.skip_sort)
                for seed in range(asked.first, asked.seeds)
                for geometry in GEOMETRIES
            ]
            for one in waiting:
                runs.append(one.result())
                log.write(json.dumps(runs[-1]) + "\n")
                log.flush()
    print(_table(summarise(name, [run for run in runs if run["geometry"] == name]) for name in GEOMETRIES))


if __name__ == "__main__":
    main()
