"""Reports of cl2d, cluster-averages and extract-pairs: made at the end of a run, and again from its folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from cl2d_cases import make_views
from cl2d_cases import options as options_of_classes
from click.testing import CliRunner
from pairs_cases import options_of, write_set
from report_cases import measure_in_browser, outline

from hpcsort.averages import AveragesOptions, cluster_averages
from hpcsort.cl2d import cl2d
from hpcsort.cli.report import command
from hpcsort.errors import InputError
from hpcsort.pairs import extract_pairs
from hpcsort.parallel import SerialComm
from hpcsort.report import program_of, provenance_rows

_PROGRAMS = ("cl2d", "cluster-averages", "extract-pairs")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each program."""
    made = tmp_path_factory.mktemp("runs")
    folders = {name: made / name for name in _PROGRAMS}
    views = make_views(made, 240, 3)
    cl2d(options_of_classes(views, folders["cl2d"], classes=4, initial_classes=2, iterations=2), SerialComm())
    given = AveragesOptions(folders["cl2d"], folders["cluster-averages"], min_clusters=2, quiet=True)
    cluster_averages(given, SerialComm())
    pairs = write_set(made / "pairs", pairs=2)
    (made / "pairs/mics/m1_t.mrc").unlink()
    extract_pairs(options_of(pairs, folders["extract-pairs"], report=True), SerialComm())
    return folders


def _again(folder: Path) -> None:
    done = CliRunner().invoke(command, [str(folder)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output == f"The report is {folder / 'report.html'}.\n"


@pytest.mark.parametrize("program", _PROGRAMS)
def test_the_folder_alone_gives_the_page_again(folders: dict[str, Path], program: str) -> None:
    folder = folders[program]
    assert program_of(folder) == program
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "report.html").unlink()
    _again(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept
    outline(folder / "report.html")


@pytest.mark.parametrize("program", _PROGRAMS)
def test_the_page_tells_where_results_come_from(folders: dict[str, Path], program: str) -> None:
    folder = folders[program]
    run = json.loads((folder / "run.json").read_text())
    text = outline(folder / "report.html").text
    for name in ("version", "started", "finished"):
        assert run[name] in text
    assert run["machine"]["host"] in text
    assert f"numpy {run['packages']['numpy']}" in text
    assert run["inputs"]
    for path, known in run["inputs"].items():
        assert path in text
        assert next(value for key, value in known.items() if key.startswith("sha256")) in text


def test_classes_have_cards_with_the_numbers_of_their_table(folders: dict[str, Path]) -> None:
    folder = folders["cl2d"]
    page = (folder / "report.html").read_text()
    classes = pd.read_csv(folder / "level_01/classes.csv")
    assert page.count("<div class='card'>") == len(classes) == 4
    shown = pd.read_csv(folder / "report/classes.csv")
    assert shown["size"].tolist() == classes["size"].tolist()
    for row in classes.itertuples():
        assert f"<b>class {row[1]}</b><br>{row.size} particles" in page
        assert (folder / f"report/class_{row[1]:03d}.png").is_file()
    levels = pd.read_csv(folder / "report/levels.csv")
    assert levels["classes"].tolist() == [2, 4]
    assert len(pd.read_csv(folder / "report/convergence.csv")) == levels["iterations"].sum()


def test_families_are_those_of_the_clusters(folders: dict[str, Path]) -> None:
    folder = folders["cluster-averages"]
    clusters = json.loads((folder / "clusters.json").read_text())["clusters"]
    families = pd.read_csv(folder / "report/families.csv")
    assert families["averages"].tolist() == [len(cluster["members"]) for cluster in clusters]
    assert families["representative"].tolist() == [cluster["representative"] for cluster in clusters]
    assert outline(folder / "report.html").seen.count("img") == 3


def test_pairs_that_are_lost_are_told(folders: dict[str, Path]) -> None:
    found = outline(folders["extract-pairs"] / "report.html")
    assert "missing micrograph" in found.text
    assert "12 pairs of particles" in found.text
    assert found.seen.count("img") == len(list((folders["extract-pairs"] / "report").glob("*.png"))) == 3


def test_what_a_report_cannot_be_made_of_is_refused(tmp_path: Path) -> None:
    for program, told in (
        ("cl2d", "no finished level"),
        ("cluster-averages", r"clusters\.json is missing"),
        ("extract-pairs", r"lacks run\.json or report/micrographs\.csv"),
        ("match", "one of match, which has no report"),
    ):
        (tmp_path / "run.json").write_text(json.dumps({"program": f"hpcsort {program}"}))
        with pytest.raises(InputError, match=told):
            CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False)


def test_many_inputs_do_not_fill_the_page(tmp_path: Path) -> None:
    inputs = {f"/data/{number}.mrc": {"bytes": 1, "sha256_of_pieces": "ab"} for number in range(50)}
    (tmp_path / "run.json").write_text(json.dumps({"program": "hpcsort cl2d", "inputs": inputs}))
    names = [name for name, _ in provenance_rows(tmp_path)]
    assert names.count("input") == 20
    assert ("more inputs", "30, in run.json") in provenance_rows(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("program", _PROGRAMS)
def test_a_browser_shows_the_page_without_errors(
    folders: dict[str, Path], program: str, width: int, tmp_path: Path
) -> None:
    measured = measure_in_browser(folders[program] / "report.html", width, tmp_path)
    assert measured["pictures"] > 0
    assert measured["broken"] == 0
    assert measured["sticks_out"] <= 0
