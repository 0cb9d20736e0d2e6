"""Maps of `hpcsort reconstruct` against the true maps.

    python benchmarks/reconstruct.py [--work DIR] [--particles 300]

Symmetric phantoms (D7, O) with and without --sym; the projections of RELION in relion_oracle, with and without CTF; the
true groups of dev5. Each map is compared with the true one by the FSC inside a soft sphere of the particle's radius.
A second table says how much of the true variance between the states of dev5 lies in the focus that
`focus_from_variance` finds from the maps of its groups, and that it finds none between random parts of one state.
Sets whose files are absent are left out.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from _oracle import _true_maps
from _sets import SHARED

from hpcsort.geometry import point_group
from hpcsort.io import ParticleTable, read_map, read_particles, write_map
from hpcsort.parallel import SerialComm
from hpcsort.reconstruction import (
    Reconstruction,
    ReconstructOptions,
    Source,
    half_sets,
    reconstruct,
    reconstruct_groups,
    resolution_A,
)
from hpcsort.simulation import SimulationOptions, simulate
from hpcsort.volumes import focus_from_variance, map_fsc, sphere_mask

BOX_PX, PIXEL_A, SNR = 48, 5.0, 0.02
PHANTOM_RADIUS_PX = 16
HEADS = ("set", "particles", "half-maps FSC 0.5", "half-maps FSC 0.143", "true map FSC 0.5", "Nyquist", "s")

Row = list[str]


def symmetric_phantom(operators: np.ndarray, blobs: int, seed: int) -> np.ndarray:
    """Gaussian blobs and all their symmetry mates, float32 (box, box, box)."""
    draw = np.random.default_rng(seed)
    axis = np.arange(BOX_PX) - BOX_PX // 2
    places = draw.normal(size=(blobs, 3))
    places *= PHANTOM_RADIUS_PX * draw.uniform(0.2, 1.0, (blobs, 1)) / np.linalg.norm(places, axis=1, keepdims=True)
    volume = np.zeros((BOX_PX,) * 3)
    for centre in (places @ operators.transpose(0, 2, 1)).reshape(-1, 3):
        x, y, z = (np.exp(-((axis - position) ** 2) / 2) for position in centre)
        volume += z[:, None, None] * y[:, None] * x
    return volume.astype(np.float32)


def phantoms(work: Path, particles: int) -> Iterator[Row]:
    """Reconstruct D7 and O with and without their symmetry."""
    for name, blobs in (("d7", 30), ("o", 20)):
        operators = point_group(name)
        truth = symmetric_phantom(operators, blobs, seed=len(operators))
        write_map(work / f"{name}.mrc", truth, PIXEL_A, overwrite=True)
        made = simulate(
            SimulationOptions(
                out=work / name, map_path=work / f"{name}.mrc", states=1, particles=particles, snr=SNR, seed=7,
                overwrite=True,
            )
        )  # fmt: skip
        table = read_particles(made.star)
        for sym in ("c1", name):
            yield _row(
                f"{name.upper()} phantom, --sym {sym}", work, table, truth, sym=sym, radius=PHANTOM_RADIUS_PX + 4
            )


def oracle(work: Path) -> Iterator[Row]:
    """Reconstruct from 24 noiseless projections by RELION."""
    folder = SHARED / "data" / "relion_oracle"
    if not folder.is_dir():
        return
    truth, _ = read_map(folder / "map.mrc")
    for name, told in (("ora_noctf", "without CTF"), ("ora_ctf", "with CTF")):
        table = read_particles(folder / f"{name}.star")
        if name == "ora_noctf":
            none, full = np.zeros(len(table)), np.ones(len(table))
            table = replace(table, defocus_u_A=none, defocus_v_A=none, cs_mm=none, amplitude_contrast=full)
        yield _row(f"RELION's projections {told}", work, table, truth)


def dev5(work: Path) -> Iterator[Row]:
    """Reconstruct the true groups of dev5."""
    folder = SHARED / "data" / "dev5"
    maps = _true_maps(folder) if folder.is_dir() else None
    if maps is None:
        return
    table = read_particles(folder / "particles.star")
    state = pd.read_csv(folder / "truth.csv")["state"].to_numpy()
    for number, truth in enumerate(maps):
        listing = work / f"dev5_{number}.txt"
        listing.write_text("".join(f"{row}\n" for row in np.flatnonzero(state == number)), encoding="utf-8")
        yield _row(f"dev5, state {number}", work, table, truth, listing=listing)


def focus() -> Iterator[Row]:
    """Find the focus of dev5 from its true groups, and from random parts of a state."""
    folder = SHARED / "data" / "dev5"
    truth = _true_maps(folder) if folder.is_dir() else None
    if truth is None:
        return
    table = read_particles(folder / "particles.star")
    state = pd.read_csv(folder / "truth.csv")["state"].to_numpy()
    part = np.random.default_rng(0).integers(0, 5, len(table))
    box = truth.shape[1]
    mask = sphere_mask(box, (0, 0, 0), 0.44 * box, 3.0)
    variance = truth.var(axis=0)
    for told, rows, label in (("true groups", state >= 0, state), ("random parts of state 1", state == 1, part)):
        groups = [np.flatnonzero(rows & (label == number)) for number in range(5)]
        half = half_sets(table, np.arange(len(table)), 0)
        maps = reconstruct_groups(
            SerialComm(), table, groups, half=half, radius_px=30, mask=None, symmetry=point_group("c1")
        )
        assert maps is not None
        for kind, volumes in (("maps", [one.map for one in maps]), ("first half-maps", [one.half1 for one in maps])):
            found = focus_from_variance(np.stack([one for one in volumes if one is not None]), mask)
            if found is None:
                yield [f"{told}, {kind}", "no focus", "0.00"]
            else:
                held, size = (found * variance).sum() / variance.sum(), found.sum() / mask.sum()
                yield [f"{told}, {kind}", f"{held:.2f}", f"{size:.2f}"]


def _row(told: str, work: Path, table: ParticleTable, truth: np.ndarray, **options: object) -> Row:
    start = perf_counter()
    asked = ReconstructOptions(output=work / "map", overwrite=True, quiet=True, **options)  # type: ignore[arg-type]
    result = reconstruct(asked, lambda: Source(table), SerialComm())
    assert isinstance(result, Reconstruction)
    box, voxel = len(truth), table.pixel_size_A
    mask = sphere_mask(box, (0, 0, 0), asked.radius_px(box), 5.0)
    agreement = resolution_A(map_fsc(result.maps.map * mask, truth * mask), box, voxel, 0.5)
    figures = (result.resolution_half_A, result.resolution_A, agreement, 2 * voxel, perf_counter() - start)
    return [told, str(len(result.rows)), *(f"{value:.1f}" for value in figures)]


def main() -> None:
    """Run all sets and print the table."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--work", type=Path, help="folder for sets and maps; a temporary one if not given")
    given.add_argument("--particles", type=int, default=300, help="of each phantom")
    asked = given.parse_args()
    _print(HEADS, "---", *["---:"] * (len(HEADS) - 1))
    with tempfile.TemporaryDirectory() as spare:
        work = asked.work or Path(spare)
        work.mkdir(parents=True, exist_ok=True)
        for rows in (phantoms(work, asked.particles), oracle(work), dev5(work)):
            for row in rows:
                _print(row)
    print()
    _print(("maps of dev5", "true variance in the focus", "focus, share of the mask"), "---", "---:", "---:")
    for row in focus():
        _print(row)


def _print(row: Sequence[str], *rule: str) -> None:
    for line in (row, rule):
        if line:
            print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
