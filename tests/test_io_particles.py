"""Particle tables: one meaning for the three RELION dialects, and a sentence for every way to be wrong."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from particle_cases import BASE, OPTICS, RELION_30, RELION_31, loop_text, make_stack, read_30, read_31, without

from hpcsort.errors import InputError
from hpcsort.images import load_band
from hpcsort.io import ImageReader, read_particles
from hpcsort.optics import ctf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_stack(tmp_path / "p.mrcs")
    return tmp_path


@pytest.mark.parametrize("block", ["", "images", "model_class_1"])
def test_relion_30_single_table_of_any_name(folder: Path, block: str) -> None:
    table = read_30(folder, RELION_30, block)
    assert len(table) == 3
    assert table.block_name == block
    assert table.pixel_size_A == pytest.approx(2.0)
    assert table.box_px == 7
    np.testing.assert_array_equal(table.angles_deg, [[10.5, 40, 70], [20, 50, 80], [30, 60, 90]])
    np.testing.assert_array_equal(table.shifts_px, [[1.5, -2], [0, 0], [-1, 3]])
    np.testing.assert_array_equal(table.stack_index, [2, 0, 1])
    np.testing.assert_array_equal(table.defocus_v_A, [14000, 15000, 16000])
    np.testing.assert_array_equal(table.phase_shift_deg, 0)
    np.testing.assert_array_equal(table.bfactor_A2, 0)
    np.testing.assert_array_equal(table.ctf_scale, 1)
    np.testing.assert_array_equal(table.random_subset, 0)
    assert table.micrograph.tolist() == ["", "", ""]
    assert table.optics is None
    assert table.notes == ()


def test_relion_31_optics_are_joined_by_group_number(folder: Path) -> None:
    table = read_31(folder, RELION_31, OPTICS)
    assert table.optics_group_names == ("early", "late")
    np.testing.assert_array_equal(table.optics_group, [1, 0, 1])
    np.testing.assert_array_equal(table.voltage_kV, [300, 200, 300])
    np.testing.assert_array_equal(table.cs_mm, [2.6, 2.7, 2.6])
    np.testing.assert_array_equal(table.amplitude_contrast, [0.07, 0.1, 0.07])
    np.testing.assert_array_equal(table.shifts_px, [[1.5, -2], [0, 0], [-1, 3]])


def test_both_dialects_give_the_same_particles(folder: Path) -> None:
    old = read_30(folder, RELION_30)
    new = read_31(
        folder,
        {**RELION_31, "rlnOpticsGroup": [1] * 3},
        {k: v[1:] for k, v in OPTICS.items()} | {"rlnOpticsGroup": [1]},
    )
    for name in ("angles_deg", "shifts_px", "defocus_u_A", "defocus_angle_deg", "voltage_kV", "stack_index"):
        np.testing.assert_allclose(getattr(old, name), getattr(new, name))


def test_absent_shifts_are_zero(folder: Path) -> None:
    table = read_30(folder, without(RELION_30, "rlnOriginX", "rlnOriginY"))
    np.testing.assert_array_equal(table.shifts_px, np.zeros((3, 2)))


def test_subset_keeps_rows_together_and_pickles(folder: Path) -> None:
    table = read_31(folder, {**RELION_31, "rlnRandomSubset": [1, 2, 1], "rlnMicrographName": ["001", "2", "x"]}, OPTICS)
    assert table.micrograph.tolist() == ["001", "2", "x"]
    part = pickle.loads(pickle.dumps(table.subset([2, 0])))
    assert len(part) == 2
    np.testing.assert_array_equal(part.angles_deg[:, 0], [30, 10.5])
    np.testing.assert_array_equal(part.source_row, [2, 0])
    np.testing.assert_array_equal(part.random_subset, [1, 1])
    assert part.micrograph.tolist() == ["x", "001"]
    assert part.frame["rlnImageName"].tolist() == ["2@p.mrcs", "3@p.mrcs"]
    assert len(table.subset(np.array([False, True, False])).subset([0])) == 1
    assert len(table.subset([])) == 0


# Pixel size


def test_pixel_size_sources_in_order(folder: Path) -> None:
    assert read_31(folder, RELION_31, OPTICS).pixel_size_A == 2.0
    plain = without(RELION_30, "rlnMagnification")
    assert read_30(folder, plain).pixel_size_A == 5.0
    bare = without(plain, "rlnDetectorPixelSize")
    table = read_30(folder, bare)
    assert table.pixel_size_A == 2.0
    assert "header of the stack" in table.notes[0]
    table = read_30(folder, bare, angpix=3.5)
    assert (table.pixel_size_A, table.notes) == (3.5, ())
    table = read_31(folder, RELION_31, OPTICS, angpix=4)
    assert table.pixel_size_A == 4.0
    assert table.notes == ("Pixel size 4 A as given replaces 2 A of column rlnImagePixelSize.",)
    np.testing.assert_array_equal(table.shifts_px[0], [0.75, -1])


def test_no_pixel_size_anywhere(folder: Path) -> None:
    make_stack(folder / "p.mrcs", voxel_A=0.0)
    with pytest.raises(InputError, match=r"t\.star has no pixel size .*nor has the header.*--angpix"):
        read_30(folder, without(RELION_30, "rlnMagnification", "rlnDetectorPixelSize"))
    with pytest.raises(InputError, match=r"pixel size -1 A given for .*correct --angpix"):
        read_30(folder, RELION_30, angpix=-1)


def test_mixed_pixel_sizes_are_read_and_refused_where_one_is_asked_for(folder: Path) -> None:
    optics = {**OPTICS, "rlnImagePixelSize": [2.0, 2.1]}
    table = read_31(folder, RELION_31, optics)
    np.testing.assert_array_equal(table.pixel_sizes_A, [2.1, 2.0, 2.1])
    np.testing.assert_allclose(table.shifts_px, [[3 / 2.1, -4 / 2.1], [0.0, 0.0], [-2 / 2.1, 6 / 2.1]])
    message = (
        r"t\.star, column rlnImagePixelSize: optics group late has 2\.1 A and optics group early has 2 A;.*--angpix"
    )
    with pytest.raises(InputError, match=message):
        _ = table.pixel_size_A
    # a group that no particle uses does not matter
    assert read_31(folder, {**RELION_31, "rlnOpticsGroup": [7] * 3}, optics).pixel_size_A == 2.1
    assert table.subset([1]).pixel_size_A == 2.0
    assert np.isnan(table.subset([]).pixel_size_A)
    table = read_31(folder, RELION_31, optics, angpix=2.05)
    assert table.pixel_size_A == 2.05
    assert table.notes == ("Pixel size 2.05 A as given replaces 2 to 2.1 A of column rlnImagePixelSize.",)
    np.testing.assert_allclose(table.shifts_px[0], [3 / 2.05, -4 / 2.05])
    table = read_30(folder, {**RELION_30, "rlnMagnification": [25000, 25000, 20000]})
    np.testing.assert_allclose(table.pixel_sizes_A, [2, 2, 2.5])
    with pytest.raises(InputError, match=r"column rlnDetectorPixelSize: row 1 has 2 A and row 3 has 2\.5 A"):
        _ = table.pixel_size_A
    with pytest.raises(InputError, match=r"row 2 has 2 A and row 3 has 2\.5 A"):
        _ = table.subset([1, 2]).pixel_size_A


def test_each_pixel_size_gives_its_own_ctf(folder: Path) -> None:
    table = read_31(folder, RELION_31, {**OPTICS, "rlnImagePixelSize": [2.0, 3.0]})
    rows = np.array([1, 2])
    read = ImageReader(table).read
    data = load_band(table, rows, np.tile(np.eye(3), (2, 1, 1)), 2, read, particle_radius_px=2)
    for place, (row, size) in enumerate(((1, 2.0), (2, 3.0))):
        alone = ctf(
            data.px, data.py, 7, size, table.defocus_u_A[row], table.defocus_v_A[row], table.defocus_angle_deg[row],
            table.voltage_kV[row], table.cs_mm[row], table.amplitude_contrast[row],
        )  # fmt: skip
        np.testing.assert_array_equal(data.ctfs[place], alone[0])


# Columns


@pytest.mark.parametrize("name", [*list(BASE)[1:], "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"])
def test_missing_columns_are_named_unless_not_needed(folder: Path, name: str) -> None:
    columns = without(RELION_30, name)
    with pytest.raises(InputError, match=rf"t\.star has no column {name} in its table, but .*add the column"):
        read_30(folder, columns)
    table = read_30(folder, columns, need_poses=False, need_ctf=False)
    assert sum(np.isnan(values).any() for values in (table.angles_deg, table.defocus_u_A, table.voltage_kV)) <= 1
    optics = without(OPTICS, name)
    if len(optics) < len(OPTICS):
        with pytest.raises(InputError, match=rf"no column {name} in its optics or particle table"):
            read_31(folder, RELION_31, optics)


@pytest.mark.parametrize("value", ["abc", "nan", "inf", "-inf", "1.2.3"])
@pytest.mark.parametrize("name", ["rlnAnglePsi", "rlnDefocusU", "rlnOriginX", "rlnVoltage"])
def test_values_that_are_no_finite_numbers_are_named(folder: Path, name: str, value: str) -> None:
    with pytest.raises(InputError, match=rf"t\.star, row 2, column {name}: '{value}' where a finite number is needed"):
        read_30(folder, {**RELION_30, name: [RELION_30[name][0], value, RELION_30[name][2]]})


def test_bad_values_in_the_optics_table_and_several_rows(folder: Path) -> None:
    with pytest.raises(InputError, match=r"row 2 of data_optics, column rlnVoltage: 'x'"):
        read_31(folder, RELION_31, {**OPTICS, "rlnVoltage": [200, "x"]})
    with pytest.raises(InputError, match=r"row 1 and 1 more, column rlnAngleRot"):
        read_30(folder, {**RELION_30, "rlnAngleRot": ["x", 1, "y"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rlnVoltage": [300, 0, 300]}, r"row 2, column rlnVoltage: '0' where a voltage in kV is positive"),
        ({"rlnAmplitudeContrast": [0.1, 0.1, 7]}, r"row 3, column rlnAmplitudeContrast: .* between 0 and 1"),
        ({"rlnMagnification": [1, 0, 1]}, r"row 2, column rlnMagnification: '0' where a magnification is positive"),
        ({"rlnDetectorPixelSize": [-5] * 3}, r"column rlnDetectorPixelSize: .* pixel size in Angstrom is positive"),
        ({"rlnRandomSubset": [1, 1.5, 2]}, r"row 2, column rlnRandomSubset: '1.5' where an integer is needed"),
        ({"rlnCtfDataAreCtfPremultiplied": [0, 0, 1]}, r"row 3, column rlnCtfData.* not supported yet"),
        ({"rlnImageDimensionality": [3, 3, 3]}, r"column rlnImageDimensionality: '3' where only 2D images"),
        ({"rlnImageSize": [8, 8, 8]}, r"column rlnImageSize: .* states 8 px but the stack has 7 px"),
    ],
)
def test_values_outside_their_range(folder: Path, changes: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_30(folder, {**RELION_30, **changes})


def test_tables_of_another_kind(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no column rlnImageName in data_images; give the STAR file of the particles"):
        read_30(folder, without(RELION_30, "rlnImageName"))
    with pytest.raises(InputError, match=r"has no rows in data_images"):
        read_30(folder, {name: [] for name in RELION_30})
    (folder / "t.star").write_text(loop_text("a", RELION_30) + loop_text("b", RELION_30))
    with pytest.raises(InputError, match=r"several tables with a column rlnImageName \(data_a, data_b\)"):
        read_particles(folder / "t.star")
    (folder / "t.star").write_text(loop_text("a", RELION_30).replace("_rlnOriginY", "_rlnOriginX"))
    with pytest.raises(InputError, match=r"column rlnOriginX twice"):
        read_particles(folder / "t.star")


def test_groups_that_do_not_fit(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"row 2, column rlnOpticsGroup: group 3 is not in data_optics, which has 2, 7"
    ):
        read_31(folder, {**RELION_31, "rlnOpticsGroup": [7, 3, 7]}, OPTICS)
    with pytest.raises(InputError, match=r"no column rlnOpticsGroup in its particle table"):
        read_31(folder, without(RELION_31, "rlnOpticsGroup"), OPTICS)
    with pytest.raises(InputError, match=r"no column rlnOpticsGroup in its optics table"):
        read_31(folder, RELION_31, without(OPTICS, "rlnOpticsGroup"))
    with pytest.raises(InputError, match=r"a group number occurs twice"):
        read_31(folder, RELION_31, {**OPTICS, "rlnOpticsGroup": [7, 7]})


def test_group_numbers_without_an_optics_table(folder: Path) -> None:
    table = read_30(folder, {**RELION_30, "rlnOpticsGroup": [7, 2, 7]})
    assert table.optics_group_names == ("opticsGroup2", "opticsGroup7")
    np.testing.assert_array_equal(table.optics_group, [1, 0, 1])


def test_what_sorting_leaves_out_is_noted(folder: Path) -> None:
    trivial: dict[str, list[Any]] = {
        "rlnBeamTiltX": [0, 0],
        "rlnBeamTiltY": [0, 0.2],
        "rlnOddZernike": ["[0,0,0]", "[0,0,0]"],
        "rlnEvenZernike": ["[0,1e-3,0]", "[0,2,0]"],
        "rlnMagMat00": [1, 1],
        "rlnMagMat01": [0, 0],
        "rlnMagMat10": [0, 0],
        "rlnMagMat11": [1.0, 1.0],
    }
    notes = read_31(folder, RELION_31, OPTICS | trivial).notes
    assert len(notes) == 2
    assert notes[0].startswith("The table states beam tilt for optics group late;")
    assert notes[1].startswith("The table states even aberrations for optics groups early, late;")
    twice = read_30(folder, {**RELION_30, "rlnImageName": ["1@p.mrcs", "1@p.mrcs", "2@p.mrcs"]})
    assert twice.notes == ("Rows that name the image of an earlier row: 1.",)
