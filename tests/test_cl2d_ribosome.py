from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcsort.cl2d import Cl2dOptions, cl2d
from hpcsort.geometry import relion_matrices
from hpcsort.io import read_particles, write_particles
from hpcsort.parallel import SerialComm

COUNT = 400


def test_classes_of_ribosomes_hold_particles_seen_from_one_direction(shared_data: Path, tmp_path: Path) -> None:
    star = shared_data / "dev5" / "particles.star"
    table = read_particles(star)
    write_particles(tmp_path / "some.star", table, rows=np.arange(COUNT))
    asked = Cl2dOptions(tmp_path / "some.star", tmp_path / "out", classes=8, iterations=4, ctf="flip", quiet=True)
    state = cl2d(asked, SerialComm()).levels[-1].state
    direction = relion_matrices(table.angles_deg[:COUNT])[:, 2]
    # a projection from behind is the mirror image
    apart = np.rad2deg(np.arccos(np.clip(np.abs(direction @ direction.T), 0, 1)))
    pairs = np.triu(state.labels[:, None] == state.labels, 1)
    every = np.triu(np.ones_like(pairs), 1)
    assert (state.sizes > 0).all()
    assert np.median(apart[pairs]) < 0.6 * np.median(apart[every])
    # of particles seen from the same direction the in-plane angle is known up to that of the class
    assert (apart[pairs] < 30).mean() > 2.5 * (apart[every] < 30).mean()
