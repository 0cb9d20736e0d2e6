"""One entry for every kind of table and map; optics groups of one pixel size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from io_cases import CTF_TEXT, cs_fields, write_cs, write_eman_stack
from particle_cases import OPTICS, RELION_30, RELION_31, loop_text, make_stack, read_30, read_31

from hpcsort.errors import InputError
from hpcsort.io import read_any_map, read_input, read_particles, write_hdf_map, write_map, write_particles
from hpcsort.optics import ctf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_stack(tmp_path / "p.mrcs")
    make_stack(tmp_path / "J1" / "p.mrc")
    (tmp_path / "t.star").write_text(loop_text("particles", RELION_30))
    write_cs(tmp_path / "t.cs", cs_fields())
    poses = np.tile(np.eye(3, 4), (2, 1, 1))
    write_eman_stack(tmp_path / "t.hdf", np.random.default_rng(0).normal(size=(2, 7, 7)), poses, [CTF_TEXT] * 2)
    return tmp_path


@pytest.mark.parametrize(("suffix", "count"), [("star", 3), ("cs", 3), ("hdf", 2)])
def test_the_suffix_or_the_content_decides(folder: Path, suffix: str, count: int) -> None:
    path = folder / f"t.{suffix}"
    options = {"need_images": True, "need_poses": True, "need_ctf": True, "angpix": 3.0, "datadir": folder}
    assert len(read_input(path, **options, smears=False)) == count  # type: ignore[arg-type]
    assert read_input(str(path), **options).pixel_size_A == 3.0  # type: ignore[arg-type]
    path.rename(folder / "odd.table")
    table = read_input(folder / "odd.table")
    assert (len(table), table.box_px) == (count, 7)


def test_other_kinds_are_refused_in_one_sentence(folder: Path) -> None:
    def refused(path: object, message: str, **options: object) -> None:
        with pytest.raises(InputError, match=message) as error:
            read_input(path, **options)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    refused("bdb:data#stack", r"BDB database of EMAN2, which is not read; copy it to HDF: e2proc2d\.py bdb:data#stack")
    refused(folder / "p.mrcs", r"holds images without a table of poses and CTF")
    (folder / "a.txt").write_text("anything")
    refused(folder / "a.txt", r"is no table of particles; give a STAR file, a \.cs file")
    refused(folder / "absent.txt", r"is not a file that can be read")
    refused(folder, r"is not a file that can be read")
    for suffix in ("star", "cs", "hdf"):
        refused(folder / f"absent.{suffix}", r"can(not)? be read.*check path")
    for suffix in ("star", "hdf"):
        refused(folder / f"t.{suffix}", r"passthrough file x\.cs belongs to a \.cs file", passthrough="x.cs")


def test_a_passthrough_is_handed_on(folder: Path) -> None:
    fields = cs_fields()
    write_cs(folder / "a.cs", {name: values for name, values in fields.items() if not name.startswith("ctf")})
    write_cs(folder / "b.cs", {name: values for name, values in fields.items() if name.startswith(("ctf", "uid"))})
    table = read_input(folder / "a.cs", passthrough=folder / "b.cs")
    np.testing.assert_array_equal(table.defocus_u_A, read_input(folder / "t.cs").defocus_u_A)


def test_maps_of_both_kinds(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    write_map(tmp_path / "a.mrc", data, 2)
    write_hdf_map(tmp_path / "a.hdf", data, 2)
    (tmp_path / "b.map").write_bytes((tmp_path / "a.hdf").read_bytes())
    for name in ("a.mrc", "a.hdf", "b.map"):
        read, voxel_A = read_any_map(tmp_path / name)
        np.testing.assert_array_equal(read, data)
        assert voxel_A == 2.0
    for name in ("absent.mrc", "absent.hdf"):
        with pytest.raises(InputError, match="check path and permissions"):
            read_any_map(tmp_path / name)
    (tmp_path / "text.hdf").write_text("no map")
    with pytest.raises(InputError, match="damaged or not an HDF5 map"):
        read_any_map(tmp_path / "text.hdf")


# Stacks as RELION names them


def test_a_forced_format_is_part_of_the_name_only(tmp_path: Path) -> None:
    make_stack(tmp_path / "p.mrc")
    table = read_30(tmp_path, {**RELION_30, "rlnImageName": [f"{index}@p.mrc:mrcs" for index in (1, 2, 3)]})
    assert table.stack_paths == [tmp_path / "p.mrc"]
    (tmp_path / "sub").mkdir()
    for target in (tmp_path / "a.star", tmp_path / "sub" / "b.star"):
        write_particles(target, table)
        again = read_particles(target)
        assert again.stack_names == ["p.mrc:mrcs"]
    (tmp_path.parent / f"{tmp_path.name}_far").mkdir()
    write_particles(tmp_path.parent / f"{tmp_path.name}_far" / "c.star", table)
    again = read_particles(tmp_path.parent / f"{tmp_path.name}_far" / "c.star")
    assert again.stack_names == [f"../{tmp_path.name}/p.mrc:mrcs"]


def test_an_index_of_many_digits_is_no_index(folder: Path) -> None:
    with pytest.raises(InputError, match=r"row 1, column rlnImageName: '9{30}@p\.mrcs' does not name an image"):
        read_30(folder, {**RELION_30, "rlnImageName": ["9" * 30 + "@p.mrcs", "1@p.mrcs", "2@p.mrcs"]})
    with pytest.raises(InputError, match=r"row 1, column rlnImageName: stack a{400} was not found"):
        read_30(folder, {**RELION_30, "rlnImageName": ["1@" + "a" * 400] * 3})


# Optics groups


def _ctf(table: object, rows: slice | list[int]) -> np.ndarray:
    names = (
        "pixel_sizes_A", "defocus_u_A", "defocus_v_A", "defocus_angle_deg", "voltage_kV", "cs_mm",
        "amplitude_contrast", "phase_shift_deg",
    )  # fmt: skip
    return ctf(np.arange(1, 20), np.zeros(19), 64, *(getattr(table, name)[rows] for name in names))


def test_each_group_has_its_own_ctf(folder: Path) -> None:
    table = read_31(folder, RELION_31, OPTICS)
    assert table.pixel_size_A == 2.0
    mixed = _ctf(table, [0, 1, 2])
    for group, voltage in ((2, 200), (7, 300)):
        place = OPTICS["rlnOpticsGroup"].index(group)
        rows = [row for row, number in enumerate(RELION_31["rlnOpticsGroup"]) if number == group]
        columns = {
            **{name: values for name, values in RELION_30.items() if name.startswith(("rlnD", "rlnA", "rlnI"))},
            **{name: [OPTICS[name][place]] * 3 for name in ("rlnSphericalAberration", "rlnAmplitudeContrast")},
            "rlnVoltage": [voltage] * 3,
        }
        alone = read_30(folder, columns, angpix=2.0)
        np.testing.assert_array_equal(mixed[rows], _ctf(alone, rows))
    assert np.abs(mixed[1] - mixed[0]).max() > 0.1


def test_group_numbers_written_as_other_numbers(folder: Path) -> None:
    table = read_31(folder, {**RELION_31, "rlnOpticsGroup": ["7.000000", "2.000000", "7.000000"]}, OPTICS)
    np.testing.assert_array_equal(table.optics_group, [1, 0, 1])


def test_six_groups_of_one_pixel_size(shared_data: Path) -> None:
    table = read_particles(shared_data / "formats" / "relion31.6opticsgroups.star", need_images=False)
    assert table.optics is not None
    chosen = np.flatnonzero(table.pixel_sizes_A == 1.25)
    part = table.subset(chosen)
    assert part.pixel_size_A == 1.25
    used = sorted({part.optics_group_names[group] for group in part.optics_group.tolist()})
    assert used == ["opticsGroup1", "opticsGroup2", "opticsGroup5", "opticsGroup6"]
    stated = table.optics.set_index("rlnOpticsGroup")
    for column, values in (
        ("rlnVoltage", part.voltage_kV),
        ("rlnSphericalAberration", part.cs_mm),
        ("rlnAmplitudeContrast", part.amplitude_contrast),
    ):
        expected = stated.loc[part.frame["rlnOpticsGroup"], column].to_numpy(float)
        np.testing.assert_array_equal(values, expected)
    assert set(part.cs_mm.tolist()) == {2.6, 2.7}
