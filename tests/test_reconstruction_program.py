"""The program reconstruct and its command: which particles, which files, what is said, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import starfile
from click.testing import CliRunner
from mpi_helpers import find_mpiexec, run_mpi
from reconstruction_cases import density, write_particles_of

from hpcsort.cli.reconstruct import command
from hpcsort.errors import HpcsortError, InputError, OptionError, OutputError
from hpcsort.io import read_hdf_map, read_map, read_particles, write_map, write_tables
from hpcsort.parallel import SerialComm
from hpcsort.reconstruction import (
    Reconstruction,
    ReconstructOptions,
    Source,
    read_rows,
    reconstruct,
    reconstruct_groups,
    select_rows,
)
from hpcsort.volumes import map_fsc

_COUNT = 60
_MAIN = "import hpcsort.cli.reconstruct as r; r.command()"


@pytest.fixture(scope="module")
def states() -> list[np.ndarray]:
    return [20.0 * density(16, 5, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory, states: list[np.ndarray]) -> Path:
    """Two states in classes 1 and 3, halves 1 and 2 of each."""
    folder = tmp_path_factory.mktemp("particles")
    state = np.arange(_COUNT) // 2 % 2
    path = write_particles_of(folder, states, state)
    columns = starfile.read(path)
    columns["rlnClassNumber"] = 2 * state + 1
    columns["rlnRandomSubset"] = np.arange(_COUNT) % 2 + 1
    write_tables(path, {"particles": columns}, overwrite=True)
    return path


def _run(star: Path, output: Path, **more: object) -> Reconstruction:
    given = {"radius": 6, "quiet": True} | more
    options = ReconstructOptions(output=output, **given)  # type: ignore[arg-type]
    result = reconstruct(options, lambda: Source(read_particles(star)), SerialComm())
    assert result is not None
    return result


def _call(*words: object) -> str:
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_class_and_list_choose_exactly_their_particles(star: Path, states: list[np.ndarray], tmp_path: Path) -> None:
    table = read_particles(star)
    rows = np.flatnonzero(np.arange(_COUNT) // 2 % 2 == 1)
    listing = tmp_path / "Cluster_000.txt"
    listing.write_text("".join(f"{row}\n" for row in rows[::-1]))
    by_class = _run(star, tmp_path / "c", classes=(3,))
    by_list = _run(star, tmp_path / "l", listing=listing)
    for result in (by_class, by_list):
        np.testing.assert_array_equal(result.rows, rows)
    for name in (".mrc", "_half1.mrc", "_half2.mrc", "_fsc.txt"):
        assert (tmp_path / f"c{name}").read_bytes() == (tmp_path / f"l{name}").read_bytes()
    assert map_fsc(by_class.maps.map, states[1])[1:5].mean() > 0.9
    assert map_fsc(by_class.maps.map, states[0])[1:5].mean() < 0.8
    both = _run(star, tmp_path / "b", classes=(1, 3))
    np.testing.assert_array_equal(both.rows, np.arange(_COUNT))
    listing.write_text("2\n0\n\n3\n")
    np.testing.assert_array_equal(select_rows(table, (3,), listing), [2, 3])
    assert select_rows(table).size == _COUNT


def test_halves_are_those_of_the_table(star: Path, tmp_path: Path) -> None:
    table = read_particles(star)
    result = _run(star, tmp_path / "m")
    maps = reconstruct_groups(
        SerialComm(), table, [np.arange(_COUNT)], half=table.random_subset - 1, radius_px=6, mask=None,
        symmetry=np.eye(3)[None],
    )  # fmt: skip
    assert maps is not None
    assert maps[0].half1 is not None
    assert result.maps.half1 is not None
    assert result.maps.half1.tobytes() == maps[0].half1.tobytes()
    data, voxel = read_map(tmp_path / "m_half1.mrc")
    np.testing.assert_array_equal(data, maps[0].half1)
    assert voxel == table.pixel_size_A
    assert result.resolution_half_A >= result.resolution_A


def test_random_halves_follow_the_seed(star: Path, tmp_path: Path) -> None:
    columns = starfile.read(star).drop(columns="rlnRandomSubset")
    plain = star.with_name("plain.star")
    write_tables(plain, {"particles": columns}, overwrite=True)
    first, same, other = (_run(plain, tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first.maps.half1 is not None
    assert same.maps.half1 is not None
    assert other.maps.half1 is not None
    assert first.maps.half1.tobytes() == same.maps.half1.tobytes()
    assert (first.maps.half1 != other.maps.half1).any()


def test_the_command_tells_and_writes(star: Path, tmp_path: Path) -> None:
    told = _call(star, "--output", tmp_path / "new" / "folder" / "m.mrc", "--class", "1,3", "--radius", 6)
    assert "60 of 60 particles of 16 px at 8 A" in told
    assert "Halves (of the table): 30 and 30 particles." in told
    assert "A at FSC 0.5, " in told
    assert "A at FSC 0.143." in told
    out = tmp_path / "new" / "folder"
    assert _names(out) == ["m.mrc", "m_fsc.txt", "m_half1.mrc", "m_half2.mrc"]
    assert len(np.loadtxt(out / "m_fsc.txt")) == 9
    # No halves, another format: nothing of the earlier maps stays that would pass for this one's.
    told = _call(
        star, "--output", out / "m", "--no-halves", "--map-format", "hdf", "--overwrite", "--radius", 6, "--quiet"
    )
    assert told == ""
    assert _names(out) == ["m.hdf"]
    data, voxel = read_hdf_map(out / "m.hdf")
    assert data.shape == (16, 16, 16)
    assert voxel == pytest.approx(8.0)


def test_a_mask_and_symmetry_and_padding_count(star: Path, tmp_path: Path) -> None:
    mask = np.zeros((16,) * 3, np.float32)
    mask[5:12, 5:12, 5:12] = 1
    write_map(tmp_path / "mask.mrc", mask, 8.0)
    plain, masked, symmetric, tight = (
        _run(star, tmp_path / str(number), **more).maps
        for number, more in enumerate(({}, {"mask": tmp_path / "mask.mrc"}, {"sym": "d2"}, {"pad": 1}))
    )
    assert plain.half1 is not None
    assert masked.half1 is not None
    assert masked.half2 is not None
    assert masked.fsc is not None
    np.testing.assert_array_equal(plain.half1, masked.half1)
    np.testing.assert_allclose(masked.fsc, map_fsc(masked.half1 * mask, masked.half2 * mask))
    core = symmetric.map[1:, 1:, 1:]
    np.testing.assert_allclose(core[:, ::-1, ::-1], core, atol=1e-3 * np.abs(core).max())
    np.testing.assert_allclose(core[::-1, ::-1, :], core, atol=1e-3 * np.abs(core).max())
    assert (tight.map != plain.map).any()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"classes": (2,)}, OptionError, r"--class 2 is not in .*p\.star, which holds 1 \(30\), 3 \(30\)"),
        ({"radius": 8}, OptionError, r"--radius 8 does not fit the box of 16 px"),
        ({"mask": Path("none.mrc")}, InputError, r"none\.mrc cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(
    star: Path, tmp_path: Path, options: dict, kind: type[HpcsortError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        _run(star, tmp_path / "m", **options)
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"l\.txt is empty"),
        ("\n\n", r"l\.txt is empty"),
        ("3\n60\n", r"l\.txt, line 2: row 60 is not in the table, which has rows 0 to 59"),
        ("3\n4\n3\n", r"l\.txt, line 3: row 3 is on line 1 already"),
        ("3\n-1\n", r"l\.txt, line 2: '-1' is not a row number"),
        ("0 1\n", r"l\.txt, line 1: '0 1' is not a row number"),
        ("1\n2.5\n", r"l\.txt, line 2: '2\.5' is not a row number"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(star: Path, tmp_path: Path, text: str, message: str) -> None:
    listing = tmp_path / "l.txt"
    listing.write_text(text)
    with pytest.raises(InputError, match=message):
        _run(star, tmp_path / "m", listing=listing)
    assert _names(tmp_path) == ["l.txt"]


def test_other_lists_and_classes(star: Path, tmp_path: Path) -> None:
    listing = tmp_path / "l.txt"
    with pytest.raises(InputError, match=r"l\.txt cannot be read: no such file"):
        read_rows(listing, 5)
    listing.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is not text"):
        read_rows(listing, 5)
    listing.write_text("0\n")
    with pytest.raises(InputError, match=r"both in class 3 and on .*l\.txt"):
        _run(star, tmp_path / "m", listing=listing, classes=(3,))
    with pytest.raises(InputError, match=r"one particle .* makes no two halves"):
        _run(star, tmp_path / "m", listing=listing)
    assert _run(star, tmp_path / "m", listing=listing, halves=False).maps.size == 1
    plain = star.with_name("classless.star")
    write_tables(plain, {"particles": starfile.read(star).drop(columns="rlnClassNumber")}, overwrite=True)
    with pytest.raises(InputError, match="has no column rlnClassNumber"):
        _run(plain, tmp_path / "n", classes=(1,))


def test_nothing_is_replaced_unasked(star: Path, tmp_path: Path) -> None:
    (tmp_path / "m_fsc.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"m_fsc\.txt exists already; .*--overwrite"):
        _run(star, tmp_path / "m")
    assert _names(tmp_path) == ["m_fsc.txt"]
    _run(star, tmp_path / "m", overwrite=True)
    assert (tmp_path / "m_fsc.txt").read_text().startswith("# shell")
    # Not even with --overwrite is an input lost.
    write_map(tmp_path / "k.mrc", np.ones((16,) * 3), 8.0)
    with pytest.raises(OutputError, match=r"k\.mrc is an input of this reconstruction"):
        _run(star, tmp_path / "k", overwrite=True, mask=tmp_path / "k.mrc")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        _run(star, tmp_path / "file" / "m")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "1,x"], r"--class is '1,x'"),
        (["--class", ""], r"--class is ''"),
        (["--sym", "q3"], r"symmetry 'q3' is not a point group"),
        (["--pad", "0"], r"--pad 0 is out of range"),
        (["--radius", "1"], r"--radius 1 is too small"),
        (["--seed", "-1"], r"--seed -1 is negative"),
        (["--refinement-dir", "x"], "either the particles or --refinement-dir"),
    ],
)
def test_options_out_of_range_are_refused(star: Path, tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        _call(star, "--output", tmp_path / "m", *words)
    with pytest.raises(OptionError, match="is a folder"):
        _call(star, "--output", tmp_path)


def test_a_table_without_stacks_is_named(star: Path, tmp_path: Path) -> None:
    def read() -> Source:
        lonely = tmp_path / "lonely.star"
        lonely.write_bytes(star.read_bytes())
        return Source(read_particles(lonely, need_images=False))

    with pytest.raises(InputError, match=r"no image stack of .*lonely\.star was found; .*--datadir"):
        reconstruct(ReconstructOptions(output=tmp_path / "m"), read, SerialComm())


@pytest.mark.mpi
def test_files_are_the_same_on_any_ranks(star: Path, tmp_path: Path) -> None:
    find_mpiexec()
    words = [str(star), "--radius", "6", "--sym", "c2", "--output"]
    _call(*words, tmp_path / "alone" / "m")
    done = run_mpi(2, "-c", _MAIN, *words, str(tmp_path / "ranks" / "m"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Written to") == 1
    names = _names(tmp_path / "alone")
    assert len(names) == 4
    assert _names(tmp_path / "ranks") == names
    for name in names:
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "ranks" / name).read_bytes()
