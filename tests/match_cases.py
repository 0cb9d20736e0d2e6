"""Small particle sets for the tests of match: a phantom without symmetry, 24 px, known poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sort3d_cases import blobs

from hpcsort.io import write_map, write_tables
from hpcsort.io.star import read_tables
from hpcsort.simulation import SimulationOptions, simulate

BOX, PIXEL_A = 24, 10.0


def make_particles(
    folder: Path, count: int, *, snr: float = 2.0, seed: int = 0, states: int = 1, fourfold: bool = False
) -> Path:
    """Simulate particles; writes blind.star without poses too. Returns the folder of the set.

    With ``fourfold`` the particle has C4 symmetry, and the box is odd: there a quarter turn is one about the centre.
    """
    folder.mkdir(parents=True, exist_ok=True)
    density = blobs(BOX + fourfold, 3, count=9, spread=6.0, width=1.4)
    if fourfold:
        density = sum(np.rot90(density, turns, axes=(1, 2)) for turns in range(4)).astype(np.float32)
    write_map(folder / "phantom.mrc", density, PIXEL_A)
    out = folder / "set"
    simulate(
        SimulationOptions(
            out=out,
            map_path=folder / "phantom.mrc",
            states=states,
            particles=count,
            snr=snr,
            shift_sigma_px=0.7,
            domain_radius_px=5.0,
            angle_error_deg=2.0,
            shift_error_px=0.3,
            seed=seed,
        )
    )
    tables = read_tables(out / "particles.star")
    poses = [name for name in tables["particles"] if name.startswith(("rlnAngle", "rlnOrigin"))]
    write_tables(out / "blind.star", {**tables, "particles": tables["particles"].drop(columns=poses)})
    return out


def truth_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """True angles (n, 3) in degrees and origins (n, 2) in px."""
    table = pd.read_csv(folder / "truth.csv")
    return table[["rot", "tilt", "psi"]].to_numpy(), table[["ox_px", "oy_px"]].to_numpy()
