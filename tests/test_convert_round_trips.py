"""Conversions there and back: what comes back is what was sent, and what was changed stays changed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from io_cases import CTF_TEXT, cs_fields, write_cs, write_eman_stack
from meridien_writer import random_case, write_refinement

from hpcsort.converting import ConvertOptions, convert, read_whole
from hpcsort.geometry import relion_matrices
from hpcsort.io import (
    HdfStack,
    ImageReader,
    ParticleTable,
    load_cryosparc,
    read_cryosparc,
    read_eman_headers,
    read_eman_stack,
    read_input,
    read_particles,
    read_tables,
    read_xmipp,
    write_stack,
    write_tables,
    write_xmd,
)
from hpcsort.optics import ctf
from hpcsort.refinement import read_refinement

NEEDED = {"need_images": False, "need_poses": False, "need_ctf": False}
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]


def turn(source: Path, target: Path, **options: object) -> Path:
    told: list[str] = []
    convert(ConvertOptions(source, target, **options), told.append)  # type: ignore[arg-type]
    assert told
    return target


def star31(folder: Path, count: int = 7, box: int = 8) -> Path:
    """RELION 3.1 table with everything awkward: two optics groups and one unused, vectors, odd names and angles."""
    draw = np.random.default_rng(1)
    write_stack(folder / "p.mrcs", draw.normal(size=(count, box, box)), (count, box, box), 1.31)
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{row + 1:06d}@p.mrcs" for row in range(count)],
            "rlnMicrographName": [f"{row % 2}" for row in range(count)],
            "rlnCoordinateX": draw.uniform(0, 4000, count).round(3),
            "rlnCoordinateY": draw.uniform(0, 4000, count).round(3),
            "rlnAngleRot": [355.9, -180.0, 12.5, 0.0, 100.0, -30.0, 7.25][:count],
            "rlnAngleTilt": [72.2, 0.0, 180.0, -15.0, 90.0, 45.5, 10.0][:count],
            "rlnAnglePsi": draw.uniform(-180, 180, count).round(6),
            "rlnOriginXAngst": draw.normal(0, 1, count).round(6),
            "rlnOriginYAngst": draw.normal(0, 1, count).round(6),
            "rlnDefocusU": draw.uniform(1e4, 2e4, count).round(2),
            "rlnDefocusV": draw.uniform(1e4, 2e4, count).round(2),
            "rlnDefocusAngle": [-33.0, 210.0, 0.0, 90.0, 45.0, 12.3, 179.9][:count],
            "rlnPhaseShift": [0.0, 90.0, 45.0, 0.0, 170.0, 100.0, 5.0][:count],
            "rlnCtfBfactor": np.zeros(count),
            "rlnCtfScalefactor": np.ones(count),
            "rlnClassNumber": np.arange(count) % 3 + 1,
            "rlnRandomSubset": np.arange(count) % 2 + 1,
            "rlnOpticsGroup": [2 if row > 2 else 5 for row in range(count)],
            "rlnMaxValueProbDistribution": draw.uniform(size=count).round(6),
            "myText": [f"word{row}" for row in range(count)],
        }
    )
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [2, 3, 5],
            "rlnOpticsGroupName": ["og2", "unused", "og5"],
            "rlnImagePixelSize": [1.31, 1.31, 1.31],
            "rlnVoltage": [300.0, 300.0, 200.0],
            "rlnSphericalAberration": [2.7, 2.7, 0.01],
            "rlnAmplitudeContrast": [0.1, 0.1, 0.07],
            "rlnImageSize": [box, box, box],
            "rlnImageDimensionality": [2, 2, 2],
            "rlnBeamTiltX": [0.123456, 0.0, -1.5],
            "rlnOddZernike": ["[1.5,0,-2]", "[0,0,0]", "[0.25,1,1]"],
            "rlnMicrographOriginalPixelSize": [0.655, 0.655, 0.655],
        }
    )
    write_tables(folder / "a.star", {"optics": optics, "particles": particles})
    return folder / "a.star"


def star30(folder: Path, count: int = 5, box: int = 8) -> Path:
    """RELION 3.0 table: one block, shifts in pixels, pixel size by magnification."""
    frame = read_tables(star31(folder, count, box))["particles"]
    assert isinstance(frame, pd.DataFrame)
    shifts = {f"rlnOrigin{axis}": (frame.pop(f"rlnOrigin{axis}Angst") / 1.31).round(6) for axis in "XY"}
    frame = frame.drop(columns="rlnOpticsGroup").assign(
        **shifts, rlnVoltage=300.0, rlnSphericalAberration=2.7, rlnAmplitudeContrast=0.1, rlnMagnification=38168.0,
        rlnDetectorPixelSize=5.0,
    )  # fmt: skip
    write_tables(folder / "b.star", {"images": frame})
    return folder / "b.star"


def without_unused_groups(table: ParticleTable) -> ParticleTable:
    """A .cs file, one row a particle, has no place for a group without particles."""
    if table.optics is None:
        return table
    used = table.optics["rlnOpticsGroup"].isin(table.frame["rlnOpticsGroup"])
    return replace(table, optics=table.optics[used].reset_index(drop=True))


def assert_same(one: ParticleTable, two: ParticleTable, images: bool = True) -> None:
    """Tables are equal: columns, types, values, optics."""
    assert set(one.frame.columns) == set(two.frame.columns)
    for name in one.frame.columns:
        if name == "rlnImageName" and not images:
            continue
        a, b = one.frame[name], two.frame[name]
        assert a.dtype == b.dtype, name
        if pd.api.types.is_float_dtype(a):
            np.testing.assert_allclose(a, b, rtol=1e-14, atol=0, err_msg=name)
        else:
            assert a.tolist() == b.tolist(), name
    if one.optics is None:
        assert two.optics is None
    else:
        assert two.optics is not None
        pd.testing.assert_frame_equal(one.optics, two.optics[list(one.optics.columns)])


@pytest.mark.parametrize("make", [star31, star30])
@pytest.mark.parametrize("middle", ["m.cs", "m.xmd", "m.hdf", "m.txt"])
def test_star_comes_back(tmp_path: Path, make, middle: str) -> None:  # type: ignore[no-untyped-def]
    source = make(tmp_path)
    back = turn(turn(source, tmp_path / middle), tmp_path / "back.star")
    one, two = read_particles(source), read_particles(back)
    if middle == "m.cs":
        one = without_unused_groups(one)
    # HDF holds images itself, and the way back names it.
    assert_same(one, two, images=middle != "m.hdf")


@pytest.mark.parametrize("middle", ["m.cs", "m.xmd", "m.hdf"])
def test_the_other_program_reads_the_same_poses_and_ctf(tmp_path: Path, middle: str) -> None:
    """The translation itself, without what is kept, is right: it is what `read_input` looks at."""
    source = star31(tmp_path)
    one, two = read_particles(source), read_input(turn(source, tmp_path / middle))
    assert np.abs(relion_matrices(one.angles_deg) - relion_matrices(two.angles_deg)).max() < 1e-6
    np.testing.assert_allclose(two.shifts_px, one.shifts_px, atol=1e-6)
    assert two.micrograph.tolist() == one.micrograph.tolist()
    axis = np.arange(-3, 4)
    px, py = (part.ravel() for part in np.meshgrid(axis, axis))
    waves = [
        ctf(px, py, 8, t.pixel_sizes_A, t.defocus_u_A, t.defocus_v_A, t.defocus_angle_deg, t.voltage_kV, t.cs_mm,
            t.amplitude_contrast, t.phase_shift_deg)
        for t in (one, two)
    ]  # fmt: skip
    np.testing.assert_allclose(waves[1], waves[0], atol=2e-4)


@pytest.mark.parametrize("middle", ["m.star", "m.xmd", "m.hdf"])
def test_cryosparc_comes_back_bit_for_bit(tmp_path: Path, middle: str) -> None:
    fields = cs_fields(5, 8)
    fields |= {
        "blob/path": np.full(5, b">J1/p.mrc", "|S40"),
        "blob/import_sig": np.arange(5, dtype=np.uint64) + np.uint64(2**63),
        "blob/sign": np.full(5, -1, np.float32),
        "ctf/type": np.array([b"", b"a b", b"50%", b"'x'", b"#1"], "|S9"),
        "ctf/tetra_A": np.arange(20, dtype=np.float32).reshape(5, 4) / 7,
        "alignments2D/pose": np.array([0.1, np.nan, -0.0, 1e-30, np.inf], np.float32),
        "alignments3D/matrix": np.arange(20, dtype="<i4").reshape(5, 2, 2),
        "other/text": np.array(["ä b", "", "c", "d", "e"]),
        "filament/flag": np.array([True, False, True, True, False]),
    }
    (tmp_path / "J1").mkdir()
    write_stack(tmp_path / "J1" / "p.mrc", np.random.default_rng(0).normal(size=(5, 8, 8)), (5, 8, 8), 1.31)
    source = write_cs(tmp_path / "a.cs", fields)
    back = turn(turn(source, tmp_path / middle), tmp_path / "back.cs")
    one, two = np.load(source), np.load(back)
    if middle == "m.hdf":
        changed = {"blob/path", "blob/idx"}
        assert set(two["blob/path"].tolist()) == {b"m.hdf"}
    else:
        changed = set()
        assert one.dtype == two.dtype
    assert one.dtype.names == two.dtype.names or middle == "m.hdf"
    for name in set(one.dtype.names) - changed:
        assert one[name].tobytes() == two[name].tobytes(), name


@pytest.mark.parametrize("middle", ["m.star", "m.xmd", "m.cs"])
def test_eman_comes_back(tmp_path: Path, middle: str) -> None:
    images = np.random.default_rng(2).normal(size=(4, 7, 7)).astype(np.float32)
    poses = np.zeros((4, 3, 4))
    poses[:, :, :3] = relion_matrices([[10, 40, 70], [-20, 0, 15], [100, 180, -60], [30, 90, 0]])
    poses[:, 0, 3] = [1.5, 0, -2, 0.25]
    texts = [CTF_TEXT, "E1.5 -0.2 -30 0 150 300 2.7 2 0.1 2 5 6 1 7", CTF_TEXT, CTF_TEXT]
    extra = {"score": np.array([0.1], np.float32), "number": np.array([7], np.int32), "words": np.bytes_("a b")}
    source = write_eman_stack(tmp_path / "a.hdf", images, poses, texts, vector=np.array([1.0, 2.5, 3]), **extra)
    back = turn(turn(source, tmp_path / middle), tmp_path / "back.hdf")
    (one, _), (two, _) = read_eman_headers(source), read_eman_headers(back)
    assert set(one) <= set(two)
    for name, values in one.items():
        assert values.dtype.kind == two[name].dtype.kind, name
        np.testing.assert_array_equal(values, two[name], err_msg=name)
    np.testing.assert_array_equal(HdfStack(back).read(range(4)), images)
    np.testing.assert_array_equal(read_eman_stack(back).angles_deg, read_eman_stack(source).angles_deg)


@pytest.mark.parametrize("middle", ["m.star", "m.cs"])
def test_xmipp_comes_back(tmp_path: Path, middle: str) -> None:
    source = tmp_path / "a.xmd"
    frame = pd.DataFrame(
        {
            "itemId": [3, 5], "enabled": [1, -1], "image": ["1@p.stk", "2@p.stk"], "angleRot": [300.0, 12.0],
            "angleTilt": [20.0, 100.0], "anglePsi": [5.0, 350.0], "shiftX": [1.5, -2.0], "shiftY": [0.0, 3.0],
            "flip": [0, 1], "scoreByVariance": ["[1,2]", "[3,4]"], "maxCC": [0.5, 0.25], "samplingRate": [2.0, 2.0],
        }
    )  # fmt: skip
    write_xmd(source, {"noname": frame, "others": pd.DataFrame({"a": [1]})})
    back = turn(turn(source, tmp_path / middle), tmp_path / "back.xmd")
    assert read_tables(back)["noname" if middle == "m.star" else "particles"].equals(frame)
    # A flipped image is the view from the other side.
    table = read_xmipp(source, **NEEDED)
    np.testing.assert_allclose(table.shifts_px, [[1.5, 0], [2, 3]])
    np.testing.assert_allclose(table.angles_deg[1], [12, 280, -350])


@pytest.mark.parametrize("middle", ["m.star", "m.cs", "m.xmd", "m.hdf", "m.txt"])
def test_nothing_is_replaced_unasked(tmp_path: Path, middle: str) -> None:
    source = star31(tmp_path)
    (tmp_path / middle).write_text("mine")
    with pytest.raises(Exception, match="exists already"):
        turn(source, tmp_path / middle)
    assert (tmp_path / middle).read_text() == "mine"
    turn(source, tmp_path / middle, overwrite=True)


def test_a_long_way_home(tmp_path: Path) -> None:
    source = star31(tmp_path)
    place = source
    for name in ("1.cs", "2.xmd", "3.star", "4.hdf", "5.cs", "6.xmd", "7.star"):
        place = turn(place, tmp_path / name)
    assert_same(without_unused_groups(read_particles(source)), read_particles(place), images=False)


def test_what_cryosparc_changed_stays_changed(tmp_path: Path) -> None:
    """Kept columns never outvote newer values of the other program."""
    source = star31(tmp_path)
    fields = load_cryosparc(turn(source, tmp_path / "m.cs"))
    fields["alignments3D/pose"] = fields["alignments3D/pose"] + np.float32(0.1)
    fields["ctf/df1_A"] = fields["ctf/df1_A"] + 50
    fields["ctf/amp_contrast"][4:] = 0.2
    fields["alignments3D/error"] = np.arange(7, dtype=np.float32)
    changed = write_cs(tmp_path / "changed.cs", fields)
    old, new = read_particles(source), read_particles(turn(changed, tmp_path / "back.star"))
    direct = read_cryosparc(changed)
    assert np.abs(relion_matrices(new.angles_deg) - relion_matrices(direct.angles_deg)).max() < 1e-9
    np.testing.assert_allclose(new.defocus_u_A, old.defocus_u_A + 50, atol=0.01)
    np.testing.assert_array_equal(new.defocus_v_A, old.defocus_v_A)
    np.testing.assert_allclose(new.amplitude_contrast, [*old.amplitude_contrast[:4], 0.2, 0.2, 0.2], atol=1e-6)
    assert new.frame["cs:alignments3D/error"].tolist() == list(range(7))
    assert new.frame["myText"].tolist() == old.frame["myText"].tolist()


def test_what_relion_changed_stays_changed(tmp_path: Path) -> None:
    (tmp_path / "J1").mkdir()
    write_stack(tmp_path / "J1" / "p.mrc", np.ones((3, 7, 7)), (3, 7, 7), 1.31)
    source = write_cs(tmp_path / "a.cs", cs_fields(3))
    tables = read_tables(turn(source, tmp_path / "m.star"))
    particles = tables["particles"]
    particles["rlnAngleRot"] += 10
    particles["rlnNormCorrection"] = [0.5, 0.75, 1.0]
    tables["optics"]["rlnBeamTiltX"] = [0.125]
    # RELION drops blocks that it does not know, and with them the types.
    write_tables(tmp_path / "n.star", {"optics": tables["optics"], "particles": particles})
    old, new = read_cryosparc(source), read_cryosparc(turn(tmp_path / "n.star", tmp_path / "back.cs"))
    expected = old.angles_deg + np.array([10, 0, 0])
    assert np.abs(relion_matrices(new.angles_deg) - relion_matrices(expected)).max() < 1e-6
    np.testing.assert_allclose(new.shifts_px, old.shifts_px, atol=1e-6)
    assert np.load(tmp_path / "back.cs")["uid"].tolist() == np.load(source)["uid"].tolist()
    # What RELION has added is there too, and comes back to it.
    again = read_tables(turn(tmp_path / "back.cs", tmp_path / "again.star"))
    assert again["particles"]["rlnNormCorrection"].tolist() == [0.5, 0.75, 1.0]
    assert again["optics"]["rlnBeamTiltX"].tolist() == [0.125]


def test_poses_of_text_replace_those_of_the_table(tmp_path: Path) -> None:
    source = star31(tmp_path)
    rows = np.column_stack(
        [np.arange(7) * 10.0, np.full(7, 30.0), np.zeros(7), np.full(7, 1.5), -np.ones(7), np.ones(7)]
    )
    np.savetxt(tmp_path / "params_021.txt", rows)
    table = read_particles(turn(tmp_path / "params_021.txt", tmp_path / "new.star", particles=source))
    np.testing.assert_allclose(table.angles_deg, rows[:, :3])
    np.testing.assert_allclose(table.shifts_px, rows[:, 3:5])
    np.savetxt(tmp_path / "short.txt", rows[:3])
    with pytest.raises(Exception, match="3 rows for the 7 particles"):
        turn(tmp_path / "short.txt", tmp_path / "x.star", particles=source)
    with pytest.raises(Exception, match="--particles"):
        turn(tmp_path / "params_021.txt", tmp_path / "x.star")


def test_text_holds_sphires_parameters(tmp_path: Path) -> None:
    table = read_particles(star31(tmp_path))
    turn(tmp_path / "a.star", tmp_path / "m.txt")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "m.txt")[:, 3:], table.shifts_px, atol=1e-6)
    defocus, cs, volts, pixel, _, _, astigmatism, _ = np.loadtxt(tmp_path / "m_ctf.txt").T
    np.testing.assert_allclose(defocus * 2e4, table.defocus_u_A + table.defocus_v_A, atol=0.02)
    np.testing.assert_allclose(astigmatism * 1e4, table.defocus_v_A - table.defocus_u_A, atol=0.02)
    assert (cs[0], volts[0], pixel[0]) == (0.01, 200, 1.31)
    halves = [np.loadtxt(tmp_path / f"m_chunk_{half}.txt", dtype=int).tolist() for half in (0, 1)]
    assert halves == [[0, 2, 4, 6], [1, 3, 5]]


def test_images_are_copied_when_asked(tmp_path: Path) -> None:
    source = star31(tmp_path)
    hdf = turn(source, tmp_path / "m.hdf")
    (tmp_path / "far").mkdir()
    copy = read_particles(turn(hdf, tmp_path / "far" / "c.star", copy_images=True, rows=(2, 5)))
    assert [path.name for path in copy.stack_paths] == ["c.mrcs"]
    named = read_particles(turn(hdf, tmp_path / "far" / "n.star"))
    assert named.stack_paths[0].resolve() == hdf.resolve()
    wanted = HdfStack(hdf).read([2, 3, 4])
    np.testing.assert_array_equal(ImageReader(copy).read([0, 1, 2]), wanted)


@pytest.mark.parametrize("middle", ["m.cs", "m.xmd"])
def test_reference_tables_come_back(shared_data: Path, tmp_path: Path, middle: str) -> None:
    for source in sorted((shared_data / "formats").glob("*.star")):
        here = Path(shutil.copy(source, tmp_path))
        angpix = 5.0 if source.name == "rln_proj_65.star" else None  # this one has no pixel size
        one = read_whole(here, angpix=angpix)
        back = turn(
            turn(here, tmp_path / middle, overwrite=True, angpix=angpix), tmp_path / "back.star", overwrite=True
        )
        assert_same(one, read_whole(back))


@pytest.mark.parametrize("middle", ["m.star", "m.xmd"])
def test_reference_cryosparc_comes_back_bit_for_bit(shared_data: Path, tmp_path: Path, middle: str) -> None:
    for source in sorted((shared_data / "formats").glob("*.cs")):
        here = Path(shutil.copy(source, tmp_path))
        back = turn(turn(here, tmp_path / middle, overwrite=True), tmp_path / "back.cs", overwrite=True)
        assert np.array_equal(np.load(here).view(np.uint8), np.load(back).view(np.uint8))


@pytest.mark.parametrize("middle", ["m.star", "m.xmd", "m.cs"])
def test_reference_eman_stack_comes_back(shared_data: Path, tmp_path: Path, middle: str) -> None:
    source = Path(shutil.copy(shared_data / "eman_hdf" / "eman2_stack_48x64.hdf", tmp_path))
    back = turn(turn(source, tmp_path / middle), tmp_path / "back.hdf")
    (one, _), (two, _) = read_eman_headers(source), read_eman_headers(back)
    assert set(one) == set(two)
    for name, values in one.items():
        assert values.tobytes() == two[name].tobytes(), name
    np.testing.assert_array_equal(HdfStack(source).read(range(48)), HdfStack(back).read(range(48)))


def test_eman2s_stack_and_its_star_are_one(shared_data: Path, tmp_path: Path) -> None:
    """EMAN2's own headers and what is made of the STAR file of the same particles say the same."""
    one, _ = read_eman_headers(shared_data / "eman_hdf" / "eman2_stack_48x64.hdf")
    two, _ = read_eman_headers(turn(shared_data / "eman_hdf" / "same_particles.star", tmp_path / "m.hdf"))
    np.testing.assert_allclose(one["xform.projection"], two["xform.projection"], atol=1e-5)
    theirs, ours = (
        np.array([text.decode()[1:].split()[:8] for text in headers["ctf"].tolist()], float) for headers in (one, two)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_refinement_by_meridien_becomes_a_table(tmp_path: Path) -> None:
    case = random_case()
    write_refinement(tmp_path / "run", case)
    source = tmp_path / "run"
    found = read_refinement(source).table
    back = read_particles(turn(source, tmp_path / "x.star"))
    assert (tmp_path / "x_smears.h5").is_file()
    np.testing.assert_allclose(back.angles_deg, found.angles_deg, atol=1e-10)
    np.testing.assert_array_equal(back.random_subset, found.random_subset)
    assert back.smears is not None
    np.testing.assert_array_equal(back.smears.weight, found.smears.weight)  # type: ignore[union-attr]
