"""Accuracy of sort3d on simulated sets with known states; writes the tables of accuracy.md.

    python benchmarks/accuracy.py [--work DIR] [--sets NAME,...] [--schemes] [--shared ../shared] [--ranks 2]

Every set is made by `hpcsort simulate` (the set "dev5" is read from the shared folder, and the ribosome sets need its
map; without it the built-in phantom takes its place) and sorted with default options under mpiexec. `--schemes` also
sorts with single decisions of the method changed, to show what each is worth.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpcsort.geometry import relion_matrices
from hpcsort.images import load_band
from hpcsort.io import ImageReader, read_map, read_particles
from hpcsort.kernels import interleave, score_sections
from hpcsort.parallel import SerialComm
from hpcsort.partitions import (
    adjusted_mutual_information,
    adjusted_rand_index,
    group_sizes,
    matched_accuracy,
    purities,
)
from hpcsort.sort3d.consensus import whiten
from hpcsort.sort3d.store import ParticleStore, deal_particles
from hpcsort.volumes import BandGrid

ROOT = Path(__file__).resolve().parents[1]
RIBOSOME = ["--states", "5", "--snr", "0.2", "--domain-radius", "12"]

SETS: dict[str, tuple[str, list[str]]] = {
    "seed": ("17,280 ribosomes, five even states, SNR 0.2", ["--particles", "17280", *RIBOSOME, "--seed", "1"]),
    "dev5": ("5,000 ribosomes by another simulator, five states, one lacks 4 % of the mass", []),
    "uneven": (
        "6,000 ribosomes, 60/20/10/7/3 %",
        ["--particles", "6000", *RIBOSOME, "--sizes", "60,20,10,7,3", "--seed", "3"],
    ),
    "junk": ("6,000 ribosomes, 20 % junk", ["--particles", "6000", *RIBOSOME, "--junk", "0.2", "--seed", "4"]),
    "poses": (
        "6,000 ribosomes, pose errors of 2 degrees and 0.5 px per axis",
        ["--particles", "6000", *RIBOSOME, "--angle-error", "2", "--shift-error", "0.5", "--seed", "5"],
    ),
    "preferred": (
        "6,000 ribosomes, 60 % in a cone of views",
        ["--particles", "6000", *RIBOSOME, "--preferred", "0.6", "--seed", "8"],
    ),
    "rotation": (
        "6,000 ribosomes, a domain turned in five steps of 4 degrees",
        ["--particles", "6000", *RIBOSOME, "--rotate", "4", "--seed", "9"],
    ),
    "low": (
        "8,000 ribosomes, SNR 0.1, domains of 10 px",
        ["--particles", "8000", "--states", "5", "--snr", "0.1", "--domain-radius", "10", "--seed", "7"],
    ),
    "single": ("6,000 ribosomes of one state", ["--particles", "6000", "--states", "1", "--snr", "0.2", "--seed", "2"]),
    "phantom": (
        "4,000 particles of the built-in phantom, three states (the demo)",
        ["--particles", "4000", "--states", "3", "--seed", "6"],
    ),
    "coloured": (
        "5,000 of the phantom at 48 px, four states, coloured noise, SNR 0.1",
        ["--particles", "5000", "--states", "4", "--snr", "0.1", "--noise", "coloured", "--seed", "11"],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scheme:
    """One decision of the method, changed: module constants and options."""

    name: str
    constants: dict[str, object] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)


SCHEMES = [
    Scheme("default"),
    Scheme("one pair of chains (--depth-order 1)", options={"depth_order": 1}),
    Scheme("no finishing in map space", {"chains._FINISH_ITERATIONS": 0}),
    Scheme("finishing without the scale of the classes", {"finish._SCALE_RANGE": (1.0, 1.0)}),
    Scheme("finishing without leave-one-out", {"finish._SMALL_SHARE": 2.0}),
    Scheme("prior of the subspace 0.015 alone", {"generations.SUBSPACE_SHARES": [0.015]}),
    Scheme("prior of the subspace 0.005 alone", {"generations.SUBSPACE_SHARES": [0.005]}),
    Scheme("prior of the subspace 0.05 alone", {"generations.SUBSPACE_SHARES": [0.05]}),
    Scheme("prior of the classes / 3", {"chains._CLASS_SHARE": 0.07}),
    Scheme("prior of the classes * 3", {"chains._CLASS_SHARE": 0.6}),
    Scheme("narrow bands (10 and 14)", {"problem._NARROW": 10, "problem._WIDE": 14}),
    Scheme("wide bands (18 and 24)", {"problem._NARROW": 18, "problem._WIDE": 24}),
    Scheme("5 components", options={"components": 5}),
    Scheme("12 components", options={"components": 12}),
]
SCHEME_SETS = ["dev5", "rotation"]

_RUN = """
import importlib, json, sys
from pathlib import Path
from hpcsort.parallel import abort_on_error, get_comm
from hpcsort.sort3d import SortOptions, sort3d
star, out, constants, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
for place, value in constants.items():
    module, name = place.split(".")
    module = importlib.import_module("hpcsort.sort3d." + module)
    assert hasattr(module, name), place
    setattr(module, name, tuple(value) if isinstance(value, list) else value)
comm = get_comm()
with abort_on_error(comm):
    sort3d(SortOptions(instack=Path(star), output_dir=Path(out), overwrite=True, quiet=True, **options), comm)
"""


def _make(name: str, work: Path, shared: Path) -> Path | None:
    """Folder of a set, simulated unless it is there; None where its origin is absent."""
    if name == "dev5":
        folder = shared / "data" / "dev5"
        return folder if folder.is_dir() else None
    folder = work / name
    if not (folder / "truth.csv").exists():
        ribosome = shared / "data" / "maps" / "ribosome70S_65px_5A.mrc"
        source = ["--map", str(ribosome)] if ribosome.exists() and name not in ("phantom", "coloured") else []
        box = ["--box", "48", "--angpix", "7"] if name == "coloured" else ["--box", "64", "--angpix", "5"]
        command = [str(Path(sys.executable).parent / "hpcsort"), "simulate", str(folder), *box]
        subprocess.run([*command, *source, *SETS[name][1]], check=True, stdout=subprocess.DEVNULL)
    return folder


def _sort(folder: Path, out: Path, ranks: int, scheme: Scheme) -> dict[str, Any]:
    """Sort a set and compare with the truth."""
    command = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks), sys.executable, "-c", _RUN]
    words = [str(folder / "particles.star"), str(out), json.dumps(scheme.constants), json.dumps(scheme.options)]
    # Installed code, not the source folder that this may be started in.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    subprocess.run([*command, *words], check=True, env=env)
    truth = pd.read_csv(folder / "truth.csv")["state"].to_numpy()
    run = json.loads((out / "run.json").read_text())
    labels = np.full(len(truth), -1)
    for path in sorted(out.glob("Cluster_*.txt")):
        labels[np.loadtxt(path, dtype=int, ndmin=1)] = int(path.stem.split("_")[1])
    kept = labels >= 0
    return {
        "groups": len(run["groups"]),
        "sizes": group_sizes(labels).tolist(),
        "accounted": float(kept.mean()),
        "purity": purities(truth, labels).tolist(),
        "right of accounted": matched_accuracy(truth[kept], labels[kept]),
        "right of all": matched_accuracy(truth, labels),
        "ARI": adjusted_rand_index(truth[kept], labels[kept]),
        "AMI": adjusted_mutual_information(truth[kept], labels[kept]),
        "limit": _limit(folder),
        "seconds": sum(run["seconds"].values()),
    }


def _limit(folder: Path) -> float:
    """Share right of maximum likelihood with the true maps at the given poses; NaN where the maps are not there."""
    paths = sorted(folder.glob("state_*.mrc"))
    if not paths:
        return float("nan")
    table = read_particles(folder / "particles.star")
    truth = pd.read_csv(folder / "truth.csv")["state"].to_numpy()
    assert table.box_px is not None
    grid = BandGrid(table.box_px, table.box_px // 2 - 6, 2)
    volumes = interleave(grid.to_fourier(np.stack([read_map(path)[0] for path in paths])))
    rows = np.arange(len(table))
    chunks, _ = deal_particles(len(table), SerialComm())
    with ImageReader(table) as reader:
        data = load_band(
            table, rows, relion_matrices(table.angles_deg), grid.radius, reader.read,
            particle_radius_px=table.box_px // 2 - 2,
        )  # fmt: skip
    store, _ = whiten(ParticleStore(SerialComm(), len(table), chunks, list(range(len(chunks))), data), data.images, 1)
    data = store.data
    cross, power = score_sections(
        volumes, len(paths), data.images, data.ctfs, data.rotations, data.px, data.py, grid.pad
    )
    real = np.flatnonzero(truth >= 0)
    scale = cross[real, truth[real]].sum() / power[real, truth[real]].sum()
    best = (2 * scale * cross - scale**2 * power).argmax(axis=1)
    return float((best == truth)[real].mean())


def _row(name: str, result: dict[str, Any]) -> str:
    purity = ", ".join(_percent(value) for value in result["purity"])
    numbers = " | ".join(_percent(result[key]) for key in ("accounted", "right of accounted", "right of all", "limit"))
    return (
        f"| {name} | {result['groups']} | {numbers} | {result['ARI']:.3f} | {result['AMI']:.3f} | {purity} "
        f"| {result['seconds']:.0f} |"
    )


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


_HEAD = (
    "| {} | groups | accounted % | right of accounted % | right of all % | limit % | ARI | AMI "
    "| purity of each group % | s |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---|---:|"
)


def main() -> None:
    """Make, sort, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of the simulated sets and results; default: a temporary one")
    parser.add_argument("--sets", help=f"of {', '.join(SETS)}; with --schemes {', '.join(SCHEME_SETS)} by default")
    parser.add_argument("--schemes", action="store_true")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("HPCSORT_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--ranks", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        print(f"{datetime.date.today()}, {platform.machine()}, {asked.ranks} ranks\n")
        if not asked.schemes:
            print(_HEAD.format("set"), flush=True)
            for name in asked.sets.split(",") if asked.sets else SETS:
                folder = _make(name, work, asked.shared)
                if folder is not None:
                    print(
                        _row(f"{name}: {SETS[name][0]}", _sort(folder, work / f"out_{name}", asked.ranks, SCHEMES[0])),
                        flush=True,
                    )
                if name == "seed" and folder is not None:
                    asked_for = Scheme("", options={"img_per_grp": 1920})
                    print(
                        _row("seed, --img_per_grp 1920", _sort(folder, work / "out_seed9", asked.ranks, asked_for)),
                        flush=True,
                    )
            return
        for name in asked.sets.split(",") if asked.sets else SCHEME_SETS:
            folder = _make(name, work, asked.shared)
            if folder is None:
                continue
            print(f"\n{name}: {SETS[name][0]}\n\n{_HEAD.format('scheme')}", flush=True)
            for scheme in SCHEMES:
                print(_row(scheme.name, _sort(folder, work / "out_scheme", asked.ranks, scheme)), flush=True)


if __name__ == "__main__":
    main()
