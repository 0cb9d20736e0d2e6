"""Checkpoints on disk: what is written comes back, and what is damaged is found out."""

from __future__ import annotations

import os
import pickle
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hpcsort.checkpoints import pack, previous_of, read_checkpoint, settled, unpack, write_checkpoint
from hpcsort.errors import InputError, OutputError
from hpcsort.sort3d.mixture import Mixture

_NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_ARRAYS = arrays.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.complex64, np.bool_]), arrays.array_shapes(min_side=0)
)
_VALUES = st.recursive(
    _NUMBERS | _ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


def _same(first: Any, second: Any) -> bool:
    """Whether two values are equal to the bit, kinds included."""
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, dict):
        return list(first) == list(second) and all(_same(first[key], second[key]) for key in first)
    return bool(first == second)


@given(_VALUES)
def test_a_value_comes_back_to_the_bit(value: Any) -> None:
    tree, parts = pack(value)
    assert _same(unpack(tree, parts), value)


@given(_VALUES)
def test_a_file_gives_back_what_was_written(value: Any) -> None:
    path = Path(os.environ["HPCSORT_TEST_FOLDER"]) / "one"
    write_checkpoint(path, value)
    found = read_checkpoint(path)
    assert found is not None
    assert _same(found[0], value)
    assert found[1] == ""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPCSORT_TEST_FOLDER", str(tmp_path))
    return tmp_path


def test_dataclasses_of_the_package_and_scalars_come_back(folder: Path) -> None:
    mixture = Mixture(np.arange(6.0).reshape(2, 3), np.array([0.25, 0.75]), -1.5)
    write_checkpoint(folder / "one", {"mixtures": [mixture, mixture], "scalar": np.float32(0.1)})
    value, _ = read_checkpoint(folder / "one")  # type: ignore[misc]
    first, second = value["mixtures"]
    assert isinstance(first, Mixture)
    np.testing.assert_array_equal(first.centres, mixture.centres)
    assert first.centres is second.centres, "an array is kept once"
    assert first.likelihood == -1.5
    assert type(value["scalar"]) is np.float32
    assert value["scalar"] == np.float32(0.1)


def test_a_settled_value_is_as_it_comes_back() -> None:
    fortran, strided = np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.arange(12.0)[::3]
    first, second = settled((fortran, strided))
    assert first.flags.c_contiguous
    assert second.flags.c_contiguous
    np.testing.assert_array_equal(first, fortran)
    np.testing.assert_array_equal(second, strided)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1.0


@dataclass
class _Foreign:
    one: int = 1
    more: list[int] = field(default_factory=list)


@pytest.mark.parametrize("value", [{1, 2}, object(), _Foreign(), Path("x"), b"bytes", lambda: None])
def test_other_kinds_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot hold"):
        pack([value])


@pytest.mark.parametrize(
    "tree",
    [
        {"class": "os:system", "fields": {}},
        {"class": "hpcsort.io:read_map", "fields": {}},
        {"class": "hpcsort.sort3d.mixture:Mixture.log_joint", "fields": {}},
        {"class": "hpcsort.sort3d.mixture:fit_mixture", "fields": {}},
        {"object": 3},
    ],
)
def test_a_file_cannot_name_what_is_to_be_called(tree: Any) -> None:
    with pytest.raises(ValueError, match="checkpoint"):
        unpack(tree, [])


def test_no_pickle_is_written_or_read(folder: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        write_checkpoint(folder / "one", np.array([{}], dtype=object))
    assert not (folder / "one").exists()
    (folder / "one").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="no checkpoint of this program"):
        read_checkpoint(folder / "one")


def test_nothing_written_is_no_checkpoint(folder: Path) -> None:
    assert read_checkpoint(folder / "one") is None


def test_the_previous_checkpoint_is_kept_and_used(folder: Path) -> None:
    path = folder / "one"
    for number in range(3):
        write_checkpoint(path, number)
    assert previous_of(path).exists()
    assert read_checkpoint(path) == (2, "")
    path.write_bytes(path.read_bytes()[:-1])
    value, note = read_checkpoint(path)  # type: ignore[misc]
    assert value == 1
    assert str(path) in note
    assert "SHA-256" in note
    path.unlink()
    assert read_checkpoint(path) == (1, "")
    previous_of(path).write_bytes(b"")
    with pytest.raises(InputError, match=r"no checkpoint can be read .* start the run anew with --overwrite"):
        read_checkpoint(path)


def test_any_changed_byte_is_found_out(folder: Path) -> None:
    path = folder / "one"
    write_checkpoint(path, {"a": np.arange(5.0), "b": "text"})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError):
            read_checkpoint(path)


def test_a_full_disk_leaves_older_checkpoints_as_they_are(folder: Path) -> None:
    path = folder / "one"
    write_checkpoint(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OutputError, match="file too large"):
            write_checkpoint(path, np.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_checkpoint(path) == ("old", "")
    assert [one.name for one in folder.iterdir()] == ["one"]
