"""cryoSPARC tables: poses, shifts, CTF and identity, and a sentence for every way to be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from io_cases import cs_fields, write_cs
from particle_cases import make_stack

from hpcsort.errors import InputError
from hpcsort.geometry import relion_matrices
from hpcsort.io import ImageReader, read_cryosparc, read_particles, write_particles
from hpcsort.optics import ctf


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Folder of a project with the stack J1/p.mrc and room for a job."""
    make_stack(tmp_path / "J1" / "p.mrc", voxel_A=1.31)
    (tmp_path / "J2").mkdir()
    return tmp_path


def _rodrigues(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix of a rotation vector, as the sum of the exponential series."""
    x, y, z = vector.astype(float)
    generator = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    total, term = np.eye(3), np.eye(3)
    for order in range(1, 40):
        term = term @ generator / order
        total = total + term
    return total


def test_poses_shifts_and_ctf(project: Path) -> None:
    fields = cs_fields()
    table = read_cryosparc(write_cs(project / "J2" / "p.cs", fields))
    assert (len(table), table.box_px, table.pixel_size_A) == (3, 7, 1.31)
    # cryoSPARC's matrix is that of the vector transposed (pyem: expmap), and equals RELION's A
    for matrix, vector in zip(relion_matrices(table.angles_deg), fields["alignments3D/pose"], strict=True):
        np.testing.assert_allclose(matrix, _rodrigues(vector).T, atol=1e-10)
    np.testing.assert_allclose(table.shifts_px, fields["alignments3D/shift"], rtol=1e-12)
    np.testing.assert_allclose(table.defocus_u_A, fields["ctf/df1_A"], rtol=1e-7)
    np.testing.assert_allclose(table.defocus_v_A, fields["ctf/df2_A"], rtol=1e-7)
    np.testing.assert_allclose(np.deg2rad(table.defocus_angle_deg), fields["ctf/df_angle_rad"], rtol=1e-6)
    np.testing.assert_allclose(np.deg2rad(table.phase_shift_deg), 0.25)
    assert table.cs_mm.tolist() == [2.7] * 3
    np.testing.assert_array_equal(table.random_subset, [1, 2, 1])
    np.testing.assert_array_equal(table.frame["ucsfUid"], fields["uid"])
    np.testing.assert_array_equal(table.stack_index, [2, 1, 0])
    assert table.stack_paths == [project / "J1" / "p.mrc"]
    assert table.optics_group_names == ("exposureGroup4",)
    assert table.notes == ()
    with ImageReader(table) as images:
        assert images.read([0, 2]).shape == (2, 7, 7)


def test_shifts_are_in_pixels_of_the_alignment(project: Path) -> None:
    fields = cs_fields()
    binned = {**fields, "alignments3D/psize_A": np.full(3, 2.62, np.float32)}
    one, two = (read_cryosparc(write_cs(project / "J2" / "p.cs", chosen)) for chosen in (fields, binned))
    np.testing.assert_allclose(two.shifts_px, 2 * one.shifts_px)
    # another pixel size in Angstrom is no other shift in pixels
    np.testing.assert_allclose(read_cryosparc(project / "J2" / "p.cs", angpix=2).shifts_px, two.shifts_px)
    absent = {**fields, "alignments3D/psize_A": np.zeros(3, np.float32)}
    np.testing.assert_allclose(read_cryosparc(write_cs(project / "a.cs", absent)).shifts_px, one.shifts_px)


def test_no_rotation_at_all(project: Path) -> None:
    fields = {**cs_fields(), "alignments3D/pose": np.zeros((3, 3), np.float32)}
    np.testing.assert_array_equal(read_cryosparc(write_cs(project / "J2" / "p.cs", fields)).angles_deg, 0)


def test_what_is_written_reads_back(project: Path) -> None:
    fields = cs_fields()
    fields["location/micrograph_path"] = np.array([b">S1/a.mrc", b">S1/b c.mrc", b">S1/a.mrc"])
    table = read_cryosparc(write_cs(project / "J2" / "p.cs", fields))
    assert table.micrograph.tolist() == ["S1/a.mrc", "S1/b c.mrc", "S1/a.mrc"]
    for target in (project / "J2" / "p.star", project / "p.star"):
        write_particles(target, table)
        again = read_particles(target)
        for name in ("angles_deg", "shifts_px", "defocus_u_A", "phase_shift_deg", "voltage_kV", "pixel_sizes_A"):
            np.testing.assert_allclose(getattr(again, name), getattr(table, name), rtol=1e-13, err_msg=name)
        np.testing.assert_array_equal(again.frame["ucsfUid"], fields["uid"])
        np.testing.assert_array_equal(again.random_subset, table.random_subset)
        assert again.micrograph.tolist() == table.micrograph.tolist()
        assert again.stack_paths[0].samefile(table.stack_paths[0])
        # RELION takes a .mrc for a map unless the name says otherwise
        assert all(name.endswith("p.mrc:mrcs") for name in again.stack_names)


def test_optics_groups(project: Path) -> None:
    fields = cs_fields()
    fields["ctf/exp_group_id"] = np.array([9, 2, 9], np.uint32)
    fields["ctf/accel_kv"] = np.array([300, 200, 200], np.float32)
    table = read_cryosparc(write_cs(project / "J2" / "p.cs", fields))
    assert table.optics_group_names == ("exposureGroup2", "exposureGroup9", "exposureGroup9_2")
    np.testing.assert_array_equal(table.optics_group, [2, 0, 1])
    np.testing.assert_array_equal(table.voltage_kV, [300, 200, 200])
    assert table.optics is not None
    assert table.optics["rlnOpticsGroup"].tolist() == [1, 2, 3]


def test_half_sets_only_where_there_are_two(project: Path) -> None:
    fields = {**cs_fields(), "alignments3D/split": np.zeros(3, np.uint32)}
    table = read_cryosparc(write_cs(project / "J2" / "p.cs", fields))
    assert not table.random_subset.any()
    assert "rlnRandomSubset" not in table.frame


def test_what_is_left_out_is_noted(project: Path) -> None:
    fields = cs_fields()
    fields["ctf/tilt_A"][1] = 5
    fields["ctf/anisomag"] = np.full((3, 4), 0.01, np.float32)
    fields["blob/sign"] = np.full(3, -1, np.float32)
    notes = read_cryosparc(write_cs(project / "J2" / "p.cs", fields)).notes
    assert [word in note for word, note in zip(("beam tilt", "magnification", "blob/sign"), notes, strict=True)] == [
        True
    ] * 3


def test_passthrough_is_joined_by_uid(project: Path) -> None:
    fields = cs_fields()
    whole = read_cryosparc(write_cs(project / "J2" / "all.cs", fields))
    poses = {name: values for name, values in fields.items() if name.startswith(("align", "uid"))}
    order = np.array([2, 0, 1])
    more = {name: values[order] for name, values in fields.items() if not name.startswith("align")}
    more["alignments3D/shift"] = np.zeros((3, 2), np.float32)
    first, second = write_cs(project / "J2" / "p.cs", poses), write_cs(project / "J2" / "pass.cs", more)
    table = read_cryosparc(first, passthrough=second)
    for name in ("angles_deg", "shifts_px", "defocus_u_A", "stack_index"):
        np.testing.assert_array_equal(getattr(table, name), getattr(whole, name), err_msg=name)
    with pytest.raises(InputError, match=r"p\.cs has no column blob/path; add the passthrough file"):
        read_cryosparc(first)
    write_cs(second, {name: values[:2] for name, values in more.items()})
    with pytest.raises(InputError, match=r"p\.cs, row 2, column uid: 9223372036854775814 is not in .*pass\.cs"):
        read_cryosparc(first, passthrough=second)
    write_cs(second, {**more, "uid": np.full(3, 7, np.uint64)})
    with pytest.raises(InputError, match=r"pass\.cs, row 2, column uid: 7 occurs twice"):
        read_cryosparc(first, passthrough=second)
    write_cs(second, {name: values for name, values in more.items() if name != "uid"})
    with pytest.raises(InputError, match=r"pass\.cs has no column uid of integers"):
        read_cryosparc(first, passthrough=second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blob/path": None}, r"has no column blob/path; add the passthrough"),
        ({"blob/idx": None}, r"has no column blob/idx"),
        ({"alignments3D/pose": None}, r"has no column alignments3D/pose"),
        ({"alignments3D/shift": None}, r"has no column alignments3D/shift"),
        ({"ctf/df1_A": None}, r"has no column ctf/df1_A"),
        ({"ctf/accel_kv": None}, r"has no column ctf/accel_kv"),
        ({"blob/psize_A": None}, r"row 1, column blob/psize_A: 0 where .* give it with --angpix"),
        ({"blob/psize_A": [1.3, -1, 1.3]}, r"row 2, column blob/psize_A: -1 where a pixel size"),
        ({"alignments3D/pose": [[0, 0, 1], [0, np.nan, 0], [0, 0, 0]]}, r"row 2, column alignments3D/pose: a finite"),
        ({"alignments3D/shift": [[0, 1], [0, 0], [np.inf, 0]]}, r"row 3, column alignments3D/shift: 'inf' where"),
        ({"ctf/df2_A": [1e4, 1e4, np.nan]}, r"row 3, column ctf/df2_A: 'nan' where a finite number"),
        ({"ctf/accel_kv": [300, 0, 300]}, r"row 2, column ctf/accel_kv: '0.0' where a voltage"),
        ({"ctf/amp_contrast": [0.1, 0.1, 7]}, r"row 3, column ctf/amp_contrast: '7.0' where amplitude"),
        ({"blob/idx": np.array([0, 1, 3], np.uint32)}, r"row 3, column blob/path: image 4 is beyond the end"),
        ({"blob/idx": [0.0, 1.0, 2.0]}, r"column blob/idx: type float32 with \(\) numbers"),
        ({"blob/path": np.array([b"a\xff"] * 3)}, r"column blob/path: a path is not in UTF-8"),
        ({"blob/path": np.array([b"J9/p.mrc"] * 3)}, r"row 1, column blob/path: stack J9/p\.mrc was not found"),
        ({"blob/path": np.array([b">"] * 3)}, r"row 1, column rlnImageName: '000003@' does not name an image"),
        ({"alignments3D/pose": np.zeros((3, 4))}, r"column alignments3D/pose: type float32 with \(4,\) numbers"),
        ({"blob/shape": np.full((3, 2), 8, np.uint32)}, r"states 8 px but the stack has 7 px"),
    ],
)
def test_fields_that_cannot_be_used(project: Path, changes: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = cs_fields()
    for name, value in changes.items():
        array = np.asarray(value)
        fields[name] = array.astype(np.float32) if array.dtype == float else array
        if value is None:
            del fields[name]
    with pytest.raises(InputError, match=message) as error:
        read_cryosparc(write_cs(project / "J2" / "p.cs", fields))
    assert "p.cs" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_needed_may_be_absent(project: Path) -> None:
    fields = {name: values for name, values in cs_fields().items() if name.startswith(("blob", "uid"))}
    path = write_cs(project / "J2" / "p.cs", fields)
    table = read_cryosparc(path, need_poses=False, need_ctf=False)
    assert np.isnan(table.angles_deg).all()
    assert np.isnan(table.defocus_u_A).all()
    assert table.box_px == 7
    fields = cs_fields()
    fields["ctf/cs_mm"][:] = np.nan
    fields["alignments3D/pose"][0] = np.nan
    table = read_cryosparc(write_cs(path, fields), need_poses=False, need_ctf=False)
    assert np.isnan(table.angles_deg).all(axis=1).tolist() == [True, False, False]
    assert np.isnan(table.cs_mm).all()
    (project / "J1" / "p.mrc").unlink()
    table = read_cryosparc(write_cs(path, cs_fields()), need_images=False)
    assert table.stack_names == ["J1/p.mrc:mrcs"]
    assert table.box_px == 7


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    def refused(message: str, content: bytes) -> None:
        path = tmp_path / "p.cs"
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            read_cryosparc(path)
        assert "\n" not in str(error.value)

    whole = write_cs(tmp_path / "whole.cs", cs_fields()).read_bytes()
    refused("is not a .cs file", b"")
    refused("is not a .cs file", b"data_\n\nloop_\n")
    refused("compressed form; load it with cryosparc-tools", b"\x94CSDAT" + bytes(100))
    for length in (6, 30, len(whole) - 1):
        refused("damaged or not a .cs file", whole[:length])
    np.save(tmp_path / "plain.npy", np.zeros((3, 3)))
    refused("holds no table of particles", (tmp_path / "plain.npy").read_bytes())
    np.save(tmp_path / "none.npy", np.zeros(0, [("uid", "u8")]))
    refused("holds no table|damaged", (tmp_path / "none.npy").read_bytes())
    np.save(tmp_path / "object.npy", np.array([{}, {}]))
    refused("damaged or not a .cs file", (tmp_path / "object.npy").read_bytes())
    # a few bytes that promise an exabyte
    refused("damaged or not a .cs file", whole.replace(b"'shape': (3,), }", b"'shape': (10**9,)}"))
    head = whole.replace(b"'shape': (3,), }            ", b"'shape': (999999999999,), } ")
    assert head != whole
    refused("damaged or not a .cs file", head)
    with pytest.raises(InputError, match="not a file that can be read"):
        read_cryosparc(tmp_path / "absent.cs")
    with pytest.raises(InputError, match="correct --angpix"):
        read_cryosparc(tmp_path / "whole.cs", angpix=0)
    with pytest.raises(InputError, match="correct --datadir"):
        read_cryosparc(tmp_path / "whole.cs", datadir=tmp_path / "absent")


# Reference files


def test_the_same_particles_as_star_and_cs(shared_data: Path) -> None:
    formats = shared_data / "formats"
    ours, theirs = (
        reader(formats / f"empiar_10076_7.{suffix}", need_poses=False)  # type: ignore[operator]
        for reader, suffix in ((read_cryosparc, "cs"), (read_particles, "star"))
    )
    rows = range(7)
    np.testing.assert_array_equal(ImageReader(ours).read(rows), ImageReader(theirs).read(rows))
    px, py = np.meshgrid(np.arange(0, 40, 3), np.arange(-40, 40, 7))
    values = [
        ctf(
            px.ravel(),
            py.ravel(),
            320,
            *(
                getattr(table, name)
                for name in (
                    "pixel_sizes_A",
                    "defocus_u_A",
                    "defocus_v_A",
                    "defocus_angle_deg",
                    "voltage_kV",
                    "cs_mm",
                    "amplitude_contrast",
                    "phase_shift_deg",
                    "bfactor_A2",
                    "ctf_scale",
                )
            ),
        )
        for table in (ours, theirs)
    ]
    np.testing.assert_allclose(*values, atol=2e-6)
    assert np.abs(values[0]).max() > 0.5
    with pytest.raises(InputError, match="has no column alignments3D/pose"):
        read_cryosparc(formats / "empiar_10076_7.cs")


def test_a_refinement_of_2019_particles(shared_data: Path) -> None:
    path = shared_data / "formats" / "cryosparc_P12_J24_001_particles.cs"
    table = read_cryosparc(path, need_images=False)
    assert (len(table), table.box_px, table.pixel_size_A) == (2019, 180, 2.95)
    raw = np.load(path)
    matrices = relion_matrices(table.angles_deg)
    for row in range(0, 2019, 97):
        np.testing.assert_allclose(matrices[row], _rodrigues(raw["alignments3D/pose"][row]).T, atol=1e-10)
    np.testing.assert_allclose(table.shifts_px, raw["alignments3D/shift"], rtol=1e-9)
    assert np.bincount(table.random_subset).tolist() == [0, *np.bincount(raw["alignments3D/split"]).tolist()]
    with pytest.raises(InputError, match=r"row 1, column blob/path: stack J19/extract/.* was not found"):
        read_cryosparc(path)
