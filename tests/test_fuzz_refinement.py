"""A refinement one of whose files is damaged is read whole or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz_cases import BYTES, FUZZ, TEXT, damaged, garbled, survives, whole_table
from hypothesis import given
from hypothesis import strategies as st
from meridien_writer import random_case, write_refinement

from hpcsort.refinement import Refinement, read_refinement, smearing_report

_TEXTS = (
    "main000/indexes_000.txt",
    "main000/chunk_0_000.txt",
    "main000/particle_groups_1.txt",
    "main002/params_002.txt",
    "main003/params_003.txt",
    "main003/driver_003.txt",
    "main003/refang.txt",
    "main003/rshifts.txt",
    "main003/Tracker_003.json",
    "main003/oldparamstructure/oldparamstructure_1_001_003.json",
    "../particles.star",
)
_BINARIES = ("main003/bckgnoise.hdf",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz")
    write_refinement(place / "refine", random_case(13, spare=2), stack="mrcs")
    return place / "refine"


def _whole(refinement: Refinement) -> None:
    whole_table(refinement.table)
    assert refinement.table.smears is not None
    assert np.isfinite(refinement.fsc).all()
    assert np.abs(refinement.fsc).max() <= 1
    noise, scale = refinement.table.noise_power, refinement.table.image_scale
    assert noise is None or (np.isfinite(noise).all() and (noise >= 0).all())
    assert scale is None or (np.isfinite(scale).all() and (scale > 0).all())
    assert 0 < 2 * refinement.radius_px + 2 <= refinement.box_px
    assert 0 < refinement.delta_deg < np.inf
    assert 0 < refinement.pixel_size_A < np.inf


def _judge(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        survives(lambda: read_refinement(folder), _whole)
        survives(lambda: smearing_report(folder), len)
    finally:
        path.write_bytes(whole)


@FUZZ
@given(changes=TEXT, name=st.sampled_from(_TEXTS))
def test_texts(folder: Path, changes: list[tuple[str, int, str]], name: str) -> None:
    _judge(folder, name, garbled((folder / name).read_text(), changes))


@FUZZ
@given(changes=BYTES, name=st.sampled_from((*_TEXTS, *_BINARIES)))
def test_bytes(folder: Path, changes: list[tuple[str, int, bytes]], name: str) -> None:
    _judge(folder, name, damaged((folder / name).read_bytes(), changes))
