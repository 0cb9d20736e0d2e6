"""Files that attack the reader, and files that are written: no code, no shell, little memory, the user's umask."""

from __future__ import annotations

import ast
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from fuzz_cases import little_memory
from io_cases import CTF_TEXT, cs_fields, write_cs, write_eman_stack
from particle_cases import RELION_30, make_stack, read_30
from sort3d_runs import simulate_small, sort_quietly

import hpcsort
from hpcsort.errors import InputError
from hpcsort.io import (
    HdfStack,
    Smears,
    read_cryosparc,
    read_eman_stack,
    read_hdf_map,
    read_input,
    read_smears,
    write_hdf_map,
    write_map,
    write_smears,
    write_stack,
    write_tables,
    write_text_atomically,
)
from hpcsort.io.xmd import write_xmd
from hpcsort.refinement._spectra import read_noise_power

_PACKAGE = Path(hpcsort.__file__).parent
_BOMB_BYTES = (1 << 30) + (1 << 20)
_CHUNK_BYTES = 1 << 20
_CLAIM = 10**12


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def _modes(folder: Path) -> dict[bool, set[int]]:
    """Permissions below a folder, of files (False) and of folders (True)."""
    found: dict[bool, set[int]] = {False: set(), True: set()}
    for path in folder.rglob("*"):
        found[path.is_dir()].add(path.stat().st_mode & 0o777)
    return found


def test_files_are_as_private_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    frame = pd.DataFrame({"x": [1]})
    write_text_atomically(tmp_path / "a.txt", "a")
    write_map(tmp_path / "a.mrc", np.ones((3, 3, 3)), 1.0)
    write_stack(tmp_path / "a.mrcs", np.ones((2, 3, 3)), (2, 3, 3), 1.0)
    write_hdf_map(tmp_path / "a.hdf", np.ones((3, 3, 3)), 1.0)
    write_smears(tmp_path / "a.h5", Smears.of_lists([0], np.ones((1, 3)), np.ones((1, 2)), [1]), ["a"])
    write_tables(tmp_path / "a.star", {"t": frame})
    write_xmd(tmp_path / "a.xmd", {"t": frame})
    assert len(list(tmp_path.iterdir())) == 7
    assert _modes(tmp_path)[False] == {0o666 & ~umask}
    # A file that is replaced does not keep wider permissions of the old one.
    (tmp_path / "a.txt").chmod(0o666)
    write_text_atomically(tmp_path / "a.txt", "b", overwrite=True)
    assert _modes(tmp_path)[False] == {0o666 & ~umask}


def test_a_sort_is_as_private_as_the_umask_says(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 60)
    old = os.umask(0o077)
    try:
        sort_quietly(made.star, tmp_path / "out", nxinit=14, components=1)
    finally:
        os.umask(old)
    assert _modes(tmp_path / "out") == {False: {0o600}, True: {0o700}}


def test_nothing_is_run_or_unpickled() -> None:
    forbidden = {"eval", "exec", "system", "popen", "pickle", "marshal", "shelve", "dill", "read_pickle"}
    used = []
    for path in _PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {
                ast.Import: lambda one: [alias.name for alias in one.names],
                ast.ImportFrom: lambda one: [one.module or "", *(alias.name for alias in one.names)],
                ast.Call: lambda one: [getattr(one.func, "attr", getattr(one.func, "id", ""))],
            }.get(type(node), lambda one: [])(node)
            used += [f"{path.name}: {name}" for name in names if name.split(".")[0] in forbidden]
            if isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle"):
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False, f"{path.name}: {node.arg}"
    assert used == []


@pytest.mark.parametrize("name", ["$(touch ran).mrcs", "`touch ran`.mrcs", "a;touch${IFS}ran", "|touch", "~/p.mrcs"])
def test_names_are_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    columns = {**RELION_30, "rlnImageName": [f"{place}@{name}" for place in (1, 2, 3)]}
    if " " in name:
        columns["rlnImageName"] = [f'"{place}"' for place in columns["rlnImageName"]]
    with pytest.raises(InputError, match="was not found in"):
        read_30(tmp_path, columns)
    make_stack(tmp_path / name)
    assert len(read_30(tmp_path, columns)) == 3
    assert not list(tmp_path.rglob("ran"))


class _Evil:
    """What runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    evil = _Evil(tmp_path / "ran")
    fields = np.zeros(2, [("blob/path", object), ("blob/idx", "<u4")])
    fields["blob/path"] = evil
    for content in (np.array([evil, evil], object), fields):
        with (tmp_path / "p.cs").open("wb") as file:
            np.save(file, content, allow_pickle=True)
        with pytest.raises(InputError, match=r"p\.cs is damaged or not a \.cs file of cryoSPARC; make or copy"):
            read_cryosparc(tmp_path / "p.cs")
        (tmp_path / "p.cs").rename(tmp_path / "p.dat")
        with pytest.raises(InputError, match=r"p\.dat is damaged or not a \.cs file"):
            read_input(tmp_path / "p.dat")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["<f4", "S0", "V0", "S1"])
def test_arrays_that_promise_rows_they_have_not(tmp_path: Path, kind: str) -> None:
    path = write_cs(tmp_path / "p.cs", cs_fields())
    described = str([("blob/path", kind), ("blob/idx", kind)])
    header = f"{{'descr': {described}, 'fortran_order': False, 'shape': ({_CLAIM},), }}\n".encode().rjust(118)
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100))
    with little_memory(), pytest.raises(InputError, match=r"p\.cs is damaged .*; make or copy"):
        read_cryosparc(path)


def _replace(path: Path, name: str, tail: tuple[int, ...], bomb: bool) -> None:
    """Let a dataset promise rows (tail) of float32: 10^12 that are not stored, or zeros compressed a thousand times."""
    row = 4 * int(np.prod(tail, dtype=int))
    chunk = _CHUNK_BYTES // row
    with h5py.File(path, "r+") as file:
        del file[name]
        if not bomb:
            file.create_dataset(name, (_CLAIM, *tail), "f4", chunks=(chunk, *tail))
            return
        packed = zlib.compress(bytes(chunk * row), 9)
        count = _BOMB_BYTES // (chunk * row)
        data = file.create_dataset(name, (count * chunk, *tail), "f4", chunks=(chunk, *tail), compression="gzip")
        for number in range(count):
            data.id.write_direct_chunk((number * chunk, *(0 for _ in tail)), packed)


def _image(path: Path) -> str:
    write_eman_stack(path, np.ones((1, 5, 5)), np.eye(3, 4)[None], [CTF_TEXT])
    with h5py.File(path, "r+") as file:
        group = file["MDF/images/0"]
        del group.attrs["EMAN.nx"], group.attrs["EMAN.ny"]
    return "MDF/images/0/image"


def _map(path: Path) -> str:
    write_hdf_map(path, np.ones((3, 3, 3)), 1.0)
    with h5py.File(path, "r+") as file:
        for axis in "xyz":
            del file["MDF/images/0"].attrs[f"EMAN.n{axis}"]
    return "MDF/images/0/image"


def _smears(path: Path) -> str:
    write_smears(path, Smears.of_lists([0], np.ones((1, 3)), np.ones((1, 2)), [1]), ["a"])
    return "weight"


_READERS: dict[str, tuple[Callable[[Path], str], Callable[[Path], object], tuple[int, ...]]] = {
    "map": (_map, read_hdf_map, (64, 64)),
    "stack": (_image, lambda path: HdfStack(path).read([0]), (64,)),
    "table of a stack": (_image, read_eman_stack, (64,)),
    "smears": (_smears, lambda path: read_smears(path, ["a"]), ()),
    "noise spectra": (_image, lambda path: read_noise_power(path.parents[1], 0, 16, 1), (64,)),
}


@pytest.mark.parametrize("bomb", [False, True], ids=["claimed", "compressed"])
@pytest.mark.parametrize("name", list(_READERS))
def test_hdf5_that_promises_more_than_it_has(tmp_path: Path, name: str, bomb: bool) -> None:
    make, read, tail = _READERS[name]
    path = tmp_path / "main000" / "bckgnoise.hdf"
    path.parent.mkdir()
    _replace(path, make(path), tail, bomb)
    assert path.stat().st_size < 3 << 20
    with (
        little_memory(),
        pytest.raises(
            InputError, match=r"promises \d+ bytes of .* but stores \d+; make|holds values of shape .*; copy"
        ),
    ):
        read(path)
