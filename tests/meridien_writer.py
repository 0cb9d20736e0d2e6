"""Writes directories as a MERIDIEN refinement leaves them, from particles whose smears are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.geometry import relion_matrices
from hpcsort.io import Smears, write_stack
from hpcsort.io.star import write_tables

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MATRIX = np.dtype([(f"{row}{column}", "<f4") for row in range(3) for column in range(4)])


@dataclass
class Grid:
    """Directions (phi, theta, offset of psi), step of psi in degrees, and trial shifts in pixels."""

    refang: Floats
    delta_deg: float
    rshifts: Floats

    @classmethod
    def make(cls, directions: int, delta_deg: float, rng: np.random.Generator) -> Grid:
        """Random directions, and all shifts in steps of half a pixel up to 1.5."""
        theta = np.rad2deg(np.arccos(rng.uniform(-1, 1, directions)))
        refang = np.round(
            np.stack([rng.uniform(0, 360, directions), theta, rng.uniform(0, delta_deg, directions)], 1), 4
        )
        y, x = np.meshgrid(*[np.arange(-1.5, 1.6, 0.5)] * 2, indexing="ij")
        shifts = np.stack([x.ravel(), y.ravel()], 1)
        return cls(refang, delta_deg, shifts[np.hypot(*shifts.T) <= 1.5])

    def poses(self, rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
        """Angles of RELION of ``count`` random nodes, and trial shifts."""
        steps = rng.integers(0, int(360 / self.delta_deg), count)
        chosen = self.refang[rng.integers(0, len(self.refang), count)]
        angles = chosen + np.stack([np.zeros(count), np.zeros(count), steps * self.delta_deg], 1)
        return angles, self.rshifts[rng.integers(0, len(self.rshifts), count)]


@dataclass
class Case:
    """All that a refinement of N particles knows; ``ids`` are places in a stack of ``len(images)``."""

    images: npt.NDArray[np.float32]
    smears: Smears
    grid: Grid
    previous_px: Floats
    half: Ints
    group: Ints
    norm: Floats
    mean_norms: tuple[float, float]
    inverse_noise: Floats
    fsc: Floats
    ctf: dict[str, Floats]
    ids: Ints
    pixel_A: float = 3.0
    rounding: Callable[[Floats], Floats] = field(default=np.rint)

    def __len__(self) -> int:
        return len(self.ids)


def random_case(n: int = 13, box: int = 16, seed: int = 5, *, spare: int = 0, most: int = 5) -> Case:
    """Noise images with 1 to ``most`` smears each; ``spare`` images of the stack took no part."""
    rng = np.random.default_rng(seed)
    grid = Grid.make(17, 7.5, rng)
    previous_px = np.round(rng.uniform(-3, 3, (n, 2)) * 2) / 2
    counts = rng.integers(1, most + 1, n)
    owner = np.repeat(np.arange(n), counts)
    angles, moves = grid.poses(rng, len(owner))
    weight = rng.uniform(0.1, 1, len(owner))
    weight *= (rng.uniform(0.9, 0.999, n) / np.bincount(owner, weight))[owner]
    smears = Smears.of_lists(owner, angles, np.rint(previous_px)[owner] + moves, weight)
    group = rng.integers(0, 3, n)
    inverse = rng.uniform(0.5, 2, (3, box // 2 + 1 + (box // 2 + 1) // 2))
    inverse[1, 2] = 0.0
    return Case(
        images=rng.normal(size=(n + spare, box, box)).astype(np.float32),
        smears=smears,
        grid=grid,
        previous_px=previous_px,
        half=np.arange(n) * 7 % 5 % 2,
        group=group,
        norm=rng.uniform(0.8, 1.2, n),
        mean_norms=(1.02, 0.97),
        inverse_noise=inverse,
        fsc=np.linspace(0.99, 0.0, box // 2 + 1),
        ctf=random_ctf(n + spare, rng),
        ids=np.sort(rng.permutation(n + spare)[:n]),
    )


def random_ctf(n: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Defoci in Angstrom and degrees, of which EMAN2's text holds all digits."""
    u = np.round(rng.uniform(10000, 20000, n))
    return {"u": u, "v": u - np.round(rng.uniform(0, 900, n)), "angle": np.round(rng.uniform(0, 180, n), 2)}


def write_refinement(
    folder: Path,
    case: Case,
    *,
    iteration: int = 3,
    ranks: int = 3,
    stack: str = "hdf",
    best: int | None = None,
    block_rounding: Callable[[Floats], Floats] = np.rint,
    record_ids: str = "block",
) -> Path:
    """Write main000 to main<iteration> and, beside the folder, the stack; returns the path of the stack.

    Iterations from 2 on have smears (all the same ones); ``stack`` is hdf or mrcs; ``record_ids`` says what the JSON
    records are called by: their place in the block (as MERIDIEN does) or their id.
    """
    path = folder.parent / f"particles.{stack}"
    (write_hdf_stack if stack == "hdf" else _write_mrc_stack)(path, case)
    chunks = [np.flatnonzero(case.half == half) for half in range(2)]
    start = folder / "main000"
    start.mkdir(parents=True)
    _rows(start / "indexes_000.txt", case.ids)
    for half, rows in enumerate(chunks):
        # not ascending, so that the order of a chunk file is tested
        chunks[half] = rows = np.roll(rows, 2)
        _rows(start / f"chunk_{half}_000.txt", case.ids[rows])
        _rows(start / f"particle_groups_{half}.txt", case.group[rows])
    for number in range(1, iteration + 1):
        _write_iteration(folder, case, number, iteration if best is None else best, path.name)
        if number >= 2:
            _write_structures(folder, case, chunks, number, ranks, block_rounding, record_ids)
    _rows(folder / "main000" / "params_000.txt", _parameters(case, previous=True))
    return path


def write_noise(path: Path, inverse: Floats) -> None:
    """Write a 2D image as EMAN2 does."""
    with h5py.File(path, "w") as file:
        images = file.create_group("MDF/images")
        images.attrs.create("imageid_max", np.zeros(1, np.int32))
        group = images.create_group("0")
        group.create_dataset("image", data=inverse.astype(np.float32))
        for axis, size in zip("xyz", (*inverse.shape[::-1], 1), strict=True):
            group.attrs.create(f"EMAN.n{axis}", np.array([size], np.int32))


def write_hdf_stack(path: Path, case: Case) -> None:
    """Write an EMAN2 stack whose headers hold the CTF and the previous poses of its particles."""
    n, box, _ = case.images.shape
    matrices = np.zeros((n, 3, 4))
    matrices[:, :, :3] = np.eye(3)
    best = case.smears.first[:-1]
    matrices[case.ids, :, :3] = relion_matrices(case.smears.angles_deg[best])
    matrices[case.ids, :2, 3] = -case.smears.shifts_px[best]
    with h5py.File(path, "w") as file:
        images = file.create_group("MDF/images")
        images.attrs.create("imageid_max", np.array([n - 1], np.int32))
        for place in range(n):
            group = images.create_group(str(place))
            group.create_dataset("image", data=case.images[place])
            header: dict[str, Any] = {
                f"n{axis}": np.int32(size) for axis, size in zip("xyz", (box, box, 1), strict=True)
            }
            header |= {f"apix_{axis}": case.pixel_A for axis in "xyz"} | {"datatype": np.int32(7)}
            for name, value in header.items():
                group.attrs.create(f"EMAN.{name}", np.atleast_1d(value))
            group.attrs.create("EMAN.ctf", np.bytes_(_ctf_text(case, place)))
            group.attrs.create("EMAN.xform.projection", np.array([tuple(matrices[place].ravel())], _MATRIX))


def _ctf_text(case: Case, place: int) -> str:
    u, v, angle = (float(case.ctf[name][place]) for name in ("u", "v", "angle"))
    values = ((u + v) / 2e4, (v - u) / 1e4, (45.0 - angle) % 180.0, 0, 10, 300, 2.7, case.pixel_A, 0, 0, 0)
    return "E" + " ".join(f"{value:.10g}" for value in values)


def _write_mrc_stack(path: Path, case: Case) -> None:
    n, box, _ = case.images.shape
    write_stack(path, case.images, case.images.shape, case.pixel_A)
    # rows from the last image to the first, so that the images' own numbers matter
    order = np.arange(n)[::-1]
    optics = {"OpticsGroup": [1], "OpticsGroupName": ["og1"], "Voltage": [300.0], "SphericalAberration": [2.7]}
    optics |= {"AmplitudeContrast": [0.1], "ImagePixelSize": [case.pixel_A], "ImageSize": [box]}
    particles = {"ImageName": [f"{place + 1:06d}@{path.name}" for place in order], "OpticsGroup": [1] * n}
    particles |= {f"Defocus{name}": case.ctf[key][order] for name, key in (("U", "u"), ("V", "v"), ("Angle", "angle"))}
    blocks = {
        name: pd.DataFrame({f"rln{column}": values for column, values in table.items()})
        for name, table in (("optics", optics), ("particles", particles))
    }
    write_tables(path.with_suffix(".star"), blocks)


def _write_iteration(folder: Path, case: Case, number: int, best: int, stack: str) -> None:
    place = folder / f"main{number:03d}"
    place.mkdir()
    box = case.images.shape[1]
    constants = {"stack": stack, "best": best, "radius": box // 2 - 2, "nnxo": box, "pixel_size": case.pixel_A}
    constants |= {"symmetry": "c2", "mask3D": None}
    tracker = {"constants": constants, "bestres": 5, "delta": case.grid.delta_deg, "ts": 0.5, "xr": 1.5}
    tracker |= {"nxinit": box - 2, "avgvaradj": list(case.mean_norms)}
    (place / f"Tracker_{number:03d}.json").write_text(json.dumps(tracker))
    _rows(place / f"params_{number:03d}.txt", _parameters(case, previous=False))
    if number > 1:
        before = folder / f"main{number - 1:03d}" / f"params_{number - 1:03d}.txt"
        _rows(before, _parameters(case, previous=True))
    write_noise(place / "bckgnoise.hdf", case.inverse_noise)
    _rows(place / f"driver_{number:03d}.txt", case.fsc)
    _rows(place / "refang.txt", case.grid.refang)
    _rows(place / "rshifts.txt", case.grid.rshifts)


def _parameters(case: Case, *, previous: bool) -> Floats:
    """phi, theta, psi, sx, sy, two more, norm."""
    best = case.smears.first[:-1]
    shifts = case.previous_px if previous else case.smears.shifts_px[best]
    return np.column_stack([case.smears.angles_deg[best], shifts, np.zeros(len(case)), np.ones(len(case)), case.norm])


def hashes_of(case: Case) -> Ints:
    """Hash of every smear, found as the node of the grid that it is on."""
    smears, grid = case.smears, case.grid
    apart = np.abs(smears.angles_deg[:, None, :2] - grid.refang[:, :2]).max(axis=2)
    direction = apart.argmin(axis=1)
    turn = (smears.angles_deg[:, 2] - grid.refang[direction, 2]) % 360.0 / grid.delta_deg
    step = np.rint(turn).astype(np.int64)
    moved = smears.shifts_px - case.rounding(case.previous_px)[smears.owner]
    missed = np.abs(moved[:, None, :] - grid.rshifts).max(axis=2)
    shift = missed.argmin(axis=1)
    if max(apart.min(axis=1).max(), np.abs(turn - step).max(), missed.min(axis=1).max()) > 1e-6:
        raise ValueError("a smear is not on the grid")
    return np.asarray(direction * 10**8 + step * 10**3 + shift, np.int64)


def _write_structures(
    folder: Path,
    case: Case,
    chunks: list[Ints],
    number: int,
    ranks: int,
    block_rounding: Callable[[Floats], Floats],
    record_ids: str,
) -> None:
    place = folder / f"main{number:03d}" / "oldparamstructure"
    place.mkdir()
    hashes, smears = hashes_of(case).tolist(), case.smears
    weight = (smears.weight * (1 - smears.dropped)[smears.owner]).tolist()
    for half, rows in enumerate(chunks):
        ends = block_rounding(len(rows) * np.arange(ranks + 1) / ranks).astype(int)
        for rank in range(ranks):
            records = []
            for local, row in enumerate(rows[ends[rank] : ends[rank + 1]].tolist()):
                poses = range(smears.first[row], smears.first[row + 1])
                name = int(case.ids[row]) if record_ids == "id" else local
                records.append([name, [-1.0, 2.0], [[hashes[pose], weight[pose]] for pose in poses]])
            path = place / f"oldparamstructure_{half}_{rank:03d}_{number:03d}.json"
            path.write_text(json.dumps(records))


def _rows(path: Path, values: npt.ArrayLike) -> None:
    table = np.asarray(values)
    lines = table.reshape(len(table), -1).tolist()
    path.write_text("".join("  ".join(f"{value:.12g}" for value in line) + "\n" for line in lines))
