"""What the folder of a sort holds, as one value that the whole report is drawn from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.errors import InputError
from hpcsort.geometry import relion_matrices, view_directions
from hpcsort.io import read_tables
from hpcsort.report.provenance import read_json
from hpcsort.report.sorting.chains import Chain, read_chains

__all__ = ["Chain", "FoundGroup", "Particles", "SortedRun", "gather_sort"]

_RANDOM_FSC = "fsc_random.csv"
_OWN = ("hpcsortReproducibility", "hpcsortGroupProbability")


@dataclass(frozen=True)
class FoundGroup:
    """A group as run.json tells of it; what is not known is NaN.

    Attributes
    ----------
    number : from 0, as in the names of its files.
    size : number of particles.
    share : of all particles.
    purity : mean over its particles of the share of independent chains that agree on them.
    reproducibility, chance_mean, chance_std, p : Jaccard score of independent chains against chance.
    resolution_A : where the FSC of its map falls below 0.143.
    generation : in which it was found.
    """

    number: int
    size: int
    share: float
    purity: float
    reproducibility: float
    chance_mean: float
    chance_std: float
    p: float
    resolution_A: float
    generation: int


@dataclass(frozen=True, eq=False)
class Particles:
    """What particles.star tells, by its rows.

    Attributes
    ----------
    labels : int64 (N,), group from 0, -1 for none.
    likeliest : int64 (N,), likeliest group, -1 for none.
    agreeing : float64 (N,), share of the chains that agree on the particle.
    probability : float64 (N,), of the likeliest group.
    junk : float64 (N,), probability that the image is junk.
    directions : float64 (N, 3), unit vectors (x, y, z) along the beam in the frame of the volume.
    """

    labels: npt.NDArray[np.int64]
    likeliest: npt.NDArray[np.int64]
    agreeing: npt.NDArray[np.float64]
    probability: npt.NDArray[np.float64]
    junk: npt.NDArray[np.float64]
    directions: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SortedRun:
    """The folder of a sort.

    Attributes
    ----------
    folder : of the run.
    run : contents of run.json; empty where the sort has not come to its end.
    log : lines of log.txt without their times.
    particles : None where particles.star is missing.
    groups : of all generations.
    maps : name ("group 0", ..., "core") to the file of the map.
    fsc : the same names to tables with the columns shell, resolution_A, fsc.
    random_fsc : group to the FSC (shells,) of random particles, as many as are in the group; empty where not made.
    chains : independent chains of the first layer of each generation.
    boxes : agreement of chains and boxes, a row each: generation, layer, what, ari.
    changes : particles that changed their class, a row each: generation, layer, box, chain, iteration, changed_percent.
    anova : contents of anova.csv.
    missing : what is missing, in sentences.
    """

    folder: Path
    run: dict[str, Any]
    log: list[str]
    particles: Particles | None
    groups: list[FoundGroup]
    maps: dict[str, Path]
    fsc: dict[str, pd.DataFrame]
    random_fsc: dict[int, npt.NDArray[np.float64]]
    chains: list[Chain]
    boxes: pd.DataFrame
    changes: pd.DataFrame
    anova: pd.DataFrame | None
    missing: list[str] = field(default_factory=list)


def gather_sort(folder: Path) -> SortedRun:
    """Read the folder of a sort; an unfinished or older one gives less, and `missing` says what.

    Raises
    ------
    InputError
        If it is not the folder of a sort, or a file in it cannot be read.
    """
    missing: list[str] = []
    log = _read_log(folder)
    run = read_json(folder / "run.json")
    if not run and not log:
        raise InputError(f"{folder} holds no sort: neither run.json nor log.txt is there; name the folder of one.")
    if not run:
        missing.append(f"The sort has not come to its end; go on with: hpcsort resume {folder}")
    particles = _read_particles(folder / "particles.star") if (folder / "particles.star").is_file() else None
    if run and particles is None:
        missing.append("particles.star is missing: views, agreement and probabilities are not shown.")
    groups = _groups(run, particles)
    maps, fsc = _read_maps(folder, len(groups), missing)
    chains, boxes, changes = read_chains(folder)
    if len(groups) > 1 and not chains:
        missing.append("The folders of the generations are missing: flow and agreement of the chains are not shown.")
    anova = pd.read_csv(folder / "anova.csv") if (folder / "anova.csv").is_file() else None
    if groups and anova is None:
        missing.append("anova.csv is missing: what else groups differ in is not shown.")
    random_fsc = _read_random(folder / _RANDOM_FSC, len(groups))
    if len(groups) > 1 and not random_fsc:
        missing.append(f"{_RANDOM_FSC} is missing: no random groups were reconstructed to compare the resolution with.")
    return SortedRun(folder, run, log, particles, groups, maps, fsc, random_fsc, chains, boxes, changes, anova, missing)


def _read_log(folder: Path) -> list[str]:
    path = folder / "log.txt"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", line) for line in lines]


def _read_particles(path: Path) -> Particles:
    needed = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnClassNumber", *_OWN]
    # the block has the name that it had in the input
    tables = (block for block in read_tables(path).values() if isinstance(block, pd.DataFrame))
    frame = next((table for table in tables if set(needed) <= set(table)), None)
    if frame is None:
        raise InputError(f"{path} has no table with {', '.join(needed)}, so it is not of a sort; remove it.")
    labels = frame["rlnClassNumber"].to_numpy(np.int64) - 1
    agreeing, probability = (frame[name].to_numpy(np.float64) for name in _OWN)
    likeliest = labels
    shares = frame.filter(regex=r"^hpcsortProbability\d+$").to_numpy(np.float64)
    if "hpcsortLikeliestGroup" in frame and shares.shape[1]:
        likeliest, probability = frame["hpcsortLikeliestGroup"].to_numpy(np.int64) - 1, shares.max(axis=1)
    junk = np.zeros(len(frame))
    if "hpcsortJunkProbability" in frame:
        junk = frame["hpcsortJunkProbability"].to_numpy(np.float64)
    directions = view_directions(relion_matrices(frame[needed[:3]].to_numpy(np.float64)))
    return Particles(labels, likeliest, agreeing, probability, junk, directions)


def _groups(run: dict[str, Any], particles: Particles | None) -> list[FoundGroup]:
    total, found = run.get("particles", 0), []
    for number, told in enumerate(run.get("groups", [])):
        known: dict[str, Any] = {key: float("nan") if value is None else value for key, value in told.items()}
        purity = float("nan")
        if particles is not None and known["size"]:
            purity = float(particles.agreeing[particles.labels == number].mean())
        found.append(FoundGroup(number=number, share=known["size"] / max(total, 1), purity=purity, **known))
    return found


def _read_maps(folder: Path, count: int, missing: list[str]) -> tuple[dict[str, Path], dict[str, pd.DataFrame]]:
    stems = {f"group {number}": f"vol_cluster{number:03d}" for number in range(count)} | {"core": "volume_core"}
    maps, fsc = {}, {}
    for name, stem in stems.items():
        found = [path for kind in ("mrc", "hdf") if (path := folder / f"{stem}.{kind}").is_file()]
        if found:
            maps[name] = found[0]
        elif name != "core":
            missing.append(f"The map of {name}, {stem}.mrc, is missing: its card has no pictures.")
        table = folder / f"{stem}_fsc.txt"
        if table.is_file():
            fsc[name] = pd.read_csv(table, sep=r"\s+", comment="#", names=["shell", "resolution_A", "fsc"])
    return maps, fsc


def _read_random(path: Path, count: int) -> dict[int, npt.NDArray[np.float64]]:
    if not path.is_file():
        return {}
    frame = pd.read_csv(path)
    names = {number: f"random_{number:03d}" for number in range(count)}
    return {number: frame[name].to_numpy(np.float64) for number, name in names.items() if name in frame}
