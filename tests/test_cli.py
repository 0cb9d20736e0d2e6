"""The command line: answers at once, forgives spelling, and refuses in one sentence with the right exit code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mpi_helpers import run_alone, run_mpi
from rich.console import Console

import hpcsort.sort3d
from hpcsort.cli import _figures, demo
from hpcsort.cli.main import _COMMANDS, cli
from hpcsort.errors import InputError, OptionError
from hpcsort.parallel import SerialComm
from hpcsort.sort3d import SortOptions

_MAIN = "from hpcsort.cli.main import main; main()"


def _hpcsort(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Any:
    return run_alone("-c", _MAIN, *words, cwd=cwd, env=env)


def _sort_options(monkeypatch: pytest.MonkeyPatch, *words: str) -> SortOptions:
    """Options with which the command line would start the sort."""
    asked: list[SortOptions] = []
    monkeypatch.setattr(hpcsort.sort3d, "sort3d", lambda options, comm: asked.append(options))
    monkeypatch.setattr(_figures, "sort_figures", lambda folder: {})
    outcome = CliRunner().invoke(cli, ["sort3d", *words], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    (options,) = asked
    return options


@pytest.mark.parametrize("words", [(), *((name,) for name in _COMMANDS)])
def test_help_answers_without_loading_mpi_or_arrays(words: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom hpcsort.cli.main import main\nmain()\n"
        "print([name for name in ('numpy', 'scipy', 'pandas', 'mpi4py') if name in sys.modules], file=sys.stderr)"
    )
    done = run_alone("-c", code, *words, "--help")
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout.startswith(" ".join(("Usage: hpcsort", *words)))
    for name in _COMMANDS if not words else ("Examples:", f" hpcsort {words[0]}"):
        assert name in done.stdout


def test_no_command_shows_the_commands_and_fails() -> None:
    done = _hpcsort()
    assert done.returncode == 2
    for name in _COMMANDS:
        assert f"\n  {name} " in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sort4d",), "there is no command 'sort4d'; did you mean 'sort3d'?"),
        (
            ("xyz",),
            f"there is no command 'xyz'; choose one of {', '.join(_COMMANDS)}.",
        ),
        (("sort3d", "--instak", "x"), "--instack"),
        (("sort3d", "--instack", "x", "--img_per_group", "9"), "--img-per-grp"),
        (("sort3d",), "--instack"),
        (("sort3d", "a.star"), "'a.star' belongs to no option; did you mean '--instack a.star'?"),
        (("demo", "there", "x", "y"), "'x y' belongs to no option; leave it out."),
        (("sort3d", "--instack", "x", "--radius", "wide"), "'wide' is not a valid integer"),
        (("sort3d", "--instack", "x", "--engine", "map"), "'map' is not one of 'subspace', 'maps'"),
        (("sort3d", "--instack", "x", "--map_format", "spi"), "'spi' is not one of 'mrc', 'hdf'"),
    ],
)
def test_misspelt_words_name_the_nearest(words: tuple[str, ...], message: str) -> None:
    done = _hpcsort(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_option_out_of_range_ends_in_one_sentence(tmp_path: Path) -> None:
    done = _hpcsort("sort3d", "--instack", "absent.star", "--img_per_grp", "1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hpcsort: error: --img-per-grp 1 is too small; give at least 2.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--radius", "-1"), "--radius -1 is too small"),
        (("--sym", "q7"), "q7"),
        (("--angpix=0",), "--angpix 0.0 is not a pixel size"),
        (("--components", "41"), "--components 41 is above 40"),
        (("--depth_order", "7"), "--depth-order 7"),
        (("--use_umat",), "--use-umat belongs to the classical loop"),
        (("--null=-1",), "--null -1 is too small"),
    ],
)
def test_options_are_checked_before_anything_is_read(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CliRunner().invoke(cli, ["sort3d", "--instack", "absent.star", *words], catch_exceptions=False)


def test_an_absent_table_leaves_nothing_behind(tmp_path: Path) -> None:
    done = _hpcsort("sort3d", "--instack", "absent.star", cwd=tmp_path)
    assert done.returncode == InputError.exit_code
    (line,) = done.stderr.splitlines()
    assert "absent.star" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [("sort3d", "--instack", "absent.star"), ("demo", "there")])
def test_a_launcher_of_another_mpi_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    done = _hpcsort(*command, cwd=tmp_path, env={"PMI_SIZE": "4"})
    assert (done.returncode, done.stdout) == (5, "")
    (line,) = done.stderr.splitlines()
    assert "PMI_SIZE=4" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--radius", "1"), 2, "hpcsort: error: --radius 1 is too small; give at least 2."),
        (("--instak", "x"), 2, "Error: No such option"),
    ],
)
def test_ranks_fail_together_and_speak_once(words: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    done = run_mpi(2, "-c", _MAIN, "sort3d", "--instack", "absent.star", *words, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.count(message) == 1, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--output_dir", "there"),
        ("--output_dir=there",),
        ("--output-dir", "there"),
        ("--output-dir=there",),
    ],
)
def test_underscores_serve_as_dashes(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    options = _sort_options(monkeypatch, "--instack", "a_b.star", *words, "--not_freeze_groups")
    assert (options.instack, options.output_dir) == (Path("a_b.star"), Path("there"))
    assert not options.freeze_groups


def test_all_options_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (
        "--instack a.star --output_dir b --radius 20 --sym d2 --img_per_grp 500 --nxinit 32 --mask3D m.mrc"
        " --orientation_groups 30 --nstep 3 --depth_order 1 --num_core_set 70 --not_freeze_groups"
        " --not_include_unaccounted --components 6 --max_groups 7 --seed 11 --angpix 1.5 --datadir d --skip_bad"
        " --overwrite --quiet --engine maps --independence starts --use_umat --null 19 --map_format hdf"
        " --nsmear 7 --scores best --compute_on_the_fly --memory_per_node 20 --overhead 2 --focus f.mrc --expand"
    )
    expected = SortOptions(
        instack=Path("a.star"), output_dir=Path("b"), radius=20, sym="d2", img_per_grp=500, nxinit=32,
        mask3D=Path("m.mrc"), orientation_groups=30, nstep=3, depth_order=1, num_core_set=70, freeze_groups=False,
        include_unaccounted=False, components=6, max_groups=7, seed=11, angpix=1.5, datadir=Path("d"), skip_bad=True,
        overwrite=True, quiet=True, engine="maps", independence="starts", use_umat=True, null=19, map_format="hdf",
        nsmear=7, scores="best", compute_on_the_fly=True, memory_per_node=20.0, overhead=2.0, focus=Path("f.mrc"),
        expand=True,
    )  # fmt: skip
    assert _sort_options(monkeypatch, *words.split()) == expected
    assert _sort_options(monkeypatch, *words.replace("--mask3D", "--mask3d").split()) == expected


def test_a_refinement_takes_the_place_of_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--refinement_dir r --output-dir b --niter_for_sorting 9 --notapplybckgnoise --auto_focus"
    assert _sort_options(monkeypatch, *words.split()) == SortOptions(
        output_dir=Path("b"), refinement_dir=Path("r"), niter_for_sorting=9, notapplybckgnoise=True, auto_focus=True
    )


def test_defaults_are_the_library_s(monkeypatch: pytest.MonkeyPatch) -> None:
    options = _sort_options(monkeypatch, "--instack", "a.star", "--output-dir", "b")
    assert options == SortOptions(instack=Path("a.star"), output_dir=Path("b"))


def test_output_folder_is_dated_and_the_same_on_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class Root(SerialComm):
        def bcast(self, obj: Any, root: int = 0) -> Any:
            told.append(obj)
            return "the_root_s"

    monkeypatch.setattr("hpcsort.parallel.get_comm", Root)
    options = _sort_options(monkeypatch, "--instack", "a.star")
    assert options.output_dir == Path("the_root_s")
    assert told[0].startswith("sort3d_")
    assert len(told[0].split("_")) == 7


def test_truth_table_counts_every_particle_once() -> None:
    states = np.array([0, 0, 0, 1, 1, 2, 2, -1])
    labels = np.array([1, 1, 0, 0, 0, -1, 0, 0])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(demo._truth_table(states, labels))
    rows = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    assert ["0", "1", "2", "1", "40.0", "%"] in rows
    assert ["1", "2", "0", "0", "100.0", "%"] in rows
    assert ["unaccounted", "0", "0", "1"] in rows


def test_demo_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = _hpcsort("demo", str(tmp_path))
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert "--overwrite" in line
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.mpi
def test_waiting_ranks_sleep_and_hear_of_errors() -> None:
    code = """
import resource, sys, time
from hpcsort.cli.demo import _on_root
from hpcsort.errors import InputError, OptionError
from hpcsort.parallel import abort_on_error, get_comm
comm = get_comm()
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
def fail():
    raise InputError("the work failed")
with abort_on_error(comm):
    before = used()
    _on_root(comm, lambda: time.sleep(1.5))
    spent = comm.allgather(used() - before)
    if comm.is_root:
        print(max(spent))
    _on_root(comm, fail)
"""
    done = run_mpi(2, "-c", code)
    assert float(done.stdout) < 0.75
    assert (done.returncode, done.stderr) == (3, "hpcsort: error: the work failed\n")


@pytest.mark.mpi
@pytest.mark.slow
def test_demo_finds_the_states_on_two_ranks(tmp_path: Path) -> None:
    done = run_mpi(2, "-c", _MAIN, "demo", "small", "--particles", "600", cwd=tmp_path, timeout_s=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Particles of the true states in the groups found" in done.stdout
    assert "on 2 ranks" in done.stdout
    found = tmp_path / "small" / "sorted"
    assert json.loads((found / "run.json").read_text())["ranks"] == 2
    lists = [*found.glob("Cluster_*.txt"), found / "Core_set.txt"]
    listed = [int(word) for path in lists for word in path.read_text().split()]
    assert sorted(listed) == list(range(600))
