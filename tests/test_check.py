"""Checks of simulated sets with one known fault each: its sentence is there, and absent from the clean set."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from meridien_writer import random_case, write_refinement

from hpcsort.checking import CheckOptions, CheckResult, check
from hpcsort.cli.check import command
from hpcsort.errors import InputError, OptionError
from hpcsort.io import ParticleTable, read_particles, read_tables, write_particles, write_stack, write_tables
from hpcsort.io.images import ImageReader
from hpcsort.simulation import SimulationOptions, simulate

COUNT = 400
Fault = Callable[[Path], None]


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check") / "clean"
    simulate(SimulationOptions(out=folder, particles=COUNT, box_px=32, pixel_size_A=10.0, states=2, snr=0.3, seed=1))
    return folder


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "set"))


def said(result: CheckResult, level: str | None = None) -> str:
    return "\n".join(f"{one.topic}: {one.text}" for one in result.findings if level is None or one.level == level)


def checked(folder: Path, **options: object) -> CheckResult:
    return check(CheckOptions(folder / "particles.star", **options))  # type: ignore[arg-type]


def change(folder: Path, **columns: np.ndarray) -> None:
    table = read_particles(folder / "particles.star")
    write_particles(folder / "particles.star", table, columns, overwrite=True)


def change_images(folder: Path, edit: Callable[[np.ndarray], None]) -> None:
    table = read_particles(folder / "particles.star")
    with ImageReader(table) as reader:
        images = reader.read(np.arange(len(table)))
    edit(images)
    write_stack(folder / "particles.mrcs", images, images.shape, table.pixel_size_A, overwrite=True)


def table_of(folder: Path) -> ParticleTable:
    return read_particles(folder / "particles.star")


def test_a_clean_set(clean: Path) -> None:
    result = checked(clean)
    assert result.usable
    assert {one.level for one in result.findings} == {"fine"}
    text = said(result)
    for sentence in (
        "400 in RELION's STAR format, in half-sets of 200 and 200",
        "1 found, with images of 32 px",
        "10 A; the box of 32 px is 320 A wide",
        "views are spread well",
        "given in A",
        "300 kV, Cs 2.7 mm, amplitude contrast 0.1",
        "No image is named twice",
        "none is constant",
        "agree with their poses",
        "brighter than the solvent",
    ):
        assert sentence in text
    assert f"sort3d --instack {clean / 'particles.star'} --output-dir sorted" in result.command
    assert "--skip-bad" not in result.command


def test_predictions_grow_and_fall(clean: Path) -> None:
    result = checked(clean)
    assert [cost.ranks for cost in result.costs] == [1, 2, 4, 8, 16, 32, 64]
    memory = [cost.memory_GB for cost in result.costs]
    assert memory == sorted(memory)
    seconds = [cost.seconds for cost in result.costs]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] > 0
    # six maps with half-maps at least
    assert result.disk_GB > 18 * 4 * 32**3 / 1e9


def _psi(folder: Path) -> None:
    change(folder, rlnAnglePsi=-table_of(folder).angles_deg[:, 2])


def _transposed(folder: Path) -> None:
    rot, tilt, psi = table_of(folder).angles_deg.T
    change(folder, rlnAngleRot=-psi, rlnAngleTilt=-tilt, rlnAnglePsi=-rot)


def _mirrored(folder: Path) -> None:
    change_images(folder, lambda images: images.__setitem__(..., np.roll(images[:, ::-1], 1, axis=1)))
    table = table_of(folder)
    change(folder, rlnOriginYAngst=-table.shifts_px[:, 1] * 10)


def _shifts_back(folder: Path) -> None:
    shifts = -10 * table_of(folder).shifts_px
    change(folder, rlnOriginXAngst=shifts[:, 0], rlnOriginYAngst=shifts[:, 1])


def _shifts_in_pixels(folder: Path) -> None:
    shifts = table_of(folder).shifts_px
    change(folder, rlnOriginXAngst=shifts[:, 0], rlnOriginYAngst=shifts[:, 1])


def _dealt_out(folder: Path) -> None:
    angles = np.random.default_rng(0).permutation(table_of(folder).angles_deg)
    change(folder, rlnAngleRot=angles[:, 0], rlnAngleTilt=angles[:, 1], rlnAnglePsi=angles[:, 2])


def _dark(folder: Path) -> None:
    change_images(folder, lambda images: np.negative(images, out=images))


def _some_dark(folder: Path) -> None:
    change_images(folder, lambda images: np.negative(images[::10], out=images[::10]))


def _nan(folder: Path) -> None:
    change_images(folder, lambda images: images[7, 3].fill(np.nan))


def _constant(folder: Path) -> None:
    change_images(folder, lambda images: images[8].fill(2.5))


def _strong(folder: Path) -> None:
    change_images(folder, lambda images: images[9].__imul__(1000))


def _repeated(folder: Path) -> None:
    names = table_of(folder).frame["rlnImageName"].to_numpy(object).copy()
    names[5] = names[4]
    change(folder, rlnImageName=names)


def _picked_twice(folder: Path) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.permutation(COUNT) * 400.0, np.zeros(COUNT)
    x[1], y[1] = x[0] + 1, 1
    table = table_of(folder)
    # the particles themselves, not their boxes, lie on each other
    x, y = x + table.shifts_px[:, 0], y + table.shifts_px[:, 1]
    change(folder, rlnCoordinateX=x, rlnCoordinateY=y, rlnMicrographName=np.full(COUNT, "one.mrc", object))


def _one_cone(folder: Path) -> None:
    simulate(
        SimulationOptions(
            out=folder, particles=COUNT, box_px=32, pixel_size_A=10.0, states=1, snr=0.3, preferred=1.0, overwrite=True
        )
    )


def _micrometres(folder: Path) -> None:
    table = table_of(folder)
    change(folder, rlnDefocusU=table.defocus_u_A / 1e4, rlnDefocusV=table.defocus_v_A / 1e4)


def _overfocus(folder: Path) -> None:
    table = table_of(folder)
    change(folder, rlnDefocusU=-table.defocus_u_A, rlnDefocusV=-table.defocus_v_A)


def _centred(folder: Path) -> None:
    change(folder, rlnOriginXAngst=np.zeros(COUNT), rlnOriginYAngst=np.zeros(COUNT))


WARNINGS: dict[Fault, str] = {
    _psi: "fit clearly better if psi has the opposite sign",
    _transposed: "fit clearly better if the rotations are inverted",
    _mirrored: "fit clearly better if the images are mirrored",
    _shifts_back: "fit clearly better if the shifts have the opposite sign",
    _shifts_in_pixels: "fit clearly better if the shifts are in pixels and not in Angstrom",
    _dealt_out: "do not agree with their poses more than with random ones",
    _dark: "contrast: The map is darker inside than outside",
    _some_dark: "images surely show the negative of the map",
    _nan: "image 8 of .*particles.mrcs .* has 32 NaN or infinite pixels",
    _constant: "image 9 of .* is constant",
    _strong: "1 of the 400 images are much stronger or weaker than most",
    _repeated: "1 rows name the image of an earlier row",
    _picked_twice: "2 particles have another within 10 % of the box",
    _one_cone: "strongly preferred views",
    _micrometres: "have a defocus of less than 0.01 um: RELION's unit is Angstrom",
    _overfocus: "are overfocused",
}


@pytest.mark.parametrize("fault", WARNINGS, ids=lambda fault: fault.__name__)
def test_a_fault_is_named(folder: Path, clean: Path, fault: Fault) -> None:
    fault(folder)
    result = checked(folder)
    assert result.usable
    assert re.search(WARNINGS[fault], said(result, "warning")), said(result)
    assert not re.search(WARNINGS[fault], said(checked(clean)))


def test_bad_images_are_skipped_by_the_next_command(folder: Path) -> None:
    _nan(folder)
    assert checked(folder).command.endswith(" --skip-bad")


def test_shifts_of_zero_are_noted(folder: Path) -> None:
    _centred(folder)
    assert "shifts: All are 0" in said(checked(folder), "note")


def _lost(folder: Path) -> None:
    (folder / "particles.mrcs").rename(folder / "elsewhere.mrcs")


def _cut(folder: Path) -> None:
    whole = (folder / "particles.mrcs").read_bytes()
    (folder / "particles.mrcs").write_bytes(whole[: len(whole) // 2])


def _mixed(folder: Path) -> None:
    tables = read_tables(folder / "particles.star")
    optics, particles = tables["optics"], tables["particles"]
    two = optics.loc[[0, 0]].assign(  # type: ignore[union-attr]
        rlnOpticsGroup=[1, 2], rlnOpticsGroupName=["a", "b"], rlnImagePixelSize=[10.0, 11.0]
    )
    particles["rlnOpticsGroup"] = np.arange(COUNT) % 2 + 1
    write_tables(folder / "particles.star", {"optics": two, "particles": particles}, overwrite=True)


def _unposed(folder: Path) -> None:
    table = table_of(folder)
    bare = replace(table, frame=table.frame.drop(columns="rlnAngleRot"))
    write_particles(folder / "particles.star", bare, overwrite=True)


def _without_ctf(folder: Path) -> None:
    table = table_of(folder)
    bare = replace(table, frame=table.frame.drop(columns="rlnDefocusV"))
    write_particles(folder / "particles.star", bare, overwrite=True)


def _few(folder: Path) -> None:
    write_particles(folder / "particles.star", table_of(folder), rows=np.arange(39), overwrite=True)


def _masked(folder: Path) -> None:
    axis = np.arange(32) - 16
    outside = axis[:, None] ** 2 + axis**2 > 12**2
    change_images(folder, lambda images: images.__setitem__((slice(None), outside), 0.0))


FAULTS: dict[Fault, str] = {
    _lost: "stacks: 1 of 1 were not found: particles.mrcs. .*--datadir",
    _cut: "A sort refuses this input: .*particles.mrcs",
    _mixed: "different pixel sizes: 10, 11 A",
    _unposed: "0 of 400 particles have angles. .*hpcsort match",
    _without_ctf: "0 of 400 particles have defocus",
    _few: "39 in .*too few to sort",
    _masked: "constant outside the particle: they have been masked",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_cannot_be_sorted(folder: Path, clean: Path, fault: Fault) -> None:
    fault(folder)
    result = checked(folder)
    assert not result.usable
    assert (result.costs, result.command) == ((), "")
    assert re.search(FAULTS[fault], said(result, "fault")), said(result)
    assert not re.search(FAULTS[fault], said(checked(clean)))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.star").write_text("nothing\n")
    with pytest.raises(InputError, match="not a STAR file"):
        check(CheckOptions(tmp_path / "x.star"))
    with pytest.raises(OptionError, match="one place"):
        CheckOptions()
    with pytest.raises(OptionError, match="point group"):
        check(CheckOptions(tmp_path / "x.star", sym="q7"))


def test_options_reach_the_command_and_the_sort(clean: Path, tmp_path: Path) -> None:
    shutil.copy(clean / "particles.star", tmp_path)
    result = checked(tmp_path, datadir=clean, radius=12, sym="c2", angpix=10.0)
    assert result.usable
    assert f"--radius 12 --sym c2 --datadir {clean} --angpix 10" in result.command
    assert "--radius 16 does not fit" in said(checked(clean, radius=16), "fault")


def test_a_sample_of_a_large_stack(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcsort.checking.images._MOST", 100)
    one, two = checked(clean), checked(clean)
    assert "100 images looked at (of 400)" in said(one)
    assert one.findings == two.findings


def test_a_refinement(tmp_path: Path) -> None:
    write_refinement(tmp_path / "run", random_case(60))
    result = check(CheckOptions(refinement_dir=tmp_path / "run"))
    assert result.usable
    assert "60 in a refinement by MERIDIEN" in said(result)
    assert "do not agree with their poses" in said(result, "note")  # images of noise
    assert f"sort3d --refinement-dir {tmp_path / 'run'} --output-dir sorted" in result.command
    with pytest.raises(InputError, match="not a folder"):
        check(CheckOptions(refinement_dir=tmp_path / "none"))


def test_the_command_line(folder: Path, capsys: pytest.CaptureFixture) -> None:
    place = folder / "particles.star"
    command.main([str(place)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert all(part in shown for part in (f"Check of {place}", "ok       stacks", "ranks   memory GB", "Next:\n  "))
    _lost(folder)
    with pytest.raises(SystemExit, match="3"):
        command.main([str(place), "--json"], standalone_mode=False)
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["usable"], told["disk_GB"], told["command"]) == (False, None, "")
    assert [one["topic"] for one in told["findings"] if one["level"] == "fault"] == ["stacks"]
    assert "FAULT" in err


def test_real_and_peer_made_sets(shared_data: Path, tmp_path: Path) -> None:
    for place in (shared_data / "dev5" / "particles.star", shared_data / "eman_hdf" / "eman2_stack_48x64.hdf"):
        result = check(CheckOptions(place))
        assert result.usable
        assert "images agree with their poses" in said(result, "fine")
        assert "brighter than the solvent" in said(result, "fine")
    result = check(CheckOptions(shared_data / "formats" / "cryosparc_P12_J24_001_particles.cs"))
    assert "50 of 50 were not found" in said(result, "fault")
    # Images whose reconstruction is the negative of the map that they were made from (correlation -0.81).
    peer = shared_data / "emd10076_DE"
    (tmp_path / "data").symlink_to(peer, target_is_directory=True)
    result = check(CheckOptions(peer / "10076_classE_32_sim.star", datadir=tmp_path))
    assert "The map is darker inside than outside" in said(result, "warning")
