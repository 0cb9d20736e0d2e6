"""Small micrographs, coordinates and CTFs, made on the spot."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from hpcsort.io import write_stack, write_tables
from hpcsort.pairs import PairOptions


def write_micrograph(path: Path, image: np.ndarray, pixel_A: float = 2.0) -> Path:
    """Write one image as float32 MRC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_stack(path, image[None].astype(np.float32), (1, *image.shape), pixel_A, overwrite=True)
    return path


def write_pos(path: Path, xy: np.ndarray, ids: np.ndarray | None = None, enabled: np.ndarray | None = None) -> Path:
    """Write coordinates as Xmipp does, by hand and not with the package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.arange(1, len(xy) + 1) if ids is None else ids
    enabled = np.ones(len(xy), int) if enabled is None else enabled
    lines = ["# XMIPP_STAR_1 *", "#", "data_header", "loop_", " _pickingMicrographState", "Manual", "data_particles"]
    lines += ["loop_", " _itemId", " _enabled", " _xcoor", " _ycoor", " _cost", " _micrographId"]
    lines += [f" {i:06d} {on} {x:g} {y:g} 1 000003" for i, on, (x, y) in zip(ids, enabled, xy, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def tilt_matrix(tilt_deg: float, axis_deg: float, turn_deg: float = 0.0) -> np.ndarray:
    """What a tilt about an axis in the plane does to coordinates (x, y) of a flat specimen."""
    a, w = np.deg2rad([axis_deg, turn_deg])
    along, turn = (np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in (a, w))
    return turn @ along @ np.diag([1.0, np.cos(np.deg2rad(tilt_deg))]) @ along.T


def write_set(
    folder: Path, pairs: int = 2, particles: int = 12, size: int = 128, pixel_A: float = 2.0, seed: int = 0
) -> dict[str, Path]:
    """Write micrographs of noise m<i>_u.mrc / m<i>_t.mrc, coordinates well inside, and tables of pairs and CTFs."""
    rng = np.random.default_rng(seed)
    matrix = tilt_matrix(50, 80, 5)
    names: dict[str, list[str]] = {"u": [], "t": []}
    for number in range(pairs):
        untilted = rng.uniform(0.25 * size, 0.75 * size, (particles, 2))
        tilted = (untilted - size / 2) @ matrix.T + size / 2
        for letter, xy in (("u", untilted), ("t", tilted)):
            name = f"m{number}_{letter}"
            write_micrograph(folder / "mics" / f"{name}.mrc", rng.normal(50, 2, (size, size)), pixel_A)
            write_pos(folder / "picks" / f"{name}.pos", xy)
            names[letter].append(f"mics/{name}.mrc")
    table = {"hpcsortUntiltedMicrographName": names["u"], "hpcsortTiltedMicrographName": names["t"]}
    write_tables(folder / "pairs.star", {"pairs": pd.DataFrame(table)})
    for letter in "ut":
        write_tables(folder / f"ctf_{letter}.star", {"": ctf_table(names[letter])})
    return {
        "pairs": folder / "pairs.star",
        "picks": folder / "picks",
        "ctf_u": folder / "ctf_u.star",
        "ctf_t": folder / "ctf_t.star",
    }


def ctf_table(names: list[str], defocus_A: float = 8000.0) -> pd.DataFrame:
    """CTFs of micrographs, of one microscope."""
    return pd.DataFrame(
        {
            "rlnMicrographName": names,
            "rlnDefocusU": defocus_A + 300.0,
            "rlnDefocusV": defocus_A - 300.0,
            "rlnDefocusAngle": 30.0,
            "rlnPhaseShift": 0.0,
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
        }
    )


def options_of(made: dict[str, Path], output: Path, **more: object) -> PairOptions:
    """Options for a set of `write_set`; small windows, nothing done to the pixels unless asked for."""
    plain: dict[str, object] = {"box_px": 16, "invert": False, "quiet": True, "report": False}
    plain |= {"pairs": made["pairs"], "coordinates": (made["picks"],)}
    return PairOptions(output=output, **(plain | more))  # type: ignore[arg-type]


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every result by its name; log, record and page tell times and ranks."""
    files = sorted(path for path in out.iterdir() if path.is_file())
    files += sorted((out / "report").glob("*"))
    timed = {"log.txt", "run.json", "report.html"}
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name not in timed}
