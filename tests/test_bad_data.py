"""Bad data, case by case: each is refused in one sentence with value, place and cure, or sorted and noted.

Damaged bytes of every reader are tested in test_fuzz_*.py, a refinement's files in test_refinement_damage.py, what
lies in the output folder in test_sort3d_bad_input.py, and files that attack the reader in test_bad_files.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from bad_cases import COUNT, Made, copied
from io_cases import CTF_TEXT, cs_fields, write_cs, write_eman_stack
from sort3d_runs import BOX, PIXEL_A, break_images, edit_table, simulate_small, sort_quietly

from hpcsort.errors import HpcsortError, InputError, OptionError
from hpcsort.io import read_input, write_map, write_stack, write_tables

Change = Callable[[Made], dict[str, Any] | None]


@dataclass(frozen=True)
class Case:
    """A fault: its name in the list of bad data, how it is made, and what must be said.

    ``change`` may return options of the sort.
    """

    name: str
    change: Change
    message: str
    kind: type[HpcsortError] = InputError
    options: dict[str, Any] = field(default_factory=dict)


def _pixels(change: Callable[[np.ndarray], None]) -> Change:
    def act(made: Made) -> None:
        with mrcfile.open(made.stack, "r+") as stack:
            change(stack.data)

    return act


def _images(**faults: list[int]) -> Change:
    return lambda made: break_images(made, **faults)


def _columns(**columns: object) -> Change:
    return lambda made: edit_table(made, **columns)


def _values(first: object, good: object, row: int = 12) -> list[object]:
    """Give a column that is good but for one row (from 1)."""
    return [first if place == row - 1 else good for place in range(COUNT)]


def _tables(change: Callable[[dict[str, pd.DataFrame]], object]) -> Change:
    def act(made: Made) -> None:
        tables = starfile.read(made.star)
        change(tables)
        write_tables(made.star, tables, overwrite=True)

    return act


def _rows(count: int) -> Change:
    return _tables(lambda tables: tables.update(particles=tables["particles"].iloc[:count]))


def _stack(content: bytes) -> Change:
    return lambda made: made.stack.write_bytes(content) and None


def _cut(made: Made) -> None:
    made.stack.write_bytes(made.stack.read_bytes()[:-1000])


def _smaller_stack(made: Made) -> None:
    write_stack(made.stack, np.ones((COUNT, BOX - 4, BOX - 4)), (COUNT, BOX - 4, BOX - 4), PIXEL_A, overwrite=True)


def _two_sizes(made: Made) -> None:
    write_stack(made.stack.with_name("other.mrcs"), np.ones((1, 20, 20)), (1, 20, 20), PIXEL_A)
    names = [f"{place + 1:06d}@particles.mrcs" for place in range(COUNT)]
    edit_table(made, rlnImageName=[*names[:-1], "1@other.mrcs"])


def _two_pixel_sizes(tables: dict[str, pd.DataFrame]) -> None:
    optics = pd.concat([tables["optics"]] * 2, ignore_index=True)
    optics["rlnOpticsGroup"], optics["rlnOpticsGroupName"] = [1, 2], ["one", "two"]
    optics["rlnImagePixelSize"] = [PIXEL_A, 2 * PIXEL_A]
    tables["optics"] = optics
    tables["particles"]["rlnOpticsGroup"] = 1 + np.arange(COUNT) % 2


def _mask(values: np.ndarray) -> Change:
    def act(made: Made) -> dict[str, Any]:
        write_map(made.star.with_name("mask.mrc"), values, PIXEL_A)
        return {"mask3D": made.star.with_name("mask.mrc")}

    return act


def _nothing(_: Made) -> None:
    pass


def _hot(data: np.ndarray) -> None:
    data[5, 2, 7] = 1e6 * data[5].std()


def _noise(data: np.ndarray) -> None:
    data[:25] = np.random.default_rng(0).normal(size=data[:25].shape)


_NAMES = [f"{place + 1:06d}@particles.mrcs" for place in range(COUNT)]
_CURE = "; correct the value or remove the row$"

REFUSED = [
    Case("NaN images", _images(nan=[41]), r"^1 bad images: image 42 of .*particles\.mrcs \(STAR row 42\) has 1 NaN or"
         r" infinite pixels; .*--skip-bad"),
    Case("infinite images", _images(inf=[3]), r"image 4 of .* \(STAR row 4\) has 1 NaN or infinite .*--skip-bad"),
    Case("constant images", _images(constant=[7]), r"image 8 of .* \(STAR row 8\) is constant \(every pixel 2\.5\);"
         r" .*--skip-bad"),
    Case("outlier images", _pixels(_hot), r"image 6 of .* \(STAR row 6\) has an outlier: the pixel of \S+e\+06 in"
         r" column 8, row 3 outweighs all others; .*--skip-bad"),
    Case("images without the particle", _pixels(_noise), r"^only 35 of 60 images show what the map of all particles"
         r" shows; check the poses"),
    Case("truncated stack", _cut, r"row 1, .*particles\.mrcs is truncated .* promises 139264 bytes, found 138264;"),
    Case("empty stack", _stack(b""), r"row 1, .*particles\.mrcs has 0 bytes, .*; make or copy the file again"),
    Case("non-MRC stack", _stack(b"\x89PNG\r\n" * 400), r"row 1, .*particles\.mrcs \(\d+ bytes\) is not an MRC file.*;"
         r" convert it to MRC"),
    Case("stack of another size", _smaller_stack, r"column rlnImageSize: .* states 24 px but the stack has 20 px;"),
    Case("stacks of two sizes", _two_sizes, r"row 60, .*other\.mrcs has images of 20 px but .* of 24 px; bring all"),
    Case("index 0", _columns(rlnImageName=["0@particles.mrcs", *_NAMES[1:]]), r"row 1, column rlnImageName: '0@.*' does"
         r" not name an image; write it as index@stack with an index from 1"),
    Case("index beyond the end", _columns(rlnImageName=[*_NAMES[1:], "61@particles.mrcs"]), r"row 60, column"
         r" rlnImageName: image 61 is beyond the end of .*particles\.mrcs, which holds 60; correct the index"),
    *(Case(f"missing STAR column {name}", _columns(**{name: None}), rf"star has no column {name}.*; (add|give)")
      for name in ("rlnAngleTilt", "rlnDefocusU", "rlnImageName")),
    Case("non-numeric STAR column", _columns(rlnAngleRot=_values("north", "1.5")), r"particles\.star, row 12, column"
         rf" rlnAngleRot: 'north' where a finite number is needed{_CURE}"),
    Case("no optics row for a group", _columns(rlnOpticsGroup=_values(7, 1)), r"row 12, column rlnOpticsGroup: group 7"
         r" is not in data_optics, which has 1; add it there or correct the row"),
    Case("mixed pixel sizes", _tables(_two_pixel_sizes), r"column rlnImagePixelSize: optics group one has 13\.3 A and"
         r" optics group two has 26\.6 A; rescale .*--angpix"),
    Case("shifts of hundreds of px", _columns(rlnOriginXAngst=_values(300 * PIXEL_A, 0.0)), r"row 12, column"
         rf" rlnOriginXAngst: '3990\.0' where 300 px are more than half the box of 24 px.*{_CURE}"),
    Case("NaN poses", _columns(rlnAnglePsi=_values("nan", 5.0)), r"row 12, column rlnAnglePsi: 'nan' where a finite"
         rf" number is needed{_CURE}"),
    Case("poses beyond any turn", _columns(rlnAngleTilt=_values(1e30, 5.0)), r"row 12, column rlnAngleTilt: '1e\+30'"
         rf" where an angle in degrees is needed{_CURE}"),
    Case("all poses equal", _columns(rlnAngleRot=[10.0] * COUNT, rlnAngleTilt=[20.0] * COUNT), r"^all 60 particles of"
         r" .*particles\.star show one view within 1 degree, rot 10 and tilt 20, .*; give the particles of a 3D"),
    Case("CTF beyond any microscope", _columns(rlnDefocusV=_values(1e30, 1e4)), r"row 12, column rlnDefocusV: '1e\+30'"
         rf" where a defocus in Angstrom lies within 100 um{_CURE}"),
    Case("N of 0", _rows(0), r"particles\.star has no rows in data_particles; give a table with particles"),
    Case("N of 1", _rows(1), r"particles\.star holds 1 particles, too few to sort; give at least 40"),
    Case("N fewer than a group", _nothing, r"--img-per-grp 61 is more than the 60 particles of .*; give at most 60",
         OptionError, {"img_per_grp": COUNT + 1}),
    Case("mask of wrong size", _mask(np.ones((20,) * 3)), r"mask .*mask\.mrc has 20 x 20 x 20 voxels but the images"
         r" have 24 px; crop or pad"),
    Case("empty mask", _mask(np.zeros((BOX,) * 3)), r"mask .*mask\.mrc is empty: its largest value is 0 .*; make the"),
    Case("NaN mask", _mask(np.full((BOX,) * 3, np.nan)), r"mask .*mask\.mrc has 13824 voxels that are NaN .*; make"),
    Case("absent mask", _nothing, r"absent\.mrc cannot be read \(no such file.*; check path",
         options={"mask3D": Path("absent.mrc")}),
    *(Case(f"wrong symmetry {name}", _nothing, rf"symmetry '{name}' is not a point group .*give Cn or Dn", OptionError,
           {"sym": name}) for name in ("x7", "c0", "d", "c1000")),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return simulate_small(tmp_path_factory.mktemp("good") / "data", COUNT)


@pytest.fixture
def made(good: Made, tmp_path: Path) -> Made:
    return copied(good, tmp_path / "data")


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refused(made: Made, tmp_path: Path, case: Case) -> None:
    options = case.options | (case.change(made) or {})
    with pytest.raises(case.kind, match=case.message) as caught:
        sort_quietly(made.star, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("name", "pose", "message"),
    [
        ("scaled matrix", 2.0 * np.eye(3, 4), r"image 2: its header xform\.projection is no rotation .*scaled"),
        ("mirrored matrix", np.diag([1.0, 1, -1])[:, [0, 1, 2, 2]], r"image 2: .*xform\.projection is no rotation"),
        ("NaN matrix", np.full((3, 4), np.nan), r"image 2: .*xform\.projection is no rotation .*not finite"),
    ],
)
def test_poses_that_are_no_rotations(tmp_path: Path, name: str, pose: np.ndarray, message: str) -> None:
    poses = np.stack([np.eye(3, 4), pose])
    path = write_eman_stack(tmp_path / "s.hdf", np.ones((2, 7, 7)), poses, [CTF_TEXT] * 2)
    with pytest.raises(InputError, match=message):
        read_input(path)


def test_rotation_vectors_are_rotations_of_any_length_unless_they_are_nan(tmp_path: Path) -> None:
    fields = cs_fields()
    pose = fields["alignments3D/pose"]
    longer = pose * (1 + 2 * np.pi / np.linalg.norm(pose, axis=1, keepdims=True)).astype(np.float32)
    first, same = (
        read_input(write_cs(tmp_path / "p.cs", {**fields, "alignments3D/pose": one}), need_images=False).angles_deg
        for one in (pose, longer)
    )
    np.testing.assert_allclose(np.exp(1j * np.deg2rad(same)), np.exp(1j * np.deg2rad(first)), atol=1e-4)
    pose[1, 2] = np.nan
    with pytest.raises(InputError, match=r"p\.cs, row 2, column alignments3D/pose: a finite rotation .*; remove"):
        read_input(write_cs(tmp_path / "p.cs", fields), need_images=False)
