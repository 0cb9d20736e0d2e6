"""The report of sort3d tells what the files of the sort tell, however many of them are there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from click.testing import CliRunner
from report_cases import measure_in_browser, outline
from sort3d_runs import read_ids, simulate_small, sort_quietly

from hpcsort.cli.report import command
from hpcsort.errors import InputError
from hpcsort.report import end_with_report
from hpcsort.report.sorting import gather_sort, write_sort_report

_PANELS = ("groups", "fsc", "views", "flow", "coassignment", "confidence", "convergence", "number_of_groups", "anova")


@pytest.fixture(scope="module")
def sort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny sort into two groups, with its report."""
    folder = tmp_path_factory.mktemp("sorted")
    made = simulate_small(folder / "data", 400, snr=1.0)
    assert len(sort_quietly(made.star, folder / "out").groups) == 2
    write_sort_report(folder / "out")
    return folder / "out"


@pytest.fixture
def copy(sort: Path, tmp_path: Path) -> Path:
    """The same without its report, to be spoilt."""
    shutil.copytree(sort, tmp_path / "copy", ignore=shutil.ignore_patterns("report*", "maps.cxc"))
    return tmp_path / "copy"


def _panel(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "report" / f"{name}.csv")


def test_every_group_has_a_card_with_the_numbers_of_the_sort(sort: Path) -> None:
    found = outline(sort / "report.html")
    run = json.loads((sort / "run.json").read_text())
    table = _panel(sort, "groups")
    page = (sort / "report.html").read_text()
    assert page.count("<div class='card'>") == len(run["groups"]) == len(table) == 2
    agreeing = starfile.read(sort / "particles.star")["particles"]["hpcsortReproducibility"].to_numpy()
    for number, (group, row) in enumerate(zip(run["groups"], table.to_dict("records"), strict=True)):
        members = read_ids(sort / f"Cluster_{number:03d}.txt")
        assert len(members) == group["size"] == row["size"]
        assert row["purity"] == pytest.approx(agreeing[members].mean(), rel=1e-5)
        assert row["reproducibility"] == pytest.approx(group["reproducibility"], rel=1e-5)
        assert row["share"] == pytest.approx(group["size"] / 400, rel=1e-5)
        card = page.split("<div class='card'>")[number + 1].split("</div>")[0]
        for words in (
            f"<b>group {number}</b>",
            f"{group['size']} particles, {100 * group['size'] / 400:.1f} %",
            f"resolution {group['resolution_A']:.1f} A",
            f"agreement {100 * agreeing[members].mean():.1f} %",
            f"reproducibility {100 * group['reproducibility']:.1f} %",
            f"p {group['p']:.2g}",
        ):
            assert words in card
    assert f"{run['accounted']} of 400 particles in 2 groups" in found.text


def test_each_panel_lies_beside_the_page_as_numbers_and_picture(sort: Path) -> None:
    page = outline(sort / "report.html")
    for name in _PANELS:
        assert len(_panel(sort, name)) > 0
        if name != "groups":
            assert (sort / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert page.seen.count("img") == len(list((sort / "report").glob("*.png")))


def test_flows_and_pairs_follow_from_the_lists_of_the_chains(sort: Path) -> None:
    chains = [
        np.loadtxt(sort / f"generation_000/layer0/nbox{box}/independent_index_00{chain}.txt", np.int64)
        for box in (0, 1)
        for chain in (0, 1)
    ]
    flow = _panel(sort, "flow")
    assert (flow.groupby("from", sort=False)["particles"].sum() == 400).all()
    first = flow[flow["from"] == "box 0 a"]
    same = first.loc[first["class"] == first["class_there"], "particles"].sum()
    together = [len(set(chains[0][chains[0][:, 0] == a, 1]) & set(chains[1][chains[1][:, 0] == b, 1]))
                for a, b in ((0, 0), (1, 1), (0, 1), (1, 0))]  # fmt: skip
    assert same == max(sum(together[:2]), sum(together[2:]))
    members = read_ids(sort / "Cluster_000.txt")
    share = []
    for rows in chains:
        label = dict(zip(rows[:, 1].tolist(), rows[:, 0].tolist(), strict=True))
        own = np.array([label[one] for one in members.tolist()])
        pairs = (own[:, None] == own) & (own >= 0)
        share.append((pairs.sum() - np.trace(pairs)) / (len(own) * (len(own) - 1)))
    matrix = _panel(sort, "coassignment").set_index("particles_of")
    assert matrix.loc["group_0", "group_0"] == pytest.approx(np.mean(share), rel=1e-5)
    assert matrix.loc["group_0", "group_1"] == pytest.approx(matrix.loc["group_1", "group_0"])


def test_confidence_counts_all_particles_once(sort: Path) -> None:
    table = starfile.read(sort / "particles.star")["particles"]
    known = table[table["hpcsortLikeliestGroup"] > 0]
    bins = _panel(sort, "confidence")
    assert bins["particles"].sum() == len(known)
    assert bins["accounted"].sum() == (known["rlnClassNumber"] > 0).sum()
    mean = np.average(bins["mean_agreement"].fillna(0), weights=bins["particles"])
    assert mean == pytest.approx(known["hpcsortReproducibility"].mean(), rel=1e-4)


def test_views_are_those_of_the_particles(sort: Path) -> None:
    table = starfile.read(sort / "particles.star")["particles"]
    views = _panel(sort, "views")
    for group in (0, 1):
        tilt = np.deg2rad(table.loc[table["rlnClassNumber"] == group + 1, "rlnAngleTilt"])
        north = views.loc[views["latitude_from"] >= 0, f"group_{group}"].sum()
        assert north == (np.cos(tilt) >= 0).sum()
        assert views[f"group_{group}"].sum() == len(tilt)


def test_the_script_opens_every_map_at_one_contour(sort: Path) -> None:
    lines = (sort / "maps.cxc").read_text().splitlines()
    opened = [line.removeprefix("open ") for line in lines if line.startswith("open ")]
    assert opened == sorted(path.name for path in sort.glob("vol_cluster???.mrc"))
    levels = {float(found[1]) for line in lines if (found := re.search(r"^volume .* level (\S+) ", line))}
    maps = [mrcfile.read(sort / name) for name in opened]
    (level,) = levels
    assert level == pytest.approx(np.mean([one.mean() + 3 * one.std() for one in maps]), rel=1e-4)
    assert all((one > level).any() for one in maps)


def test_the_same_folder_gives_the_same_report(sort: Path, copy: Path) -> None:
    write_sort_report(copy)
    for path in sorted(sort.glob("report/*")):
        assert (copy / "report" / path.name).read_bytes() == path.read_bytes()
    again = CliRunner().invoke(command, [str(copy), "--json"], catch_exceptions=False)
    assert again.exit_code == 0
    assert f'"report": "{copy / "report.html"}"' in again.output


def test_texts_of_files_are_texts(copy: Path) -> None:
    run = json.loads((copy / "run.json").read_text())
    run["warnings"] = ["group 0 is <script>alert(1)</script>"]
    run["command"] = ["hpcsort", "<b>"]
    (copy / "run.json").write_text(json.dumps(run))
    found = outline(write_sort_report(copy))
    assert "script" not in found.seen
    assert "<script>alert(1)</script>" in found.text
    assert found.text.index("<script>") < found.text.index("particles, "), "warnings come first"


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("vol_cluster001.mrc", "The map of group 1, vol_cluster001.mrc, is missing"),
        ("particles.star", "particles.star is missing"),
        ("anova.csv", "anova.csv is missing"),
        ("generation_000", "The folders of the generations are missing"),
    ],
)
def test_what_is_missing_is_told(copy: Path, lost: str, told: str) -> None:
    shutil.rmtree(copy / lost) if (copy / lost).is_dir() else (copy / lost).unlink()
    found = outline(write_sort_report(copy))
    assert told in found.text
    assert "group 0" in found.text


def test_each_generation_has_its_own_chains(copy: Path) -> None:
    shutil.copytree(copy / "generation_000", copy / "generation_001")
    for listed in (copy / "generation_001").glob("layer0/nbox*/independent_index_*.txt"):
        listed.write_text("\n".join(listed.read_text().splitlines()[:100]) + "\n")
    found = outline(write_sort_report(copy))
    assert "Independent chains of generation 1" in found.text
    assert (_panel(copy, "flow").groupby("from", sort=False)["particles"].sum() == 400).all()
    assert (_panel(copy, "flow_001").groupby("from", sort=False)["particles"].sum() == 100).all()
    assert set(_panel(copy, "convergence")["generation"]) == {0, 1}


def test_a_sort_that_was_stopped_tells_how_to_go_on(copy: Path) -> None:
    for path in copy.iterdir():
        if path.name not in {"log.txt", "checkpoint"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = outline(write_sort_report(copy))
    assert "has not come to its end" in found.text
    assert f"hpcsort resume {copy}" in found.text
    assert "sha-256" in found.text.lower(), "the record of the checkpoints tells the inputs"
    assert (copy / "log.txt").read_text().splitlines()[-1][21:] in found.text


def test_warnings_tell_small_and_shaky_groups_and_junk(copy: Path) -> None:
    run = json.loads((copy / "run.json").read_text())
    run["groups"][1] |= {"size": 3, "reproducibility": 0.2, "p": 0.4}
    run["accounted"], run["bad_images"] = 200, ["image 7 is constant"]
    (copy / "run.json").write_text(json.dumps(run))
    tables = starfile.read(copy / "particles.star")
    tables["particles"]["hpcsortJunkProbability"] = 0.9
    starfile.write(tables, copy / "particles.star", overwrite=True)
    found = outline(write_sort_report(copy))
    for words in (
        "Group 1 holds only 3 particles",
        "Group 1 is hardly reproducible: independent chains agree on 20 % of it",
        "200 of 400 particles (50 %) are in no group",
        "400 images (100 %) are more likely junk",
        "1 image is bad and left out: image 7 is constant",
    ):
        assert words in found.text
    assert "Group 0" not in found.text


def test_a_random_curve_above_a_group_is_a_warning(copy: Path) -> None:
    shells = len(gather_sort(copy).fsc["group 0"])
    curves = {"shell": np.arange(shells), "random_000": np.full(shells, 0.99), "random_001": np.zeros(shells)}
    pd.DataFrame(curves).to_csv(copy / "fsc_random.csv", index=False)
    found = outline(write_sort_report(copy))
    assert "Group 0 has a lower FSC than random particles" in found.text
    assert "Group 1 has a lower FSC" not in found.text
    assert (_panel(copy, "fsc")["random_0"] == 0.99).all()


def test_a_folder_without_a_sort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no sort"):
        write_sort_report(tmp_path)
    with pytest.raises(InputError, match=r"neither run\.json nor"):
        CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        write_sort_report(tmp_path)


def test_a_report_that_fails_at_the_end_of_a_run_is_one_sentence(tmp_path: Path) -> None:
    def fail(folder: Path) -> Path:
        raise RuntimeError("no font")

    told = end_with_report(tmp_path, fail)
    assert told.startswith("Warning: the results are complete")
    assert "no font" in told
    assert f"hpcsort report {tmp_path}" in told


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 800])
def test_a_browser_shows_the_page_without_errors(sort: Path, width: int, tmp_path: Path) -> None:
    measured = measure_in_browser(sort / "report.html", width, tmp_path)
    assert measured["pictures"] == len(list((sort / "report").glob("*.png")))
    assert measured["broken"] == 0
    assert measured["sticks_out"] <= 0
