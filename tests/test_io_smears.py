"""Smears: arithmetic of probabilities, and tables of them that find their particles again."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from particle_cases import OPTICS, RELION_31, loop_text, make_stack

from hpcsort.errors import InputError, OutputError
from hpcsort.io import Smears, read_particles, read_smears, write_particles, write_smears

NAMES = ["3@p.mrcs", "1@p.mrcs", "2@p.mrcs"]


def _smears(counts: tuple[int, ...] = (2, 1, 3), seed: int = 0) -> Smears:
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(counts)), counts)
    weight = rng.uniform(0.1, 1, len(owner))
    weight *= 0.9 / np.bincount(owner, weight)[owner]
    angles, shifts = rng.uniform(-180, 180, (len(owner), 3)), rng.normal(0, 2, (len(owner), 2))
    return Smears.of_lists(owner, angles, shifts, weight)


def _same(one: Smears, other: Smears) -> None:
    for name in ("first", "angles_deg", "shifts_px", "weight", "dropped"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


# Arithmetic


def test_poses_in_any_order_become_sorted_probabilities() -> None:
    smears = Smears.of_lists([1, 0, 1, 1], np.arange(12).reshape(4, 3), np.zeros((4, 2)), [0.1, 0.8, 0.4, 0.3])
    np.testing.assert_array_equal(smears.counts, [1, 3])
    np.testing.assert_array_equal(smears.owner, [0, 1, 1, 1])
    np.testing.assert_array_equal(smears.angles_deg[:, 0], [3, 6, 9, 0])
    np.testing.assert_allclose(smears.weight, [1, 0.5, 0.375, 0.125])
    np.testing.assert_allclose(smears.dropped, [0.2, 0.2])
    for owner, weight in (([0, 2], [1, 1]), ([0, 1], [1, 0])):
        with pytest.raises(ValueError, match="particle 1 has no pose"):
            Smears.of_lists(owner, np.zeros((2, 3)), np.zeros((2, 2)), weight)


def test_limits_keep_probability_in_the_books() -> None:
    smears = _smears((5, 1, 7))
    for fewer in (smears.limited(2), smears.cut(0.6), smears.cut(1e-9)):
        sums = np.bincount(fewer.owner, fewer.weight, minlength=3)
        np.testing.assert_allclose(sums, 1)
        np.testing.assert_array_equal(fewer.angles_deg[fewer.first[:-1]], smears.angles_deg[smears.first[:-1]])
        # what is kept of the whole, and what is dropped, are all there is
        kept = fewer.weight * (1 - fewer.dropped)[fewer.owner]
        for pose, weight in zip(fewer.angles_deg, kept, strict=True):
            row = int(np.flatnonzero((smears.angles_deg == pose).all(axis=1))[0])
            assert weight == pytest.approx(smears.weight[row] * 0.9)
    assert smears.limited(2).counts.tolist() == [2, 1, 2]
    assert smears.cut(1e-9).counts.tolist() == [1, 1, 1]
    _same(smears.cut(1.5), smears.limited(99))
    held = np.bincount(smears.cut(0.6).owner, minlength=3)
    for particle, count in enumerate(held.tolist()):
        own = smears.weight[smears.first[particle] : smears.first[particle + 1]]
        assert own[:count].sum() >= 0.6
        assert own[: count - 1].sum() < 0.6


def test_rows_of_some_particles() -> None:
    smears = _smears((2, 1, 3))
    part = smears.rows([2, 0, 2])
    assert part.counts.tolist() == [3, 2, 3]
    np.testing.assert_array_equal(part.angles_deg[:3], smears.angles_deg[3:])
    np.testing.assert_array_equal(part.weight[3:5], smears.weight[:2])
    assert len(smears.rows([])) == 0
    with pytest.raises(ValueError, match="do not have shapes"):
        Smears(np.array([0, 1]), np.zeros((1, 2)), np.zeros((1, 2)), np.ones(1), np.zeros(1))
    with pytest.raises(ValueError, match="follow each other"):
        Smears(np.array([0, 0, 1]), np.zeros((1, 3)), np.zeros((1, 2)), np.ones(1), np.zeros(2))


# Tables


def test_a_table_comes_back_in_any_order(tmp_path: Path) -> None:
    smears, names = _smears(), ["1@große Körner/p.mrcs", "2@p.mrcs", "3@p.mrcs"]
    write_smears(tmp_path / "s.h5", smears, names, attributes={"reference": "a.mrc", "step_deg": 3.75})
    _same(read_smears(tmp_path / "s.h5", names), smears)
    _same(read_smears(tmp_path / "s.h5", [names[2], names[0], names[2]]), smears.rows([2, 0, 2]))
    assert len(read_smears(tmp_path / "s.h5", [])) == 0
    with h5py.File(tmp_path / "s.h5") as file:
        assert file.attrs["reference"] == "a.mrc"
        assert file.attrs["step_deg"] == 3.75
        assert file["image_name"].asstr()[0] == names[0]


def test_an_empty_table(tmp_path: Path) -> None:
    write_smears(tmp_path / "s.h5", _smears().rows([]), [])
    assert len(read_smears(tmp_path / "s.h5", [])) == 0
    with pytest.raises(InputError, match="has no particle x"):
        read_smears(tmp_path / "s.h5", ["x"])


def test_equal_tables_are_equal_bytes_and_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    for name, attributes in (("a.h5", {"b": 1, "a": "x"}), ("b.h5", {"a": "x", "b": 1})):
        write_smears(tmp_path / name, _smears(), NAMES, attributes=attributes)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_smears(tmp_path / "a.h5", _smears(), NAMES)
    write_smears(tmp_path / "a.h5", _smears(seed=1), NAMES, overwrite=True)
    assert (tmp_path / "a.h5").read_bytes() != (tmp_path / "b.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_names_must_tell_particles_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image a occurs twice \(row 3\).*remove repeated rows"):
        write_smears(tmp_path / "s.h5", _smears(), ["a", "b", "a"])
    with pytest.raises(ValueError, match="2 names for smears of 3"):
        write_smears(tmp_path / "s.h5", _smears(), ["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_names_from_another_folder(tmp_path: Path) -> None:
    smears = _smears()
    write_smears(tmp_path / "s.h5", smears, ["000001@a/p.mrcs", "000002@a/p.mrcs", "000001@b/p.mrcs"])
    asked = ["1@../x/b/p.mrcs", "1@../x/a/p.mrcs", "000002@a/p.mrcs"]
    with pytest.raises(InputError, match="has no particle"):
        # one stack under two names
        read_smears(tmp_path / "s.h5", asked)
    _same(read_smears(tmp_path / "s.h5", asked[:2]), smears.rows([2, 0]))
    # two stacks that could be the one of the table: nobody can tell which
    write_smears(tmp_path / "t.h5", smears, ["1@a/p.mrcs", "2@a/p.mrcs", "3@a/p.mrcs"])
    _same(read_smears(tmp_path / "t.h5", ["2@x/p.mrcs", "1@x/p.mrcs"]), smears.rows([1, 0]))
    with pytest.raises(InputError, match=r"no particle 2@x/p\.mrcs \(row 1 of the particle table, and 1 more\)"):
        read_smears(tmp_path / "t.h5", ["2@x/p.mrcs", "1@y/p.mrcs"])
    # and two of the table that could be the one asked for
    write_smears(tmp_path / "u.h5", smears, ["1@a/p.mrcs", "1@b/p.mrcs", "2@b/p.mrcs"])
    with pytest.raises(InputError, match=r"no particle 1@c/p\.mrcs"):
        read_smears(tmp_path / "u.h5", ["1@c/p.mrcs"])


def _broken(path: Path, name: str, value: object) -> Path:
    write_smears(path, _smears(), NAMES)
    with h5py.File(path, "r+") as file:
        if name in ("format", "version"):
            file.attrs[name] = value
            return path
        if value is not None:
            changed = np.array(file[name])
            if isinstance(value, np.ndarray):
                changed = value
            else:
                changed.flat[1] = value
        del file[name]
        if value is not None:
            file[name] = changed
    return path


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", "other", r"not a smear table \(its attribute format is 'other'.*hpcsort match wrote"),
        ("version", 2, r"of version 2, but version 1 is read; update"),
        ("weight", None, r"has no dataset weight"),
        ("image_name", None, r"has no dataset image_name"),
        ("image_name", np.arange(3), r"dataset image_name: values of type int64"),
        ("image_name", np.array([b"a", b"a", b"b"]), r"dataset image_name: a occurs twice"),
        ("first", np.zeros(4), r"dataset first: values of type float64"),
        ("first", np.array([0, 1, 2]), r"dataset first: shape \(3,\) where \(4,\) belongs to 3 particles with 6 poses"),
        ("first", np.array([0, 4, 3, 6]), r"dataset first: its values do not share out the 6 poses"),
        ("first", np.array([0, 2**63, 3, 6], np.uint64), r"dataset first: its values do not share out"),
        ("angles_deg", np.zeros((6, 2)), r"dataset angles_deg: shape \(6, 2\) where \(6, 3\)"),
        ("dropped", np.zeros(4), r"dataset dropped: shape \(4,\) where \(3,\)"),
        ("angles_deg", np.nan, r"dataset angles_deg, particle 3@p.mrcs: a value is NaN"),
        ("shifts_px", np.inf, r"dataset shifts_px, particle 3@p.mrcs: a value is NaN or infinite"),
        ("weight", np.nan, r"dataset weight, particle 3@p.mrcs: a value is NaN"),
        ("weight", -0.5, r"dataset weight, particle 3@p.mrcs: a value is negative"),
        ("weight", 0.9, r"dataset weight, particle 3@p.mrcs: probabilities sum to 1\.\d+ and not to 1"),
        ("dropped", 1.5, r"dataset dropped, particle 1@p.mrcs: a value is not between 0 and 1"),
        ("dropped", np.nan, r"dataset dropped, particle 1@p.mrcs: a value is NaN"),
    ],
)
def test_what_is_no_smear_table(tmp_path: Path, name: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_smears(_broken(tmp_path / "s.h5", name, value), NAMES)
    assert str(tmp_path / "s.h5") in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    write_smears(tmp_path / "s.h5", _smears(), NAMES)
    whole = (tmp_path / "s.h5").read_bytes()
    with pytest.raises(InputError, match="not a file that can be read"):
        read_smears(tmp_path / "absent.h5", NAMES)
    for content in (b"", b"text", whole[:100], whole[:-8]):
        (tmp_path / "s.h5").write_bytes(content)
        with pytest.raises(InputError, match="damaged or not a smear table"):
            read_smears(tmp_path / "s.h5", NAMES)


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    write_smears(tmp_path / "s.h5", _smears(), NAMES)
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        del file["angles_deg"]
        file.create_dataset("angles_deg", (10**12, 3), np.float64, chunks=(1000, 3))
    with pytest.raises(InputError, match="promises 24000000000000 bytes of dataset angles_deg but stores 0"):
        read_smears(tmp_path / "s.h5", NAMES)


# Beside a STAR file


@pytest.fixture
def star(tmp_path: Path) -> Path:
    folder = tmp_path / "a b"
    make_stack(folder / "p.mrcs")
    write_smears(folder / "t_smears.h5", _smears(), NAMES)
    block = "\ndata_hpcsort\n\n_hpcsortSmearTable t_smears.h5\n_hpcsortOther 7\n"
    (folder / "t.star").write_text(loop_text("optics", OPTICS) + loop_text("particles", RELION_31) + block)
    return folder / "t.star"


def test_a_table_brings_its_smears(star: Path) -> None:
    table = read_particles(star)
    assert table.smears is not None
    _same(table.smears, _smears())
    part = table.subset([2, 0])
    assert part.smears is not None
    _same(part.smears, _smears().rows([2, 0]))
    assert read_particles(star, smears=False).smears is None


def test_written_tables_keep_their_smears(star: Path, tmp_path: Path) -> None:
    table = read_particles(star)
    for target in (star.parent / "again.star", tmp_path / "up.star", tmp_path / "other" / "far.star"):
        target.parent.mkdir(exist_ok=True)
        write_particles(target, table, rows=np.array([1, 0]))
        again = read_particles(target)
        assert again.smears is not None
        _same(again.smears, _smears().rows([1, 0]))
        assert again.other_blocks["hpcsort"]["hpcsortOther"] == 7
        assert again.stack_paths[0].samefile(star.parent / "p.mrcs")


def test_a_new_smear_table_is_named(star: Path, tmp_path: Path) -> None:
    fresh = _smears((1, 4, 2), seed=5)
    write_smears(tmp_path / "new.h5", fresh, NAMES)
    for table in (read_particles(star), read_particles(star, smears=False)):
        write_particles(tmp_path / "n.star", table, smear_table="new.h5", overwrite=True)
        again = read_particles(tmp_path / "n.star")
        assert again.smears is not None
        _same(again.smears, fresh)
        assert again.other_blocks["hpcsort"] == {"hpcsortSmearTable": "new.h5", "hpcsortOther": 7}


def test_missing_smears_are_an_error(star: Path) -> None:
    (star.parent / "t_smears.h5").rename(star.parent / "moved.h5")
    with pytest.raises(InputError, match=r"t\.star names the smear table t_smears\.h5 in data_hpcsort, but .*copy it"):
        read_particles(star)
    assert read_particles(star, smears=False).smears is None
    write_smears(star.parent / "t_smears.h5", _smears((1, 2)), NAMES[:2])
    with pytest.raises(InputError, match=r"has no particle 2@p\.mrcs \(row 3"):
        read_particles(star)


def test_a_block_without_a_smear_table(star: Path) -> None:
    star.write_text(star.read_text().replace("_hpcsortSmearTable t_smears.h5\n", ""))
    assert read_particles(star).smears is None
    loop = "\ndata_hpcsort\n\nloop_\n_hpcsortSmearTable #1\n_hpcsortOther #2\nt_smears.h5 7\n\n"
    star.write_text(star.read_text().partition("\ndata_hpcsort")[0] + loop)
    assert read_particles(star).smears is not None
