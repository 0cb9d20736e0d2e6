"""RELION's classification without alignment on the sets of accuracy.py, beside sort3d; writes the table of peers.md.

    python benchmarks/peers.py --work DIR [--sets NAME,...] [--only relion|hpcsort] [--alternate]

RELION is told the number of classes (for junk two more, one for either kind); hpcsort is not. Both run as one process
with one thread. RELION's results in DIR are kept and not made again, so the table can be remade where it is absent.
With --alternate both run now, hpcsort before RELION and after it, so that a machine that slows down is seen.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import starfile
from _sets import HPCSORT, SETS, SHARED, make_set

from hpcsort.partitions import adjusted_rand_index, matched_accuracy

ITERATIONS = 25
# The settings of RELION's own Class3D job, but without --norm and --scale: the simulated images have one scale.
_REFINE = (
    "relion_refine --i particles.star --o ./run --ref reference.mrc --ini_high 40 --K {classes} --iter {iterations}"
    " --tau2_fudge 4 --particle_diameter {diameter:g} --skip_align --ctf --flatten_solvent --zero_mask"
    " --pad 2 --pool 100 --sym C1 --j 1 --preread_images --dont_check_norm --dont_combine_weights_via_disc"
    " --random_seed 1"
)
_RECONSTRUCT = "relion_reconstruct --i particles.star --o reference.mrc --ctf"


def _measured(command: list[str], folder: Path, log: str) -> dict[str, float]:
    """Run a command with one thread; CPU time of it and of the processes it has waited for, wall time, peak memory."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    start = time.monotonic()
    with (folder / log).open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    # told to the object, which would wait for the process again
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}; see {folder / log}")
    return {
        "seconds": used.ru_utime + used.ru_stime,
        "wall_s": time.monotonic() - start,
        "memory_GB": 1024 * used.ru_maxrss / 1e9,
    }


def _relion(name: str, source: Path, folder: Path, again: bool) -> dict[str, Any] | None:
    """Classify a set; None where RELION is absent and has left no result."""
    kept = folder / "result.json"
    if kept.exists() and not again:
        return dict(json.loads(kept.read_text()))
    if shutil.which("relion_refine") is None:
        print(f"{name}: skipped, relion_refine is not installed (Debian: apt-get install relion)", file=sys.stderr)
        return None
    folder.mkdir(parents=True, exist_ok=True)
    box = _write_input(source, folder)
    words = _REFINE.format(classes=SETS[name].states, iterations=ITERATIONS, diameter=(box[0] - 4) * box[1])
    reference = _measured(_RECONSTRUCT.split(), folder, "reconstruct.log")
    used = _measured(words.split(), folder, "refine.log")
    used = {
        "seconds": used["seconds"] + reference["seconds"],
        "wall_s": used["wall_s"] + reference["wall_s"],
        "memory_GB": max(used["memory_GB"], reference["memory_GB"]),
    }
    classes = starfile.read(folder / f"run_it{ITERATIONS:03d}_data.star")["particles"]
    # RELION sorts its table by micrograph
    order = classes["rlnImageName"].str.split("@").str[0].astype(int).to_numpy() - 1
    labels = np.empty(len(classes), dtype=np.int64)
    labels[order] = classes["rlnClassNumber"].to_numpy() - 1
    told = subprocess.run(["relion_refine", "--version"], capture_output=True, text=True).stdout.split()
    result = _compared(source, labels) | used | {
        "command": words, "version": told[2], "date": str(datetime.date.today())
    }  # fmt: skip
    kept.write_text(json.dumps(result, indent=1) + "\n")
    for path in folder.glob("run_it*"):
        if f"it{ITERATIONS:03d}" not in path.name:
            path.unlink()
    (folder / "particles.mrcs").unlink()
    return result


def _write_input(source: Path, folder: Path) -> tuple[int, float]:
    """Table and stack as RELION 3.1 reads them: with its version line, in float32; returns edge and pixel size."""
    tables = starfile.read(source / "particles.star")
    text = []
    for name in ("optics", "particles"):
        table = tables[name]
        columns = "".join(f"_{column} #{number}\n" for number, column in enumerate(table.columns, start=1))
        rows = table.to_csv(sep=" ", header=False, index=False)
        text.append(f"\n# version 30001\n\ndata_{name}\n\nloop_\n{columns}{rows}\n")
    (folder / "particles.star").write_text("".join(text))
    stack = folder / "particles.mrcs"
    stack.unlink(missing_ok=True)
    if mrcfile.mmap(source / stack.name, permissive=True).data.dtype == np.float32:
        stack.symlink_to((source / stack.name).resolve())
    else:
        pixels = mrcfile.read(source / stack.name).astype(np.float32)
        mrcfile.write(stack, pixels, voxel_size=float(tables["optics"]["rlnImagePixelSize"].iloc[0]))
    optics = tables["optics"].iloc[0]
    return int(optics["rlnImageSize"]), float(optics["rlnImagePixelSize"])


def _hpcsort(source: Path, folder: Path) -> dict[str, Any]:
    """Sort a set with default options; unaccounted particles count with their likeliest group."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [*HPCSORT, "sort3d", "--instack", str(source / "particles.star")]
    used = _measured([*command, "--output-dir", "sorted", "--overwrite"], folder, "sort3d.log")
    table = starfile.read(folder / "sorted" / "particles.star")["particles"]
    column = "hpcsortLikeliestGroup" if "hpcsortLikeliestGroup" in table else "rlnClassNumber"
    groups = int(table["rlnClassNumber"].max())
    accounted = float((table["rlnClassNumber"] > 0).mean())
    found = _compared(source, table[column].to_numpy() - 1)
    return found | used | {"groups": groups, "accounted": accounted}


def _compared(source: Path, labels: np.ndarray) -> dict[str, Any]:
    truth = pd.read_csv(source / "truth.csv")["state"].to_numpy()
    return {"right": matched_accuracy(truth, labels), "ARI": adjusted_rand_index(truth, labels)}


def main() -> None:
    """Run both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the sets and results")
    parser.add_argument("--sets", help=f"of {', '.join(SETS)}; default: all")
    parser.add_argument("--only", choices=["relion", "hpcsort"])
    parser.add_argument("--alternate", action="store_true", help="run both now, hpcsort before and after RELION")
    parser.add_argument("--shared", type=Path, default=SHARED)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    used = "CPU s | wall s | peak GB"
    print(f"| set | K told | RELION right % | ARI | {used} | sort3d groups | accounted % | right % | ARI | {used} |")
    print("|---|" + "---:|" * 13, flush=True)
    for name in asked.sets.split(",") if asked.sets else SETS:
        source = make_set(name, asked.work, asked.shared)
        if source is None:
            continue
        source = source.resolve()
        runs = []
        if asked.alternate:
            runs.append(_hpcsort(source, asked.work / f"peers_{name}"))
        theirs = None
        if asked.only != "hpcsort":
            theirs = _relion(name, source, asked.work / f"relion_{name}", asked.alternate)
        if asked.only != "relion":
            runs.append(_hpcsort(source, asked.work / f"peers_{name}"))
        for ours in runs or [None]:
            cells = [name, str(SETS[name].states), *(_cells(theirs) if theirs else ["-"] * 5)]
            if ours:
                cells += [str(ours["groups"]), f"{100 * ours['accounted']:.1f}", *_cells(ours)]
            print("| " + " | ".join(cells + ["-"] * (14 - len(cells))) + " |", flush=True)


def _cells(result: dict[str, Any]) -> list[str]:
    right = [f"{100 * result['right']:.1f}", f"{result['ARI']:.3f}", f"{result['seconds']:.0f}"]
    # results of earlier versions have CPU time only
    rest = [f"{result['wall_s']:.0f}", f"{result['memory_GB']:.2f}"] if "wall_s" in result else ["-", "-"]
    return right + rest


if __name__ == "__main__":
    main()
