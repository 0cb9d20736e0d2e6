"""Statistics of groups: honest groups give no warning, groups made of defocus, views or micrographs do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpcsort.geometry import point_group, relion_matrices, view_directions
from hpcsort.io import ParticleTable, Smears, read_particles
from hpcsort.sort3d.covariates import describe_groups, write_group_statistics

_MICROGRAPHS = 60


def _table(folder: Path, count: int = 3000, micrographs: bool = True, **columns: np.ndarray) -> ParticleTable:
    draw = np.random.default_rng(3)
    micrograph = np.arange(count) * _MICROGRAPHS // max(count, 1)
    defocus = draw.uniform(8e3, 25e3, _MICROGRAPHS)[micrograph] + draw.normal(0, 150, count)
    frame = pd.DataFrame(
        {
            "rlnImageName": [f"{index + 1:06d}@stack.mrcs" for index in range(count)],
            "rlnAngleRot": draw.uniform(-180, 180, count),
            "rlnAngleTilt": np.rad2deg(np.arccos(draw.uniform(-1, 1, count))),
            "rlnAnglePsi": draw.uniform(-180, 180, count),
            "rlnDefocusU": defocus + 200,
            "rlnDefocusV": defocus - 200,
            "rlnDefocusAngle": np.zeros(count),
            "rlnVoltage": np.full(count, 300.0),
            "rlnSphericalAberration": np.full(count, 2.7),
            "rlnAmplitudeContrast": np.full(count, 0.1),
            "rlnImagePixelSize": np.full(count, 2.0),
            **columns,
        }
    )
    if micrographs:
        frame["rlnMicrographName"] = [f"mic_{number:03d}.mrc" for number in micrograph]
    rows = ["data_", "", "loop_", *(f"_{name}" for name in frame.columns)]
    rows += [" ".join(str(value) for value in row) for row in frame.itertuples(index=False)]
    star = folder / "particles.star"
    star.write_text("\n".join(rows) + "\n")
    return read_particles(star, need_images=False)


def _defocus(table: ParticleTable) -> np.ndarray:
    return (table.defocus_u_A + table.defocus_v_A) / 2


def _heights(table: ParticleTable) -> np.ndarray:
    return np.abs(view_directions(relion_matrices(table.angles_deg)) @ [0.6, 0, 0.8])


def test_honest_groups_give_no_warning(tmp_path: Path) -> None:
    table = _table(tmp_path)
    rows = np.arange(len(table))
    for seed in range(20):
        draw = np.random.default_rng(seed)
        labels = draw.choice([-1, 0, 1, 2, 3, 4], len(table), p=[0.1, 0.5, 0.2, 0.1, 0.07, 0.03])
        statistics = describe_groups(table, rows, labels)
        assert statistics.warnings == []
        assert statistics.particles == (labels >= 0).sum()


@pytest.mark.parametrize("cause", ["defocus", "views", "micrographs"])
def test_a_state_cut_in_two_by_something_else_is_told(tmp_path: Path, cause: str) -> None:
    table = _table(tmp_path)
    draw = np.random.default_rng(1)
    state = draw.integers(0, 4, len(table))
    number = np.unique(table.micrograph.astype(str), return_inverse=True)[1]
    value = {"defocus": _defocus(table), "views": _heights(table), "micrographs": draw.permutation(60)[number]}[cause]
    labels = np.where(state == 0, np.where(value > np.median(value), 0, 4), state)
    warnings = describe_groups(table, np.arange(len(table)), labels).warnings
    assert [text.split(" is ")[0] for text in warnings] == ["group 0", "group 4"]
    assert all(f"by {cause}: " in text and "% of its particles would have to" in text for text in warnings)
    if cause == "views":
        assert not any("defocus" in text or "micrographs" in text for text in warnings)


def test_small_true_differences_are_significant_but_no_warning(tmp_path: Path) -> None:
    table = _table(tmp_path)
    draw = np.random.default_rng(2)
    labels = (draw.random(len(table)) < 0.4 + 0.2 * (_heights(table) > 0.5)).astype(int)
    statistics = describe_groups(table, np.arange(len(table)), labels)
    assert statistics.views.p_holm.max() < 1e-6
    assert 0.1 < statistics.views.moved[0] < 0.3
    assert statistics.warnings == []


def test_files_say_the_same_for_people_and_programs(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    norm = draw.normal(0.8, 0.05, 3000)
    table = _table(tmp_path, rlnNormCorrection=norm, rlnNrOfSignificantSamples=np.full(3000, 1))
    labels = draw.integers(-1, 3, 3000)
    rows = np.sort(draw.choice(3000, 2500, replace=False))
    warnings = write_group_statistics(tmp_path, table, rows, labels[rows], point_group("C2"))
    text, csv = (tmp_path / "anova.txt").read_text(), pd.read_csv(tmp_path / "anova.csv")
    assert warnings == []
    assert text.endswith("No group is explained by any of these.\n")
    for word in ("defocus (A): F = ", "norm: F = ", "smears: the same for all", "micrographs: chi^2 = ", "views: "):
        assert word in text
    assert max(len(line) for line in text.splitlines()) < 160
    assert set(csv.quantity) == {"defocus", "norm", "micrographs", "views"}
    picked = csv[(csv.quantity == "norm") & (csv.test == "rest")]
    members = [norm[rows][labels[rows] == group] for group in range(3)]
    assert picked["mean"].to_numpy() == pytest.approx([part.mean() for part in members], rel=1e-5)
    assert picked["std"].to_numpy() == pytest.approx([part.std(ddof=1) for part in members], rel=1e-5)
    assert picked["N"].tolist() == [len(part) for part in members]
    assert len(csv[(csv.quantity == "defocus") & (csv.test == "pair")]) == 3
    again = tmp_path / "again"
    again.mkdir()
    write_group_statistics(again, table, rows, labels[rows], point_group("C2"))
    assert (again / "anova.txt").read_bytes() == (tmp_path / "anova.txt").read_bytes()
    assert (again / "anova.csv").read_bytes() == (tmp_path / "anova.csv").read_bytes()


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("label", [-1, 0])
def test_nothing_to_compare(tmp_path: Path, count: int, label: int) -> None:
    table = _table(tmp_path, count)
    assert write_group_statistics(tmp_path, table, np.arange(count), np.full(count, label)) == []
    assert "Fewer than two groups" in (tmp_path / "anova.txt").read_text()
    assert (tmp_path / "anova.csv").read_text().startswith("quantity,test,group,")


def test_tables_without_micrographs_or_with_gaps(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    gaps = draw.normal(1, 0.1, 900)
    gaps[5] = np.nan
    table = _table(tmp_path, 900, micrographs=False, rlnNormCorrection=gaps)
    labels = draw.integers(0, 2, 900)
    warnings = write_group_statistics(tmp_path, table, np.arange(900), labels)
    assert warnings == []
    statistics = describe_groups(table, np.arange(900), labels)
    assert statistics.micrographs is None
    assert statistics.quantities[0].clustered is None
    assert statistics.quantities[1].anova.counts.sum() == 899
    assert "no micrographs" in (tmp_path / "anova.txt").read_text()
    views = describe_groups(table, np.arange(900), (_heights(table) > 0.5).astype(int))
    assert len(views.warnings) == 2


def test_norms_and_smears_of_a_refinement_are_compared(tmp_path: Path) -> None:
    table = _table(tmp_path, 600)
    draw = np.random.default_rng(1)
    labels = np.arange(600) % 2
    counts = np.where(labels == 1, 9, 2) + draw.integers(0, 3, 600)
    owner = np.repeat(np.arange(600), counts)
    smears = Smears.of_lists(owner, table.angles_deg[owner], table.shifts_px[owner], 1 / counts[owner])
    norm = draw.uniform(0.8, 1.2, 600)
    found = describe_groups(replace(table, smears=smears, image_scale=1 / norm), np.arange(600), labels)
    quantities = {quantity.name: quantity for quantity in found.quantities}
    assert set(quantities) == {"defocus", "norm", "smears"}
    assert quantities["smears"].anova.p < 1e-10
    assert quantities["norm"].anova.p > 1e-3
    assert any("another number of smears" in warning for warning in found.warnings)
