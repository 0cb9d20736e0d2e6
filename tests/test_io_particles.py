"""Particle tables: one meaning for the three RELION dialects, and a sentence for every way to be wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from hpcsort.errors import InputError
from hpcsort.images import load_band
from hpcsort.io import ImageReader, ParticleTable, read_particles, write_stack
from hpcsort.optics import ctf

_BASE = {
    "rlnImageName": ["3@p.mrcs", "1@p.mrcs", "2@p.mrcs"],
    "rlnAngleRot": [10.5, 20, 30],
    "rlnAngleTilt": [40, 50, 60],
    "rlnAnglePsi": [70, 80, 90],
    "rlnDefocusU": [15000, 16000, 17000],
    "rlnDefocusV": [14000, 15000, 16000],
    "rlnDefocusAngle": [1, 2, 3],
}
_30 = {
    **_BASE,
    "rlnVoltage": [300] * 3,
    "rlnSphericalAberration": [2.7] * 3,
    "rlnAmplitudeContrast": [0.1] * 3,
    "rlnOriginX": [1.5, 0, -1],
    "rlnOriginY": [-2, 0, 3],
    "rlnMagnification": [25000] * 3,
    "rlnDetectorPixelSize": [5] * 3,
}
_31 = {**_BASE, "rlnOpticsGroup": [7, 2, 7], "rlnOriginXAngst": [3, 0, -2], "rlnOriginYAngst": [-4, 0, 6]}
_OPTICS = {
    "rlnOpticsGroup": [2, 7],
    "rlnOpticsGroupName": ["early", "late"],
    "rlnVoltage": [200, 300],
    "rlnSphericalAberration": [2.7, 2.6],
    "rlnAmplitudeContrast": [0.1, 0.07],
    "rlnImagePixelSize": [2.0, 2.0],
}


def _loop(block: str, columns: dict[str, list]) -> str:
    names = "\n".join(f"_{name} #{place}" for place, name in enumerate(columns, start=1))
    rows = "\n".join(" ".join(str(value) for value in row) for row in zip(*columns.values(), strict=True))
    return f"\ndata_{block}\n\nloop_\n{names}\n{rows}\n\n"


def _without(columns: dict[str, list], *names: str) -> dict[str, list]:
    return {name: values for name, values in columns.items() if name not in names}


def _stack(path: Path, n: int = 3, box: tuple[int, int] = (7, 7), voxel_A: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).normal(size=(n, *box))
    write_stack(path, images, (n, *box), voxel_A, overwrite=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _stack(tmp_path / "p.mrcs")
    return tmp_path


def _read30(folder: Path, columns: dict[str, list], block: str = "images", **options: object) -> ParticleTable:
    (folder / "t.star").write_text(_loop(block, columns))
    return read_particles(folder / "t.star", **options)  # type: ignore[arg-type]


def _read31(folder: Path, columns: dict[str, list], optics: dict[str, list], **options: object) -> ParticleTable:
    (folder / "t.star").write_text(_loop("optics", optics) + _loop("particles", columns))
    return read_particles(folder / "t.star", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", ["", "images", "model_class_1"])
def test_relion_30_single_table_of_any_name(folder: Path, block: str) -> None:
    table = _read30(folder, _30, block)
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
    table = _read31(folder, _31, _OPTICS)
    assert table.optics_group_names == ("early", "late")
    np.testing.assert_array_equal(table.optics_group, [1, 0, 1])
    np.testing.assert_array_equal(table.voltage_kV, [300, 200, 300])
    np.testing.assert_array_equal(table.cs_mm, [2.6, 2.7, 2.6])
    np.testing.assert_array_equal(table.amplitude_contrast, [0.07, 0.1, 0.07])
    np.testing.assert_array_equal(table.shifts_px, [[1.5, -2], [0, 0], [-1, 3]])


def test_both_dialects_give_the_same_particles(folder: Path) -> None:
    old = _read30(folder, _30)
    new = _read31(
        folder, {**_31, "rlnOpticsGroup": [1] * 3}, {k: v[1:] for k, v in _OPTICS.items()} | {"rlnOpticsGroup": [1]}
    )
    for name in ("angles_deg", "shifts_px", "defocus_u_A", "defocus_angle_deg", "voltage_kV", "stack_index"):
        np.testing.assert_allclose(getattr(old, name), getattr(new, name))


def test_absent_shifts_are_zero(folder: Path) -> None:
    table = _read30(folder, _without(_30, "rlnOriginX", "rlnOriginY"))
    np.testing.assert_array_equal(table.shifts_px, np.zeros((3, 2)))


def test_subset_keeps_rows_together_and_pickles(folder: Path) -> None:
    table = _read31(folder, {**_31, "rlnRandomSubset": [1, 2, 1], "rlnMicrographName": ["001", "2", "x"]}, _OPTICS)
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
    assert _read31(folder, _31, _OPTICS).pixel_size_A == 2.0
    plain = _without(_30, "rlnMagnification")
    assert _read30(folder, plain).pixel_size_A == 5.0
    bare = _without(plain, "rlnDetectorPixelSize")
    table = _read30(folder, bare)
    assert table.pixel_size_A == 2.0
    assert "header of the stack" in table.notes[0]
    table = _read30(folder, bare, angpix=3.5)
    assert (table.pixel_size_A, table.notes) == (3.5, ())
    table = _read31(folder, _31, _OPTICS, angpix=4)
    assert table.pixel_size_A == 4.0
    assert table.notes == ("Pixel size 4 A as given replaces 2 A of column rlnImagePixelSize.",)
    np.testing.assert_array_equal(table.shifts_px[0], [0.75, -1])


def test_no_pixel_size_anywhere(folder: Path) -> None:
    _stack(folder / "p.mrcs", voxel_A=0.0)
    with pytest.raises(InputError, match=r"t\.star has no pixel size .*nor has the header.*--angpix"):
        _read30(folder, _without(_30, "rlnMagnification", "rlnDetectorPixelSize"))
    with pytest.raises(InputError, match=r"pixel size -1 A given for .*correct --angpix"):
        _read30(folder, _30, angpix=-1)


def test_mixed_pixel_sizes_are_read_and_refused_where_one_is_asked_for(folder: Path) -> None:
    optics = {**_OPTICS, "rlnImagePixelSize": [2.0, 2.1]}
    table = _read31(folder, _31, optics)
    np.testing.assert_array_equal(table.pixel_sizes_A, [2.1, 2.0, 2.1])
    np.testing.assert_allclose(table.shifts_px, [[3 / 2.1, -4 / 2.1], [0, 0], [-2 / 2.1, 6 / 2.1]])
    message = (
        r"t\.star, column rlnImagePixelSize: optics group late has 2\.1 A and optics group early has 2 A;.*--angpix"
    )
    with pytest.raises(InputError, match=message):
        _ = table.pixel_size_A
    # a group that no particle uses does not matter
    assert _read31(folder, {**_31, "rlnOpticsGroup": [7] * 3}, optics).pixel_size_A == 2.1
    assert table.subset([1]).pixel_size_A == 2.0
    assert np.isnan(table.subset([]).pixel_size_A)
    table = _read31(folder, _31, optics, angpix=2.05)
    assert table.pixel_size_A == 2.05
    assert table.notes == ("Pixel size 2.05 A as given replaces 2 to 2.1 A of column rlnImagePixelSize.",)
    np.testing.assert_allclose(table.shifts_px[0], [3 / 2.05, -4 / 2.05])
    table = _read30(folder, {**_30, "rlnMagnification": [25000, 25000, 20000]})
    np.testing.assert_allclose(table.pixel_sizes_A, [2, 2, 2.5])
    with pytest.raises(InputError, match=r"column rlnDetectorPixelSize: row 1 has 2 A and row 3 has 2\.5 A"):
        _ = table.pixel_size_A
    with pytest.raises(InputError, match=r"row 2 has 2 A and row 3 has 2\.5 A"):
        _ = table.subset([1, 2]).pixel_size_A


def test_each_pixel_size_gives_its_own_ctf(folder: Path) -> None:
    table = _read31(folder, _31, {**_OPTICS, "rlnImagePixelSize": [2.0, 3.0]})
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


@pytest.mark.parametrize("name", [*list(_BASE)[1:], "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"])
def test_missing_columns_are_named_unless_not_needed(folder: Path, name: str) -> None:
    columns = _without(_30, name)
    with pytest.raises(InputError, match=rf"t\.star has no column {name} in its table, but .*add the column"):
        _read30(folder, columns)
    table = _read30(folder, columns, need_poses=False, need_ctf=False)
    assert sum(np.isnan(values).any() for values in (table.angles_deg, table.defocus_u_A, table.voltage_kV)) <= 1
    optics = _without(_OPTICS, name)
    if len(optics) < len(_OPTICS):
        with pytest.raises(InputError, match=rf"no column {name} in its optics or particle table"):
            _read31(folder, _31, optics)


@pytest.mark.parametrize("value", ["abc", "nan", "inf", "-inf", "1.2.3"])
@pytest.mark.parametrize("name", ["rlnAnglePsi", "rlnDefocusU", "rlnOriginX", "rlnVoltage"])
def test_values_that_are_no_finite_numbers_are_named(folder: Path, name: str, value: str) -> None:
    with pytest.raises(InputError, match=rf"t\.star, row 2, column {name}: '{value}' where a finite number is needed"):
        _read30(folder, {**_30, name: [_30[name][0], value, _30[name][2]]})


def test_bad_values_in_the_optics_table_and_several_rows(folder: Path) -> None:
    with pytest.raises(InputError, match=r"row 2 of data_optics, column rlnVoltage: 'x'"):
        _read31(folder, _31, {**_OPTICS, "rlnVoltage": [200, "x"]})
    with pytest.raises(InputError, match=r"row 1 and 1 more, column rlnAngleRot"):
        _read30(folder, {**_30, "rlnAngleRot": ["x", 1, "y"]})


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
def test_values_outside_their_range(folder: Path, changes: dict[str, list], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _read30(folder, {**_30, **changes})


def test_tables_of_another_kind(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no column rlnImageName in data_images; give the STAR file of the particles"):
        _read30(folder, _without(_30, "rlnImageName"))
    with pytest.raises(InputError, match=r"has no rows in data_images"):
        _read30(folder, {name: [] for name in _30})
    (folder / "t.star").write_text(_loop("a", _30) + _loop("b", _30))
    with pytest.raises(InputError, match=r"several tables with a column rlnImageName \(data_a, data_b\)"):
        read_particles(folder / "t.star")
    (folder / "t.star").write_text(_loop("a", _30).replace("_rlnOriginY", "_rlnOriginX"))
    with pytest.raises(InputError, match=r"column rlnOriginX twice"):
        read_particles(folder / "t.star")


def test_groups_that_do_not_fit(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"row 2, column rlnOpticsGroup: group 3 is not in data_optics, which has 2, 7"
    ):
        _read31(folder, {**_31, "rlnOpticsGroup": [7, 3, 7]}, _OPTICS)
    with pytest.raises(InputError, match=r"no column rlnOpticsGroup in its particle table"):
        _read31(folder, _without(_31, "rlnOpticsGroup"), _OPTICS)
    with pytest.raises(InputError, match=r"no column rlnOpticsGroup in its optics table"):
        _read31(folder, _31, _without(_OPTICS, "rlnOpticsGroup"))
    with pytest.raises(InputError, match=r"a group number occurs twice"):
        _read31(folder, _31, {**_OPTICS, "rlnOpticsGroup": [7, 7]})


def test_group_numbers_without_an_optics_table(folder: Path) -> None:
    table = _read30(folder, {**_30, "rlnOpticsGroup": [7, 2, 7]})
    assert table.optics_group_names == ("opticsGroup2", "opticsGroup7")
    np.testing.assert_array_equal(table.optics_group, [1, 0, 1])


def test_what_sorting_leaves_out_is_noted(folder: Path) -> None:
    trivial = {
        "rlnBeamTiltX": [0, 0],
        "rlnBeamTiltY": [0, 0.2],
        "rlnOddZernike": ["[0,0,0]", "[0,0,0]"],
        "rlnEvenZernike": ["[0,1e-3,0]", "[0,2,0]"],
        "rlnMagMat00": [1, 1],
        "rlnMagMat01": [0, 0],
        "rlnMagMat10": [0, 0],
        "rlnMagMat11": [1.0, 1.0],
    }
    notes = _read31(folder, _31, _OPTICS | trivial).notes
    assert len(notes) == 2
    assert notes[0].startswith("The table states beam tilt for optics group late;")
    assert notes[1].startswith("The table states even aberrations for optics groups early, late;")
    twice = _read30(folder, {**_30, "rlnImageName": ["1@p.mrcs", "1@p.mrcs", "2@p.mrcs"]})
    assert twice.notes == ("Rows that name the image of an earlier row: 1.",)


# Stacks


@pytest.mark.parametrize("name", ["0@p.mrcs", "-1@p.mrcs", "1.5@p.mrcs", "x@p.mrcs", "@p.mrcs", "1@"])
def test_names_that_are_no_images(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"row 2, column rlnImageName: '{name}' does not name an image; write it as"):
        _read30(folder, {**_30, "rlnImageName": ["1@p.mrcs", name, "2@p.mrcs"]})


def test_index_beyond_the_end(folder: Path) -> None:
    columns = {**_30, "rlnImageName": ["1@p.mrcs", "3@p.mrcs", "4@p.mrcs"]}
    with pytest.raises(
        InputError, match=r"row 3, column rlnImageName: image 4 is beyond the end of .*p\.mrcs, which holds 3"
    ):
        _read30(folder, columns)
    assert _read30(folder, columns, need_images=False).stack_index.tolist() == [0, 2, 3]


def test_stacks_are_found_in_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tmp_path / "project" / "Refine" / "job1"
    job.mkdir(parents=True)
    places = [
        job / "x/p.mrcs",
        tmp_path / "cwd/x/p.mrcs",
        tmp_path / "data/x/p.mrcs",
        tmp_path / "data/p.mrcs",
        tmp_path / "project/x/p.mrcs",
    ]
    for place in places:
        _stack(place)
    monkeypatch.chdir(tmp_path / "cwd")
    columns = {**_30, "rlnImageName": [f"{index}@x/p.mrcs" for index in (1, 2, 3)]}
    for place in places:
        assert _read30(job, columns, datadir=tmp_path / "data").stack_paths == [place]
        place.unlink()
    message = r"row 1, column rlnImageName: stack x/p\.mrcs was not found in .*job1, .*cwd, .*data, .*Refine.*--datadir"
    with pytest.raises(InputError, match=message):
        _read30(job, columns, datadir=tmp_path / "data")
    table = _read30(job, columns, need_images=False)
    assert table.box_px is None
    assert table.stack_names == ["x/p.mrcs"]
    with pytest.raises(InputError, match=r"the folder .*nowhere given for the stacks.*correct --datadir"):
        _read30(job, columns, datadir=tmp_path / "nowhere")


def test_absolute_paths(tmp_path: Path) -> None:
    _stack(tmp_path / "a" / "p.mrcs")
    (tmp_path / "b").mkdir()
    columns = {**_30, "rlnImageName": [f"{index}@{tmp_path}/a/p.mrcs" for index in (1, 2, 3)]}
    assert _read30(tmp_path / "b", columns).stack_paths == [tmp_path / "a" / "p.mrcs"]
    (tmp_path / "a").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"was not found in .*/a; name the folder that holds it with --datadir"):
        _read30(tmp_path / "b", columns)
    assert _read30(tmp_path / "b", columns, datadir=tmp_path / "moved").stack_paths == [tmp_path / "moved" / "p.mrcs"]


def test_stacks_that_do_not_fit_together(folder: Path) -> None:
    columns = {**_30, "rlnImageName": ["1@p.mrcs", "1@q.mrcs", "2@p.mrcs"]}
    _stack(folder / "q.mrcs", box=(8, 8))
    with pytest.raises(InputError, match=r"row 2, .*q\.mrcs has images of 8 px but .*p\.mrcs of 7 px; bring all"):
        _read30(folder, columns)
    _stack(folder / "q.mrcs", box=(7, 8))
    with pytest.raises(InputError, match=r"row 2, .*q\.mrcs has images of 8 x 7 px; cut or pad them to squares"):
        _read30(folder, columns)
    (folder / "q.mrcs").write_bytes((folder / "p.mrcs").read_bytes()[:-4])
    with pytest.raises(InputError, match=r"t\.star, row 2, .*q\.mrcs is truncated .* promises 1612 bytes, found 1608"):
        _read30(folder, columns)
    assert _read30(folder, columns, need_images=False).box_px == 7


def test_a_name_without_index_is_a_file_of_one_image(folder: Path) -> None:
    table = _read30(folder, {**_30, "rlnImageName": ["p.mrcs", "2@p.mrcs", "3@p.mrcs"]})
    assert table.stack_index.tolist() == [0, 1, 2]


# Reference tables


def test_reference_tables_with_their_images(shared_data: Path) -> None:
    table = read_particles(shared_data / "dev5" / "particles.star")
    assert (len(table), table.pixel_size_A, table.box_px, table.stack_index[-1]) == (5000, 5.0, 64, 4999)
    assert table.shifts_px[0] == pytest.approx([0.143957 / 5, 1.368354 / 5])
    assert set(table.random_subset.tolist()) == {1, 2}
    for name in ("ora_ctf", "ora_noctf"):
        assert read_particles(shared_data / "relion_oracle" / f"{name}.star").box_px == 64
    source = shared_data / "emd10076_DE" / "10076_classD_32_sim.star"
    table = read_particles(source, datadir=source.parent)
    assert table.pixel_size_A == 13.1
    assert table.phase_shift_deg[0] == 90
    assert table.bfactor_A2[0] == -8
    assert table.shifts_px[0] == pytest.approx([-2.672172, -2.528634])
    assert read_particles(shared_data / "formats" / "relion31.star").pixel_size_A == 2.806
    source = shared_data / "formats" / "rln_proj_65.star"
    assert read_particles(source, angpix=5, need_ctf=False).box_px == 65


def test_reference_tables_without_their_images(shared_data: Path) -> None:
    formats = shared_data / "formats"
    for name, stack in (
        ("relion5", "toy_images_a"),
        ("sample_particles_relion30", "sample"),
        ("sample_particles_relion31", "sample"),
        ("relion31.6opticsgroups", "0003_shiny"),
    ):
        with pytest.raises(
            InputError, match=rf"{name}\.star, row 1, column rlnImageName: stack .*{stack}\.mrcs was not"
        ):
            read_particles(formats / f"{name}.star")
    notes = read_particles(formats / "relion5.star", need_images=False).notes
    assert [kind in note for kind, note in zip(("tilt", "odd", "even", "magnification"), notes, strict=False)] == [
        True
    ] * 4
    assert notes[4:] == ("Rows that name the image of an earlier row: 2.",)
    table = read_particles(formats / "sample_particles_relion31.star", need_images=False)
    assert table.optics_group_names == ("opticsGroup1", "opticsGroup2")
    assert set(table.voltage_kV.tolist()) == {200, 300}
    table = read_particles(formats / "sample_particles_relion30.star", need_images=False)
    assert table.pixel_size_A == pytest.approx(1.338, rel=1e-6)
    with pytest.raises(InputError, match=r"has no column rlnVoltage in its table"):
        read_particles(formats / "sample_incomplete_ctf_params.star")
    table = read_particles(formats / "relion31.6opticsgroups.star", need_images=False)
    assert set(table.pixel_sizes_A.tolist()) == {1.24, 1.25}
    with pytest.raises(InputError, match=r"opticsGroup6 has 1\.25 A and optics group \w+ has 1\.24 A"):
        _ = table.pixel_size_A
    assert read_particles(formats / "relion31.6opticsgroups.star", need_images=False, angpix=1.25).pixel_size_A == 1.25


def test_every_reference_table_can_be_read(shared_data: Path) -> None:
    stars = sorted((shared_data / "formats").glob("*.star"))
    assert stars
    for star in stars:
        # rln_proj_65 states no pixel size anywhere
        angpix = 5.0 if star.stem == "rln_proj_65" else None
        table = read_particles(star, need_images=False, need_ctf=False, need_poses=False, angpix=angpix)
        assert len(table) > 0
        assert (table.pixel_sizes_A > 0).all()
