"""The programs as functions: the same files as the commands, options in any form, tables in memory."""

from __future__ import annotations

import runpy
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from mpi_helpers import run_alone, run_mpi

import hpcsort
from hpcsort import api
from hpcsort.api import ParticleTable, SimulationResult, SortOptions
from hpcsort.cli.main import cli
from hpcsort.errors import InputError, OutputError
from hpcsort.io import Smears
from hpcsort.parallel import SerialComm

_EXAMPLE = Path(__file__).resolve().parents[1] / "docs/examples/api.py"
_COMM = SerialComm()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimulationResult:
    out = tmp_path_factory.mktemp("simulated") / "data"
    return api.simulate(out, comm=_COMM, particles=60, box_px=50, states=2, snr=1.0, shift_error_px=0.5)


@pytest.fixture
def table(made: SimulationResult) -> ParticleTable:
    return api.read_input(made.star)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_package_offers_the_functions_without_loading_them() -> None:
    code = "import sys, hpcsort; print('numpy' in sys.modules); hpcsort.match; print('numpy' in sys.modules)"
    done = run_alone("-c", code)
    assert done.stdout.split() == ["False", "True"], done.stderr
    for name in hpcsort.__all__:
        assert name == "__version__" or getattr(hpcsort, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'srot3d'"):
        hpcsort.srot3d  # type: ignore[attr-defined]  # noqa: B018


def test_a_function_writes_what_its_command_writes(made: SimulationResult, tmp_path: Path) -> None:
    words = ["reconstruct", str(made.star), "--output", str(tmp_path / "command/map"), "--radius", "20", "--quiet"]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    result = api.reconstruct(made.star, comm=_COMM, output=f"{tmp_path}/function/map", radius=20, quiet=True)
    assert _bytes(tmp_path / "function") == _bytes(tmp_path / "command")
    assert result is not None
    assert result.rows.tolist() == list(range(60))


def test_a_record_and_keywords_are_the_same(made: SimulationResult, tmp_path: Path) -> None:
    record = api.Cl2dOptions(made.star, tmp_path / "a", classes=4, iterations=2, quiet=True)
    by_record = api.cl2d(options=record, comm=_COMM)
    changed = api.cl2d(options=replace(record, iterations=9), comm=_COMM, output_dir=tmp_path / "b", iterations=2)
    by_words = api.cl2d(str(made.star), comm=_COMM, output_dir=str(tmp_path / "c"), classes=4, iterations=2, quiet=True)
    labels = [result.levels[-1].state.labels.tolist() for result in (by_record, changed, by_words)]
    assert labels[0] == labels[1] == labels[2]
    families = api.cluster_averages(tmp_path / "a", comm=_COMM, output_dir=tmp_path / "f", min_clusters=2, quiet=True)
    assert families is not None
    assert len(families.real_families) == 2


def test_misspelt_options_are_refused(made: SimulationResult, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="radios"):
        api.sort3d(made.star, comm=_COMM, output_dir=tmp_path / "a", radios=20)
    assert not list(tmp_path.iterdir())


def test_one_path_serves_where_several_may_be_given(made: SimulationResult, tmp_path: Path) -> None:
    result = api.match(
        made.star, comm=_COMM, references=str(made.maps[0]), output=tmp_path / "m.star", local=True, resolution_A=40,
        quiet=True,
    )  # fmt: skip
    assert result.reference.tolist() == [0] * 60


def test_a_table_in_memory_is_kept_as_a_file_and_sorted_as_one(
    made: SimulationResult, table: ParticleTable, tmp_path: Path
) -> None:
    chosen = table.subset(np.arange(59, -1, -2))
    out = tmp_path / "matched" / "m.star"
    common = {"comm": _COMM, "references": made.maps[:1], "local": True, "resolution_A": 40, "quiet": True}
    api.match(chosen, output=out, **common)
    kept = tmp_path / "matched/m_input.star"
    assert api.read_input(kept).frame["rlnMicrographName"].tolist() == chosen.micrograph.tolist()
    api.match(kept, output=tmp_path / "matched/again.star", **common)
    assert (tmp_path / "matched/again.star").read_text() == out.read_text().replace("m_smears", "again_smears")
    with pytest.raises(OutputError, match=r"m_input\.star"):
        api.match(chosen, output=out, **common)


def test_an_input_is_checked_and_converted(made: SimulationResult, tmp_path: Path) -> None:
    assert api.check(made.star, radius=20).usable
    (written,) = api.convert(made.star, f"{tmp_path}/some.star", rows=(10, 20))
    assert api.read_input(written).source_row.tolist() == list(range(10))


def test_a_table_that_no_file_can_hold_is_refused(table: ParticleTable, tmp_path: Path) -> None:
    turned = replace(table, angles_deg=table.angles_deg + 1)
    with pytest.raises(InputError, match="angles_deg of the table is not what its columns say"):
        api.sort3d(turned, comm=_COMM, output_dir=tmp_path / "a")
    one = np.ones(60)
    smears = Smears.of_lists(np.arange(60), table.angles_deg, table.shifts_px, one)
    for bad in (replace(table, smears=smears), replace(table, image_scale=one)):
        with pytest.raises(InputError, match="refinement_dir"):
            api.sort3d(bad, comm=_COMM, output_dir=tmp_path / "b")


@pytest.mark.mpi
def test_ranks_of_the_launcher_are_used(made: SimulationResult, tmp_path: Path) -> None:
    code = f"""
import hpcsort
table = hpcsort.read_input({str(made.star)!r})
found = hpcsort.reconstruct(table, output={str(tmp_path / "two/map")!r}, radius=20)
assert (found is None) == (hpcsort.api.get_comm().rank > 0)
"""
    done = run_mpi(2, "-c", code)
    assert done.returncode == 0, done.stderr
    api.reconstruct(made.star, comm=_COMM, output=tmp_path / "one/map", radius=20, quiet=True)
    assert _bytes(tmp_path / "two") == _bytes(tmp_path / "one")


def test_every_option_of_a_sort_is_documented() -> None:
    told = SortOptions.__doc__ or ""
    assert all(f"{field.name} :" in told for field in fields(SortOptions))


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(_EXAMPLE), str(tmp_path / "example")])
    names = runpy.run_path(str(_EXAMPLE))
    told = capsys.readouterr().out
    states = np.loadtxt(names["made"].truth, delimiter=",", skiprows=1, usecols=0)[names["good"].source_row]
    labels = names["result"].labels
    # Two groups, each of one state.
    assert sorted({(label, state) for label, state in zip(labels, states, strict=True) if label >= 0}) in (
        [(0, 0), (1, 1)],
        [(0, 1), (1, 0)],
    )
    assert "its map: " in told
    assert (tmp_path / "example/sorted_input.star").is_file()
