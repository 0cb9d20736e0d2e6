"""Damaged files: whatever a few changed bytes do, the answer is a table or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from io_cases import CTF_TEXT, cs_fields, write_cs, write_eman_stack

from hpcsort.errors import InputError
from hpcsort.io import HdfStack, Smears, read_cryosparc, read_eman_stack, read_hdf_map, read_smears, write_hdf_map
from hpcsort.io import write_smears as save_smears

_FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8)


def _damaged(whole: bytes, changes: list[tuple[int, int]], length: float) -> bytes:
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    return bytes(data[: round(len(data) * length)])


def _survives(read: Callable[[], Any]) -> None:
    sentence = ""
    try:
        read()
    except InputError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert len(sentence) < 2000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write_cs(folder / "p.cs", cs_fields())
    poses = np.tile(np.eye(3, 4), (2, 1, 1))
    write_eman_stack(folder / "s.hdf", np.ones((2, 5, 5)), poses, [CTF_TEXT] * 2)
    write_hdf_map(folder / "m.hdf", np.ones((3, 3, 3)), 1.0)
    save_smears(
        folder / "s.h5", Smears.of_lists([0, 0, 1], np.ones((3, 3)), np.ones((3, 2)), [0.5, 0.5, 1]), ["a", "b"]
    )
    return folder


@_FEW
@given(changes=CHANGES, length=st.sampled_from([1.0, 1.0, 0.9, 0.3]), near=st.booleans())
def test_changed_bytes_of_a_cs_file(files: Path, changes: list[tuple[int, int]], length: float, near: bool) -> None:
    whole = (files / "p.cs").read_bytes()
    # half of the time only the header, where a byte means most
    if near:
        changes = [(place % 900, value) for place, value in changes]
    (files / "x.cs").write_bytes(_damaged(whole, changes, length))
    _survives(lambda: read_cryosparc(files / "x.cs", need_images=False))


_KINDS = st.sampled_from(["<f4", "<f8", "<u4", "<u8", "<i8", "S3", "U2", "?", "<c8", "<M8[s]"])


@_FEW
@given(
    name=st.sampled_from([*cs_fields(), "location/micrograph_path", "blob/sign", "ctf/anisomag"]),
    kind=_KINDS,
    shape=st.sampled_from([(), (1,), (2,), (3,), (2, 2)]),
    raw=st.binary(min_size=16, max_size=16),
    needed=st.booleans(),
)
def test_fields_of_any_type(
    files: Path, name: str, kind: str, shape: tuple[int, ...], raw: bytes, needed: bool
) -> None:
    dtype = np.dtype(kind)
    size = 3 * int(np.prod(shape, dtype=int))
    values = np.frombuffer((raw * 64)[: size * dtype.itemsize], np.uint8).copy()
    if kind[0] == "U":
        values[:] = 0
    if kind == "?":
        values &= 1
    write_cs(files / "y.cs", {**cs_fields(), name: values.view(dtype).reshape(3, *shape)})
    _survives(lambda: read_cryosparc(files / "y.cs", need_images=False, need_poses=needed, need_ctf=needed))


@_FEW
@given(changes=CHANGES, length=st.sampled_from([1.0, 1.0, 0.9, 0.3]), kind=st.sampled_from(["s.hdf", "m.hdf", "s.h5"]))
def test_changed_bytes_of_an_hdf_file(files: Path, changes: list[tuple[int, int]], length: float, kind: str) -> None:
    path = files / f"x_{kind}"
    path.write_bytes(_damaged((files / kind).read_bytes(), changes, length))
    if kind == "s.h5":
        _survives(lambda: read_smears(path, ["b", "a"]))
    elif kind == "m.hdf":
        _survives(lambda: read_hdf_map(path))
    else:
        _survives(lambda: read_eman_stack(path))
        _survives(lambda: HdfStack(path).read([1, 0]))


@_FEW
@given(text=st.text(max_size=40))
def test_any_text_as_ctf(files: Path, text: str) -> None:
    entry = text.encode("utf-8").replace(b"\0", b"")
    path = write_eman_stack(files / "z.hdf", np.ones((1, 5, 5)))
    with h5py.File(path, "r+") as file:
        file["MDF/images/0"].attrs["EMAN.ctf"] = np.bytes_(b"E" + entry)
    _survives(lambda: read_eman_stack(path, need_poses=False))
