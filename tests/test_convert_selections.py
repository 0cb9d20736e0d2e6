"""Subsets by class, group, list and range; lists of particles there and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_convert_round_trips import star31, turn

from hpcsort.cli.convert import command
from hpcsort.converting import ConvertOptions, convert
from hpcsort.errors import HpcsortError, InputError, OptionError
from hpcsort.io import read_particles, write_particles


def rows_of(path: Path) -> list[int]:
    """Which rows of the made table a file has, by their text."""
    return [int(text.removeprefix("word")) for text in read_particles(path).frame["myText"].tolist()]


def write_list(path: Path, *rows: int) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6]),
        ({"classes": (1, 3)}, [0, 2, 3, 5, 6]),
        ({"rows": (2, 4)}, [2, 3]),
        ({"rows": (None, 1)}, [0]),
        ({"rows": (5, None)}, [5, 6]),
        ({"classes": (2,), "rows": (2, None)}, [4]),
    ],
)
def test_chosen_particles_and_no_others(tmp_path: Path, options: dict, rows: list[int]) -> None:
    assert rows_of(turn(star31(tmp_path), tmp_path / "x.star", **options)) == rows


def test_a_list_and_a_class(tmp_path: Path) -> None:
    source, listed = star31(tmp_path), write_list(tmp_path / "Cluster_000.txt", 6, 0, 1)
    assert rows_of(turn(source, tmp_path / "x.star", lists=(listed,))) == [0, 1, 6]
    assert rows_of(turn(source, tmp_path / "y.star", lists=(listed,), classes=(1,))) == [0, 6]


def test_lists_become_classes_and_classes_lists(tmp_path: Path) -> None:
    source = star31(tmp_path)
    contents = {"Cluster_000.txt": [1, 5], "Cluster_001.txt": [0, 2, 6]}
    lists = tuple(write_list(tmp_path / name, *rows) for name, rows in contents.items())
    classed = turn(source, tmp_path / "x.star", lists=lists)
    assert read_particles(classed).frame["rlnClassNumber"].tolist() == [2, 1, 2, 1, 2]
    folder = turn(classed, tmp_path / "lists", to="lists", particles=source)
    assert {path.name: np.loadtxt(path, int).tolist() for path in folder.iterdir()} == contents
    # Without the whole table rows are those of the subset.
    turn(classed, tmp_path / "own", to="lists")
    assert np.loadtxt(tmp_path / "own" / "Cluster_000.txt", int).tolist() == [1, 3]


def test_the_list_of_a_subset_in_another_format_and_folder(tmp_path: Path) -> None:
    source = star31(tmp_path)
    (tmp_path / "far").mkdir()
    part = turn(source, tmp_path / "far" / "part.cs", rows=(3, 6))
    folder = turn(part, tmp_path / "lists", to="lists", particles=source)
    assert sorted(int(text) for path in folder.iterdir() for text in path.read_text().split()) == [3, 4, 5]


def test_class_zero_is_the_core_set(tmp_path: Path) -> None:
    source = star31(tmp_path)
    table = read_particles(source)
    write_particles(tmp_path / "z.star", table, {"rlnClassNumber": np.array([0, 1, 1, 0, 2, 2, 2])})
    turn(tmp_path / "z.star", tmp_path / "lists", to="lists")
    assert (tmp_path / "lists" / "Core_set.txt").read_text() == "0\n3\n"
    assert (tmp_path / "lists" / "Cluster_001.txt").read_text() == "4\n5\n6\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": (9,)}, "--class 9 is not in column"),
        ({"rows": (7, None)}, "no particle of"),
        ({"lists": (Path("absent.txt"),)}, "absent.txt cannot be read"),
        ({"datadir": Path("absent")}, "absent given for the stacks"),
        ({"angpix": -1.0}, "--angpix"),
    ],
)
def test_what_cannot_be_chosen(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(HpcsortError, match=message):
        turn(star31(tmp_path), tmp_path / "x.star", **options)
    assert not (tmp_path / "x.star").exists()


def test_lists_that_share_a_particle(tmp_path: Path) -> None:
    lists = tuple(write_list(tmp_path / f"Cluster_{number:03d}.txt", 1, 2 + number) for number in range(2))
    with pytest.raises(InputError, match=r"row 1 is on .*Cluster_000.txt and on .*Cluster_001.txt"):
        turn(star31(tmp_path), tmp_path / "x.star", lists=lists)


def test_images_that_the_whole_table_lacks(tmp_path: Path) -> None:
    source = star31(tmp_path)
    part = turn(source, tmp_path / "part.star", rows=(0, 3))
    with pytest.raises(InputError, match=r"row 4: image 000004@p.mrcs is not in .*part.star"):
        turn(source, tmp_path / "lists", to="lists", particles=part)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": Path("x.foo")}, "tells no format"),
        ({"target": Path("x"), "to": "lists", "copy_images": True}, "--copy-images has no place"),
        ({"target": Path("x.star"), "particles": Path("y.star")}, "--particles belongs"),
        ({"target": Path("x.star"), "lists": (Path("a"), Path("b")), "classes": (1,)}, "several lists"),
    ],
)
def test_options_that_do_not_go_together(given: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ConvertOptions(Path("in.star"), **given)


def test_missing_stacks_are_named_but_not_copied(tmp_path: Path) -> None:
    source = star31(tmp_path)
    (tmp_path / "p.mrcs").unlink()
    kept = read_particles(turn(source, tmp_path / "x.star"), need_images=False)
    assert kept.frame["rlnImageName"].iloc[0] == "000001@p.mrcs"
    for options in ({"target": tmp_path / "x.hdf"}, {"target": tmp_path / "y.cs", "copy_images": True}):
        with pytest.raises(InputError, match="not found"):
            convert(ConvertOptions(source, **options), lambda text: None)  # type: ignore[arg-type]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = star31(tmp_path)
    write_list(tmp_path / "Cluster_000.txt", 4, 5)
    write_list(tmp_path / "Cluster_001.txt", 0)
    words = [str(source), str(tmp_path / "x.star"), "--list", str(tmp_path / "Cluster_*.txt"), "--json"]
    command.main(words, standalone_mode=False)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"particles": 3, "of": 7, "format": "star", "files": [str(tmp_path / "x.star")]}
    assert "3 of 7 particles" in err
    assert read_particles(tmp_path / "x.star").frame["rlnClassNumber"].tolist() == [2, 1, 1]
    command.main(
        [str(source), str(tmp_path / "y.star"), "--group", "0", "--range", ":4", "--quiet"], standalone_mode=False
    )
    assert capsys.readouterr() == ("", "")
    assert rows_of(tmp_path / "y.star") == [0, 3]
    for wrong in (["--class", "a"], ["--range", "5"], ["--range", "-1:2"]):
        with pytest.raises(Exception, match="such as"):
            command.main([str(source), str(tmp_path / "z.star"), *wrong], standalone_mode=False)
