"""STAR tables: what is written reads back, flaws that the parser would pass over are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcsort.errors import InputError, OutputError
from hpcsort.io import read_particles, read_tables, write_particles, write_stack, write_tables

_EVERYTHING_OPTIONAL = {"need_images": False, "need_poses": False, "need_ctf": False}


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _loop(columns: str, *rows: str, block: str = "particles") -> str:
    header = "\n".join(f"_{name} #{place}" for place, name in enumerate(columns.split(), start=1))
    return f"\n# version 30001\n\ndata_{block}\n\nloop_\n{header}\n" + "\n".join(rows) + "\n\n"


def test_blocks_keep_order_types_and_vectors(tmp_path: Path) -> None:
    text = "data_general\n\n_rlnVersion 5.0\n_rlnTitle two\n\n" + _loop(
        "rlnMicrographName rlnClassNumber rlnDefocusU rlnOddZernike",
        "  0001 \t 2 1.5 [0.5,-1,2e-3]  ",
        "# a comment between rows",
        "0002   3   7.   [0,0,0]   # and one behind a row",
    )
    tables = read_tables(_write(tmp_path / "a.star", text))
    assert list(tables) == ["general", "particles"]
    assert tables["general"] == {"rlnVersion": 5.0, "rlnTitle": "two"}
    frame = tables["particles"]
    assert isinstance(frame, pd.DataFrame)
    assert frame["rlnMicrographName"].tolist() == ["0001", "0002"]
    assert frame["rlnClassNumber"].tolist() == [2, 3]
    assert frame["rlnDefocusU"].tolist() == [1.5, 7.0]
    assert frame["rlnOddZernike"].tolist() == ["[0.5,-1,2e-3]", "[0,0,0]"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=5),
    integer=st.integers(-(2**53), 2**53),
    name=st.from_regex(r"[A-Za-z0-9_./@-]{1,12}( [A-Za-z0-9]{1,4})?", fullmatch=True).filter(
        lambda text: not text.startswith(("data_", "loop_", "_"))
    ),
)
def test_tables_round_trip(tmp_path: Path, numbers: list[float], integer: int, name: str) -> None:
    n = len(numbers)
    frame = pd.DataFrame({"rlnAngleRot": numbers, "rlnGroupNumber": [integer] * n, "rlnMicrographName": [name] * n})
    write_tables(tmp_path / "a.star", {"particles": frame}, overwrite=True)
    back = read_tables(tmp_path / "a.star")["particles"]
    assert isinstance(back, pd.DataFrame)
    np.testing.assert_allclose(back["rlnAngleRot"].to_numpy(), numbers, rtol=1e-14)
    assert back["rlnAngleRot"].dtype == np.float64
    assert back["rlnGroupNumber"].tolist() == [integer] * n
    assert back["rlnMicrographName"].tolist() == [name] * n


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.decimals(-(10**8), 10**8, places=6))
def test_numbers_of_six_decimals_keep_their_digits(tmp_path: Path, value: object) -> None:
    _write(tmp_path / "a.star", _loop("rlnX rlnY", f"{value} a"))
    write_tables(tmp_path / "b.star", read_tables(tmp_path / "a.star"), overwrite=True)
    row = (tmp_path / "b.star").read_text().split("#2\n")[1].split()
    assert float(row[0]) == float(str(value))
    assert "." in row[0] or "e" in row[0]
    assert len(row[0]) <= len(str(value)) + 1


def test_equal_tables_give_equal_bytes_and_special_values_survive(tmp_path: Path) -> None:
    frame = pd.DataFrame({"rlnA": [np.nan, 1.0], "rlnB": [True, False], "rlnCName": ["", "b c"]})
    for name in "ab":
        write_tables(tmp_path / f"{name}.star", {"x": frame, "pairs": {"rlnOne": 1.0, "rlnTwo": "two words"}})
    assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()
    back = read_tables(tmp_path / "a.star")
    table = back["x"]
    assert isinstance(table, pd.DataFrame)
    assert np.isnan(table["rlnA"][0])
    assert table["rlnB"].tolist() == [1, 0]
    assert table["rlnCName"].tolist() == ["", "b c"]
    assert back["pairs"] == {"rlnOne": 1.0, "rlnTwo": "two words"}
    with pytest.raises(OutputError, match="exists already"):
        write_tables(tmp_path / "a.star", {"x": frame})


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    for value in (1, 2):
        _write(tmp_path / "a.star", _loop("rlnA rlnB", f"{value} 5"))
        assert read_tables(tmp_path / "a.star")["particles"]["rlnA"].tolist() == [value]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", r"a\.star has no line that starts with data_"),
        (_loop("rlnA rlnB", "1 2", "3"), r"row 2: 1 entries for 2 columns, so column rlnB is missing"),
        (_loop("rlnA rlnB", "1 2", "3 4", "5 6 7"), r"row 3: 3 entries for 2 columns; quote"),
        (_loop("rlnA rlnB", "1 a#b"), r"row 1: the mark # starts a comment"),
        (_loop("rlnA rlnB", "1 O'Brien/m.mrc"), r"row 1: an apostrophe inside a name"),
        (_loop("rlnA rlnB", '1 "open'), r"row 1: a quotation mark is not closed"),
        (_loop("rlnA rlnB", "data_x/1.mrc 2"), r"line 9: a row must not start with data_"),
        ("data_particles\n", r"a\.star cannot be read as a STAR file"),
    ],
)
def test_flawed_text_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_tables(_write(tmp_path / "a.star", text))


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.star cannot be read \(no such file"):
        read_tables(tmp_path / "none.star")
    (tmp_path / "a.star").write_bytes(b"data_\xff\xfe")
    with pytest.raises(InputError, match=r"a\.star is not a text file"):
        read_tables(tmp_path / "a.star")


def _project(folder: Path) -> Path:
    """Make a RELION project: a STAR file in a job folder that names its stack relative to the project."""
    (folder / "Extract").mkdir(parents=True)
    (folder / "Refine").mkdir()
    images = np.arange(4 * 9, dtype=np.float32).reshape(4, 3, 3)
    write_stack(folder / "Extract" / "p.mrcs", images, (4, 3, 3), 2.0)
    optics = _loop(
        "rlnOpticsGroup rlnOpticsGroupName rlnVoltage rlnSphericalAberration rlnAmplitudeContrast rlnImagePixelSize",
        "1 og1 300 2.7 0.1 2.0",
        block="optics",
    )
    rows = [f"{k}@Extract/p.mrcs 10{k}.25 2{k} 3{k} 1.5 -2 {k}e4 9000 45 1 {k % 2 + 1} keep{k}" for k in (3, 1, 4, 2)]
    columns = (
        "rlnImageName rlnAngleRot rlnAngleTilt rlnAnglePsi rlnOriginXAngst rlnOriginYAngst rlnDefocusU rlnDefocusV"
        " rlnDefocusAngle rlnOpticsGroup rlnRandomSubset rlnPeculiar"
    )
    other = _loop("rlnNote", "hello", block="extra")
    return _write(folder / "Refine" / "run_data.star", optics + _loop(columns, *rows) + other)


def _same_particles(first: Path, second: Path) -> None:
    one, two = read_particles(first), read_particles(second)
    np.testing.assert_array_equal(one.angles_deg, two.angles_deg)
    np.testing.assert_array_equal(one.shifts_px, two.shifts_px)
    np.testing.assert_array_equal(one.stack_index, two.stack_index)
    assert [p.resolve() for p in one.stack_paths] == [p.resolve() for p in two.stack_paths]
    columns = [name for name in one.frame.columns if name != "rlnImageName"]
    pd.testing.assert_frame_equal(one.frame[columns], two.frame[columns])
    assert one.optics is not None
    assert two.optics is not None
    pd.testing.assert_frame_equal(one.optics, two.optics)


def test_inside_a_project_image_paths_stay_as_relion_wrote_them(tmp_path: Path) -> None:
    source = _project(tmp_path / "project")
    target = tmp_path / "project" / "Sort" / "classes.star"
    target.parent.mkdir()
    table = read_particles(source)
    write_particles(target, table)
    assert starfile.read(target)["particles"]["rlnImageName"].tolist() == table.frame["rlnImageName"].tolist()
    _same_particles(source, target)
    assert list(read_tables(target)) == ["optics", "particles", "extra"]


def test_outside_the_project_image_paths_are_rewritten(tmp_path: Path) -> None:
    source = _project(tmp_path / "project")
    target = tmp_path / "elsewhere" / "deep" / "classes.star"
    target.parent.mkdir(parents=True)
    write_particles(target, read_particles(source))
    names = starfile.read(target)["particles"]["rlnImageName"].tolist()
    assert names[0] == "000003@../../project/Extract/p.mrcs"
    _same_particles(source, target)


def test_another_stack_of_the_same_name_is_not_mistaken(tmp_path: Path) -> None:
    source = _project(tmp_path / "project")
    _project(tmp_path / "copy")
    target = tmp_path / "copy" / "Refine" / "classes.star"
    write_particles(target, read_particles(source))
    _same_particles(source, target)


def test_absolute_paths_and_paths_not_found_stay(tmp_path: Path) -> None:
    source = _project(tmp_path / "project")
    stack = tmp_path / "project" / "Extract" / "p.mrcs"
    source.write_text(source.read_text().replace("Extract/p.mrcs", str(stack)))
    write_particles(tmp_path / "a.star", read_particles(source))
    assert starfile.read(tmp_path / "a.star")["particles"]["rlnImageName"][1] == f"1@{stack}"
    stack.unlink()
    source.write_text(source.read_text().replace(str(stack), "gone/p.mrcs"))
    write_particles(tmp_path / "b.star", read_particles(source, need_images=False))
    assert starfile.read(tmp_path / "b.star")["particles"]["rlnImageName"][1] == "1@gone/p.mrcs"


def test_extra_columns_and_rows(tmp_path: Path) -> None:
    source = _project(tmp_path / "project")
    table = read_particles(source)
    extra = {"rlnClassNumber": np.array([4, 5, 6, 7]), "rlnAngleRot": np.array([0.125, 1, 2, 3])}
    target = source.parent / "some.star"
    write_particles(target, table, extra, rows=np.array([2, 0]))
    frame = starfile.read(target)["particles"]
    assert list(frame.columns) == [*table.frame.columns, "rlnClassNumber"]
    assert frame["rlnClassNumber"].tolist() == [6, 4]
    assert frame["rlnAngleRot"].tolist() == [2.0, 0.125]
    assert frame["rlnPeculiar"].tolist() == ["keep4", "keep3"]
    assert frame["rlnImageName"].tolist() == ["4@Extract/p.mrcs", "3@Extract/p.mrcs"]
    write_particles(target, table, rows=np.array([False, True, False, True]), overwrite=True)
    assert starfile.read(target)["particles"]["rlnPeculiar"].tolist() == ["keep1", "keep2"]
    assert "rlnClassNumber" not in table.frame
    with pytest.raises(OutputError, match="exists already"):
        write_particles(target, table)
    with pytest.raises(ValueError, match=r"rlnClassNumber has shape \(3,\) for 4 particles"):
        write_particles(target, table, {"rlnClassNumber": np.zeros(3)}, overwrite=True)


def test_every_reference_table_reads_and_keeps_its_columns(shared_data: Path, tmp_path: Path) -> None:
    sources = sorted([*(shared_data / "formats").glob("*.star"), shared_data / "dev5" / "particles.star"])
    assert len(sources) == 10
    for source in sources:
        table = read_particles(source, angpix=1.25, **_EVERYTHING_OPTIONAL)
        target = tmp_path / source.name
        write_particles(target, table)
        before, after = read_tables(source), read_tables(target)
        assert list(before) == list(after)
        for name, block in before.items():
            other = after[name]
            assert isinstance(block, pd.DataFrame)
            assert isinstance(other, pd.DataFrame)
            assert list(block.columns) == list(other.columns)
            columns = [column for column in block.columns if column != "rlnImageName"]
            pd.testing.assert_frame_equal(block[columns], other[columns], rtol=1e-14)
