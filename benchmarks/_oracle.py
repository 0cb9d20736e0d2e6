"""What is possible at given poses: with the true maps, and with maps of the true groups.

The first is maximum likelihood, which no sort can beat; it knows the maps. The second is what this program's own scores
say when its classes begin at the truth: what is lost from the first to the second is lost because maps have to be
learned from the noisy particles themselves, and only what is lost beyond that is the fault of the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from hpcsort.geometry import relion_matrices
from hpcsort.images import BandData, load_band
from hpcsort.io import ImageReader, read_map, read_particles
from hpcsort.kernels import extract_sections, interleave, score_sections
from hpcsort.parallel import SerialComm
from hpcsort.partitions import adjusted_rand_index
from hpcsort.simulation.domains import soft_ball
from hpcsort.sort3d import SortOptions
from hpcsort.sort3d.engine import weigh_groups
from hpcsort.sort3d.learning import SubspaceRun, learn_subspaces
from hpcsort.sort3d.problem import pose_problem
from hpcsort.sort3d.source import read_source
from hpcsort.sort3d.task import Task
from hpcsort.volumes import BandGrid

_BATCH = 1000
_PAD = 2
_DEV5_CENTRES = ((22, 37, 17), (31, 33, 56), (52, 27, 35), (36, 17, 20))
_DEV5_RADIUS = 12.0
_COMPONENTS, _SHARE = 8, 0.05


def oracle_labels(folder: Path) -> np.ndarray | None:
    """Likeliest state of every particle, int64 (N,); -1 for junk; None where the true maps are not known.

    Every image is compared with the projections of all true maps at its given pose, in the whole band, whitened by
    what the projections of the true states leave (noise, and the effect of errors of poses). The maps' common scale,
    which the normalisation of the images changes, is fitted.
    """
    maps = _true_maps(folder)
    if maps is None:
        return None
    truth = pd.read_csv(folder / "truth.csv")["state"].to_numpy()
    real = np.flatnonzero(truth >= 0)
    shares = np.bincount(truth[real], minlength=len(maps)) / len(real)
    box = maps.shape[1]
    grid = BandGrid(box, box // 2 - 1, _PAD)
    volumes = grid.to_fourier(maps)
    scale, sigma = _calibrate(folder, truth, real, volumes, grid)
    lanes, count = interleave(volumes), len(maps)
    labels = np.full(len(truth), -1)
    for rows, data in _batches(folder, real, grid.radius, box):
        white = data.whitened(sigma)
        cross, power = score_sections(lanes, count, white.images, white.ctfs, white.rotations, white.px, white.py, _PAD)
        labels[rows] = (2 * scale * cross - scale**2 * power + np.log(shares)).argmax(axis=1)
    return labels


def oracle_scores(folder: Path) -> tuple[float, float]:
    """Share of right labels and ARI of `oracle_labels`, both NaN where the true maps are not known."""
    labels = oracle_labels(folder)
    if labels is None:
        return float("nan"), float("nan")
    truth = pd.read_csv(folder / "truth.csv")["state"].to_numpy()
    return float((labels == truth)[truth >= 0].mean()), adjusted_rand_index(truth, labels)


def truth_start_scores(folder: Path) -> tuple[float, float]:
    """Share of right labels and ARI of the sort's own last step, begun at the true groups (junk left out)."""
    comm = SerialComm()
    asked = SortOptions(instack=folder / "particles.star", output_dir=folder, quiet=True)
    problem = pose_problem(read_source(asked, comm), comm, lambda note: None)
    truth = pd.read_csv(folder / "truth.csv")["state"].to_numpy()[problem.rows]
    task = Task(problem, 0, np.full(problem.count, -1), (1.0,), lambda note: None)
    band = problem.narrow
    run = SubspaceRun("spreads of the nuisances", task.usable, _COMPONENTS, _SHARE * band.power)
    (learned,) = learn_subspaces(band.store, band.start(), [run], seed=0)
    groups = int(truth.max()) + 1
    labels = weigh_groups(task, np.maximum(truth, -1), learned.spread)[:, :groups].argmax(axis=1)
    real = truth >= 0
    return float((labels == truth)[real].mean()), adjusted_rand_index(truth[real], labels[real])


def _true_maps(folder: Path) -> np.ndarray | None:
    if folder.name == "dev5":
        return _dev5_maps(folder.parent / "maps" / "ribosome70S_65px_5A.mrc")
    paths = sorted(folder.glob("state_*.mrc"))
    return np.stack([read_map(path)[0] for path in paths]) if paths else None


def _dev5_maps(ribosome: Path) -> np.ndarray | None:
    """States of dev5, which came without maps: the ribosome, and four times the same without a sphere.

    The spheres were found from the differences of the reconstructions of its true states.
    """
    if not ribosome.exists():
        return None
    whole = read_map(ribosome)[0][1:, 1:, 1:]
    balls = [soft_ball(len(whole), np.array(centre), _DEV5_RADIUS) for centre in _DEV5_CENTRES]
    return np.stack([whole, *(whole * (1 - ball).astype(np.float32) for ball in balls)])


def _batches(folder: Path, rows: np.ndarray, radius: int, box: int) -> Iterator[tuple[np.ndarray, BandData]]:
    table = read_particles(folder / "particles.star")
    with ImageReader(table) as reader:
        for start in range(0, len(rows), _BATCH):
            chosen = rows[start : start + _BATCH]
            matrices = relion_matrices(table.angles_deg[chosen])
            yield chosen, load_band(table, chosen, matrices, radius, reader.read, particle_radius_px=box // 2 - 2)


def _calibrate(
    folder: Path, truth: np.ndarray, real: np.ndarray, volumes: np.ndarray, grid: BandGrid
) -> tuple[float, np.ndarray]:
    """Scale of the maps by weighted least squares, and sigma of the residuals (1, shells)."""
    shells = grid.radius + 2
    image, cross, power, count = np.zeros((4, shells))
    for rows, data in _batches(folder, real, grid.radius, grid.size):
        shell = np.broadcast_to(data.shell, data.images.shape)
        predicted = np.empty_like(data.images)
        for state in np.unique(truth[rows]):
            of_state = truth[rows] == state
            predicted[of_state] = extract_sections(
                volumes[state], np.ascontiguousarray(data.rotations[of_state]), data.px, data.py, _PAD
            )
        predicted *= data.ctfs
        for total, values in (
            (image, np.abs(data.images) ** 2),
            (cross, (predicted.conj() * data.images).real),
            (power, np.abs(predicted) ** 2),
            (count, np.ones(shell.shape)),
        ):
            total += np.bincount(shell.ravel(), values.ravel(), minlength=shells)
    filled = count > 0
    image, cross, power, count = (total[filled] for total in (image, cross, power, count))
    scale, variance = 1.0, np.ones(len(count))
    for _ in range(10):
        scale = float((cross / variance).sum() / (power / variance).sum())
        variance = (image - 2 * scale * cross + scale**2 * power) / count
    sigma = np.ones((1, shells))
    sigma[0, filled] = np.sqrt(variance)
    return scale, sigma
