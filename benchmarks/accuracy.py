"""Accuracy of sort3d on simulated sets with known states; prints the tables of accuracy.md.

    python benchmarks/accuracy.py [--work DIR] [--sets NAME,...] [--reliability] [--shared ../shared] [--ranks 2]
    python benchmarks/accuracy.py --sweep       the seed set, asked for 5 to 11 groups
    python benchmarks/accuracy.py --schemes     single decisions of the method changed
    python benchmarks/accuracy.py --oracle      what is possible
    python benchmarks/accuracy.py --all         everything

With --keep, sorts whose results are in the folder --work are not made again: a long table can be made in parts.

Every set is made by `hpcsort simulate` (the set "dev5" is read from the shared folder, and the ribosome sets need its
map; without it the built-in phantom takes its place) and sorted with default options under mpiexec.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _measures import measure, read_truth, reliability_rows
from _oracle import oracle_scores, truth_start_scores
from _schemes import DEFAULT, SCHEME_SETS, SCHEMES, Scheme, check_schemes, sort_set
from _sets import SETS, SHARED, make_set

_ASKED = range(5, 12)
_COLUMNS = (
    "groups",
    "states found",
    "accounted %",
    "right of accounted %",
    "right of all %",
    "right of likeliest %",
    "oracle %",
    "likeliest / oracle",
    "ARI",
    "ARI of likeliest",
    "oracle ARI",
    "ECE",
    "purity of each group %",
    "s",
)
_BINS_HEAD = "| set | probability | particles | mean probability | share right |\n|---|---|---:|---:|---:|"


class Bench:
    """Sets on disk, each with its truth and its oracle, which are found once."""

    def __init__(self, work: Path, shared: Path, ranks: int, keep: bool) -> None:
        self._work, self._shared, self._ranks, self._keep = work, shared, ranks, keep
        self._oracles: dict[str, tuple[float, float]] = {}

    def sort(self, name: str, out: str, scheme: Scheme = DEFAULT) -> dict[str, Any] | None:
        """Sort a set and compare with the truth; None where the set cannot be had."""
        folder = make_set(name, self._work, self._shared)
        if folder is None:
            return None
        kept = self._work / "results" / f"{name} {scheme.name.replace('/', ':')}.json"
        if self._keep and kept.exists():
            result: dict[str, Any] = json.loads(kept.read_text())
            return result | {"reliability": None}
        if name not in self._oracles:
            self._oracles[name] = oracle_scores(folder)
        sort_set(folder, self._work / out, self._ranks, scheme)
        right, ari = self._oracles[name]
        result = measure(read_truth(folder), self._work / out) | {"oracle": right, "oracle ARI": ari}
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps({key: value for key, value in result.items() if key != "reliability"}))
        return result

    def possible(self, name: str) -> tuple[float, float, float, float] | None:
        """Share right and ARI with the true maps, and begun at the true groups; None where the set cannot be had."""
        folder = make_set(name, self._work, self._shared)
        return None if folder is None else (*oracle_scores(folder), *truth_start_scores(folder))

    def particles(self, name: str) -> int:
        """Size of a set."""
        folder = make_set(name, self._work, self._shared)
        return 0 if folder is None else len(read_truth(folder))


def table_of_sets(bench: Bench, names: list[str], reliability: bool) -> None:
    """Sort sets with default options."""
    _print_head("set")
    bins = []
    for name in names:
        result = bench.sort(name, f"out_{name}")
        if result is not None:
            print(_row(f"{name}: {SETS[name].told}", result), flush=True)
            if result["reliability"] is not None:
                bins += reliability_rows(name, result["reliability"])
    if reliability and bins:
        print(f"\n{_BINS_HEAD}", *bins, sep="\n", flush=True)


def table_of_oracles(bench: Bench, names: list[str]) -> None:
    """Print what is possible."""
    print("| set | true maps: right % | ARI | begun at the true groups: right % | ARI |\n|---|---:|---:|---:|---:|")
    for name in names:
        found = bench.possible(name)
        if found is not None:
            cells = [_number(100 * found[0], 1), _number(found[1], 3), _number(100 * found[2], 1), _number(found[3], 3)]
            print("| " + " | ".join([name, *cells]) + " |", flush=True)


def table_of_sizes(bench: Bench, name: str) -> None:
    """Ask for other numbers of groups than there are."""
    _print_head(name)
    for asked in _ASKED:
        size = bench.particles(name) // asked
        scheme = Scheme(f"--img_per_grp {size} ({asked} groups asked for)", options={"img_per_grp": size})
        result = bench.sort(name, "out_asked", scheme)
        if result is not None:
            print(_row(scheme.name, result), flush=True)


def table_of_schemes(bench: Bench, names: list[str]) -> None:
    """Sort with single decisions changed: a table for every set, then one of all."""
    results: dict[tuple[str, str], dict[str, Any]] = {}
    for scheme in SCHEMES:
        print(f"\n{scheme.name}\n")
        _print_head("set")
        for name in names:
            result = bench.sort(name, f"out_scheme_{name}", scheme)
            if result is not None:
                results[scheme.name, name] = result
                print(_row(name, result), flush=True)
    print("\nRight of likeliest %, ARI of the accounted, groups:\n\n| scheme | " + " | ".join(names) + " |")
    print("|---|" + "---:|" * len(names))
    for scheme in SCHEMES:
        found = [results.get((scheme.name, name)) for name in names]
        print(f"| {scheme.name} | " + " | ".join(_short(result) for result in found) + " |", flush=True)


def _short(result: dict[str, Any] | None) -> str:
    if result is None:
        return "-"
    return f"{_number(100 * result['right of likeliest'], 1)}, {result['ARI']:.3f}, {result['groups']}"


def _print_head(first: str) -> None:
    print(f"| {first} | " + " | ".join(_COLUMNS) + " |")
    print("|---|" + "---:|" * len(_COLUMNS), flush=True)


def _row(name: str, result: dict[str, Any]) -> str:
    shares = ("accounted", "right of accounted", "right of all", "right of likeliest", "oracle")
    ratio = result["right of likeliest"] / result["oracle"]
    cells = [name, str(result["groups"]), f"{result['found']} of {result['states']}"]
    cells += [_number(100 * result[key], 1) for key in shares]
    cells += [_number(value, 3) for value in (ratio, *(result[key] for key in ("ARI", "ARI of likeliest")))]
    cells += [_number(result[key], 3) for key in ("oracle ARI", "calibration")]
    cells += [", ".join(_number(100 * purity, 1) for purity in result["purity"]), f"{result['seconds']:.0f}"]
    return "| " + " | ".join(cells) + " |"


def _number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def main() -> None:
    """Make, sort, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of the simulated sets and results; default: a temporary one")
    parser.add_argument("--sets", help=f"of {', '.join(SETS)}; with --schemes {', '.join(SCHEME_SETS)} by default")
    parser.add_argument("--reliability", action="store_true", help="also how often each probability is right")
    parser.add_argument("--sweep", action="store_true", help="the seed set with --img_per_grp")
    parser.add_argument("--schemes", action="store_true")
    parser.add_argument("--oracle", action="store_true", help="what is possible")
    parser.add_argument("--keep", action="store_true", help="do not sort again what has results in the folder --work")
    parser.add_argument("--all", action="store_true", help="all tables of accuracy.md")
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--ranks", type=int, default=2)
    asked = parser.parse_args()
    named = asked.sets.split(",") if asked.sets else []
    if unknown := set(named) - set(SETS):
        parser.error(f"no set {', '.join(sorted(unknown))}; there are {', '.join(SETS)}")
    if asked.schemes or asked.all:
        check_schemes()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(work, asked.shared, asked.ranks, asked.keep)
        print(f"{datetime.date.today()}, {platform.machine()}, {asked.ranks} ranks")
        if asked.all or asked.oracle:
            print("\n## What is possible\n")
            table_of_oracles(bench, named or list(SETS))
        if asked.all or not (asked.sweep or asked.schemes or asked.oracle):
            print("\n## Default options\n")
            table_of_sets(bench, named or list(SETS), asked.reliability or asked.all)
        if asked.all or asked.sweep:
            print("\n## Numbers of groups asked for\n")
            table_of_sizes(bench, "seed")
        if asked.all or asked.schemes:
            print("\n## What single decisions are worth")
            table_of_schemes(bench, named or SCHEME_SETS)


if __name__ == "__main__":
    main()
