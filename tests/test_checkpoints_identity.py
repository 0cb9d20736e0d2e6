"""Options go to JSON and back, and inputs are known by their hashes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hpcsort.checkpoints import hash_files, options_as_json, options_from_json
from hpcsort.errors import InputError, OptionError
from hpcsort.sort3d import SortOptions


@dataclass(frozen=True)
class _Options:
    name: str
    place: Path | None = None
    range_A: tuple[float, float] = (1.0, 2.0)
    files: tuple[Path, ...] = ()
    count: int | None = None


def test_options_come_back_with_their_kinds(tmp_path: Path) -> None:
    options = _Options("/not/a/path", tmp_path / "a b", (0.1, 0.2), (tmp_path / "x", tmp_path / "y"))
    values = json.loads(json.dumps(options_as_json(options)))
    again = options_from_json(_Options, values | {"gone": 3})
    assert again == options
    assert isinstance(again.name, str)
    assert all(isinstance(path, Path) for path in again.files)


def test_a_sorts_options_come_back(tmp_path: Path) -> None:
    options = SortOptions(
        output_dir=tmp_path / "out", instack=tmp_path / "a.star", img_per_grp=7, mask3D=tmp_path / "m"
    )
    assert options_from_json(SortOptions, json.loads(json.dumps(options_as_json(options)))) == options


def test_relative_paths_are_kept_as_absolute_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert options_as_json(_Options("x", Path("a")))["place"] == str(tmp_path / "a")


def test_values_of_another_kind_are_refused(tmp_path: Path) -> None:
    values = options_as_json(SortOptions(output_dir=tmp_path, instack=tmp_path / "a.star"))
    with pytest.raises(InputError, match="options of another kind"):
        options_from_json(SortOptions, values | {"seed": "three"})
    with pytest.raises(OptionError, match="--seed -1"):
        options_from_json(SortOptions, values | {"seed": -1})


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
def test_any_length_and_the_ends_of_a_stack_count(tmp_path: Path, size: int) -> None:
    path = tmp_path / "stack"
    data = bytearray(np.random.default_rng(0).bytes(size))
    path.write_bytes(data)
    first = hash_files([], [path])
    assert first == hash_files([], [path])
    for place in (0, size // 2, size - 1) if size else ():
        data[place] ^= 1
        path.write_bytes(data)
        assert hash_files([], [path]) != first
        data[place] ^= 1
    path.write_bytes(bytes(data) + b"x")
    assert hash_files([], [path]) != first
    assert list(first) == [str(path)]
