"""Garbled text files: STAR tables, metadata of Xmipp, coordinates and CTFs end in a whole result or in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz_cases import FUZZ, TEXT, garbled, survives, whole_table
from hypothesis import given
from hypothesis import strategies as st
from particle_cases import OPTICS, RELION_30, RELION_31, loop_text, make_stack

from hpcsort.io import Smears, read_particles, read_tables, write_smears
from hpcsort.io.coordinates import Picks, read_coordinate_table, read_coordinates
from hpcsort.io.xmd import read_xmd
from hpcsort.pairs.ctfs import read_ctfs

Changes = list[tuple[str, int, str]]

_POS = """# XMIPP_STAR_1 *
data_header
loop_
 _particleId
 10
data_particles
loop_
 _itemId
 _enabled
 _xcoor
 _ycoor
 1 1 10 20
 2 -1 30.5 40
"""
_PICKS = {
    ".pos": _POS,
    ".xmd": _POS,
    ".star": loop_text("", {"rlnCoordinateX": [1.5, 20], "rlnCoordinateY": [3, 4.25]}),
    ".box": "10 20 64 64\n30 40 64 64 -3\n",
    ".csv": "id,x,y\n1,10,20\n2,30.5,40\n",
}
_MANY = loop_text(
    "particles", {"rlnMicrographName": ["a.mrc", "b.mrc"], "rlnCoordinateX": [1.5, 20], "rlnCoordinateY": [3, 4.25]}
)
_CTFS = loop_text(
    "micrographs",
    {
        "rlnMicrographName": ["a.mrc", "b.mrc"],
        **{name: [1.0, 2.0] for name in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")},
        **{name: [1.0, 0.5] for name in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")},
    },
)
_PARTICLES = {
    "30": loop_text("images", RELION_30),
    "31": loop_text("optics", OPTICS) + loop_text("particles", RELION_31),
    "smeared": loop_text("optics", OPTICS)
    + loop_text("particles", RELION_31)
    + "data_hpcsort\n\n_hpcsortSmearTable  smears.h5\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz")
    make_stack(place / "p.mrcs")
    smears = Smears.of_lists([0, 1, 2, 2], np.ones((4, 3)), np.ones((4, 2)), [1, 1, 0.5, 0.5])
    write_smears(place / "smears.h5", smears, RELION_31["rlnImageName"])
    return place


@FUZZ
@given(changes=TEXT, kind=st.sampled_from(list(_PARTICLES)))
def test_particles(folder: Path, changes: Changes, kind: str) -> None:
    path = folder / "t.star"
    path.write_bytes(garbled(_PARTICLES[kind], changes))
    survives(lambda: read_particles(path), whole_table)
    survives(lambda: read_particles(path, need_images=False, need_poses=False, need_ctf=False), len)


@FUZZ
@given(changes=TEXT, kind=st.sampled_from(list(_PARTICLES)))
def test_tables(folder: Path, changes: Changes, kind: str) -> None:
    path = folder / "t.star"
    path.write_bytes(garbled(_PARTICLES[kind], changes))
    survives(lambda: read_tables(path), lambda tables: all(isinstance(name, str) for name in tables))


def _whole_picks(picks: Picks) -> None:
    assert picks.xy_px.shape == (len(picks.enabled), 2)
    assert np.isfinite(picks.xy_px).all()
    assert picks.ids is None or len(np.unique(picks.ids)) == len(picks)


@FUZZ
@given(changes=TEXT, suffix=st.sampled_from(list(_PICKS)))
def test_coordinates(folder: Path, changes: Changes, suffix: str) -> None:
    path = folder / f"c{suffix}"
    path.write_bytes(garbled(_PICKS[suffix], changes))
    survives(lambda: read_coordinates(path), _whole_picks)


@FUZZ
@given(changes=TEXT)
def test_coordinates_of_many_micrographs(folder: Path, changes: Changes) -> None:
    path = folder / "many.star"
    path.write_bytes(garbled(_MANY, changes))
    survives(lambda: read_coordinate_table(path), lambda found: [_whole_picks(picks) for picks in found.values()])


@FUZZ
@given(changes=TEXT)
def test_metadata_of_xmipp(folder: Path, changes: Changes) -> None:
    path = folder / "m.xmd"
    path.write_bytes(garbled(_POS, changes))
    survives(lambda: read_xmd(path), lambda blocks: all(isinstance(name, str) for name in blocks))


@FUZZ
@given(changes=TEXT)
def test_ctfs_of_micrographs(folder: Path, changes: Changes) -> None:
    path = folder / "ctf.star"
    path.write_bytes(garbled(_CTFS, changes))

    def check(found: dict[str, object]) -> None:
        for one in found.values():
            assert np.isfinite(list(vars(one).values())).all()

    given_values = dict.fromkeys(("voltage_kV", "cs_mm", "amplitude_contrast"))
    survives(lambda: read_ctfs(path, lambda name: name, given_values), check)
