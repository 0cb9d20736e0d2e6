"""Every file of a refinement is damaged in turn, and each time the error names it and what to do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from meridien_writer import random_case, write_noise, write_refinement

from hpcsort.errors import InputError
from hpcsort.refinement import read_refinement, smearing_report

_PARTICLES = 13
_JSON = "main003/oldparamstructure/oldparamstructure_1_001_003.json"
_TEXTS = (
    "main000/indexes_000.txt",
    "main000/chunk_0_000.txt",
    "main000/chunk_1_000.txt",
    "main000/particle_groups_0.txt",
    "main000/particle_groups_1.txt",
    "main002/params_002.txt",
    "main003/params_003.txt",
    "main003/driver_003.txt",
    "main003/refang.txt",
    "main003/rshifts.txt",
)
_OTHERS = ("main003/Tracker_003.json", _JSON, "main003/bckgnoise.hdf")

Damage = Callable[[Path], Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    write_refinement(place / "refine", random_case(_PARTICLES, spare=2), stack="mrcs")
    return place


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "case")
    return tmp_path / "case" / "refine"


def refused(folder: Path, *expected: str) -> None:
    """The refinement is refused in one sentence that has all the expected parts."""
    with pytest.raises(InputError) as caught:
        read_refinement(folder, iteration=3)
    message = str(caught.value)
    for part in expected:
        assert part in message
    assert re.search(r"; (copy|make|give|choose|put|keep|name|check|correct) ", message), "no cure"
    assert "\n" not in message


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def cut_at_line(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


def text_row(row: int, column: int, value: str) -> Damage:
    def damage(path: Path) -> None:
        lines = [line.split() for line in path.read_text().splitlines()]
        lines[row][column] = value
        path.write_text("".join(" ".join(line) + "\n" for line in lines))

    return damage


def changed(change: Callable[[Any], Any]) -> Damage:
    """Load JSON, change it in place (or return another), write it."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        path.write_text(json.dumps(change(content) or content))

    return damage


def first_pose(place: int, value: object) -> Damage:
    def change(records: list[Any]) -> None:
        records[1][2][0][place] = value

    return changed(change)


def setting(name: str, value: object) -> Damage:
    def change(tracker: dict[str, Any]) -> None:
        table = tracker["constants"] if name in tracker["constants"] else tracker
        table[name] = value

    return changed(change)


@pytest.mark.parametrize("name", [*_TEXTS, *_OTHERS[:2]])
def test_absent(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, str(folder / name), "missing")


@pytest.mark.parametrize("name", [*_TEXTS, *_OTHERS])
def test_empty(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    refused(folder, str(folder / name), "damaged" if name.endswith("hdf") else "is empty")


@pytest.mark.parametrize("name", [*_TEXTS, *_OTHERS])
def test_cut_in_half(folder: Path, name: str) -> None:
    cut(folder / name)
    refused(folder, str(folder / name))


@pytest.mark.parametrize("name", _TEXTS)
def test_cut_after_a_line(folder: Path, name: str) -> None:
    cut_at_line(folder / name)
    refused(folder, str(folder / name))


@pytest.mark.parametrize("name", _TEXTS)
@pytest.mark.parametrize("value", ["none", "nan", "1e999", "0x12", "-", "é"])
def test_no_number(folder: Path, name: str, value: str) -> None:
    text_row(1, 0, value)(folder / name)
    refused(folder, str(folder / name), "not a text file" if value == "é" else f"row 2, column 1: '{value}'")


@pytest.mark.parametrize("name", _TEXTS)
def test_binary(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x93NUMPY\xff\x00\n" * 9)
    refused(folder, str(folder / name), "not a text file")


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("main000/indexes_000.txt", text_row(3, 0, "0.5"), "row 4: 0.5 is not a whole number"),
        ("main000/indexes_000.txt", text_row(3, 0, "-1"), "row 4: -1 is not a whole number"),
        ("main000/indexes_000.txt", text_row(3, 0, "99"), "lists particle"),
        ("main000/particle_groups_0.txt", text_row(0, 0, "3"), "3 groups of 13 shells where main000 names 4 groups"),
        ("main002/params_002.txt", lambda path: path.write_text("1 2 3 4\n" * 13), "row 1, has 4 columns"),
        ("main003/params_003.txt", lambda path: path.write_text("1 2 3 4 5 6 7\n" * 13), "row 1, has 7 columns"),
        ("main003/params_003.txt", lambda path: path.write_text("1 " * 8 + "\n"), "has 1 rows where 13"),
        ("main003/params_003.txt", text_row(5, 7, "0"), "row 6, column 8: the norm 0"),
        ("main003/params_003.txt", lambda path: path.write_text("1 " * 30000), "at most"),
        ("main003/driver_003.txt", lambda path: path.write_text("0.5\n" * 10), "has 10 rows"),
        ("main003/driver_003.txt", text_row(2, 0, "1.5"), "row 3: 1.5 is no correlation"),
        ("main003/refang.txt", lambda path: path.write_text("1 2\n" * 17), "row 1, has 2 columns"),
        ("main003/refang.txt", lambda path: path.write_text("1 2 3\n"), "names direction"),
        ("main003/rshifts.txt", lambda path: path.write_text("1 2\n"), "names shift"),
        ("main003/bckgnoise.hdf", lambda path: write_noise(path, np.ones((2, 13))), "2 groups of 13 shells"),
        ("main003/bckgnoise.hdf", lambda path: write_noise(path, np.ones((3, 8))), "3 groups of 8 shells"),
        ("main003/bckgnoise.hdf", lambda path: write_noise(path, np.full((3, 13), np.inf)), "group 0, shell 0"),
        ("main003/bckgnoise.hdf", lambda path: h5py.File(path, "w").close(), "holds no image 0"),
        ("main003/Tracker_003.json", setting("nnxo", 64), "bckgnoise.hdf"),
        ("main003/Tracker_003.json", setting("nnxo", 17), "has images of 16 px where"),
        ("main003/Tracker_003.json", setting("nnxo", 14), "has 9 rows where a window of 14 px in a box of 14 px"),
        ("main003/Tracker_003.json", setting("nnxo", "16"), "«nnxo» is 16"),
        ("main003/Tracker_003.json", setting("nnxo", None), "«nnxo» is absent"),
        ("main003/Tracker_003.json", setting("nnxo", 1e300), "«nnxo» is 1e+300"),
        ("main003/Tracker_003.json", setting("nnxo", 10**400), "«nnxo» is 1000"),
        ("main003/Tracker_003.json", setting("delta", 10**400), "«delta» is 1000"),
        ("main003/refang.txt", text_row(1, 0, "1e7"), "row 2: 1e+07 is no angle"),
        ("main003/rshifts.txt", text_row(0, 0, "99"), "by more than half the box of 16 px"),
        ("main003/Tracker_003.json", setting("nxinit", 0), "«nxinit» is 0"),
        ("main003/Tracker_003.json", setting("radius", 9), "«radius» is 9"),
        ("main003/Tracker_003.json", setting("pixel_size", 3.5), "pixels of 3 A where"),
        ("main003/Tracker_003.json", setting("pixel_size", -1), "«pixel_size» is -1"),
        ("main003/Tracker_003.json", setting("delta", 0), "«delta» is 0"),
        ("main003/Tracker_003.json", setting("delta", 60.0), "names in-plane step"),
        ("main003/Tracker_003.json", setting("symmetry", 1), "«symmetry» is 1"),
        ("main003/Tracker_003.json", setting("stack", None), "«stack» is absent"),
        ("main003/Tracker_003.json", setting("stack", "no.mrcs"), "no.mrcs"),
        ("main003/Tracker_003.json", setting("avgvaradj", [1.0]), "«avgvaradj»"),
        ("main003/Tracker_003.json", setting("avgvaradj", [1.0, 0.0]), "«avgvaradj»"),
        ("main003/Tracker_003.json", changed(lambda tracker: [tracker]), "no Tracker"),
        ("main003/Tracker_003.json", lambda path: path.write_text('{"constants": NaN}'), "not JSON"),
        ("main003/Tracker_003.json", lambda path: path.write_text("[" * 100000), "not JSON"),
        ("main003/Tracker_003.json", lambda path: path.write_bytes(b"\xff\xfe\x00"), "not JSON"),
        (_JSON, lambda path: path.write_text("constants = 3"), "line 1, column 1, is not JSON"),
        (_JSON, lambda path: path.write_text("{}"), "no list of records"),
        (_JSON, lambda path: path.write_text("[]"), "has 0 records where rank 1 of 3 has"),
        (_JSON, lambda path: path.write_text("[" + "1" * 5000 + "]"), "not JSON of plain numbers"),
        (_JSON, lambda path: path.write_bytes(b" " * 6_000_000 + b"[]"), "at most"),
        (_JSON, changed(lambda records: records.pop() and None), "records where rank 1 of 3 has"),
        (_JSON, changed(lambda records: records.append([9, [0, 0], [[1, 0.9]]])), "records where rank 1 of 3 has"),
        (_JSON, changed(lambda records: [*records[:-1], records[0]]), "has particle 0 twice"),
        (_JSON, changed(lambda records: records[::-1]), "which is absent or misplaced"),
        (_JSON, changed(lambda records: [*records[:-1], [7, *records[-1][1:]]]), "is of particle 7 where"),
        (_JSON, changed(lambda records: records[0].pop() and None), "record 1, is not [id"),
        (_JSON, changed(lambda records: records[1].__setitem__(2, [])), "record 2, has no pose"),
        (_JSON, changed(lambda records: records[1].__setitem__(2, [[1, 0.5, 2]])), "record 2, holds [1, 0.5, 2]"),
        (_JSON, first_pose(0, 17 * 10**8), "names direction 17 (from 0) but"),
        (_JSON, first_pose(0, 60 * 10**3), "names in-plane step 60 (from 0) but"),
        (_JSON, first_pose(0, 999), "names shift 999 (from 0) but"),
        (_JSON, first_pose(0, -1), "has the hash -1"),
        (_JSON, first_pose(0, 1.5), "has the hash 1.5"),
        (_JSON, first_pose(0, 2**70), "has the hash 1180591620717411303424"),
        (_JSON, first_pose(0, True), "has the hash True"),
        (_JSON, first_pose(1, -0.1), "has the probability -0.1"),
        (_JSON, first_pose(1, 1.2), "has the probability 1.2"),
        (_JSON, first_pose(1, "0.5"), "has the probability 0.5"),
        (_JSON, changed(lambda records: records[1].__setitem__(2, [[0, 0.6], [1, 0.7]])), "sum to 1.3"),
        (_JSON, changed(lambda records: records[1].__setitem__(2, [[0, 0.0]])), "sum to 0"),
        (_JSON, lambda path: path.write_text(path.read_text().replace("-1.0", "NaN")), "not JSON"),
    ],
)
def test_wrong_content(folder: Path, name: str, damage: Damage, expected: str) -> None:
    damage(folder / name)
    refused(folder, expected)


def test_particle_twice_or_nowhere(folder: Path) -> None:
    start = folder / "main000"
    ids = (start / "indexes_000.txt").read_text().split()
    chunk = (start / "chunk_0_000.txt").read_text().split()
    other = (start / "chunk_1_000.txt").read_text().split()
    text_row(1, 0, chunk[0])(start / "chunk_0_000.txt")
    refused(folder, "chunk_0_000.txt", f"lists particle {chunk[0]} twice")
    text_row(1, 0, other[2])(start / "chunk_0_000.txt")
    refused(folder, f"particle {other[2]} is in", "and in")
    text_row(1, 0, chunk[1])(start / "chunk_0_000.txt")
    text_row(1, 0, ids[0])(start / "indexes_000.txt")
    refused(folder, "indexes_000.txt", f"lists particle {ids[0]} twice")
    text_row(1, 0, ids[1])(start / "indexes_000.txt")
    lost = chunk.pop()
    (start / "chunk_0_000.txt").write_text("".join(f"{name}\n" for name in chunk))
    refused(folder, f"particle {lost}", "neither")


def test_stack_with_too_few_particles(folder: Path) -> None:
    star = folder.parent / "particles.star"
    # rows run from the last image to the first, so the first particle goes
    star.write_text("\n".join(star.read_text().rstrip("\n").split("\n")[:-4]) + "\n\n")
    refused(folder, "is not among the", str(star))


def test_an_image_named_twice(folder: Path) -> None:
    star = folder.parent / "particles.star"
    star.write_text(star.read_text().replace("000002@", "000001@"))
    refused(folder, "names image 1 of", "twice")


def test_a_rank_that_is_missing_everywhere(folder: Path) -> None:
    for path in folder.glob("main003/oldparamstructure/*_002_003.json"):
        path.unlink()
    refused(folder, "records where rank 0 of 2 has")
    for path in folder.glob("main003/oldparamstructure/*.json"):
        path.unlink()
    refused(folder, "has no files oldparamstructure_P_RRR_003.json")


def test_spectrum_that_promises_more_than_it_has(folder: Path) -> None:
    with h5py.File(folder / "main003" / "bckgnoise.hdf", "w") as file:
        file.create_dataset("MDF/images/0/image", shape=(3, 1 << 20), dtype="f4")
    refused(folder, "promises 12582912 bytes of noise spectra but stores 0")


def test_folders_that_are_no_refinement(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "is not a folder", "--refinement_dir")
    with pytest.raises(InputError, match="is not a folder"):
        smearing_report(tmp_path / "nowhere")
    for path in folder.glob("main*/Tracker*"):
        path.unlink()
    with pytest.raises(InputError, match="has no complete iteration"):
        read_refinement(folder)


@pytest.mark.parametrize(("best", "expected"), [(None, "does not name a best"), (-1, "does not name"), (8, "calls")])
def test_best_iteration_that_is_not_there(folder: Path, best: int | None, expected: str) -> None:
    setting("best", best)(folder / "main003" / "Tracker_003.json")
    with pytest.raises(InputError, match=rf"{expected}.*choose one of 1, 2, 3 with --niter_for_sorting"):
        read_refinement(folder)


def test_no_group_files_for_several_spectra(folder: Path) -> None:
    for path in folder.glob("main000/particle_groups_*.txt"):
        path.unlink()
    refused(folder, "particle_groups_0.txt", "--notapplybckgnoise")
