"""What smeared orientations are worth: the seed experiment with poses known to 2 degrees and 0.5 px.

    python benchmarks/smears.py [--work DIR] [--particles 17280] [--smears 30] [--ranks 2]

Particles are simulated with errors in their written poses; a map is reconstructed from these poses, and `hpcsort match
--local` gives each particle its likeliest pose and up to 30 smears. Then the particles are sorted as they were given,
with the likeliest pose only, with smears scored by their mean likelihood, and with smears scored by the likeliest.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from _measures import measure, read_truth
from _sets import HPCSORT, SHARED

_SET = ("--states", "5", "--snr", "0.2", "--domain-radius", "12", "--angle-error", "2", "--shift-error", "0.5")
_MATCH = ("--local", "--angle-range", "8", "--shift-range", "2")
_HEADS = ("poses", "mean poses a particle", "groups", "accounted %", "lowest purity %", "right of likeliest %", "ARI")


def _run(*words: str, ranks: int = 1) -> tuple[float, float]:
    """Run hpcsort; wall and CPU seconds."""
    launcher = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)] if ranks > 1 else []
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run([*launcher, *HPCSORT, *words], check=True, stdout=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _smears_told(out: Path) -> str:
    for line in (out / "log.txt").read_text().splitlines():
        if "Smears: mean " in line:
            return line.split("Smears: mean ")[1].split(",")[0]
    return "1"


def main() -> None:
    """Make, match, sort, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--particles", type=int, default=17280)
    parser.add_argument("--smears", type=int, default=30)
    parser.add_argument("--smears-only", action="store_true", help="leave out the sorts with one pose a particle")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--shared", type=Path, default=SHARED)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        given, matched = work / "given", work / "matched.star"
        if not (given / "truth.csv").exists():
            path = asked.shared / "data" / "maps" / "ribosome70S_65px_5A.mrc"
            source = ["--map", str(path)] if path.exists() else []
            words = ["--box", "64", "--angpix", "5", "--particles", str(asked.particles), *_SET, "--seed", "31"]
            _run("simulate", str(given), *source, *words)
        if not matched.exists():
            _run("reconstruct", str(given / "particles.star"), "--output", str(work / "map" / "all"), ranks=asked.ranks)
            words = ["--instack", str(given / "particles.star"), "--ref", str(work / "map" / "all.mrc"), *_MATCH]
            words += ["--output", str(matched), "--max-smears", str(asked.smears)]
            wall, cpu = _run("match", *words, ranks=asked.ranks)
            print(f"match --local: {wall:.0f} s, {cpu:.0f} CPU s\n")
        print("| " + " | ".join([*_HEADS, "CPU s"]) + " |\n|---|" + "---:|" * len(_HEADS), flush=True)
        truth = read_truth(given)
        for name, star, words in (
            ("as given, wrong by 2 degrees and 0.5 px", given / "particles.star", []),
            ("the likeliest (--nsmear 1)", matched, ["--nsmear", "1"]),
            ("smears", matched, []),
            ("smears, --scores best", matched, ["--scores", "best"]),
        ):
            if asked.smears_only and not name.startswith("smears"):
                continue
            out = work / f"sorted_{name.split(',')[0].replace(' ', '_').replace('(', '').replace(')', '')}{len(words)}"
            _, cpu = _run(
                "sort3d", "--instack", str(star), "--output-dir", str(out), "--overwrite", "--quiet", *words,
                ranks=asked.ranks,
            )  # fmt: skip
            found = measure(truth, out)
            cells = [name, _smears_told(out), str(found["groups"]), f"{100 * found['accounted']:.1f}"]
            cells += [f"{100 * min(found['purity']):.1f}", f"{100 * found['right of likeliest']:.1f}"]
            cells += [f"{found['ARI of likeliest']:.3f}", f"{cpu:.0f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
            (work / "results.jsonl").open("a").write(json.dumps(cells) + "\n")


if __name__ == "__main__":
    main()
