"""Time of cluster-averages for many averages, the families it finds over noise levels, and copies that it divides.

    python benchmarks/averages.py [--averages 300] [--box 64] [--sets 6]

Averages are made on the spot: views of ten blobs each, turned and mirrored at random, shifted by up to 4 % of the box,
with noise that is correlated over some pixels, as it is in averages. Noise is given as its standard deviation over that
of the view. CPU seconds are those of one process with one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from hpcsort.averages import (
    Averages,
    AveragesOptions,
    choose_partition,
    cluster_averages,
    cluster_stability,
    compare_all,
    find_families,
    judge_one_family,
    prepare,
)
from hpcsort.averages.merge import family_of
from hpcsort.io import write_stack
from hpcsort.parallel import SerialComm
from hpcsort.partitions import adjusted_rand_index
from hpcsort.planar import PlanarPoses, apply_poses

Images = npt.NDArray[np.float32]


def make_views(count: int, box: int, seed: int) -> Images:
    """Make sums of Gaussian blobs within a third of the box."""
    rng = np.random.default_rng(seed)
    x = np.arange(box) - box // 2
    out = np.zeros((count, box, box), np.float32)
    for image in out:
        for _ in range(10):
            radius, angle, width = (
                0.3 * box * np.sqrt(rng.random()),
                2 * np.pi * rng.random(),
                box * rng.uniform(0.03, 0.07),
            )
            square = (x[:, None] - radius * np.sin(angle)) ** 2 + (x - radius * np.cos(angle)) ** 2
            image += rng.uniform(0.5, 1.5) * np.exp(-square / (2 * width**2))
    return out


def make_averages(views: Images, labels: npt.NDArray[np.int64], noise: float, seed: int) -> Images:
    """Move views and add noise."""
    rng = np.random.default_rng(seed)
    count, reach = len(labels), 0.04 * views.shape[-1]
    shift = rng.uniform(-reach, reach, (count, 2))
    moved = apply_poses(views[labels], PlanarPoses(rng.uniform(0, 360, count), shift, rng.random(count) < 0.5))
    coloured = scipy.ndimage.gaussian_filter(rng.standard_normal(moved.shape), (0, 1.5, 1.5))
    return (moved + noise * views.std() / coloured.std() * coloured).astype(np.float32)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result and the CPU seconds it took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def time_table(count: int, box: int) -> None:
    """Print the CPU time of each part."""
    labels = np.arange(count) % 12
    images = make_averages(make_views(12, box, 1), labels, 0.4, 2)
    print(f"\n## {count} averages of {box} px, 12 families, 10 to {count - 2} families tried: CPU seconds\n")
    print("| similarity | all pairs | clustering | test | stability | whole program | ARI |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for kind in ("ssim", "ncc"):
        prepared = prepare(images)
        similarity, pairs = timed(lambda prepared=prepared, kind=kind: compare_all(prepared, kind))
        distance = similarity.distance
        (best, _), clustering = timed(lambda distance=distance: choose_partition(distance, 10, count - 2, 0))
        onto = similarity.poses_onto(np.arange(count), 0)
        _, test = timed(lambda prepared=prepared, onto=onto: judge_one_family(prepared, onto, 0, 0))
        _, stability = timed(lambda d=distance, b=best: cluster_stability(d, b.labels, b.method, 0))
        with tempfile.TemporaryDirectory() as name:
            write_stack(Path(name) / "a.mrcs", images, images.shape, 2.0)
            options = AveragesOptions(Path(name) / "a.mrcs", Path(name) / "out", similarity=kind, quiet=True)
            found, whole = timed(lambda options=options: cluster_averages(options, SerialComm()))
        ari = adjusted_rand_index(family_of(found.families, count), labels)
        print(
            f"| {kind} | {pairs:.1f} | {clustering:.1f} | {test:.1f} | {stability:.1f} | {whole:.1f} | {ari:.3f} |",
            flush=True,
        )


def find(images: Images, kind: str) -> npt.NDArray[np.int64]:
    """Families of averages, of which there may be one."""
    count = len(images)
    names = [f"{place + 1}@a.mrcs" for place in range(count)]
    averages = Averages(images, np.arange(1, count + 1), names, np.ones(count), 1.0, None, ())
    options = AveragesOptions(Path("a"), Path("b"), min_clusters=1, max_clusters=20, similarity=kind, quiet=True)
    return family_of(find_families(averages, options).families, count)


def family_table(sets: int) -> None:
    """Print how often families are found."""
    print(f"\n## Families found, 1 to 20 tried, {sets} sets a row, 48 px\n")
    print("| families | averages | noise | SSIM: right number | mean ARI | NCC: right number | mean ARI |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for families, count in ((1, 12), (3, 36), (8, 64)):
        labels = np.arange(count) % families
        for noise in (0.1, 0.3, 0.6, 1.0):
            cells = []
            for kind in ("ssim", "ncc"):
                made = [find(make_averages(make_views(families, 48, s), labels, noise, s), kind) for s in range(sets)]
                right = sum(int(found.max()) + 1 == families for found in made)
                ari = float(np.mean([adjusted_rand_index(found, labels) for found in made]))
                cells += [f"{right} of {sets}", f"{ari:.3f}" if families > 1 else "-"]
            print(f"| {families} | {count} | {noise} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--averages", type=int, default=300, help="0 leaves the first table out")
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--sets", type=int, default=6)
    asked = parser.parse_args()
    if asked.averages:
        time_table(asked.averages, asked.box)
    family_table(asked.sets)


if __name__ == "__main__":
    main()
