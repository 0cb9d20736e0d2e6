"""From micrograph pairs to maps by random conical tilt, compared with the simulated structure; prints rct.md's tables.

    python benchmarks/rct.py [--views 3] [--pairs 8] [--per-micrograph 60] [--tilt 55] [--snr 0.5] [--work DIR]

Runs `hpcsort simulate --tilt-pairs --views N`, `extract-pairs`, `cl2d` on the untilted images, and `reconstruct --rct`;
and once more with the true classes in the place of cl2d's. The orientation of a class is that on which most of its
particles agree, by the truth of the simulation; translations are taken out before maps are compared.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import affine_transform

from hpcsort.geometry import relion_matrices
from hpcsort.io import read_map, read_particles, write_particles
from hpcsort.reconstruction.conical import class_views
from hpcsort.volumes import last_shell_above, soft_sphere

BOX, PIXEL_A = 64, 5.0
_NEAR_DEG = 20.0


def run(*words: object) -> str:
    """Run a command of hpcsort; prints its time and returns what it says."""
    start = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = "from hpcsort.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
    print(f"- `{words[0]}`: {time.perf_counter() - start:.0f} s, {used:.0f} CPU s", flush=True)
    return done.stdout


def true_classes(folder: Path, truth: pd.DataFrame) -> Path:
    """Write the classes and in-plane angles of the simulation in the form of a 2D classification."""
    table = read_particles(folder / "pairs/untilted.star", need_poses=False)
    rows = truth.loc[np.asarray(table.frame["hpcsortPairId"])]
    number = rows.groupby([rows["rot_u"].round(4), rows["tilt_u"].round(4)]).ngroup().to_numpy() + 1
    path = folder / "true_classes.star"
    write_particles(path, table, {"rlnClassNumber": number, "rlnAnglePsi": rows["psi_u"].to_numpy()})
    return path


def orientation(classes: Path, number: int, truth: pd.DataFrame) -> tuple[np.ndarray, float]:
    """Rotation from the structure to the frame of a class, and the share of its particles that agree on it."""
    table = read_particles(classes, need_poses=False)
    frame = table.frame[table.frame["rlnClassNumber"].astype(int) == number]
    rows = truth.loc[np.asarray(frame["hpcsortPairId"])]
    views = relion_matrices(rows[["rot_u", "tilt_u", "psi_u"]].to_numpy())
    mirror = np.asarray(frame.get("hpcsortMirror", pd.Series(0, frame.index))).astype(int) == 1
    own = np.swapaxes(class_views(np.asarray(frame["rlnAnglePsi"], np.float64), mirror), 1, 2) @ views
    cosine = (np.einsum("iab,jab->ij", own, own) - 1) / 2
    near = cosine > np.cos(np.deg2rad(_NEAR_DEG))
    agreeing = near[near.sum(axis=1).argmax()]
    u, _, v = np.linalg.svd(own[agreeing].mean(axis=0))
    return u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v, float(agreeing.mean())


def turned(volume: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Volume [z, y, x] whose point R x shows what the volume has at x."""
    matrix = rotation.T[::-1, ::-1]
    middle = np.full(3, len(volume) // 2)
    return affine_transform(volume, matrix, middle - matrix @ middle, order=3)


def centred_on(volume: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Shift a volume to where it correlates best with another, between voxels by a parabola each way."""
    product = np.conj(np.fft.fftn(volume)) * np.fft.fftn(true)
    correlation = np.fft.ifftn(product).real
    peak = np.unravel_index(int(correlation.argmax()), correlation.shape)
    edge = len(volume)
    frequency = np.fft.fftfreq(edge)
    phase = np.zeros((edge,) * 3)
    for axis in range(3):
        line = np.moveaxis(correlation, axis, 0)[(slice(None), *(peak[other] for other in range(3) if other != axis))]
        before, top, after = (line[(peak[axis] + step) % edge] for step in (-1, 0, 1))
        shift = peak[axis] + (before - after) / (2 * (before - 2 * top + after))
        phase += np.moveaxis(np.broadcast_to(frequency * shift, (edge,) * 3), 2, axis)
    return np.fft.ifftn(np.fft.fftn(volume) * np.exp(-2j * np.pi * phase)).real


def correlations(found: np.ndarray, true: np.ndarray, tilt_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """FSC of two volumes inside a soft sphere: of whole shells, and of their measured part."""
    axis = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = np.sqrt(x * x + y * y + z * z)
    mask = soft_sphere(radius.astype(np.float32), BOX // 2 - 5, 5.0)
    first, second = (np.fft.fftshift(np.fft.fftn(data * mask)) for data in (found, true))
    shell = np.rint(radius).astype(int)
    curves = []
    for inside in (radius > 0, np.abs(z) < radius * np.sin(np.deg2rad(tilt_deg))):
        sums = [
            np.bincount(shell[inside], weights[inside], BOX)[: BOX // 2 + 1]
            for weights in ((np.conj(first) * second).real, np.abs(first) ** 2, np.abs(second) ** 2)
        ]
        with np.errstate(invalid="ignore"):
            curves.append(np.nan_to_num(sums[0] / np.sqrt(sums[1] * sums[2])))
    curves[0][0] = curves[1][0] = 1.0
    return curves[0], curves[1]


def compare(folder: Path, classes: Path, stem: Path, truth: pd.DataFrame, tilt_deg: float) -> None:
    """Print a row for each class with a map."""
    structure = read_map(folder / "sim/state_00.mrc")[0]
    print(
        "\n| class | particles | of one view | half-maps 0.143 | structure 0.5 | measured part 0.5 | other hand 0.5 |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    curves = []
    for path in sorted(stem.parent.glob(f"{stem.name}_class???.mrc")):
        number = int(path.stem[-3:])
        found = read_map(path)[0]
        rotation, share = orientation(classes, number, truth)
        whole, part = correlations(
            centred_on(found, turned(structure, rotation)), turned(structure, rotation), tilt_deg
        )
        mirror = np.roll(turned(structure, rotation)[::-1], 1, axis=0)
        other = correlations(centred_on(found, mirror), mirror, tilt_deg)[1]
        halves = np.loadtxt(path.with_name(f"{path.stem}_fsc.txt"))[:, 2]
        count = len(read_particles(path.with_suffix(".star")))
        told = " | ".join(
            f"{_resolution(curve, level)}"
            for curve, level in ((halves, 0.143), (whole, 0.5), (part, 0.5), (other, 0.5))
        )
        print(f"| {number} | {count} | {100 * share:.0f} % | {told} |", flush=True)
        curves.append((number, part))
    print("\n| FSC of the measured part at | " + " | ".join(f"class {number}" for number, _ in curves) + " |")
    print("|---:|" + "---:|" * len(curves))
    for shell in (4, 6, 8, 10, 12, 14, 16, 20):
        values = " | ".join(f"{curve[shell]:.2f}" for _, curve in curves)
        print(f"| {BOX * PIXEL_A / shell:.0f} A | {values} |")


def _resolution(curve: np.ndarray, level: float) -> str:
    shell = last_shell_above(curve, level)
    return f"{BOX * PIXEL_A / shell:.1f} A" if shell > 0 else "none"


def main() -> None:
    """Simulate, classify, reconstruct, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("views", 3), ("pairs", 8), ("per-micrograph", 60), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, value in (("tilt", 55.0), ("snr", 0.5)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--work", type=Path, help="folder for the files, which are removed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.work) as name:
        folder = Path(name)
        sim, pairs = folder / "sim", folder / "pairs"
        run(
            "simulate", sim, "--tilt-pairs", asked.pairs, "--views", asked.views, "--per-micrograph",
            asked.per_micrograph, "--micrograph-size", 1024, "--tilt", asked.tilt, "--box", BOX, "--angpix", PIXEL_A,
            "--snr", asked.snr, "--seed", asked.seed,
        )  # fmt: skip
        run(
            "extract-pairs", "--pairs", sim / "pairs.star", "--coordinates", sim / "coordinates", "--box", BOX,
            "--invert", "--ctf-untilted", sim / "ctf_untilted.star", "--ctf-tilted", sim / "ctf_tilted.star",
            "--tilted-defocus", "gradient", "--no-report", "--output", pairs,
        )  # fmt: skip
        run(
            "cl2d", "--instack", pairs / "untilted.star", "--output-dir", folder / "2d", "--classes", asked.views,
            "--initial-classes", asked.views, "--ctf", "flip", "--no-core", "--no-stable-core", "--quiet",
        )  # fmt: skip
        truth = pd.read_csv(sim / "truth.csv").set_index("pair_id")
        found = max((folder / "2d").glob("level_*/particles.star"))
        for title, classes in (("cl2d", found), ("the true classes", true_classes(folder, truth))):
            print(f"\n## Classes: {title}\n")
            stem = folder / f"rct_{title.split()[-1]}" / "map"
            print(run("reconstruct", classes, "--rct", pairs, "--output", stem))
            compare(folder, classes, stem, truth, asked.tilt)


if __name__ == "__main__":
    main()
