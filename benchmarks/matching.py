"""Accuracy of match on simulated particles with known poses; prints the tables of matching.md.

    python benchmarks/matching.py [--work DIR] [--shared ../shared] [--sets 0.2,0.1,0.05] [--ways]

Ribosomes of 64 px and 5 A (the built-in phantom where the map is absent) are made by `hpcsort simulate`, matched
globally from a table without poses, and locally from poses that are wrong by 2 degrees and 0.5 px on each axis. The
limit is what the Fisher information of the pose allows (Cramer-Rao), at the true pose, with the maps, the noise and the
band of the search. `--ways` times three ways to compare particles with a coarse grid of poses.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft
from _sets import HPCSORT, SHARED
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from hpcsort.geometry import relion_matrices
from hpcsort.images import load_band
from hpcsort.io import ImageReader, read_input, read_map, write_tables
from hpcsort.io.star import read_tables
from hpcsort.matching import MatchOptions, MatchResult, match
from hpcsort.matching.grids import angles_between
from hpcsort.matching.model import Candidates
from hpcsort.matching.references import read_reference, share_references
from hpcsort.matching.refine import evaluate
from hpcsort.parallel import SerialComm

_PARTICLES = {"0.2": 1000, "0.1": 600, "0.05": 600}
_LEVELS = (0.5, 0.9, 0.99)
_LOST_DEG = 10.0
_HEAD = (
    "| SNR | search | particles | angle: median deg | limit deg | cell deg | shift: median px | limit px | cell px | "
    "lost % | truth within 50 / 90 / 99 % | smears | CPU s |\n|---|---|" + "---:|" * 11
)


def make_particles(snr: str, work: Path, shared: Path) -> Path:
    """Simulate a set unless it is there, and its table without poses."""
    folder = work / f"match_{snr}"
    if not (folder / "truth.csv").exists():
        path = shared / "data" / "maps" / "ribosome70S_65px_5A.mrc"
        source = ["--map", str(path)] if path.exists() else []
        words = ["--box", "64", "--angpix", "5", "--particles", str(_PARTICLES.get(snr, 600)), "--states", "1"]
        errors = ["--angle-error", "2", "--shift-error", "0.5", "--seed", "21"]
        command = [*HPCSORT, "simulate", str(folder), *source, *words, "--snr", snr, *errors]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    tables = read_tables(folder / "particles.star")
    poses = [name for name in tables["particles"] if name.startswith(("rlnAngle", "rlnOrigin"))]
    blind = {**tables, "particles": tables["particles"].drop(columns=poses)}
    write_tables(folder / "blind.star", blind, overwrite=True)
    return folder


def measure(snr: str, folder: Path, local: bool) -> str:
    """Match a set and return a row of the table."""
    star = folder / ("particles.star" if local else "blind.star")
    output = folder / ("local.star" if local else "global.star")
    options = MatchOptions(
        star, (folder / "state_00.mrc",), output, local=local, cumulative=0.9999, overwrite=True, quiet=True
    )
    start = time.process_time()
    result = match(options, SerialComm())
    seconds = time.process_time() - start
    truth = pd.read_csv(folder / "truth.csv")
    rotations = relion_matrices(truth[["rot", "tilt", "psi"]].to_numpy())
    origins = truth[["ox_px", "oy_px"]].to_numpy()
    smears = result.smears
    assert smears is not None
    best = smears.first[:-1]
    angle = np.rad2deg(angles_between(relion_matrices(smears.angles_deg[best]), rotations))
    shift = np.hypot(*(smears.shifts_px[best] - origins).T)
    least_angle, least_shift = limit(folder, result, rotations, origins)
    inside = ranks_of_truth(result, rotations, origins)
    finest = result.plan.finest
    within = " / ".join(f"{100 * (inside <= level).mean():.0f}" for level in _LEVELS)
    return (
        f"| {snr} | {'local' if local else 'global'} | {len(angle)} | {np.median(angle):.2f} | {least_angle:.2f} | "
        f"{np.rad2deg(finest.turn):.2f} | {np.median(shift):.3f} | {least_shift:.3f} | {finest.shift:.2f} | "
        f"{100 * (angle > _LOST_DEG).mean():.1f} | {within} | {np.median(smears.counts):.0f} | {seconds:.0f} |"
    )


def limit(folder: Path, result: MatchResult, rotations: np.ndarray, origins: np.ndarray) -> tuple[float, float]:
    """Median angle (degrees) and distance (px) of errors that follow the Cramer-Rao bound at the true poses."""
    table = read_input(folder / "particles.star")
    box, band = result.model.box, result.plan.bands[-1]
    maps = [read_reference(folder / "state_00.mrc", box, table.pixel_size_A)]
    references, _ = share_references(SerialComm(), maps, band, (box // 2 - 2) / box, box)
    model = type(result.model)(references, result.model.amplitude, result.model.sigma, box)
    count = len(table)
    with ImageReader(table) as reader:
        data = load_band(
            table, np.arange(count), rotations, band, reader.read, particle_radius_px=box // 2 - 2
        ).whitened(model.sigma)
    blank = np.zeros((count, 5, 5))
    poses = Candidates(
        np.arange(count), np.zeros(count, int), rotations, origins - table.shifts_px, np.zeros(count), blank
    )
    information = evaluate(model, data, poses)[0].information
    root = np.linalg.cholesky(np.linalg.inv(information))
    errors = np.einsum("nij,mnj->mni", root, np.random.default_rng(0).standard_normal((50, count, 5)))
    angles, shifts = np.linalg.norm(errors[..., :3], axis=-1), np.linalg.norm(errors[..., 3:], axis=-1)
    return float(np.rad2deg(np.median(angles))), float(np.median(shifts))


def ranks_of_truth(result: MatchResult, rotations: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Probability of the smears that are likelier than the one nearest to the truth, and of a random part of that one.

    Uniform in [0, 1] if the probabilities are honest: the truth is then within the likeliest smears that hold 90 % of
    the probability in 90 % of the cases, however coarse the cells are.
    """
    smears, finest = result.smears, result.plan.finest
    assert smears is not None
    turns = Rotation.from_matrix(
        relion_matrices(smears.angles_deg) @ rotations[smears.owner].transpose(0, 2, 1)
    ).magnitude()
    far = (turns / finest.turn) ** 2 + (((smears.shifts_px - origins[smears.owner]) / finest.shift) ** 2).sum(axis=1)
    draw = np.random.default_rng(0)
    ranks = np.ones(len(smears))
    for particle in range(len(smears)):
        own = slice(smears.first[particle], smears.first[particle + 1])
        nearest = int(np.argmin(far[own]))
        weights = smears.weight[own]
        if np.rad2deg(turns[own][nearest]) < _LOST_DEG:
            ranks[particle] = weights[:nearest].sum() + draw.random() * weights[nearest]
    return ranks


def ways(folder: Path) -> None:
    """Time three ways to compare particles with poses: CPU time for one pose at all shifts."""
    data, _ = read_map(folder / "state_00.mrc")
    box, band, shifts, poses, particles = len(data), 12, 37, 2048, 48
    side, pixels = 2 * band + 2, 220
    draw = np.random.default_rng(0)
    images = draw.normal(size=(shifts * particles, pixels)).astype(np.float32)
    sections = draw.normal(size=(poses, pixels)).astype(np.float32)

    def products() -> float:
        start = time.process_time()
        for first in range(0, poses, 256):
            part = sections[first : first + 256].T
            along, across = images @ part, images @ part
            for both in (along + across, along - across):
                both.reshape(shifts, particles, -1).max(axis=0)
        return (time.process_time() - start) / (2 * poses * particles)

    def shifts_by_fft() -> float:
        spectra = draw.normal(size=(256, side, side // 2 + 1)).astype(np.complex64)
        start = time.process_time()
        for _ in range(8):
            scipy.fft.irfft2(spectra * spectra[:1].conj(), s=(side, side)).reshape(256, -1).max(axis=1)
        return (time.process_time() - start) / (8 * 256)

    def angles_by_fft() -> float:
        angles = 64
        rings = draw.normal(size=(shifts * 4, band, angles // 2 + 1)).astype(np.complex64)
        start = time.process_time()
        for _ in range(8):
            product = np.einsum("srm,rm->sm", rings, rings[0].conj())
            scipy.fft.irfft(product, n=angles, axis=1)
        return (time.process_time() - start) / (8 * 4 * angles)

    print(f"\nOne pose at {shifts} shifts, band of {band} Fourier pixels, box {box}, CPU microseconds:\n")
    print("| way | us |\n|---|---:|")
    told = (
        ("products of matrices: particles and shifts by poses, half a turn for nothing", products),
        ("correlation over shifts by 2D FFT", shifts_by_fft),
        ("correlation over the in-plane angle by FFT of rings, shift by shift", angles_by_fft),
    )
    for name, run in told:
        print(f"| {name} | {1e6 * min(run() for _ in range(3)):.2f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="keeps the sets")
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--sets", default=",".join(_PARTICLES))
    parser.add_argument("--ways", action="store_true", help="only time three ways to search a grid")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, threadpool_limits(1):
        work = options.work or Path(scratch)
        names = options.sets.split(",")
        folders = [make_particles(snr, work, options.shared) for snr in names]
        if options.ways:
            ways(folders[0])
            return
        print(_HEAD, flush=True)
        for snr, folder in zip(names, folders, strict=True):
            for local in (False, True):
                print(measure(snr, folder, local), flush=True)


if __name__ == "__main__":
    main()
