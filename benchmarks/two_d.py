"""Accuracy and speed of cl2d on simulated views with truth; prints the tables of 2d.md.

    python benchmarks/two_d.py [--particles 2000] [--snr 0.5,0.2,0.1,0.05] [--classes 64] [--way ...] [--work DIR]

Views of the built-in particle in two structures (all of it, and without head and factor) from 16 directions, 64 px of
5 A, each at a random in-plane angle, shifted by up to 5 px, every second one mirrored, in white noise. A class is right
for a particle if it has the view and structure of most of its members. Angles and shifts are compared within classes,
as the frame of a class is free: the pose of a class in the frame of the truth is the one most of its right members
agree on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from hpcsort.cl2d import Cl2dOptions, Cl2dResult, cl2d
from hpcsort.geometry import relion_matrices
from hpcsort.io import write_stack
from hpcsort.parallel import SerialComm
from hpcsort.partitions import adjusted_rand_index
from hpcsort.planar import PlanarPoses, PolarGrid, Searcher
from hpcsort.simulation import SectionMaker, half_plane, image_from_half_plane, ribosome_phantom

BOX, PIXEL_A, VIEWS, REACH = 64, 5.0, 16, 5.0
WAYS: dict[str, dict[str, object]] = {
    "correlation, classical": {},
    "correlation, robust": {"clustering": "robust"},
    "correntropy, classical": {"comparison": "correntropy"},
    "correntropy, robust": {"comparison": "correntropy", "clustering": "robust"},
}


def make_set(folder: Path, count: int, snr: float, seed: int = 0) -> tuple[Path, np.ndarray, PlanarPoses]:
    """Write a stack of particles; returns its path, the number of view and structure of each, and the poses."""
    rng = np.random.default_rng(seed)
    body, domains = ribosome_phantom(BOX, PIXEL_A)
    lost = ("head", "factor")
    whole = body + sum(domains.values())
    makers = [SectionMaker(whole), SectionMaker(whole - sum(domains[name] for name in lost))]
    views = relion_matrices(_directions(VIEWS))
    kind = rng.permutation(np.arange(count) % (2 * VIEWS))
    poses = PlanarPoses(rng.uniform(-180, 180, count), _in_disc(rng, count), rng.random(count) < 0.5)
    px, py = half_plane(BOX)
    images = np.empty((count, BOX, BOX), np.float32)
    turns = relion_matrices(np.stack([np.zeros(count), np.zeros(count), poses.psi_deg], axis=1))
    for row in range(count):
        sign = -1 if poses.mirror[row] else 1
        matrix = turns[row] @ views[kind[row] % VIEWS]
        section = makers[kind[row] // VIEWS].section(matrix, sign * px, py)
        phase = np.exp(2j * np.pi / BOX * (px * poses.shift_px[row, 0] + py * poses.shift_px[row, 1]))
        images[row] = image_from_half_plane(section * phase, px, py, BOX)
    images *= np.sqrt(snr / images.var(axis=(1, 2)).mean())
    images += rng.standard_normal(images.shape, np.float32)
    path = folder / f"views_{snr:g}_{count}.mrcs"
    write_stack(path, images, images.shape, PIXEL_A, overwrite=True)
    return path, kind, poses


def _directions(count: int) -> np.ndarray:
    """Angles (rot, tilt, psi) of directions spread over the upper half of the sphere; others are their mirrors."""
    z = 1 - (np.arange(count) + 0.5) / count
    return np.stack([np.rad2deg(np.arange(count) * np.pi * (3 - np.sqrt(5))), np.rad2deg(np.arccos(z)), 0 * z], axis=1)


def _in_disc(rng: np.random.Generator, count: int) -> np.ndarray:
    angle, distance = rng.uniform(0, 2 * np.pi, count), REACH * np.sqrt(rng.random(count))
    return distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def pose_errors(labels: np.ndarray, found: PlanarPoses, kind: np.ndarray, truth: PlanarPoses) -> np.ndarray:
    """Errors (k, 2) in degrees and px of the particles that are right and of the right hand, class by class."""
    errors = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        most = np.bincount(kind[members]).argmax()
        members = members[kind[members] == most]
        # particle to class, and back from the truth: the class in the frame of the truth
        frames = found.rows(members).inverse().then(truth.rows(members))
        members = members[frames.mirror == (frames.mirror.mean() > 0.5)]
        frames = found.rows(members).inverse().then(truth.rows(members))
        turn = np.exp(1j * np.deg2rad(frames.psi_deg))
        gap = np.abs(np.rad2deg(np.angle(turn[:, None] / turn)))
        middle = np.median(gap, axis=1).argmin()
        reference = frames.rows(np.full(len(members), middle))
        # the frame that most agree on, from those near the middle one
        near = gap[middle] < 10
        angle = frames.psi_deg[middle] + np.rad2deg(np.median(np.angle(turn[near] / turn[middle])))
        offset = np.median(frames.offsets_px[near], axis=0)
        turned = PlanarPoses(np.full(len(members), angle), np.zeros((len(members), 2)), reference.mirror)
        frame = PlanarPoses.from_matrices(turned.matrices, np.broadcast_to(offset, (len(members), 2)))
        rest = found.rows(members).then(frame).inverse().then(truth.rows(members))
        errors.append(np.stack([np.abs((rest.psi_deg + 180) % 360 - 180), np.hypot(*rest.offsets_px.T)], axis=1))
    return np.concatenate(errors)


def measure(
    path: Path, kind: np.ndarray, truth: PlanarPoses, classes: int, **changed: object
) -> tuple[dict, Cl2dResult]:
    """Classify and compare with the truth."""
    options = Cl2dOptions(
        path, path.with_suffix(""), classes=classes, overwrite=True, quiet=True, **changed  # type: ignore[arg-type]
    )  # fmt: skip
    start = time.process_time()
    result = cl2d(options, SerialComm())
    seconds = time.process_time() - start
    state = result.levels[-1].state
    pure = pd.crosstab(state.labels, kind).to_numpy()
    view = pd.crosstab(state.labels, kind % VIEWS).to_numpy()
    errors = pose_errors(state.labels, state.poses, kind, truth)
    row = {
        "classes": int((state.sizes > 0).sum()),
        "ARI": adjusted_rand_index(kind, state.labels),
        "purity": pure.max(axis=1).sum() / len(kind),
        "purity of views": view.max(axis=1).sum() / len(kind),
        "median angle deg": float(np.median(errors[:, 0])),
        "median shift px": float(np.median(errors[:, 1])),
        "smallest": int(state.sizes.min()),
        "CPU s": seconds,
    }
    return row, result


def speed(classes: int) -> str:
    """Comparisons per second beside the peak of the product of matrices in the same run."""
    rng = np.random.default_rng(0)
    square = rng.standard_normal((2048, 2048), np.float32)
    start = time.process_time()
    for _ in range(3):
        square @ square
    peak = 3 * 2 * 2048**3 / (time.process_time() - start)
    options = Cl2dOptions(Path("none"), Path("none"))
    grid = PolarGrid(BOX, BOX / 2, options.band_px(BOX, PIXEL_A))
    samples = grid.samples(rng.standard_normal((512, BOX, BOX), np.float32))
    searcher = Searcher(grid, samples[:classes], options.max_shift * BOX)
    spectra = grid.spectra(samples)
    start = time.process_time()
    searcher.compare(spectra)
    seconds = time.process_time() - start
    poses = len(searcher.shifts_px) * grid.angles * 2
    rate = 512 * classes * poses / seconds
    orders, rings = grid.orders, len(grid.radii)
    flops = 512 * classes * len(searcher.shifts_px) * (8 * rings * orders + 4 * grid.angles * orders)
    return (
        f"{rate / 1e9:.2f} billion poses compared a second ({len(searcher.shifts_px)} shifts x {grid.angles} angles x 2"
        f" mirrors), {flops / seconds / 1e9:.0f} Gflop/s in this; sgemm of 2048: {peak / 1e9:.0f} Gflop/s."
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument("--snr", default="0.5,0.2,0.1,0.05")
    parser.add_argument("--classes", default="64")
    parser.add_argument("--way", choices=[*WAYS, "all"], default="correlation, classical")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    with threadpool_limits(1), tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        print(speed(64), "\n")
        head = True
        for snr in map(float, given.snr.split(",")):
            path, kind, truth = make_set(work, given.particles, snr)
            for way in WAYS if given.way == "all" else [given.way]:
                for classes in map(int, given.classes.split(",")):
                    row, _ = measure(path, kind, truth, classes, **WAYS[way])
                    if head:
                        print(
                            "| SNR | way | particles | K | "
                            + " | ".join(row)
                            + " |\n|---|---|"
                            + "---:|" * (len(row) + 2)
                        )
                        head = False
                    cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()]
                    print(
                        f"| {snr:g} | {way} | {given.particles} | {classes} | " + " | ".join(cells) + " |", flush=True
                    )


if __name__ == "__main__":
    main()
