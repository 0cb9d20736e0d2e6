"""What scripts, shells and login nodes need of the command line: JSON, quiet, exit codes, completion, versions."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from mpi_helpers import run_alone, run_mpi

import hpcsort
from hpcsort import errors, kernels
from hpcsort.cli.main import _ALONE, _COMMANDS, cli

_MAIN = "from hpcsort.cli.main import main; main()"
_ROOT = Path(__file__).resolve().parents[1]
_SMALL = ("--particles", "40", "--box", "50")


def _hpcsort(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Any:
    return run_alone("-c", _MAIN, *words, cwd=cwd, env=env)


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def _json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    done = _hpcsort("simulate", "sim", *_SMALL, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Written to sim" in done.stderr
    told = _json(done.stdout)
    assert (told["star"], told["sizes"], told["box_px"]) == ("sim/particles.star", [14, 13, 13], 50)
    return folder


@pytest.mark.parametrize("name", sorted(set(_COMMANDS) - {"completion", "submit"}))
def test_commands_serve_scripts(name: str) -> None:
    options = {option for param in _command(name).params for option in param.opts}
    assert {"--json", "--quiet"} <= options


def test_commands_tell_their_results_as_json(simulated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(simulated)

    def told(*words: str) -> Any:
        done = CliRunner().invoke(cli, [*words, "--json", "--quiet"], catch_exceptions=False)
        assert (done.exit_code, done.stderr) == (0, "")
        found = _json(done.stdout)
        for name in ("star", "map", "fsc", "log", "report", "families"):
            assert name not in found or Path(found[name]).is_file()
        return found

    star = "sim/particles.star"
    made = told("reconstruct", star, "--output", "maps/all", "--radius", "20")
    assert made["particles"] == 40
    assert all(Path(path).is_file() for path in (made["map"], *made["half_maps"]))
    assert 10 < made["resolution_A"] < 100
    matched = told(
        "match",
        "--instack",
        star,
        "--ref",
        made["map"],
        "--ref",
        "sim/state_01.mrc",
        "--output",
        "m.star",
        "--local",
        "--resolution",
        "40",
    )
    assert sum(matched["particles_of_references"]) == 40
    assert matched["poses_of_a_particle"] >= 1
    classes = told("cl2d", "--instack", star, "--output-dir", "2d", "--classes", "8", "--iterations", "2")
    assert [level["classes"] for level in classes["levels"]] == [4, 8]
    assert [sum(level["sizes"]) for level in classes["levels"]] == [40, 40]
    families = told("cluster-averages", "--averages", "2d", "--output-dir", "families", "--min-clusters", "2")
    assert sum(families["sizes"]) == families["averages"] == 8
    assert told("resume", "2d").items() <= classes.items()
    tilted = told("simulate", "tilts", "--tilt-pairs", "1", "--per-micrograph", "8")
    places = ("--pairs", tilted["pairs"], "--coordinates", tilted["coordinates"])
    pairs = told("extract-pairs", *places, "--box", "40", "--invert", "--output", "pairs")
    assert pairs["kept"] + pairs["lost"] == tilted["particles"]


@pytest.mark.slow
def test_a_sort_tells_its_groups(simulated: Path) -> None:
    words = ("sort3d", "--instack", "sim/particles.star", "--output-dir", "sorted", "--depth-order", "1", "--quiet")
    done = _hpcsort(*words, "--components", "2", "--max-groups", "2", "--json", cwd=simulated)
    assert (done.returncode, done.stderr) == (0, "")
    told = _json(done.stdout)
    assert told["particles"] == 40
    assert sum(group["size"] for group in told["groups"]) == told["accounted"]
    for group in told["groups"]:
        assert len((simulated / group["list"]).read_text().split()) == group["size"]
        assert (simulated / group["map"]).is_file()
    again = _hpcsort("resume", "sorted", "--json", cwd=simulated)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert _json(again.stdout) == told


@pytest.mark.mpi
def test_ranks_print_one_object(simulated: Path) -> None:
    words = ("reconstruct", "sim/particles.star", "--output", "maps/two", "--no-halves", "--json")
    done = run_mpi(2, "-c", _MAIN, *words, cwd=simulated)
    assert done.returncode == 0, done.stderr
    assert _json(done.stdout)["resolution_A"] is None


def test_quiet_is_silent(simulated: Path, tmp_path: Path) -> None:
    done = _hpcsort("simulate", str(tmp_path / "sim"), *_SMALL, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _on_a_terminal(env: dict[str, str], *words: str) -> str:
    """Everything that a command writes to a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, *words],
        stdout=slave, stderr=slave, stdin=slave, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(hpcsort.__file__).parents[1]), "TERM": "xterm-256color", **env},
    )  # fmt: skip
    os.close(slave)
    told = b""
    try:
        while part := os.read(master, 65536):
            told += part
    except OSError:  # a terminal whose other side is closed
        pass
    os.close(master)
    assert process.wait(60) == 0, told
    return told.decode()


@pytest.mark.parametrize("words", [("simulate", "again", *_SMALL, "--overwrite"), ("check", "sim/particles.star")])
def test_colours_are_for_terminals_that_want_them(
    words: tuple[str, ...], simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(simulated)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])[;m]")
    assert colour.search(_on_a_terminal({}, *words))
    assert not colour.search(_on_a_terminal({"NO_COLOR": "1"}, *words))
    done = _hpcsort(*words)
    assert "\x1b" not in done.stdout + done.stderr


def test_exit_codes_are_those_that_the_help_lists() -> None:
    codes = {
        kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and kind.__name__ != "HpcsortError"
    }
    told = set(map(int, re.findall(r"^ {2,4}(\d+) ", _hpcsort("--help").stdout, flags=re.MULTILINE)))
    assert codes | {0, 70, 130, 137} == told
    page = (_ROOT / "docs" / "exit-codes.md").read_text()
    assert all(re.search(rf"^\|.*\b{code}\b.*\|", page, flags=re.MULTILINE) for code in told)


def test_control_c_ends_with_130(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, "simulate", str(tmp_path / "sim"), "--particles", "100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(hpcsort.__file__).parents[1])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (tmp_path / "sim").exists() and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err


def test_version_tells_mpi_and_kernels_without_starting_mpi() -> None:
    code = f"{_MAIN}; from mpi4py import MPI; print(MPI.Is_initialized())"
    done = run_alone("-c", code, "--version", env={"PMI_SIZE": "4"})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"hpcsort {hpcsort.__version__}"
    assert kernels.instruction_set() in lines[1]
    assert re.fullmatch(r"MPI: .+ \d+\.\d+.*, MPI standard \d\.\d, by mpi4py \d.*", lines[2])
    assert lines[-1] == "False"


def test_version_works_where_nothing_can_be_loaded(tmp_path: Path) -> None:
    done = _hpcsort("--version", env={"MPI4PY_LIBMPI": str(tmp_path / "libmpi.so"), "HPCSORT_KERNELS": "numpy"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "kernels: NumPy twins, slow" in done.stdout
    assert "MPI: none" in done.stdout


@pytest.mark.parametrize("name", sorted(_ALONE))
def test_commands_of_one_process_refuse_a_launcher(name: str) -> None:
    done = _hpcsort(name, "absent", env={"PMI_SIZE": "4"})
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == f"hpcsort: error: hpcsort {name} is one process; start it without mpiexec or srun.\n"


@pytest.fixture
def path_with_hpcsort(tmp_path: Path) -> dict[str, str]:
    """Environment in which hpcsort is a command, installed or not."""
    script = tmp_path / "bin" / "hpcsort"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -c "{_MAIN}" "$@"\n')
    script.chmod(0o755)
    return {
        "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(hpcsort.__file__).parents[1]),
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_accepted_by_their_shells(shell: str, path_with_hpcsort: dict[str, str]) -> None:
    done = _hpcsort("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_HPCSORT_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    read = subprocess.run([shell, "-n"], input=done.stdout, capture_output=True, text=True, timeout=60)
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("hpcsort", "re"), {"resume", "reconstruct", "report"}),
        (("hpcsort", "sort3d", "--inst"), {"--instack"}),
        (("hpcsort", "sort3d", "--engine", "m"), {"maps"}),
    ],
)
def test_bash_completes(words: tuple[str, ...], expected: set[str], path_with_hpcsort: dict[str, str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    script = f"""source <(hpcsort completion bash)
COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
_hpcsort_completion hpcsort
printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(
        [bash, "-c", script], env={**os.environ, **path_with_hpcsort}, capture_output=True, text=True, timeout=60
    )
    assert set(done.stdout.split()) == expected, done.stderr
