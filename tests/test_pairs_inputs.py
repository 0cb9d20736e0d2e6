"""Coordinates, CTFs and names as other programs write them, and what is lost when they do not agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pairs_cases import ctf_table, options_of, write_micrograph, write_pos, write_set
from PIL import Image

from hpcsort.errors import InputError, OptionError
from hpcsort.io import write_tables
from hpcsort.io.coordinates import read_coordinate_table, read_coordinates
from hpcsort.io.xmd import read_xmd, write_xmd
from hpcsort.pairs import PairOptions, make_plan, read_ctfs
from hpcsort.pairs.micrographs import read_header, read_micrograph
from hpcsort.pairs.names import name_key


def test_pos_files_give_ids_and_what_is_switched_off(tmp_path: Path) -> None:
    path = write_pos(tmp_path / "a.pos", np.array([[10, 20], [30, 40]]), np.array([7, 3]), np.array([1, -1]))
    picks = read_coordinates(path)
    assert picks.ids is not None
    assert picks.ids.tolist() == [7, 3]
    assert picks.xy_px.tolist() == [[10, 20], [30, 40]]
    assert picks.enabled.tolist() == [True, False]


def test_pos_files_picked_automatically_and_by_hand_are_joined(tmp_path: Path) -> None:
    head = "# XMIPP_STAR_1 *\n#\ndata_header\nloop_\n _pickingMicrographState\nSupervised\n"
    block = "data_{}\nloop_\n _itemId\n _xcoor\n _ycoor\n {} 1 2\n"
    path = tmp_path / "a.pos"
    path.write_text(head + block.format("particles", 1) + block.format("particles_auto", 2))
    ids = read_coordinates(path).ids
    assert ids is not None
    assert ids.tolist() == [1, 2]
    path.write_text(head + "data_particles\nloop_\n _itemId\n _xcoor\n _ycoor\n")
    assert len(read_coordinates(path)) == 0


def test_a_box_of_eman1_names_its_corner(tmp_path: Path) -> None:
    path = tmp_path / "a.box"
    path.write_text("10 20 64 64\n-5 7 65 33 0.5\n")
    picks = read_coordinates(path)
    assert picks.ids is None
    assert picks.xy_px.tolist() == [[42, 52], [27, 23]]


def test_star_and_csv_name_centres(tmp_path: Path) -> None:
    star = tmp_path / "a.star"
    star.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1.5 2.25\n3 4\n")
    assert read_coordinates(star).xy_px.tolist() == [[1.5, 2.25], [3, 4]]
    table = tmp_path / "a.csv"
    table.write_text("id,x,y\n5,1.5,2.25\n6,3,4\n")
    picks = read_coordinates(table)
    assert picks.xy_px.tolist() == [[1.5, 2.25], [3, 4]]
    assert picks.ids is not None
    assert picks.ids.tolist() == [5, 6]


def test_one_table_can_hold_all_micrographs(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("micrograph,x,y\nb.mrc,1,2\na.mrc,3,4\nb.mrc,5,6\n")
    found = read_coordinate_table(path)
    assert {name: picks.xy_px.tolist() for name, picks in found.items()} == {
        "b.mrc": [[1, 2], [5, 6]],
        "a.mrc": [[3, 4]],
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.box", "1 2 3\n", "row 1"),
        ("a.box", "1 2 nan 4\n", "row 1"),
        ("a.box", "1 2 64 64 -1\n", "filament"),
        ("a.csv", "x,z\n1,2\n", "no columns of coordinates"),
        ("a.csv", "x,y\n1,two\n", "column y"),
        ("a.csv", "id,x,y\n1,1,1\n1,2,2\n", "occurs 2 times"),
        ("a.pos", "nothing here\n", "a.pos"),
        ("a.txt", "1 2\n", "suffixes"),
    ],
)
def test_bad_coordinates_are_refused_with_their_place(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_coordinates(path)


def test_xmd_survives_a_round_trip_and_refuses_blanks(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"itemId": ["000001", "000012"], "image": ["000001@a.stk", "000002@a.stk"], "cost": [0.5, -1]})
    path = tmp_path / "a.xmd"
    write_xmd(path, {"particles": frame})
    assert path.read_text().startswith("# XMIPP_STAR_1 * \n")
    block = read_xmd(path)["particles"]
    assert isinstance(block, pd.DataFrame)
    assert block["itemId"].tolist() == [1, 12]
    assert block["image"].tolist() == frame["image"].tolist()
    assert block["cost"].tolist() == [0.5, -1]
    with pytest.raises(ValueError, match="blank"):
        write_xmd(tmp_path / "b.xmd", {"particles": pd.DataFrame({"micrograph": ["a b.mrc"]})})


def test_ctfs_of_star_with_optics_and_of_xmd_are_the_same(tmp_path: Path) -> None:
    import pandas as pd

    table = ctf_table(["mics/a.mrc", "mics/b.mrc"]).assign(rlnOpticsGroup=[2, 1], rlnPhaseShift=[0.0, 45.0])
    optics = pd.DataFrame(
        {"rlnOpticsGroup": [1, 2], "rlnVoltage": [200.0, 300.0], "rlnSphericalAberration": 2.7,
         "rlnAmplitudeContrast": 0.1}
    )  # fmt: skip
    table = table.drop(columns=["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"])
    write_tables(tmp_path / "c.star", {"optics": optics, "micrographs": table})
    found = read_ctfs(tmp_path / "c.star", name_key(None), {})
    assert (found["a"].voltage_kV, found["b"].voltage_kV, found["b"].phase_shift_deg) == (300.0, 200.0, 45.0)
    assert found["a"].defocus_u_A == 8300
    names = {"micrograph": ["x/a.mrc"], "ctfVoltage": [300.0], "ctfSphericalAberration": [2.7], "ctfQ0": [0.1]}
    defocus = {"ctfDefocusU": [8300.0], "ctfDefocusV": [7700.0], "ctfDefocusAngle": [30.0]}
    write_xmd(tmp_path / "c.xmd", {"": pd.DataFrame(names | defocus)})
    assert read_ctfs(tmp_path / "c.xmd", name_key(None), {})["a"] == found["a"]


def test_a_microscope_that_the_table_lacks_can_be_given(tmp_path: Path) -> None:
    table = ctf_table(["a.mrc"]).drop(columns=["rlnVoltage"])
    write_tables(tmp_path / "c.star", {"": table})
    with pytest.raises(InputError, match="--voltage"):
        read_ctfs(tmp_path / "c.star", name_key(None), {"voltage_kV": None})
    assert read_ctfs(tmp_path / "c.star", name_key(None), {"voltage_kV": 120.0})["a"].voltage_kV == 120


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_tiff_is_read_like_mrc(kind: type, tmp_path: Path) -> None:
    pixels: np.ndarray = np.arange(7 * 9).reshape(7, 9).astype(kind)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    header = read_header(tmp_path / "a.tif")
    assert (header.nx, header.ny, header.pixel_A) == (9, 7, 0.0)
    assert np.array_equal(read_micrograph(tmp_path / "a.tif"), pixels.astype(np.float32))


def test_movies_and_colours_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.zeros((4, 4), np.uint8))] * 2
    frames[0].save(tmp_path / "movie.tif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\0nonsense")
    for name in ("movie", "colour", "broken"):
        with pytest.raises(InputError, match=name):
            read_header(tmp_path / f"{name}.tif")


def test_coordinates_are_rescaled_by_the_pixel_sizes(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1)
    before = make_plan(options_of(made, tmp_path / "o"))
    after = make_plan(options_of(made, tmp_path / "o", picked_angpix=3.0))
    for one, other in zip(before.pairs[0].sides, after.pairs[0].sides, strict=True):
        np.testing.assert_allclose(other.xy_px, one.xy_px * 1.5)
    turned = make_plan(options_of(made, tmp_path / "o", flip_y=True))
    first, second = before.pairs[0].sides[0].xy_px, turned.pairs[0].sides[0].xy_px
    np.testing.assert_allclose(second, np.column_stack([first[:, 0], 127 - first[:, 1]]))


def test_particles_are_joined_by_id_whatever_their_order(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1, particles=3)
    write_pos(made["picks"] / "m0_u.pos", np.array([[50, 51], [60, 61], [70, 71]]), np.array([4, 9, 2]))
    write_pos(made["picks"] / "m0_t.pos", np.array([[22, 23], [44, 45], [88, 89]]), np.array([2, 4, 8]))
    plan = make_plan(options_of(made, tmp_path / "o"))
    (pair,) = plan.pairs
    assert pair.ids.tolist() == [4, 2]
    assert pair.sides[0].xy_px.tolist() == [[50, 51], [70, 71]]
    assert pair.sides[1].xy_px.tolist() == [[44, 45], [22, 23]]
    lost = [(loss.side, loss.particles) for loss in plan.losses]
    assert lost == [("untilted", 1), ("tilted", 1)]


def test_missing_renamed_and_unpicked_micrographs_are_told_by_name(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=5)
    (tmp_path / "mics/m0_t.mrc").unlink()
    (tmp_path / "picks/m1_u.pos").rename(tmp_path / "picks/elsewhere.pos")
    write_pos(tmp_path / "picks/m2_t.pos", np.zeros((0, 2)))
    (tmp_path / "mics/m3_u.mrc").write_bytes(b"not an image")
    plan = make_plan(options_of(made, tmp_path / "o"))
    assert [pair.key for pair in plan.pairs] == ["m4_u"]
    told = {
        (Path(loss.micrograph).name, loss.side, loss.reason.partition(":")[0]): loss.particles for loss in plan.losses
    }
    assert told == {
        ("m0_t.mrc", "tilted", "missing micrograph"): 12,
        ("m1_u.mrc", "untilted", "no file of coordinates"): 12,
        ("m2_t.mrc", "tilted", "nothing picked"): 12,
        ("m3_u.mrc", "untilted", "unreadable micrograph"): 12,
        ("elsewhere.pos", "both", "coordinates without micrograph"): 0,
    }


def test_a_missing_ctf_loses_the_pair(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=2)
    write_tables(made["ctf_t"], {"": ctf_table(["mics/m1_t.mrc"])}, overwrite=True)
    plan = make_plan(options_of(made, tmp_path / "o", ctf_tilted=made["ctf_t"]))
    assert [pair.key for pair in plan.pairs] == ["m1_u"]
    assert [(loss.micrograph, loss.reason, loss.particles) for loss in plan.losses] == [
        ("mics/m0_t.mrc", "missing CTF", 12)
    ]
    assert plan.pairs[0].sides[0].ctf is None


def test_nothing_that_fits_ends_with_names_of_both_sides(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1)
    for path in made["picks"].iterdir():
        path.rename(path.with_name(f"x_{path.name}"))
    with pytest.raises(InputError, match=r"m0_u.*x_m0_t.*--ignore-in-names"):
        make_plan(options_of(made, tmp_path / "o"))
    assert len(make_plan(options_of(made, tmp_path / "o", ignore_in_names="^x_")).pairs) == 1


def test_folders_are_paired_by_what_the_star_stands_for(tmp_path: Path) -> None:
    write_set(tmp_path, pairs=3)
    (tmp_path / "mics/m1_t.mrc").unlink()
    more = {
        "pairs": None,
        "untilted": str(tmp_path / "mics/*_u.mrc"),
        "tilted": str(tmp_path / "mics/*_t.mrc"),
    }
    made = {"pairs": tmp_path, "picks": tmp_path / "picks"}
    plan = make_plan(options_of(made, tmp_path / "o", **more))
    assert [pair.key for pair in plan.pairs] == ["m0_u", "m2_u"]
    assert [Path(loss.micrograph).name for loss in plan.losses if "partner" in loss.reason] == ["m1_u.mrc"]
    with pytest.raises(InputError, match=r"no name occurs on both sides"):
        make_plan(options_of(made, tmp_path / "o", **{**more, "tilted": str(tmp_path / "mics/m*_u.mrc")}))


def test_one_name_on_both_sides_needs_coordinates_of_each(tmp_path: Path) -> None:
    for side in ("u", "t"):
        write_micrograph(tmp_path / side / "a.mrc", np.random.default_rng(0).normal(0, 1, (64, 64)))
        write_pos(tmp_path / side / "a.pos", np.array([[30.0, 31.0]]))
    made = {"pairs": tmp_path, "picks": tmp_path / "u"}
    more = {"pairs": None, "untilted": str(tmp_path / "u"), "tilted": str(tmp_path / "t")}
    with pytest.raises(InputError, match="--coordinates once for each side"):
        make_plan(options_of(made, tmp_path / "o", **more))
    for given in ((tmp_path / "u", tmp_path / "t"), ()):
        assert len(make_plan(options_of(made, tmp_path / "o", **more, coordinates=given)).pairs) == 1


def test_windows_larger_than_a_micrograph_are_refused(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1)
    with pytest.raises(InputError, match="less than --box 130"):
        make_plan(options_of(made, tmp_path / "o", box_px=130))
    with pytest.raises(InputError, match="64 x 64 px after downsampling"):
        make_plan(options_of(made, tmp_path / "o", box_px=65, downsample=2.0))


def test_different_pixel_sizes_are_refused_unless_one_is_given(tmp_path: Path) -> None:
    made = write_set(tmp_path, pairs=1)
    write_micrograph(tmp_path / "mics/m0_t.mrc", np.ones((128, 128)), pixel_A=2.5)
    with pytest.raises(InputError, match="--angpix"):
        make_plan(options_of(made, tmp_path / "o"))
    assert make_plan(options_of(made, tmp_path / "o", angpix=1.7)).pixel_A == 1.7
    for letter in "ut":
        write_micrograph(tmp_path / f"mics/m0_{letter}.mrc", np.ones((128, 128)), pixel_A=0.0)
    with pytest.raises(InputError, match="does not tell its pixel size"):
        make_plan(options_of(made, tmp_path / "o"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"box_px": 1}, "--box 1|--box is 1"),
        ({"invert": None}, "--invert"),
        ({"downsample": 0.9}, "--downsample"),
        ({"downsample": float("nan")}, "--downsample"),
        ({"background_radius_px": 9}, "at most box // 2 = 8"),
        ({"phase_flip": True}, "--phase-flip needs a CTF"),
        ({"tilted_defocus": "gradient"}, "--ctf-tilted"),
        ({"dust_sigma": 0.0}, "--dust-sigma"),
        ({"pairs": None}, "--pairs"),
        ({"untilted": "a", "tilted": "b"}, "not both"),
        ({"pairs": None, "untilted": "a"}, "--tilted is missing"),
        ({"ignore_in_names": "("}, "regular expression"),
        ({"workers": 0}, "--workers"),
        ({"angpix": -1.0}, "--angpix"),
        ({"normalize": "Ramp"}, "--normalize"),
    ],
)
def test_options_out_of_range_are_refused(more: dict[str, object], message: str, tmp_path: Path) -> None:
    made = {"pairs": tmp_path / "p.star", "picks": tmp_path}
    with pytest.raises(OptionError, match=message):
        options_of(made, tmp_path / "o", **more)


def test_the_background_begins_at_half_the_box_unless_told() -> None:
    for radius, expected in ((-1, 7), (0, 7), (5, 5), (7, 7)):
        options = PairOptions(Path("o"), 15, invert=True, pairs=Path("p"), background_radius_px=radius)
        assert options.radius_px == expected
