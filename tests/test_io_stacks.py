"""Where a particle table finds its stacks, what must fit together, and the reference tables of other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from particle_cases import RELION_30, make_stack, read_30

from hpcsort.errors import InputError
from hpcsort.io import read_particles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_stack(tmp_path / "p.mrcs")
    return tmp_path


@pytest.mark.parametrize("name", ["0@p.mrcs", "-1@p.mrcs", "1.5@p.mrcs", "x@p.mrcs", "@p.mrcs", "1@"])
def test_names_that_are_no_images(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"row 2, column rlnImageName: '{name}' does not name an image; write it as"):
        read_30(folder, {**RELION_30, "rlnImageName": ["1@p.mrcs", name, "2@p.mrcs"]})


def test_index_beyond_the_end(folder: Path) -> None:
    columns = {**RELION_30, "rlnImageName": ["1@p.mrcs", "3@p.mrcs", "4@p.mrcs"]}
    with pytest.raises(
        InputError, match=r"row 3, column rlnImageName: image 4 is beyond the end of .*p\.mrcs, which holds 3"
    ):
        read_30(folder, columns)
    assert read_30(folder, columns, need_images=False).stack_index.tolist() == [0, 2, 3]


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
        make_stack(place)
    monkeypatch.chdir(tmp_path / "cwd")
    columns = {**RELION_30, "rlnImageName": [f"{index}@x/p.mrcs" for index in (1, 2, 3)]}
    for place in places:
        assert read_30(job, columns, datadir=tmp_path / "data").stack_paths == [place]
        place.unlink()
    message = r"row 1, column rlnImageName: stack x/p\.mrcs was not found in .*job1, .*cwd, .*data, .*Refine.*--datadir"
    with pytest.raises(InputError, match=message):
        read_30(job, columns, datadir=tmp_path / "data")
    table = read_30(job, columns, need_images=False)
    assert table.box_px is None
    assert table.stack_names == ["x/p.mrcs"]
    with pytest.raises(InputError, match=r"the folder .*nowhere given for the stacks.*correct --datadir"):
        read_30(job, columns, datadir=tmp_path / "nowhere")


def test_absolute_paths(tmp_path: Path) -> None:
    make_stack(tmp_path / "a" / "p.mrcs")
    (tmp_path / "b").mkdir()
    columns = {**RELION_30, "rlnImageName": [f"{index}@{tmp_path}/a/p.mrcs" for index in (1, 2, 3)]}
    assert read_30(tmp_path / "b", columns).stack_paths == [tmp_path / "a" / "p.mrcs"]
    (tmp_path / "a").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"was not found in .*/a; name the folder that holds it with --datadir"):
        read_30(tmp_path / "b", columns)
    assert read_30(tmp_path / "b", columns, datadir=tmp_path / "moved").stack_paths == [tmp_path / "moved" / "p.mrcs"]


def test_stacks_that_do_not_fit_together(folder: Path) -> None:
    columns = {**RELION_30, "rlnImageName": ["1@p.mrcs", "1@q.mrcs", "2@p.mrcs"]}
    make_stack(folder / "q.mrcs", box=(8, 8))
    with pytest.raises(InputError, match=r"row 2, .*q\.mrcs has images of 8 px but .*p\.mrcs of 7 px; bring all"):
        read_30(folder, columns)
    make_stack(folder / "q.mrcs", box=(7, 8))
    with pytest.raises(InputError, match=r"row 2, .*q\.mrcs has images of 8 x 7 px; cut or pad them to squares"):
        read_30(folder, columns)
    (folder / "q.mrcs").write_bytes((folder / "p.mrcs").read_bytes()[:-4])
    with pytest.raises(InputError, match=r"t\.star, row 2, .*q\.mrcs is truncated .* promises 1612 bytes, found 1608"):
        read_30(folder, columns)
    assert read_30(folder, columns, need_images=False).box_px == 7


def test_a_name_without_index_is_a_file_of_one_image(folder: Path) -> None:
    table = read_30(folder, {**RELION_30, "rlnImageName": ["p.mrcs", "2@p.mrcs", "3@p.mrcs"]})
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
